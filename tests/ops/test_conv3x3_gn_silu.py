"""conv3x3_gn_silu: forward and backward of every implementation against float64, and its contract with torch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mrsi_fast import ops
from mrsi_fast.ops import _native, conv3x3_gn_silu
from mrsi_fast.ops.conv3x3_gn_silu import TRANSFORM_COST, WEIGHT_COST, cheapest_method, method_costs
from support.compare import assert_as_accurate, relative_l2
from support.kernels import mapped, usable_isas, using, with_gradients
from support.terms import conv_terms, winograd_growth

OP = torch.ops.mrsi_fast.conv3x3_gn_silu.default
ISAS = usable_isas()
SHAPES = [  # batch, in, out, height, width, groups
    (1, 16, 16, 1, 2, 1),
    (2, 5, 7, 3, 2, 1),
    (1, 36, 20, 9, 13, 4),
    (3, 33, 17, 6, 6, 3),
    (2, 96, 96, 32, 32, 6),
    (1, 160, 256, 8, 8, 10),
]


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


def growth(inputs: list, how: str) -> tuple[float, float]:
    """How much more than a direct convolution the method that is chosen for these inputs may err."""
    x, weight = inputs[0], inputs[4]
    method = "direct" if how == "reference" else cheapest_method(*x.shape[2:], *weight.shape[1::-1])
    return winograd_growth({"direct": 0, "winograd2": 2, "winograd4": 4}[method])


@pytest.mark.parametrize("optional", [True, False], ids=["all", "bare"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_is_as_accurate_as_pytorch(how: str, shape, optional: bool) -> None:
    inputs = make_inputs(shape, optional)
    truth = eager(*mapped(inputs, Tensor.double))
    sizes, *_ = conv_terms(inputs, truth)
    assert_as_accurate(conv3x3_gn_silu(*inputs), eager(*inputs), truth, terms=sizes, growth=growth(inputs, how))


@pytest.mark.parametrize("isa", ISAS)
def test_a_mean_of_a_thousand_deviations_costs_no_accuracy(isa: str) -> None:
    """PyTorch's float32 GroupNorm cancels here, so it is no yardstick: the input's own rounding is."""
    inputs = make_inputs((2, 32, 16, 16, 16, 2), mean=1000.0)
    rounding = 1000 * 2.0**-24 / 3**0.5  # of a standard deviation, root mean square
    with using(isa):
        assert relative_l2(conv3x3_gn_silu(*inputs), eager(*mapped(inputs, Tensor.double))) < rounding


@pytest.mark.parametrize("optional", [True, False], ids=["all", "bare"])
@pytest.mark.parametrize("shape", SHAPES[:4], ids=str)
def test_gradients_are_as_accurate_as_pytorch(how: str, shape, optional: bool) -> None:
    inputs = make_inputs(shape, optional)
    grad = torch.randn(shape[0], shape[2], *shape[3:5])
    _, ours = with_gradients(conv3x3_gn_silu, inputs, grad)
    _, peer = with_gradients(eager, inputs, grad)
    _, truth = with_gradients(eager, mapped(inputs, Tensor.double), grad.double())
    _, *sizes = conv_terms(inputs, grad)
    for position, (one, same, true, size) in enumerate(zip(ours, peer, truth, sizes, strict=True)):
        what = f"gradient of tensor {position}"
        assert_as_accurate(one, same, true, what, terms=size, growth=growth(inputs, how))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("isa", ISAS)
def test_the_filters_gradient_is_laid_out_as_the_filters(isa: str, layout: torch.memory_format) -> None:
    """At a size where it is summed in several pieces; a gradient in another layout would be copied at each step."""
    inputs = make_inputs((3, 40, 64, 27, 31, 4), optional=False)
    inputs[4] = inputs[4].contiguous(memory_format=layout).requires_grad_()
    grad = torch.randn(3, 64, 27, 31)
    exact = mapped(inputs, lambda one: one.detach().double().requires_grad_())
    (truth,) = torch.autograd.grad(eager(*exact), exact[4], grad.double())
    (peer,) = torch.autograd.grad(eager(*inputs), inputs[4], grad)
    with using(isa):
        (ours,) = torch.autograd.grad(conv3x3_gn_silu(*inputs), inputs[4], grad)
    assert ours.stride() == inputs[4].stride()
    assert_as_accurate(ours, peer, truth, terms=conv_terms(mapped(inputs, Tensor.detach), grad)[4])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.integers(1, 15), st.integers(1, 15), st.booleans())
def test_any_shape(batch: int, c: int, k: int, height: int, width: int, optional: bool) -> None:
    inputs = make_inputs((batch, c, k, height, width, 1), optional)
    truth = eager(*mapped(inputs, Tensor.double))
    sizes, *_ = conv_terms(inputs, truth)
    how = ops.explain("conv3x3_gn_silu", *inputs).backend
    assert_as_accurate(conv3x3_gn_silu(*inputs), eager(*inputs), truth, terms=sizes, growth=growth(inputs, how))


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
    ("grid", "method"),
    [
        ((1, 1), "direct"),
        ((2, 2), "winograd2"),
        ((4, 4), "winograd4"),
        ((6, 6), "winograd2"),
        ((8, 8), "winograd4"),
        ((32, 32), "winograd4"),
        ((33, 33), "winograd4"),
    ],
)
def test_algorithm_has_the_fewest_multiplications_where_these_are_the_cost(grid: tuple[int, int], method: str) -> None:
    assert cheapest_method(*grid, 96, 96) == method


def test_with_few_channels_the_transforms_do_not_pay() -> None:
    assert cheapest_method(32, 32, 2, 3) == "direct"


@pytest.mark.parametrize("method", ["direct", "winograd2", "winograd4"])
def test_cost_counts_products_transforms_and_weights(method: str) -> None:
    """Against the sums written out for an 8x8 image: 64, 16 and 4 tiles of 9, 16 and 36 products."""
    tiles, points = {"direct": (64, 9), "winograd2": (16, 16), "winograd4": (4, 36)}[method]
    transforms = 0 if method == "direct" else points * tiles * TRANSFORM_COST * (5 + 7)
    expected = points * tiles * 35 + transforms + points * 35 * WEIGHT_COST / 8
    assert method_costs(8, 8, 5, 7)[method] == pytest.approx(expected)
