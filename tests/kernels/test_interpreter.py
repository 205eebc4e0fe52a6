"""The Triton kernels in Triton's interpreter against float64: forward and backward, small and odd shapes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")

# One rounding of each type; the interpreter truncates to bfloat16 where a GPU rounds, hence twice 2^-8 there.
ROUNDOFF = {"float32": 2.0**-20, "float16": 2.0**-11, "bfloat16": 2.0**-7}


@pytest.fixture(scope="module")
def report() -> dict[str, dict]:
    script = Path(__file__).with_name("interpret.py")
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=script.parents[2])
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout)


def of(report: dict[str, dict], kernel: str) -> list[tuple[str, str, dict]]:
    """(case, dtype, measured) of every case of a kernel."""
    cases = [(key, key.rsplit("/", 1)[1], value) for key, value in report.items() if key.split("/")[0] == kernel]
    assert len(cases) >= 5
    return cases


def test_group_norm_silu(report):
    for case, dtype, measured in of(report, "norm"):
        assert measured["guards"], f"{case}: a store outside the tensors"
        bar = (2 if dtype == "float32" else 1) * ROUNDOFF[dtype] * (1 + 2**-6)
        assert measured["max"] <= bar, f"{case}: {measured}"


def test_group_norm_silu_backward(report):
    for case, dtype, parts in of(report, "norm backward"):
        assert len(parts) == (3 if "no FiLM" in case else 5)
        for name, measured in parts.items():
            assert measured["guards"], f"{case} {name}"
            assert measured["l2"] <= ROUNDOFF[dtype], f"{case} {name}: {measured}"
            assert measured["cosine"] >= 1 - 4 * ROUNDOFF[dtype] ** 2 - 1e-12, f"{case} {name}: {measured}"


def test_self_attention(report):
    for case, dtype, measured in of(report, "attention"):
        assert measured["guards"], case
        assert measured["max"] <= 2 * ROUNDOFF[dtype], f"{case}: {measured}"


def test_self_attention_backward(report):
    for case, dtype, parts in of(report, "attention backward"):
        assert set(parts) == set("qkv")
        for name, measured in parts.items():
            assert measured["guards"], f"{case} {name}"
            if "one token" in case and name in "qk":
                assert measured["max"] == 0  # a softmax over one key has no gradient
                continue
            assert measured["l2"] <= 2 * ROUNDOFF[dtype], f"{case} {name}: {measured}"
            assert measured["cosine"] >= 1 - ROUNDOFF[dtype] ** 2, f"{case} {name}: {measured}"


def test_empty_inputs_have_empty_gradients(report):
    assert report["empty/0x8"] == [0, 8, 3, 2, 32] and report["empty/2x0"] == [2, 0, 3, 2, 32]
