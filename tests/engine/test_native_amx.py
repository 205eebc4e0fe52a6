"""The engine "native-amx" against float64: single convolutions of all kinds, whole runs, and what changes no bit."""

import copy
import ctypes
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mrsi_fast.engine.choose import choose_engine
from mrsi_fast.engine.eager import EagerEngine
from mrsi_fast.engine.job import EngineError, SamplingJob
from mrsi_fast.engine.native import NativeEngine, NativePlan, amx_obstacle
from mrsi_fast.engine.plan import ConvOp
from mrsi_fast.ops import _native
from support.networks import CASES, random_denoiser, random_job

CPU = torch.device("cpu")
needs_amx = pytest.mark.skipif(amx_obstacle() is not None, reason=str(amx_obstacle()))


@pytest.fixture(scope="module")
def denoiser():
    return random_denoiser()


def convolve(x, weight, stride=1, threads=1, bias=None, residual=None):
    """One convolution of a plan on pairs of bfloat16; x [B, C, H, W], weight [K, C, k, k]."""
    batch, inputs, height, width = x.shape
    outputs, _, kernel, _ = weight.shape
    rows, columns = (height - 1) // stride + 1, (width - 1) // stride + 1
    sizes = [x.numel(), batch * outputs * rows * columns]
    plan = _native.module().Plan(sizes[0] + 2 * sizes[1], 0, threads)
    spec = _native.struct(
        "ConvSpec",
        sources=[_native.struct("SourceSpec", data=0, channels=inputs)],
        **{"batch": batch, "height": height, "width": width, "kernel": kernel, "stride": stride},
        out_channels=outputs,
        method=_native.conv_method("pairs"),
        weight=weight.data_ptr(),
        bias=_native.address(bias),
        residual=-1 if residual is None else sum(sizes),
        out=sizes[0],
    )
    plan.add_conv(spec)
    assert [one.kernels for one in plan.operations()] == ["amx"]
    floats = ctypes.c_float * (sizes[0] + 2 * sizes[1])
    arena = torch.from_numpy(np.ctypeslib.as_array(floats.from_address(plan.arena)))
    arena[: sizes[0]] = x.permute(0, 2, 3, 1).reshape(-1)
    if residual is not None:
        arena[sum(sizes) :] = residual.permute(0, 2, 3, 1).reshape(-1)
    plan.evaluate(0)
    return arena[sizes[0] : sum(sizes)].view(batch, rows, columns, outputs).permute(0, 3, 1, 2).clone()


SHAPES = [  # batch, channels in and out, height, width, kernel, stride
    (1, 1, 1, 1, 1, 3, 1),
    (2, 33, 5, 7, 13, 3, 1),
    (3, 64, 40, 8, 8, 3, 1),
    (1, 96, 32, 32, 30, 3, 1),
    (2, 70, 33, 9, 5, 3, 2),
    (1, 32, 64, 16, 17, 3, 2),
    (2, 40, 96, 6, 11, 1, 1),
    (9, 32, 16, 4, 4, 3, 1),
]


@needs_amx
@pytest.mark.parametrize("shape", SHAPES, ids=lambda one: "-".join(map(str, one)))
@pytest.mark.parametrize("extras", [False, True])
def test_a_convolution_keeps_sixteen_bits(shape, extras):
    batch, inputs, outputs, height, width, kernel, stride = shape
    torch.manual_seed(1)
    x = torch.randn(batch, inputs, height, width)
    weight = torch.randn(outputs, inputs, kernel, kernel) / (kernel * inputs**0.5)
    exact = F.conv2d(x.double(), weight.double(), stride=stride, padding=kernel // 2)
    bias = torch.randn(outputs) if extras else None
    residual = torch.randn(exact.shape) if extras else None
    if extras:
        exact = exact + bias.double()[:, None, None] + residual.double()
    found = convolve(x, weight, stride, 1, bias, residual)
    # A value is off by 2^-17 at most, a product by 2^-18 as a rule, with either sign. Of independent errors F(4,3)
    # makes up to 5.6 times as much (rows of its matrices, white input): its bar is two bits wider.
    bar = 2.0**-15 if (kernel, stride) == (3, 1) else 2.0**-17
    magnitude = F.conv2d(x.double() ** 2, weight.double() ** 2, stride=stride, padding=kernel // 2) ** 0.5
    assert ((found - exact).abs() / (magnitude + 0.1)).max() < 8 * bar
    assert (found - exact).norm() / exact.norm() < bar
    assert torch.equal(found, convolve(x, weight, stride, 2, bias, residual))


@needs_amx
def test_values_of_one_bfloat16_are_multiplied_exactly():
    torch.manual_seed(2)
    x, weight = torch.randint(-64, 65, (1, 64, 4, 8)).float(), torch.randint(-64, 65, (32, 64, 1, 1)).float()
    assert torch.equal(convolve(x, weight), F.conv2d(x.double(), weight.double()).float())


@needs_amx
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so_and_where_it_is(value):
    torch.manual_seed(3)
    x, weight = torch.randn(2, 32, 12, 12), torch.randn(32, 32, 3, 3)
    clean = convolve(x, weight)
    x[0, 5, 2, 2] = value
    found = convolve(x, weight)
    assert not found[0, :, 1:4, 1:4].isfinite().any()
    assert torch.equal(found[1], clean[1]) and torch.equal(found[0, :, 4:], clean[0, :, 4:])


@needs_amx
@pytest.mark.parametrize(("solver", "batch", "grid", "projection"), CASES)
def test_a_run_stays_within_the_bar_of_float64(denoiser, solver, batch, grid, projection):
    job = random_job(7, solver, 4, batch, projection=projection, grid=grid)
    exact = EagerEngine(copy.deepcopy(denoiser).double(), CPU, "").run(job)
    final = NativeEngine(denoiser, "test", threads=2, pairs=True).run(job)
    error = (final - exact).abs().amax((2, 3)) / exact.abs().amax((2, 3))
    assert error.max() < 2e-4
    assert error.max() > 1e-7  # or it would not be this engine that ran


@needs_amx
def test_threads_batch_and_repetition_change_no_bit(denoiser):
    job = random_job(7, steps=4, batch=3, grid=(24, 20))
    engine = NativeEngine(denoiser, "test", threads=1, pairs=True)
    final = engine.run(job)
    assert torch.equal(final, engine.run(job))
    assert torch.equal(final, NativeEngine(denoiser, "test", threads=2, pairs=True).run(job))
    for index in range(3):
        row = slice(index, index + 1)
        alone = SamplingJob(job.cond.map(lambda t, row=row: t[row]), job.initial[row], job.steps)
        assert torch.equal(engine.run(alone)[0], final[index])


@needs_amx
@pytest.mark.parametrize(("batch", "threads"), list(itertools.product((1, 8), (1, 2))))
def test_every_convolution_of_a_plan_is_made_of_pairs(denoiser, batch, threads):
    plan = NativePlan(denoiser.network, batch, (16, 16), threads, pairs=True)
    called = [one for one in plan.native.operations() if one.kind == "convolution"]
    assert len(called) == sum(isinstance(one, ConvOp) for one in plan.plan.operations)
    assert {(one.kernels, one.method.name) for one in called} == {("amx", "pairs")}


@needs_amx
def test_auto_takes_it_and_it_says_what_it_is(denoiser):
    engine = choose_engine("auto", denoiser, CPU).engine
    assert engine.name == "native-amx"
    engine.run(random_job(7, steps=4, batch=1, grid=(16, 16)))
    assert all("bfloat16" in line for line in engine.details())


def test_without_amx_one_sentence_says_so(denoiser, monkeypatch):
    if _native.module() is None:
        pytest.skip(_native.reason())
    monkeypatch.setattr(_native, "module", lambda: type("Extension", (), {"has_pairs": lambda self: False})())
    monkeypatch.setattr(_native, "lacks", lambda function: None)
    with pytest.raises(EngineError, match="native-amx engine cannot run here: it needs AMX in.*use engine"):
        choose_engine("native-amx", denoiser, CPU)
