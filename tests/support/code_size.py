"""How long functions and their lists of parameters are: what CONTRIBUTING.md bounds, counted from the sources."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CPP_ENDINGS = (".h", ".cpp", ".inl", ".cu", ".cuh")
_NOT_NAMES = frozenset("if for while switch catch return sizeof decltype volatile asm noexcept case".split())


@dataclass(frozen=True)
class Function:
    """One definition (or declaration, in C++), with what is counted of it: lines, or parameters."""

    path: Path
    name: str
    count: int

    def __str__(self) -> str:
        return f"{self.path}: {self.name} ({self.count})"


def python_lengths(root: Path) -> Iterator[Function]:
    """Lines of every Python function below a folder, signature and docstring included, decorators not."""
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                yield Function(path, node.name, node.end_lineno - node.lineno + 1)


def cpp_parameters(root: Path) -> Iterator[Function]:
    """Positional parameters of every C++ and CUDA function and lambda below a folder that is defined or declared."""
    for path in sorted(root.rglob("*")):
        if path.suffix in CPP_ENDINGS:
            for name, count in parameter_counts(path.read_text(encoding="utf-8")):
                yield Function(path, name, count)


def parameter_counts(source: str) -> Iterator[tuple[str, int]]:
    """Name and number of parameters of every function and lambda in C++ text; calls are not counted.

    A list of parameters is followed by a body or initialisers (a definition), or has a type before its name and a
    semicolon behind it (a declaration). Inline assembly is neither.
    """
    text = re.sub(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"", " ", source, flags=re.DOTALL)
    text = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", "", text, flags=re.MULTILINE)
    for match in re.finditer(r"([\w~]+|\])\s*\(", text):
        end = _closing(text, match.end())
        before, after = text[: match.start()].rstrip(), text[end:]
        tail = re.match(r"\s*(?:const|noexcept|override|mutable|->\s*[\w:<>*& ]+|\s)*([{;]|:(?!:))", after)
        initialiser = before.endswith(",") or re.search(r"[^:]:$", before)
        if match[1] in _NOT_NAMES or tail is None or initialiser:
            continue
        declared = re.search(r"[\w>*&]$", before) and not re.search(r"\b(?:return|else|do|new|throw)$", before)
        constructed = tail[1] == ":" and "?" not in re.split(r"[;{}]", before)[-1]
        if tail[1] == "{" or constructed or (tail[1] == ";" and declared):
            yield ("a lambda" if match[1] == "]" else match[1]), _count(text[match.end() : end - 1])


def _closing(text: str, start: int) -> int:
    """The place behind the bracket that closes the one before ``start``."""
    depth, at = 1, start
    while depth and at < len(text):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        at += 1
    return at


def _count(parameters: str) -> int:
    if parameters.strip() in ("", "void"):
        return 0
    depth, count = 0, 1
    for one in parameters:
        depth += (one in "([{<") - (one in ")]}>")
        count += one == "," and depth == 0
    return count
