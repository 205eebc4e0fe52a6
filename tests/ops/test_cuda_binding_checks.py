"""The CUDA launchers refuse what can be seen to be wrong without a device: addresses, alignment, sizes.

Nothing is launched: where arguments are good, there are no values to work on.
"""

from __future__ import annotations

from typing import Any

import pytest

from mrsi_fast.ops import _native

C = _native.module()
pytestmark = pytest.mark.skipif(
    _native.lacks("cuda_group_norm_silu") is not None, reason="needs an extension built with CUDA"
)

AT = 1 << 20
NORM = {
    "x": AT,
    "weight": AT,
    "bias": AT,
    "y": AT,
    "samples": 2,
    "channels": 32,
    "pixels": 16,
    "groups": 4,
    "eps": 1e-5,
}
LARGE = {"channels": 32, "groups": 1, "pixels": 65536}
STEP = {"base": AT, "now": AT, "coefficients": AT, "step": AT, "out": AT, "slices": 1, "width": 8, "height": 8}
BASES = {"basis_x": AT, "basis_y": AT, "rank_x": 4, "rank_y": 4}

WRONG: list[tuple[str, dict[str, Any], str]] = [
    *(("norm", {name: 0}, f"{name} is missing") for name in ("x", "weight", "bias", "y")),
    *(("norm", {name: AT + 4}, f"{name} does not start") for name in ("x", "y", "scale", "shift", "embedding")),
    ("norm", {"samples": -1}, "a size is -1"),
    ("norm", {"pixels": 2**62, "samples": 2**62}, "too large"),
    ("norm", {"samples": 2**20}, "do not take these sizes"),
    ("norm", {"groups": 0}, "groups is 0"),
    ("norm", {"groups": 3}, "must divide the 32 channels"),
    ("norm", {"dtype": 7}, "dtype"),
    ("norm", {"eps": float("nan")}, "eps"),
    ("norm", LARGE, "workspace is missing"),
    *(("step", {name: 0}, f"{name} is missing") for name in ("base", "now", "coefficients", "out", "step")),
    *(("step", {name: AT + 8}, f"{name} does not start") for name in ("base", "prev", "noise", "out")),
    ("step", {"step": AT + 4}, "step is not aligned"),
    ("step", {"width": -8}, "a size is -8"),
    ("step", {"slices": 2**40, "width": 2**40}, "too large"),
    ("step", {"basis_x": AT}, "come together"),
    ("step", BASES | {"rank_x": 9}, "larger than its axis"),
    ("step", BASES | {"rank_y": -1}, "a rank is negative"),
    ("step", BASES | {"kept": AT + 4}, "kept does not start"),
    ("step", {"kept": AT}, "belongs to two bases"),
]


def call(what: str, changes: dict[str, Any]) -> None:
    if what == "norm":
        C.cuda_group_norm_silu(_native.struct("CudaGroupNormSilu", **NORM | changes), 0)
    else:
        C.cuda_solver_step(_native.struct("CudaSolverStep", **STEP | changes), 0)


@pytest.mark.parametrize(("what", "changes", "message"), WRONG)
def test_wrong_arguments_are_refused_in_a_sentence(what: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(what, changes)


@pytest.mark.parametrize(
    ("what", "changes"), [("norm", {"samples": 0, "x": 0, "y": 0}), ("step", {"slices": 0} | BASES)]
)
def test_the_same_without_a_fault_is_taken(what: str, changes: dict[str, Any]) -> None:
    call(what, changes)


def test_a_workspace_is_asked_for_by_sizes_that_are_some() -> None:
    assert C.cuda_group_norm_silu_workspace(_native.struct("CudaGroupNormSilu", **NORM | LARGE)) > 0
    with pytest.raises(ValueError, match="too large"):
        C.cuda_group_norm_silu_workspace(_native.struct("CudaGroupNormSilu", **NORM | {"pixels": 2**62}))
