"""group_norm_silu: forward, backward and `_out` of every implementation against float64; layouts, memory, threads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mrsi_fast import ops
from mrsi_fast.ops import group_norm_silu
from support.compare import assert_as_accurate
from support.kernels import mapped, usable_isas, using, with_gradients
from support.shapes import AWKWARD_MAPS, MapShape, model_maps
from support.terms import norm_terms

OP = torch.ops.mrsi_fast.group_norm_silu.default
BACKWARD = torch.ops.mrsi_fast.group_norm_silu_backward.default
OUT = torch.ops.mrsi_fast.group_norm_silu_out.default
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
ISAS = usable_isas()  # an empty list makes pytest skip, and say so
# The shapes of the network where it matters: for the kernels that run here, the best instruction set last.
CASES = [(how, shape) for how in ("reference", *ISAS) for shape in AWKWARD_MAPS]
CASES += [(isa, shape) for isa in ISAS[-1:] for shape in model_maps(batch=1)]


@pytest.fixture(params=["reference", *ISAS])
def how(request: pytest.FixtureRequest) -> Iterator[str]:
    with using(request.param):
        yield request.param


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    with using(request.param):
        yield request.param


def make_inputs(shape: MapShape, layout: str, film: bool = True, mean: float = 0.5, sd: float = 2.0) -> list:
    """(x, weight, bias, num_groups, scale, shift, eps), float32."""
    c = shape.channels
    x = (mean + sd * torch.randn(shape.size)).contiguous(memory_format=FORMATS[layout])
    films = [0.5 * torch.randn(shape.batch, c) for _ in range(2)] if film else [None, None]
    return [x, 1 + 0.5 * torch.randn(c), torch.randn(c), shape.groups, *films, 1e-5]


def eager(x, weight, bias, num_groups, scale, shift, eps) -> Tensor:
    """What a PyTorch user writes, without any of our code."""
    y = torch.group_norm(x, num_groups, weight, bias, eps)
    if scale is not None:
        y = y * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    return torch.nn.functional.silu(y)


# ---- numbers


def check_against_float64(inputs: list) -> None:
    grad = torch.randn(inputs[0].shape)
    ours = with_gradients(group_norm_silu, inputs, grad)
    peer = with_gradients(eager, inputs, grad)
    truth = with_gradients(eager, mapped(inputs, Tensor.double), grad.double())
    names = ("y", "gradient of x", "gradient of weight", "gradient of bias", "gradient of scale", "gradient of shift")
    values = ((one[0], *one[1]) for one in (ours, peer, truth))
    for name, a, b, true, size in zip(names, *values, norm_terms(inputs, grad), strict=False):
        assert_as_accurate(a, b, true, name, terms=size)


@pytest.mark.parametrize("film", [True, False], ids=["film", "bare"])
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize(("how", "shape"), CASES, ids=[f"{how}-{shape.name.replace(' ', '_')}" for how, shape in CASES])
def test_forward_and_gradients_are_as_accurate_as_pytorch(how, shape, layout, film):
    with using(how):
        check_against_float64(make_inputs(shape, layout, film))


@pytest.mark.parametrize("layout", FORMATS)
def test_a_mean_of_1000_standard_deviations_does_not_hurt(isa, layout):
    inputs = make_inputs(MapShape("offset", 2, 96, 32, 32, 6), layout, mean=1000.0, sd=1.0)
    truth = eager(*mapped(inputs, Tensor.double))
    assert_as_accurate(group_norm_silu(*inputs), eager(*inputs), truth)
    # The input itself is rounded to 6e-5 standard deviations; the kernel must add less than that.
    assert (group_norm_silu(*inputs).double() - truth).abs().max() < 2e-5


def test_closed_form_of_a_two_valued_map(how):
    x = torch.tensor([5.0, 7.0]).repeat(1, 4, 3, 1)  # mean 6, variance 1
    y = group_norm_silu(x, torch.ones(4), torch.zeros(4), 2, eps=0.21)  # sqrt(1.21) = 1.1
    v = torch.tensor([-1 / 1.1, 1 / 1.1], dtype=torch.float64)
    torch.testing.assert_close(y.double(), (v / (1 + torch.exp(-v))).expand(1, 4, 3, 2), rtol=3e-7, atol=0)


def test_silu_is_right_to_4_units_in_the_last_place(isa):
    # With weight and bias zero the result is silu(shift).
    v = torch.cat([torch.linspace(-80, 90, 40_001), torch.tensor([0.0, -0.0, 1e-30, -1e-30, 1e-4, -1e-4])])
    y = group_norm_silu(torch.randn(1, v.numel(), 1, 1), *torch.zeros(2, v.numel()), 1, None, v[None])[0, :, 0, 0]
    truth = v.double() / (1 + torch.exp(-v.double()))
    assert ((y.double() - truth).abs() <= 4 * torch.finfo(torch.float32).eps * truth.abs()).all()


def test_silu_far_out(isa):
    v = torch.tensor([[-1e4, -1e30, -100.0, 100.0, 1e30, float("inf"), float("nan")]])
    y = group_norm_silu(torch.randn(1, 7, 1, 1), *torch.zeros(2, 7), 1, None, v)[0, :, 0, 0]
    torch.testing.assert_close(y, torch.nn.functional.silu(v[0]), equal_nan=True, rtol=0, atol=1e-35)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_nan_stays_in_its_group(how, layout, bad):
    inputs = make_inputs(MapShape("", 2, 12, 5, 5, 3), layout)
    clean = group_norm_silu(*inputs)
    inputs[0][1, 5, 2, 2] = bad
    y = group_norm_silu(*inputs)
    assert y[1, 4:8].isnan().all()
    untouched = torch.ones(2, 12, dtype=torch.bool)
    untouched[1, 4:8] = False
    assert torch.equal(y[untouched], clean[untouched])


@settings(max_examples=30, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch=st.integers(1, 3),
    groups=st.integers(1, 5),
    members=st.integers(1, 19),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    layout=st.sampled_from(sorted(FORMATS)),
    film=st.booleans(),
)
def test_any_shape(isa, batch, groups, members, height, width, layout, film):
    check_against_float64(make_inputs(MapShape("", batch, groups * members, height, width, groups), layout, film))


# ---- determinism


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_threads_and_batch_do_not_change_a_bit(isa, layout, batch):
    inputs = make_inputs(MapShape("", batch, 80, 31, 29, 5), layout)
    grad = torch.randn(inputs[0].shape)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y, gradients = with_gradients(group_norm_silu, inputs, grad)
            results.append((y, *gradients))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    alone = group_norm_silu(inputs[0][-1:], *inputs[1:4], inputs[4][-1:], inputs[5][-1:])
    assert torch.equal(alone[0], results[0][0][-1])


# ---- layouts, memory, dtypes


def odd_layouts() -> dict[str, Tensor]:
    base = torch.randn(2, 8, 6, 10)
    return {
        "transposed": base.transpose(2, 3),
        "strided": base[..., ::2],
        "sliced channels-last": base.contiguous(memory_format=torch.channels_last)[:, 1:7],
        "expanded": base[:1].expand(3, 8, 6, 10),
    }


@pytest.mark.parametrize("case", sorted(odd_layouts()))
def test_odd_layouts_go_to_the_reference(case):
    x = odd_layouts()[case]
    arguments = (x, torch.rand(x.shape[1]), torch.rand(x.shape[1]), 2, None, None, 1e-5)
    choice = ops.explain("group_norm_silu", *arguments)
    assert choice.backend == "reference"
    if ISAS:
        assert "neither contiguous nor channels-last" in choice.refused["native"]
    y = group_norm_silu(*arguments)
    assert y.is_contiguous()
    torch.testing.assert_close(y, group_norm_silu(x.contiguous(), *arguments[1:]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_go_to_the_reference_and_are_rounded_once(dtype):
    inputs = mapped(make_inputs(MapShape("", 2, 32, 9, 7, 2), "channels_last"), lambda one: one.to(dtype))
    assert ops.explain("group_norm_silu", *inputs).backend == "reference"
    y = group_norm_silu(*inputs)
    truth = eager(*mapped(inputs, Tensor.double))
    assert y.dtype == dtype
    spacing = torch.finfo(dtype).eps * truth.abs() + torch.finfo(dtype).tiny
    assert (
        (y.double() - truth).abs() <= (0.5001 if dtype != torch.float64 else 64) * spacing + 1e-6 * spacing.max()
    ).all()


def test_half_precision_maps_take_float32_parameters():
    inputs = make_inputs(MapShape("", 2, 32, 9, 7, 2), "channels_last")
    half = group_norm_silu(inputs[0].bfloat16(), *inputs[1:])
    torch.testing.assert_close(half, group_norm_silu(inputs[0].bfloat16().float(), *inputs[1:]).bfloat16())


@pytest.mark.parametrize("spatial", [(), (11,), (4, 3, 5)], ids=["2-D", "3-D", "5-D"])
def test_any_number_of_spatial_axes(how, spatial):
    x = torch.randn(2, 6, *spatial)
    weight, bias = torch.randn(2, 6)
    y = group_norm_silu(x, weight, bias, 2)
    flat = group_norm_silu(x.reshape(2, 6, -1, 1), weight, bias, 2)
    torch.testing.assert_close(y, flat.reshape(x.shape))
    if len(spatial) == 3:
        last = group_norm_silu(x.contiguous(memory_format=torch.channels_last_3d), weight, bias, 2)
        assert last.is_contiguous(memory_format=torch.channels_last_3d)
        torch.testing.assert_close(last, y)


@pytest.mark.parametrize("size", [(0, 8, 5, 5), (2, 8, 0, 5)], ids=["no samples", "no positions"])
def test_empty(how, size):
    x, weight, bias = torch.empty(size, requires_grad=True), torch.ones(8, requires_grad=True), torch.zeros(8)
    y = group_norm_silu(x, weight, bias, 2)
    y.sum().backward()
    assert y.shape == size and x.grad.shape == size
    assert torch.equal(weight.grad, torch.zeros(8))


def test_unaligned_memory_and_strided_film(isa):
    shape = MapShape("", 2, 24, 7, 5, 3)
    inputs = make_inputs(shape, "contiguous")
    wanted = group_norm_silu(*inputs)
    shifted = (
        torch.empty(inputs[0].numel() + 1)[1:].view(shape.size).copy_(inputs[0])
    )  # 4 bytes off any vector boundary
    assert shifted.data_ptr() % 16
    film = torch.cat(inputs[4:6], dim=1)  # as a linear layer gives it
    scale, shift = film.chunk(2, dim=1)
    assert not scale.is_contiguous()
    assert torch.equal(group_norm_silu(shifted, *inputs[1:4], scale, shift), wanted)


@pytest.mark.parametrize("layout", FORMATS)
def test_out_form(how, layout):
    inputs = make_inputs(MapShape("", 2, 24, 7, 5, 3), layout)
    wanted = group_norm_silu(*inputs)
    out = torch.full_like(inputs[0], float("nan"))
    assert OUT(*inputs, out) is None
    assert torch.equal(out, wanted)
    other = torch.empty(2, 24, 5, 7).transpose(2, 3)  # strides that no kernel writes: computed apart, then copied
    OUT(*inputs, other)
    assert torch.equal(other, wanted)


@pytest.mark.parametrize("given", [("conv_bias",), ("embedding",), ("conv_bias", "embedding")], ids=str)
def test_what_a_plan_folds_into_the_out_form_is_added_first(given):
    inputs = make_inputs(MapShape("", 2, 24, 7, 5, 3), "channels_last")
    folded = {name: torch.randn(24) if name == "conv_bias" else torch.randn(2, 24) for name in given}
    x = inputs[0] + sum(one.reshape(-1, 24, 1, 1) for one in folded.values())
    out = torch.full_like(inputs[0], float("nan"))
    OUT(*inputs, out, **folded)
    truth = eager(x.double(), *mapped(inputs[1:], Tensor.double))
    assert_as_accurate(out, eager(x, *inputs[1:]), truth)
    choice = ops.explain("group_norm_silu", *inputs, folded.get("conv_bias"), folded.get("embedding"))
    assert choice.backend == "reference" and (not ISAS or "conv_bias" in choice.refused["native"])


def test_the_out_form_records_no_gradient_of_what_is_folded_in():
    inputs = make_inputs(MapShape("", 2, 24, 7, 5, 3), "channels_last")
    with pytest.raises(RuntimeError, match="records no gradient"):
        OUT(*inputs, torch.empty_like(inputs[0]), conv_bias=torch.ones(24, requires_grad=True))


@pytest.mark.parametrize("offset", [0, 1, 100])
def test_out_may_overlap_the_input(how, offset):
    inputs = make_inputs(MapShape("", 2, 24, 7, 5, 3), "contiguous")
    wanted = group_norm_silu(*inputs)
    memory = torch.empty(inputs[0].numel() + 100)
    x = memory[: inputs[0].numel()].view_as(inputs[0]).copy_(inputs[0])
    out = memory[offset : offset + x.numel()].view_as(x)
    with ops.override():  # a pinned kernel would still have to refuse the overlap
        OUT(x, *inputs[1:], out)
    torch.testing.assert_close(out, wanted)


def test_out_may_be_another_view_of_the_inputs_numpy_array(how):
    inputs = make_inputs(MapShape("", 2, 24, 7, 5, 3), "contiguous")
    wanted, count = group_norm_silu(*inputs), inputs[0].numel()
    memory = np.concatenate([inputs[0].numpy().ravel(), np.zeros(3, np.float32)])
    x, out = (torch.from_numpy(memory[first : first + count]).view_as(inputs[0]) for first in (0, 3))
    OUT(x, *inputs[1:], out)
    torch.testing.assert_close(out, wanted)


def test_out_of_the_wrong_shape_or_dtype_is_refused():
    inputs = make_inputs(MapShape("", 2, 24, 7, 5, 3), "contiguous")
    for out in (torch.empty(2, 24, 5, 7), torch.empty(2, 24, 7, 5, dtype=torch.float64)):
        with pytest.raises(ValueError, match="out must have shape"):
            OUT(*inputs, out)


def test_wrong_arguments_are_named():
    x, v = torch.randn(2, 8, 3, 3), torch.ones(8)
    cases = [
        ((x, v, v, 3), r"num_groups must divide the 8 channels of x, got 3"),
        ((x, torch.ones(7), v, 2), r"weight must have shape \[C\] = \[8\], got \[7\]"),
        ((x, v, v, 2, torch.ones(1, 8)), r"scale must have shape \[B, C\] = \[2, 8\], got \[1, 8\]"),
        ((x.long(), v, v, 2), r"floating point"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            group_norm_silu(*arguments)
