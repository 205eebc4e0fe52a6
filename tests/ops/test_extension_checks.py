"""The compiled extension refuses what it can see to be wrong: a missing or odd address, a size, a place in an arena."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mrsi_fast.ops import _native

C = _native.module()
pytestmark = pytest.mark.skipif(C is None, reason="needs the compiled extension")

MEMORY = torch.zeros(4096)
AT = MEMORY.data_ptr()

NORM = {"x": AT, "weight": AT, "bias": AT, "batch": 1, "channels": 8, "spatial": 4, "groups": 4, "threads": 1}
GRADIENTS = {"out": AT, "x": AT, "weight": AT, "bias": AT}
CONVOLUTION = {"x": AT, "weight": AT, "out": AT, "batch": 1, "height": 4, "width": 4, "in_channels": 8,
               "out_channels": 8, "threads": 1}  # fmt: skip
ATTENTION = {"qkv": AT, "out": AT, "batch": 1, "tokens": 4, "heads": 1, "head_channels": 8}
SOURCE = {"data": 0, "channels": 8}
PLANNED = {"name": "one", "batch": 1, "height": 4, "width": 4, "kernel": 3, "out_channels": 8, "weight": AT, "out": 128}
SOLVER = {"batch": 1, "maps": 1, "x": 4, "y": 4, "grid_x": 4, "grid_y": 4, "stem_channels": 5, "head": 0, "stem": 16,
          "eval": 96, "base": 112, "previous": 128, "noise": 144, "presence": 160}  # fmt: skip

OPERATIONS: list[tuple[str, dict[str, Any], str]] = [
    ("norm", {"x": 0}, "x is missing"),
    ("norm", {"x": AT + 1}, "x is not aligned"),
    ("norm", {"weight": 0}, "weight is missing"),
    ("norm", {"groups": 0}, "groups is 0"),
    ("norm", {"groups": 3}, "must divide the 8 channels"),
    ("norm", {"batch": -1}, "a size is -1"),
    ("norm", {"spatial": 2**62}, "too large"),
    ("norm", {"threads": 0}, "threads is 0"),
    ("norm", {"threads": 10**9}, "threads is"),
    ("norm", {"scale": AT + 1}, "scale is not aligned"),
    ("norm", {"eps": float("nan")}, "eps"),
    ("backward", {"x": 0}, r"gradients.x is missing"),
    ("backward", {"scale": AT, "shift": AT}, "have gradients where they are given"),
    ("convolution", {"weight": 0}, "weight is missing"),
    ("convolution", {"out": AT + 2}, "out is not aligned"),
    ("convolution", {"in_channels": 0}, "at least one channel"),
    ("convolution", {"groups": 3, "gamma": AT, "beta": AT}, "must divide"),
    ("convolution", {"groups": 4}, "gamma is missing"),
    ("convolution", {"bias": AT + 3}, "bias is not aligned"),
    ("attention", {"qkv": 0}, "qkv is missing"),
    ("attention", {"heads": 0}, "a size is 0"),
    ("attention", {"tokens": -4}, "a size is -4"),
    ("planned", {"weight": 0}, r"one.weight is missing"),
    ("planned", {"out": 1000}, "do not lie within the arena of 1024"),
    ("planned", {"out": -1}, "do not lie within the arena"),
    ("planned", {"residual": 2**60}, "do not lie within the arena"),
    ("planned", {"sources": []}, "one or two values"),
    ("planned", {"sources": [SOURCE] * 3}, "one or two values"),
    ("planned", {"sources": [SOURCE | {"data": 1000}]}, r"one.source: 128 values from 1000"),
    ("planned", {"sources": [SOURCE | {"channels": 0}]}, "a size is 0"),
    ("planned", {"groups": 4, "gamma": AT, "beta": AT}, r"one.stats"),
    ("planned", {"kernel": 5}, "kernel 1 or 3"),
    ("planned", {"stride": 0}, "stride 1 or 2"),
    ("planned", {"method": "winograd4", "stride": 2}, "Winograd"),
    ("planned", {"film_scale": 0, "film_shift": 12}, "outside a row of the FiLM table"),
    ("solver", {"eval": 1020}, "eval: 16 values from 1020"),
    ("solver", {"presence": -1}, "presence"),
    ("solver", {"stem_channels": 4}, "has not the channels"),
    ("solver", {"grid_x": 1}, "does not cover the maps"),
    ("solver", {"spread": 200, "both_heads": 300}, "two heads are two operations"),
    ("solver", {"batch": 0}, "a size is 0"),
]


def plan(threads: int = 1) -> Any:
    return C.Plan(1024, 16, threads, C.PackedWeights())


def call(what: str, changes: dict[str, Any]) -> None:
    """Calls an operation with good arguments but for the changes."""
    struct: Callable[..., Any] = _native.struct
    if what == "norm":
        C.group_norm_silu(struct("GroupNormSilu", **NORM | changes), AT + 512)
    elif what == "backward":
        grads = {key: value for key, value in changes.items() if key == "x"}
        others = {key: value for key, value in changes.items() if key != "x"}
        C.group_norm_silu_backward(
            struct("GroupNormSilu", **NORM | others), struct("GroupNormSiluGradients", **GRADIENTS | grads)
        )
    elif what == "convolution":
        C.conv3x3_gn_silu(struct("Conv3x3GnSilu", **CONVOLUTION | changes))
    elif what == "attention":
        C.self_attention(struct("Attention", **ATTENTION | changes), 1)
    elif what == "planned":
        facts = PLANNED | {"sources": [SOURCE]} | changes
        facts["sources"] = [struct("SourceSpec", **one) for one in facts["sources"]]
        facts["method"] = _native.conv_method(facts.get("method", "direct"))
        plan().add_conv(struct("ConvSpec", **facts))
    else:
        plan().set_solver(struct("SolverSpec", **SOLVER | changes))


@pytest.mark.parametrize(("what", "changes", "message"), OPERATIONS)
def test_wrong_arguments_are_refused_in_a_sentence(what: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(what, changes)


@pytest.mark.parametrize("what", ["norm", "attention", "planned", "solver"])
def test_the_same_without_the_change_is_taken(what: str) -> None:
    call(what, {})


@pytest.mark.parametrize("size", ["batch", "tokens"])
def test_attention_of_nothing_is_nothing(size: str) -> None:
    call("attention", {size: 0})


def test_plans_refuse_to_run_without_what_they_need() -> None:
    for threads in (0, -1, 10**9):
        with pytest.raises(ValueError, match="threads is"):
            plan(threads)
    empty, start = plan(), _native.struct("SolverStart")
    with pytest.raises(ValueError, match="no solver"):
        empty.start(start, AT)
    with pytest.raises(ValueError, match="no solver"):
        empty.run([], AT, lambda step: None, lambda step: None)
    with pytest.raises(ValueError, match="film is missing"):
        empty.evaluate(0)
    with pytest.raises(ValueError, match=r"film.weight is missing"):
        empty.set_film(4, 0, AT)
    with pytest.raises(ValueError, match="embedding is not aligned"):
        empty.film_rows(AT + 4, 1, AT)
    filled = plan()
    filled.set_solver(_native.struct("SolverSpec", **SOLVER))
    with pytest.raises(ValueError, match="initial is missing"):
        filled.start(start, AT)
    for rank_x, rank_y in ((5, 4), (-1, 1), (2, 0)):
        with pytest.raises(ValueError, match="a rank is below 1 or larger"):
            filled.set_projection(rank_x, rank_y, AT, AT, 0)
    with pytest.raises(ValueError, match="qx is missing"):
        filled.set_projection(2, 2, 0, AT, 0)
    with pytest.raises(ValueError, match="no weights for it"):
        filled.film_rows(AT, 1, AT)


def test_weights_of_one_key_have_one_shape() -> None:
    shared = C.Plan(1024, 0, 1, C.PackedWeights())
    facts = {"name": "one", "batch": 1, "height": 2, "width": 2, "weight": AT, "out": 512, "key": 3}
    source = [_native.struct("SourceSpec", data=0, channels=2)]
    for height in (2, 4):  # as plans of several batch shapes share them
        shared.add_conv(_native.struct("ConvSpec", **facts | {"height": height}, sources=source, out_channels=2))
    for change in ({"out_channels": 9}, {"out_channels": 2, "kernel": 1}):
        with pytest.raises(ValueError, match="key 3 have another shape"):
            shared.add_conv(_native.struct("ConvSpec", **facts, sources=source, **change))


def test_the_head_for_the_spread_ends_with_its_solver() -> None:
    one, step = plan(), _native.struct("StepCoefficients")
    source = [_native.struct("SourceSpec", **SOURCE)]
    for _ in range(2):
        one.add_conv(_native.struct("ConvSpec", **PLANNED, sources=source))
    one.set_solver(_native.struct("SolverSpec", **SOLVER | {"spread": 200, "both_heads": 300}))
    one.set_solver(_native.struct("SolverSpec", **SOLVER))
    with pytest.raises(RuntimeError, match="no head for the spread"):
        one.run([step], AT, lambda step: None, lambda step: None, True)


def test_a_projection_ends_with_its_solver() -> None:
    """Else the bases of the smaller maps would be read as those of the larger ones."""
    one, step = plan(), _native.struct("StepCoefficients", c_out=1.0, now=1.0, next_c_in=1.0)
    basis = torch.eye(4)
    arena = torch.frombuffer((ctypes.c_float * 1024).from_address(one.arena), dtype=torch.float32)
    for projected in (True, False):
        one.set_solver(_native.struct("SolverSpec", **SOLVER))
        if projected:
            one.set_projection(4, 4, basis.data_ptr(), basis.data_ptr(), 0)
        arena[:16] = 1.0
        one.run([step], AT, lambda step: None, lambda step: None)
        assert arena[96:112].abs().sum() == (0 if projected else 16)


def test_gradients_of_filters_stay_in_their_tensor() -> None:
    request = _native.struct("Conv3x3GnSilu", **CONVOLUTION | {"method": _native.conv_method("winograd2")})
    workspace = torch.zeros(C.conv3x3_filter_gradient_workspace(request))
    good = {"out_step": 72, "in_step": 9, "tap_step": 1}
    C.conv3x3_filter_gradient(request, AT, _native.struct("Filters", **good), workspace.data_ptr(), AT)
    for step, value in (("tap_step", -1), ("out_step", 73), ("in_step", 2**62), ("in_step", 0)):
        filters = _native.struct("Filters", **good | {step: value})
        with pytest.raises(ValueError, match="filters: "):
            C.conv3x3_filter_gradient(request, AT, filters, workspace.data_ptr(), AT)


def test_filters_that_are_none() -> None:
    for sizes in ((0, 8), (8, -1), (2**31 - 1, 2**31 - 1)):
        with pytest.raises(ValueError, match="filters"):
            C.conv3x3_packed_floats(_native.conv_method("direct"), *sizes)
    with pytest.raises(ValueError, match="packed is missing"):
        filters = _native.struct("Filters", data=AT, kernel=3, stride=1, in_channels=2, out_channels=2)
        C.conv3x3_pack(filters, 0, 1)
