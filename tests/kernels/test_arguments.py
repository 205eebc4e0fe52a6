"""Every argument of a Triton kernel says what it is: tensors their shapes, compile-time sizes their meaning."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
SIGNATURE = re.compile(r"@triton\.jit\ndef ([a-z]\w*_kernel)\(\n(.*?)\n\):", re.DOTALL)
SCALARS = {"pixels", "channels", "eps", "tokens", "heads", "scale", "scale_log2e"}
SHAPE = re.compile(r"# \[(N|C)[\w, ]*\]")


@pytest.mark.parametrize("name", ["group_norm_silu", "self_attention"])
def test_every_argument_says_what_it_is(name: str) -> None:
    source = (KERNELS / f"{name}.py").read_text(encoding="utf-8")
    signatures = dict(SIGNATURE.findall(source))
    assert set(signatures) == set(re.findall(r"^def (\w+_kernel)\(", source, re.MULTILINE)) and len(signatures) > 1
    for kernel, body in signatures.items():
        lines = [line.strip() for line in body.splitlines()]
        tensors = [line for line in lines if re.match(r"(\w+),", line) and SHAPE.search(line)]
        others = [line for line in lines if line not in tensors]
        assert len(tensors) >= 5, kernel
        for line in others:
            argument = re.match(r"\w+", line)
            assert argument is not None
            sized = "tl.constexpr,  # " in line
            assert sized or line == f"{argument[0]}," and argument[0] in SCALARS, f"{kernel}: {line}"
