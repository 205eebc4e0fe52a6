"""Random calls of the compiled extension: refused in a sentence, or within the memory that they name.

Every tensor is a block of exactly its size, so that AddressSanitizer sees a step beyond it in ``make fuzz``.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import pytest
import torch
from hypothesis import assume, event, example, given
from hypothesis import strategies as st

from mrsi_fast.ops import _native
from support.fuzzing import examples

C = _native.module()
pytestmark = pytest.mark.skipif(C is None, reason="needs the compiled extension")

SIZE = st.integers(1, 9)
ODD = st.sampled_from([-1, 0, 2**31 - 1])
FAULT = st.none() | st.tuples(
    st.integers(0, 19), st.sampled_from([0, 1, 2])
)  # which address; missing, or off by so much
METHODS = st.sampled_from(["direct", "winograd2", "winograd4"])


class Memory:
    """Tensors of one call, and the fault that one of their addresses gets."""

    def __init__(self, fault: tuple[int, int] | None) -> None:
        self._kept: list[torch.Tensor] = []
        self._fault, self._given = fault, 0

    def __call__(self, *sizes: int) -> int:
        """Address of a tensor of these sizes; of one value where a size is odd."""
        count = prod(sizes) if 0 < min(sizes) and max(sizes) < 2**20 else 1
        self._kept.append(torch.rand(count))
        at, self._given = self._kept[-1].data_ptr(), self._given + 1
        if self._fault is None or self._fault[0] != self._given - 1:
            return at
        return at + self._fault[1] if self._fault[1] else 0


def runs(call: Callable[[], Any], good: bool) -> bool:
    """Whether a call was taken; arguments that are ``good`` must be, and a refusal is a sentence."""
    try:
        call()
    except (ValueError, RuntimeError) as error:
        event("refused")
        assert str(error) and not good, error
        return False
    event("ran")
    return True


@st.composite
def sizes(draw: st.DrawFn, count: int) -> list[int]:
    """Sizes of which one may be odd."""
    found = draw(st.lists(SIZE, min_size=count, max_size=count))
    if draw(st.integers(0, 3)) == 0:
        found[draw(st.integers(0, count - 1))] = draw(ODD)
    return found


@given(sizes(3), st.integers(-1, 9), st.booleans(), st.booleans(), st.integers(1, 3), FAULT)
@examples(60)
def test_any_normalisation_is_run_or_refused(shape, groups, last, film, threads, fault):
    batch, channels, spatial = shape
    assume(max(shape) < 2**20 or min(shape) > 0 and channels < 2**20)  # 2^31 images of nothing take their time
    memory, good = Memory(fault), fault is None and min(shape) > 0 and max(shape) < 2**20
    good = good and groups > 0 and channels % groups == 0
    assume(good or not all(0 < one < 2**20 for one in shape) or fault or not (groups > 0 and channels % groups == 0))
    pair = {key: memory(batch, channels) for key in ("scale", "shift")} if film else {}
    request = _native.struct(
        "GroupNormSilu", x=memory(*shape), weight=memory(channels), bias=memory(channels), batch=batch,
        channels=channels, spatial=spatial, groups=groups, channels_last=last, threads=threads, **pair,
    )  # fmt: skip
    big = max(shape) >= 2**20
    if big:
        request.batch, request.spatial = 2**31, 2**31  # no tensor has so many values, and none is made
    runs(lambda: C.group_norm_silu(request, memory(*shape)), good and not big)
    pair = {key: memory(batch, channels) for key in pair}
    gradients = _native.struct(
        "GroupNormSiluGradients", out=memory(*shape), x=memory(*shape), weight=memory(channels), bias=memory(channels),
        **pair,
    )  # fmt: skip
    runs(lambda: C.group_norm_silu_backward(request, gradients), good and not big)


@given(sizes(5), st.integers(-1, 9), METHODS, st.booleans(), st.booleans(), st.integers(1, 3), FAULT)
@examples(60)
def test_any_convolution_is_run_or_refused(shape, groups, method, film, added, threads, fault):
    batch, height, width, inputs, outputs = shape
    assume(all(0 < one < 2**20 for one in shape) or min(inputs, outputs) < 1)
    memory, way = Memory(fault), _native.conv_method(method)
    filters = _native.struct(
        "Filters", data=memory(outputs, inputs, 9), out_step=9 * inputs, in_step=9, tap_step=1, method=way, kernel=3,
        stride=1, in_channels=inputs, out_channels=outputs,
    )  # fmt: skip
    sound = min(shape) > 0
    try:
        floats = C.conv3x3_packed_floats(way, inputs, outputs)
    except ValueError:
        assert min(inputs, outputs) < 1
        floats = 1
    packed = memory(floats)
    runs(lambda: C.conv3x3_pack(filters, packed, threads), sound and fault is None)
    out = (batch, height, width, outputs)
    normed = {"groups": groups, "gamma": memory(inputs), "beta": memory(inputs)} if groups else {}
    film = film and groups != 0
    pair = {key: memory(batch, inputs) for key in ("scale", "shift")} if film else {}
    more = {"bias": memory(outputs), "residual": memory(*out)} if added else {}
    request = _native.struct(
        "Conv3x3GnSilu", x=memory(batch, height, width, inputs), weight=packed, out=memory(*out), batch=batch,
        height=height, width=width, in_channels=inputs, out_channels=outputs, method=way, threads=threads, **normed,
        **pair, **more,
    )  # fmt: skip
    good = sound and fault is None and (groups == 0 or (groups > 0 and inputs % groups == 0))
    runs(lambda: C.conv3x3_gn_silu(request), good)
    try:
        floats = C.conv3x3_filter_gradient_workspace(request)
    except ValueError:
        floats = 1
    grad, workspace, result = memory(*out), memory(floats), memory(outputs, inputs, 9)
    call = lambda: C.conv3x3_filter_gradient(request, grad, filters, workspace, result)  # noqa: E731
    runs(call, good and method != "direct")


@given(sizes(4), st.integers(0, 3), FAULT)
@examples(60)
def test_any_attention_is_run_or_refused(shape, threads, fault):
    batch, tokens, heads, channels = shape
    assume(max(shape) < 2**20 or max(batch, tokens) < 2**20)
    memory = Memory(fault)
    request = _native.struct(
        "Attention", qkv=memory(batch, tokens, 3, heads, channels), out=memory(batch, tokens, heads, channels),
        batch=batch, tokens=tokens, heads=heads, head_channels=channels, scale=0.5,
    )  # fmt: skip
    if max(shape) >= 2**20:
        request.batch, request.tokens = 2**30, 2**30
    good = fault is None and min(shape) > 0 and max(shape) < 2**20 and threads > 0
    runs(lambda: C.self_attention(request, threads), good)


ARENA, FILM = 2048, 24


@st.composite
def place(draw: st.DrawFn, count: int) -> int:
    """Where a value of so many floats begins: mostly within the arena."""
    if draw(st.integers(0, 29)):
        return draw(st.integers(0, max(ARENA - count, 0)))
    return draw(st.sampled_from([-(2**40), -2, -1, ARENA - count + 1, ARENA, 2**40]) | st.integers(-2, ARENA + 2))


@st.composite
def convolution(draw: st.DrawFn, memory: Memory) -> tuple[Any, int]:
    """A ``ConvSpec`` and its batch."""
    batch, height, width = draw(st.integers(1, 3)), draw(SIZE), draw(SIZE)
    kernel, stride, channels = draw(st.sampled_from([1, 3])), draw(st.sampled_from([1, 2])), draw(SIZE)
    groups, sources, inputs = draw(st.integers(0, 3)), [], 0
    strips = (height + 3) // 4
    for _ in range(draw(st.integers(1, 2))):
        own, upsample = draw(SIZE), draw(st.booleans()) and height % 2 == 0 and width % 2 == 0
        stats = draw(place(batch * strips * 2 * own)) if groups or draw(st.booleans()) else -1
        data = draw(place(batch * height * width * own // (4 if upsample else 1)))
        sources.append(_native.struct("SourceSpec", data=data, stats=stats, channels=own, upsample=upsample))
        inputs += own
    out = -(-height // stride) * -(-width // stride) * batch * channels
    film = {f"film_{key}": draw(st.integers(-1, FILM)) for key in ("scale", "shift")} if draw(st.booleans()) else {}
    spec = _native.struct(
        "ConvSpec", name="one", sources=sources, batch=batch, height=height, width=width, kernel=kernel, stride=stride,
        out_channels=channels, groups=groups, eps=1e-5, method=_native.conv_method(draw(METHODS)),
        gamma=memory(inputs), beta=memory(inputs), weight=memory(channels, inputs, kernel, kernel),
        bias=memory(channels) if draw(st.booleans()) else 0, out=draw(place(out)),
        residual=draw(place(out)) if draw(st.booleans()) else -1, key=draw(st.integers(-1, 2)),
        out_stats=draw(place(batch * strips * 2 * channels)) if draw(st.booleans()) else -1, **film,
    )  # fmt: skip
    return spec, batch


@st.composite
def solver(draw: st.DrawFn) -> Any:
    """A ``SolverSpec``."""
    batch, maps, x, y = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(SIZE), draw(SIZE)
    factor = draw(st.integers(1, 3))
    grid = {"grid_x": -(-x // factor) + draw(st.integers(0, 2)), "grid_y": -(-y // factor) + draw(st.integers(0, 2))}
    cells, area = batch * max(grid["grid_x"], 1) * grid["grid_y"], factor * factor
    values, head = batch * maps * x * y, cells * maps * area
    stem = (3 * maps + 2) * area + (draw(st.integers(0, 19)) == 19)
    places = {key: draw(place(values)) for key in ("eval", "base", "previous", "noise")}
    spread = {"spread": draw(place(values)), "both_heads": draw(place(2 * head))} if draw(st.booleans()) else {}
    return _native.struct(
        "SolverSpec", batch=batch, maps=maps, x=x, y=y, factor=factor, **grid, stem_channels=stem,
        head=draw(place(head)), stem=draw(place(cells * stem)), presence=draw(place(batch * maps)), **places, **spread,
    )  # fmt: skip


def add_operations(data: st.DataObject, plan: Any, memory: Memory) -> int:
    """Adds random operations; returns the largest batch of a convolution."""
    batches = [1]
    for _ in range(data.draw(st.integers(0, 3))):
        if data.draw(st.booleans()):
            spec, batch = data.draw(convolution(memory))
            batches += [batch] if runs(lambda: plan.add_conv(spec), False) else []  # noqa: B023
        else:
            batch, tokens, heads, channels = data.draw(sizes(4))
            out = max(batch, 1) * max(tokens, 1) * max(heads, 1) * max(channels, 1)
            where = {"qkv": data.draw(place(3 * out)), "out": data.draw(place(out))}
            facts = {"batch": batch, "tokens": tokens, "heads": heads, "head_channels": channels}
            spec = _native.struct("AttentionSpec", name="two", **facts, **where)
            runs(lambda: plan.add_attention(spec), False)  # noqa: B023
    return max(batches)


@given(st.data(), st.integers(1, 2), FAULT)
@examples(80)
def test_any_plan_is_run_or_refused(data, threads, fault):
    """Operations, solvers and projections in any order, then evaluations and runs."""
    memory, weights = Memory(fault), C.PackedWeights()
    plan = C.Plan(ARENA, FILM, threads, weights)
    batch, shape = 1, (0, 0, 0, 0)
    for _ in range(data.draw(st.integers(1, 3))):
        batch = max(batch, add_operations(data, plan, memory))
        spec = data.draw(solver())
        if runs(lambda: plan.set_solver(spec), False):  # noqa: B023
            shape = (spec.batch, spec.maps, spec.x, spec.y)
        if data.draw(st.booleans()):
            ranks = [data.draw(st.integers(0, axis + 1)) for axis in shape[2:]]
            bases = [memory(max(rank, 1), max(axis, 1)) for rank, axis in zip(ranks, shape[2:], strict=True)]
            runs(lambda: plan.set_projection(*ranks, *bases, 0), False)  # noqa: B023
    rows, depth = data.draw(st.integers(0, 3)), data.draw(st.integers(1, 5))
    if data.draw(st.booleans()):
        runs(lambda: plan.set_film(depth, memory(depth, FILM), memory(FILM)), False)
        embedding = torch.rand(max(rows * depth, 1), dtype=torch.float64)
        runs(lambda: plan.film_rows(embedding.data_ptr(), rows, memory(max(rows, 1), FILM)), False)
    runs(lambda: plan.evaluate(memory(batch, FILM)), False)
    if not shape[0]:
        return
    values = {key: memory(*shape) for key in ("initial", "z", "mask")}
    start = _native.struct("SolverStart", **values, anatomy=memory(shape[0], *shape[2:]), c_in=0.5)
    runs(lambda: plan.start(start, memory(*shape[:2])), False)
    facts = {"c_skip": 0.5, "c_out": 0.1, "base": 1.0, "now": 0.3, "prev": 0.1, "noise": 0.2, "next_c_in": 0.7}
    steps = [_native.struct("StepCoefficients", **facts)] * 2
    film, nothing = memory(2 * max(batch, shape[0]), FILM), lambda step: None
    for spread in (False, True):
        runs(lambda: plan.run(steps, film, nothing, nothing, spread), False)  # noqa: B023


@given(st.integers(-3, 3), st.integers(-3, 3), st.integers(-3, 3))
@examples(20)
@example(0, 1, 1)
def test_any_number_of_threads_or_floats_makes_a_plan_or_none(arena, film, threads):
    try:
        C.Plan(arena, film, threads)
    except (ValueError, TypeError) as error:
        assert str(error)
