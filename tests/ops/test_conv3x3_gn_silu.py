"""conv3x3_gn_silu: forward and backward of every implementation against float64, and its contract with torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mrsi_fast import ops
from mrsi_fast.ops import _native, conv3x3_gn_silu
from mrsi_fast.ops.conv3x3_gn_silu import TRANSFORM_COST, WEIGHT_COST, method_costs, winograd_tile
from support.compare import relative_l2

OP = torch.ops.mrsi_fast.conv3x3_gn_silu.default
EXTENSION = _native.module()
ISAS = EXTENSION.usable_isas() if EXTENSION else []

# Winograd F(4x4,3x3) multiplies rounding errors by a few times what the direct method has (2e-7 to 6e-7 here).
BAR = 5e-6
SHAPES = [  # batch, in, out, height, width, groups
    (1, 16, 16, 1, 2, 1),
    (2, 5, 7, 3, 2, 1),
    (1, 36, 20, 9, 13, 4),
    (3, 33, 17, 6, 6, 3),
    (2, 96, 96, 32, 32, 6),
    (1, 160, 256, 8, 8, 10),
]


@contextlib.contextmanager
def using(how: str) -> Iterator[None]:
    """Run a block on 'reference' or on the CPU kernel of one instruction set."""
    if how == "reference":
        with ops.override("reference"):
            yield
        return
    before = EXTENSION.use_isa(how)
    try:
        with ops.override("native"):
            yield
    finally:
        EXTENSION.use_isa(before)


@pytest.fixture(params=["reference", *ISAS])
def how(request: pytest.FixtureRequest) -> Iterator[str]:
    with using(request.param):
        yield request.param


def make_inputs(shape, optional: bool = True, mean: float = 0.5) -> list:
    """(x, norm_weight, norm_bias, num_groups, weight, bias, scale, shift, residual, eps), float32."""
    batch, c, k, height, width, groups = shape
    torch.manual_seed(hash(shape) % 1000)
    x = (mean + torch.randn(batch, c, height, width)).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(k, c, 3, 3) / (3 * c**0.5)
    extra: list = [None] * 4
    if optional:
        residual = torch.randn(batch, k, height, width).contiguous(memory_format=torch.channels_last)
        extra = [torch.randn(k), 0.5 * torch.randn(batch, c), 0.5 * torch.randn(batch, c), residual]
    return [x, 1 + 0.5 * torch.randn(c), torch.randn(c), groups, weight, *extra, 1e-5]


def eager(x, norm_weight, norm_bias, groups, weight, bias, scale, shift, residual, eps) -> Tensor:
    """What a PyTorch user writes, without any of our code."""
    y = torch.group_norm(x, groups, norm_weight, norm_bias, eps)
    if scale is not None:
        y = y * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    y = F.conv2d(F.silu(y), weight, bias, padding=1)
    return y if residual is None else y + residual


def mapped(inputs: list, change) -> list:
    return [change(one) if isinstance(one, Tensor) else one for one in inputs]


@pytest.mark.parametrize("optional", [True, False], ids=["all", "bare"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_agrees_with_float64(how: str, shape, optional: bool) -> None:
    inputs = make_inputs(shape, optional)
    assert relative_l2(conv3x3_gn_silu(*inputs), eager(*mapped(inputs, Tensor.double))) < BAR


@pytest.mark.parametrize("isa", ISAS)
def test_a_mean_of_a_thousand_deviations_costs_no_accuracy(isa: str) -> None:
    inputs = make_inputs((2, 32, 16, 16, 16, 2), mean=1000.0)
    with using(isa):
        assert relative_l2(conv3x3_gn_silu(*inputs), eager(*mapped(inputs, Tensor.double))) < 3 * BAR


@pytest.mark.parametrize("optional", [True, False], ids=["all", "bare"])
@pytest.mark.parametrize("shape", SHAPES[:4], ids=str)
def test_gradients_agree_with_float64(how: str, shape, optional: bool) -> None:
    inputs = make_inputs(shape, optional)
    grad = torch.randn(shape[0], shape[2], *shape[3:5])

    def gradients(function, values, grad):
        leaves = mapped(values, lambda one: one.detach().clone().requires_grad_())
        return torch.autograd.grad(function(*leaves), [one for one in leaves if isinstance(one, Tensor)], grad)

    truth = gradients(eager, mapped(inputs, Tensor.double), grad.double())
    for ours, exact in zip(gradients(conv3x3_gn_silu, inputs, grad), truth, strict=True):
        assert ours.shape == exact.shape
        size = max(1.0, exact.abs().max().item())  # of one pixel the gradient is all cancellation, exactly 0
        assert (ours - exact).abs().max() < 20 * BAR * size


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("isa", ISAS)
def test_the_filters_gradient_is_laid_out_as_the_filters(isa: str, layout: torch.memory_format) -> None:
    """At a size where it is summed in several pieces; a gradient in another layout would be copied at each step."""
    inputs = make_inputs((3, 40, 64, 27, 31, 4), optional=False)
    inputs[4] = inputs[4].contiguous(memory_format=layout).requires_grad_()
    grad = torch.randn(3, 64, 27, 31)
    exact = mapped(inputs, lambda one: one.detach().double().requires_grad_())
    (truth,) = torch.autograd.grad(eager(*exact), exact[4], grad.double())
    with using(isa):
        (ours,) = torch.autograd.grad(conv3x3_gn_silu(*inputs), inputs[4], grad)
    assert ours.stride() == inputs[4].stride()
    assert relative_l2(ours, truth) < 2 * BAR


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.integers(1, 15), st.integers(1, 15), st.booleans())
def test_any_shape(batch: int, c: int, k: int, height: int, width: int, optional: bool) -> None:
    inputs = make_inputs((batch, c, k, height, width, 1), optional)
    truth = eager(*mapped(inputs, Tensor.double))
    # A single pixel of a single channel falls through to PyTorch, whose float32 GroupNorm cancels there.
    assert relative_l2(conv3x3_gn_silu(*inputs), truth) < 2 * BAR + 2 * relative_l2(eager(*inputs), truth)


def test_out_form_writes_in_place_and_refuses_a_wrong_shape(how: str) -> None:
    inputs = make_inputs(SHAPES[2])
    out = torch.full_like(conv3x3_gn_silu(*inputs), torch.nan)
    torch.ops.mrsi_fast.conv3x3_gn_silu_out(*inputs, out)
    assert torch.equal(out, conv3x3_gn_silu(*inputs))
    with pytest.raises(ValueError, match="out must have shape"):
        torch.ops.mrsi_fast.conv3x3_gn_silu_out(*inputs, out[:, :1])


def test_result_may_replace_the_residual(how: str) -> None:
    inputs = make_inputs(SHAPES[3])
    expected = conv3x3_gn_silu(*inputs)
    torch.ops.mrsi_fast.conv3x3_gn_silu_out(*inputs, inputs[8])
    torch.testing.assert_close(inputs[8], expected, rtol=1e-5, atol=1e-5)


def test_layouts(how: str) -> None:
    inputs = make_inputs(SHAPES[2])
    assert conv3x3_gn_silu(*inputs).is_contiguous(memory_format=torch.channels_last)
    if how == "reference":
        inputs[0] = inputs[0].contiguous()
        assert conv3x3_gn_silu(*inputs).is_contiguous()


def test_strided_filters_and_modulation(how: str) -> None:
    inputs = make_inputs(SHAPES[2])
    expected = conv3x3_gn_silu(*inputs)
    weight, scale = inputs[4], inputs[6]
    inputs[4] = weight.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    inputs[6] = torch.cat([scale, scale], 1).chunk(2, 1)[1]
    assert torch.equal(conv3x3_gn_silu(*inputs), expected)


@pytest.mark.skipif(not ISAS, reason=_native.reason())
def test_reasons_against_the_kernel() -> None:
    inputs = make_inputs(SHAPES[2])
    assert ops.explain("conv3x3_gn_silu", *inputs).backend == "native"
    inputs[0] = inputs[0].contiguous()
    assert "not channels-last" in str(ops.explain("conv3x3_gn_silu", *inputs))
    assert "float32" in str(ops.explain("conv3x3_gn_silu", *mapped(inputs, Tensor.double)))


def test_threads_change_no_bit(how: str) -> None:
    if how == "reference":
        pytest.skip("PyTorch promises no such thing")
    inputs, threads = make_inputs(SHAPES[4]), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = conv3x3_gn_silu(*inputs)
        torch.set_num_threads(2)
        assert torch.equal(alone, conv3x3_gn_silu(*inputs))
    finally:
        torch.set_num_threads(threads)


def test_nan_stays_in_its_image(how: str) -> None:
    inputs = make_inputs(SHAPES[3])
    inputs[0][1, 0, 2, 2] = torch.nan
    y = conv3x3_gn_silu(*inputs)
    assert y[1].isnan().all() and not y[0].isnan().any() and not y[2].isnan().any()


def test_empty_batch() -> None:
    inputs = make_inputs(SHAPES[2], optional=False)
    inputs[0] = inputs[0][:0]
    assert conv3x3_gn_silu(*inputs).shape == (0, 20, 9, 13)


def test_torch_finds_the_registration_complete(how: str) -> None:
    inputs = mapped(make_inputs(SHAPES[1]), lambda one: one.requires_grad_())
    torch.library.opcheck(OP, tuple(inputs), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, torch.zeros(2, 36, 9), "x must have shape"),
        (3, 5, "num_groups must divide"),
        (4, torch.zeros(20, 36, 5, 5), "weight must have shape"),
        (5, torch.zeros(3), "bias must have shape"),
        (6, torch.zeros(3, 36), "scale must have shape"),
        (8, torch.zeros(1, 20, 9, 12), "residual must have shape"),
    ],
)
def test_wrong_inputs_are_named(position: int, value, message: str) -> None:
    inputs = make_inputs(SHAPES[2])
    inputs[position] = value
    with pytest.raises(ValueError, match=message):
        conv3x3_gn_silu(*inputs)


@pytest.mark.parametrize(
    ("grid", "tile"), [((1, 1), 0), ((2, 2), 2), ((4, 4), 4), ((6, 6), 2), ((8, 8), 4), ((32, 32), 4), ((33, 33), 4)]
)
def test_algorithm_has_the_fewest_multiplications_where_these_are_the_cost(grid: tuple[int, int], tile: int) -> None:
    assert winograd_tile(*grid, 96, 96) == tile


def test_with_few_channels_the_transforms_do_not_pay() -> None:
    assert winograd_tile(32, 32, 2, 3) == 0


@pytest.mark.parametrize("tile", [0, 2, 4])
def test_cost_counts_products_transforms_and_weights(tile: int) -> None:
    """Against the sums written out for an 8x8 image: 64, 16 and 4 tiles of 9, 16 and 36 products."""
    tiles, points = {0: (64, 9), 2: (16, 16), 4: (4, 36)}[tile]
    transforms = 0 if tile == 0 else points * tiles * TRANSFORM_COST * (5 + 7)
    expected = points * tiles * 35 + transforms + points * 35 * WEIGHT_COST / 8
    assert method_costs(8, 8, 5, 7)[tile] == pytest.approx(expected)
