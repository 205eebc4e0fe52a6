"""Every CUDA and Triton kernel on a GPU against float64, PyTorch in the same dtype as the yardstick."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mrsi_fast import ops
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.ops.reference import group_norm_silu as norm_reference
from mrsi_fast.ops.reference import self_attention as attention_reference
from mrsi_fast.ops.reference import solver_step as solver_reference
from support.compare import assert_as_accurate
from support.shapes import AWKWARD_MAPS, MapShape, model_maps

SLOW = pytest.mark.slow
"""Left out where a GPU is lent for minutes (``make gpu-record``): Triton compiles for each shape and type."""
DTYPES = [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=SLOW)]
LARGE = MapShape("two kernels", 2, 96, 64, 64, 6)
AWKWARD = [one for one in AWKWARD_MAPS if one.width * one.height > 1]
MAPS = [*model_maps(batch=2), LARGE, *(pytest.param(one, marks=SLOW) for one in AWKWARD)]
HALVES = DTYPES[1:]
TOKENS = [(2, 256, 5, 32), (8, 64, 8, 32)]
ALL_TOKENS = [*TOKENS, *(pytest.param(one, marks=SLOW) for one in [(2, 100, 2, 64), (1, 1024, 1, 64), (1, 1, 1, 32)])]


def norm_inputs(shape: MapShape, dtype: torch.dtype, device: torch.device, mean: float = 0.5) -> list:
    batch, channels = shape.batch, shape.channels

    def vector(*sizes: int) -> Tensor:
        return torch.randn(*sizes).to(device, dtype)

    x = (mean + 2 * torch.randn(shape.size)).to(device, dtype).contiguous(memory_format=torch.channels_last)
    films = [0.5 * vector(batch, channels) for _ in range(2)]
    return [x, 1 + 0.3 * vector(channels), vector(channels), shape.groups, *films, 1e-5]


def widened(inputs: list) -> list:
    return [one.double() if isinstance(one, Tensor) else one for one in inputs]


def run_norm(inputs: list, backend: str, **folded: Tensor) -> Tensor:
    out = torch.full_like(inputs[0], float("nan"))
    with ops.override(backend):
        torch.ops.mrsi_fast.group_norm_silu_out(*inputs, out, **folded)
    return out


@pytest.mark.parametrize("backend", ["cuda", "triton"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", MAPS, ids=lambda shape: shape.name)
def test_group_norm_silu(device, shape, dtype, backend):
    inputs = norm_inputs(shape, dtype, device)
    truth = norm_reference.group_norm_silu(*widened(inputs))
    peer = norm_reference.group_norm_silu(*inputs)
    out = run_norm(inputs, backend)
    assert_as_accurate(out, peer, truth)
    assert torch.equal(out, run_norm(inputs, backend))  # sums have a fixed order


@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_group_norm_silu_adds_the_bias_of_the_convolution(device, backend):
    inputs = norm_inputs(model_maps(2)[0], torch.float16, device)
    folded = {"conv_bias": torch.randn(96).to(device, torch.float16)}
    folded["embedding"] = torch.randn(2, 96).to(device, torch.float16)
    wide = {name: one.double() for name, one in folded.items()}
    truth = norm_reference.group_norm_silu(*widened(inputs), **wide)
    peer = norm_reference.group_norm_silu(*inputs, **folded)
    assert_as_accurate(run_norm(inputs, backend, **folded), peer, truth)


@pytest.mark.parametrize("backend", ["cuda", "triton"])
@pytest.mark.parametrize("shape", [model_maps(2)[0], LARGE], ids=lambda shape: shape.name)
def test_a_mean_of_1000_standard_deviations_costs_no_digits(device, shape, backend):
    inputs = norm_inputs(shape, torch.float32, device, mean=2000.0)
    truth = norm_reference.group_norm_silu(*widened(inputs))
    if device.type == "cuda":
        assert (run_norm(inputs, backend).double() - truth).abs().max() < 2e-5
    else:
        assert_as_accurate(run_norm(inputs, backend), norm_reference.group_norm_silu(*inputs), truth)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", model_maps(2), ids=lambda shape: shape.name)
def test_group_norm_silu_backward(device, shape, dtype):
    inputs = norm_inputs(shape, dtype, device)
    grad = torch.randn(shape.size).to(device, dtype).contiguous(memory_format=torch.channels_last)
    with ops.override("triton"):
        ours = torch.ops.mrsi_fast.group_norm_silu_backward(grad, *inputs)
    truth = norm_reference.group_norm_silu_backward(grad.double(), *widened(inputs))
    peer = norm_reference.group_norm_silu_backward(grad, *inputs)
    for name, one, same, true in zip(("x", "weight", "bias", "scale", "shift"), ours, peer, truth, strict=True):
        assert_as_accurate(one, same, true, name, terms=true.abs() + true.abs().mean(), factor=4)


def packed(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    samples, tokens, heads, head_size = shape
    return torch.randn(samples, tokens, 3, heads, head_size).to(device, dtype)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("shape", ALL_TOKENS, ids=str)
def test_self_attention(device, shape, dtype):
    qkv = packed(shape, dtype, device)
    truth = attention_reference.self_attention(qkv.double(), shape[-1] ** -0.5)
    peer = attention_reference.self_attention(qkv, shape[-1] ** -0.5)
    with ops.override("triton"):
        out, again = ops.self_attention(qkv), ops.self_attention(qkv)
    assert_as_accurate(out, peer, truth)
    assert torch.equal(out, again)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("shape", ALL_TOKENS[:3], ids=str)
def test_self_attention_backward(device, shape, dtype):
    qkv = packed(shape, dtype, device)
    grad = torch.randn(*shape).to(device, dtype)
    scale = shape[-1] ** -0.5
    with ops.override("triton"):
        ours = torch.ops.mrsi_fast.self_attention_backward(grad, qkv, scale)
    (truth,) = attention_reference.self_attention_backward(grad.double(), qkv.double(), scale)
    (peer,) = attention_reference.self_attention_backward(grad, qkv, scale)
    assert_as_accurate(ours, peer, truth, terms=truth.abs() + truth.abs().mean(), factor=4)


@pytest.mark.parametrize(
    "acquisition", [None, Acquisition((16, 16), (4, 4)), Acquisition((8, 8), (8, 8), support="ellipse")], ids=str
)
def test_solver_step(device, acquisition):
    base, now, prev, noise = torch.randn(4, 2, 8, 64, 64).to(device)
    coefficients, step = torch.randn(3, 4).to(device), torch.tensor([2], device=device)
    matrices = (None, None, None)
    if acquisition is not None:
        modes = acquisition.modes(torch.float32, device)
        matrices = (modes.hr_x.contiguous(), modes.hr_y.contiguous(), modes.kept)
    inputs = [base, now, prev, noise, coefficients, step, *matrices]
    wide = [one.double() if isinstance(one, Tensor) and one.is_floating_point() else one for one in inputs]
    with ops.override("cuda"):
        out = ops.solver_step(*inputs)
    truth = solver_reference.solver_step(*wide)
    assert_as_accurate(out, solver_reference.solver_step(*inputs), truth, terms=1 + truth.abs())


def test_float32_attention_stays_with_the_reference(device):
    choice = ops.explain("self_attention", packed((1, 64, 2, 32), torch.float32, device), 32**-0.5)
    assert choice.backend == "reference"
