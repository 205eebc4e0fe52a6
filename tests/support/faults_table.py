"""Writes tests/faults/README.md, the table of the 73 faults with exit codes and messages: run the tests, then draw it.

``python -m support.faults_table [LINES]`` from ``tests/``; LINES holds what the tests recorded, if they ran before.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from support.data import checkout
from support.faults import ROWS, TABLE

INTRODUCTION = """# The 73 faults

Made by `python -m support.faults_table` from `tests/` (developers). Each row is a test in this folder, named by its
number. Exit codes: 0 well, 2 usage, 3 no valid input, 4 some inputs failed, 5 model or weights, 1 anything else. The
message is the first that the row's commands print; rows without one are held through the Python API, signals or other
processes, in the tests that are named. Fuzzing and signals: [fuzzing.md](fuzzing.md).

| # | fault | exit | message | tests |
|---|---|---|---|---|
"""


def run_tests(lines: Path) -> None:
    """Runs the tests, which write down each command."""
    command = [sys.executable, "-m", "pytest", "-q", "tests/faults"]
    subprocess.run(command, cwd=checkout(), env={**os.environ, TABLE: str(lines)}, check=True)


def message(facts: dict[str, Any]) -> str:
    """The line of an output that says what is wrong, without folders and colours; empty if there is none."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", facts["output"]).splitlines()
    for index, line in enumerate(lines):
        told = re.match(r"\s*(?:error|warning|mrsi-fast|Error)\b[^:]*: (.*)", line)
        if told is None and re.search(r": FAIL\b", line) and index + 1 < len(lines):
            told = re.match(r"()(.*)", lines[index + 1].strip())
        boxed = re.match(r"\s*[|\u2502] (Invalid value.*?)\s*[|\u2502]?$", line)
        if told or boxed:
            text = (told[told.lastindex or 1] if told else boxed[1] if boxed else "").strip()
            text = re.sub(r"(?:/[^/\s:]+)+/", "", text).replace("|", "\\|")
            return text if len(text) < 170 else text[:160].rsplit(" ", 1)[0] + " ..."
    return ""


def table(lines: list[dict[str, Any]]) -> str:
    """The document."""
    seen: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for facts in lines:
        if match := re.search(r"\[(?:[^\[\]]*-)?(\d\d) ", facts["test"]):
            seen[int(match[1])].append(facts)
    tests: dict[int, list[str]] = defaultdict(list)
    for path in sorted((checkout() / "tests" / "faults").glob("test_*.py")):
        for number, name in re.findall(r"^@fault\((\d+)\)\n(?:(?!def ).*\n)*def (\w+)", path.read_text(), re.MULTILINE):
            tests[int(number)].append(f"`{name}`")
    rows = []
    for number, fault in enumerate(ROWS, 1):
        told = [(facts["exit"], message(facts)) for facts in seen[number]]
        code, text = next(((code, text) for code, text in told if text), told[0] if told else ("", ""))
        rows.append(f"| {number} | {fault} | {code} | {text} | {', '.join(tests[number])} |")
    return INTRODUCTION + "\n".join(rows) + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "lines.jsonl"
        if len(sys.argv) < 2:
            run_tests(lines)
        found = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    (checkout() / "tests" / "faults" / "README.md").write_text(table(found), encoding="utf-8")


if __name__ == "__main__":
    main()
