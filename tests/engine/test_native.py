"""The native engine against eager float64: numbers, determinism, and how a run is stopped."""

import copy
import os
import signal

import pytest
import torch

from mrsi_fast.engine.eager import EagerEngine
from mrsi_fast.engine.job import SamplingJob
from mrsi_fast.engine.native import PLANS, NativeEngine, NativePlan, convolution_method
from mrsi_fast.engine.plan import AttentionOp
from mrsi_fast.ops import _native
from support.networks import CASES, random_denoiser, random_job

native = _native.module()
pytestmark = pytest.mark.skipif(native is None, reason=_native.reason())


@pytest.fixture(scope="module")
def denoiser():
    return random_denoiser()


@pytest.mark.parametrize("isa", native.usable_isas() if native else [])
@pytest.mark.parametrize(("solver", "batch", "grid", "projection"), CASES)
def test_run_agrees_with_float64(denoiser, solver, batch, grid, projection, isa):
    job = random_job(7, solver, 4, batch, projection=projection, grid=grid)
    exact = EagerEngine(copy.deepcopy(denoiser).double(), torch.device("cpu"), "").run(job)
    before = native.use_isa(isa)
    try:
        final = NativeEngine(denoiser, "test", threads=2).run(job)
    finally:
        native.use_isa(before)
    error = (final - exact).abs().amax((2, 3)) / exact.abs().amax((2, 3))
    assert error.max() < 2e-5
    if projection is not None:
        assert projection.forward(final.double()).abs().max() < 1e-5 * final.abs().max()


def test_threads_batch_and_repetition_change_no_bit(denoiser):
    job = random_job(7, steps=4, batch=3, grid=(24, 20))
    engine = NativeEngine(denoiser, "test", threads=1)
    final = engine.run(job)
    assert torch.equal(final, engine.run(job))
    assert torch.equal(final, NativeEngine(denoiser, "test", threads=2).run(job))
    for index in range(3):
        row = slice(index, index + 1)
        alone = SamplingJob(job.cond.map(lambda t, row=row: t[row]), job.initial[row], job.steps)
        assert torch.equal(engine.run(alone)[0], final[index])


def test_plans_of_other_batch_sizes_share_the_weights_and_are_few(denoiser):
    engine = NativeEngine(denoiser, "test", threads=1)
    first = engine.run(random_job(7, steps=4, batch=2, grid=(16, 8)))
    held = engine.plan.native.weight_bytes
    for batch in (1, 3):
        engine.run(random_job(7, steps=4, batch=batch, grid=(16, 8)))
    assert engine.plan.native.weight_bytes < 1.01 * held  # the new plans have biases and gains of their own
    assert list(engine.plans) == [(2, (16, 8)), (1, (16, 8)), (3, (16, 8))]
    engine.run(random_job(7, steps=4, batch=1, grid=(16, 8)))
    for width in range(1, PLANS - 1):
        engine.run(random_job(7, steps=1, batch=1, grid=(8, 8 * width)))
    assert len(engine.plans) == PLANS and (2, (16, 8)) not in engine.plans  # the one not used for longest
    assert torch.equal(first, engine.run(random_job(7, steps=4, batch=2, grid=(16, 8))))


def test_details_give_the_method_of_each_convolution_and_what_the_others_cost(denoiser):
    engine = NativeEngine(denoiser, "test", threads=1)
    assert "chosen when" in engine.details()[0]
    engine.run(random_job(7, steps=4, batch=1, grid=(16, 24)))
    lines = engine.details()
    assert len(set(lines)) == len(lines) > 3
    line = next(line for line in lines if "32 -> 32 on 8x12" in line)
    assert "Winograd F(4x4,3x3), 0.4 million" in line and "direct 0.9" in line


@pytest.mark.parametrize("isa", native.usable_isas() if native else [])
def test_a_plan_holds_the_kernels_and_methods_that_were_asked_for(denoiser, isa):
    before = native.use_isa(isa)
    try:
        plan = NativePlan(denoiser.network, 1, (16, 24), threads=1)
    finally:
        native.use_isa(before)
    held = {one.name: one for one in plan.native.operations()}
    assert {one.kernels for one in held.values()} == {isa}
    for operation in plan.plan.operations:
        if isinstance(operation, AttentionOp):
            assert held[operation.name].kind == "self-attention"
            continue
        found, conv = held[operation.name], operation.conv
        assert (found.height, found.width) == operation.grid
        assert (found.in_channels, found.out_channels) == (conv.in_channels, conv.out_channels)
        assert (found.kernel, found.stride) == (conv.kernel_size[0], conv.stride[0])
        assert found.method.name == convolution_method(conv, *operation.grid)
    assert {one.method.name for one in held.values()} == {"direct", "winograd2", "winograd4"}


def test_a_field_that_does_not_exist_is_refused():
    with pytest.raises(AttributeError):
        _native.struct("ConvSpec", tile=4)


def test_a_long_chain_is_the_same_in_pieces(denoiser, monkeypatch):
    job = random_job(7, "ddpm", 7, 1, grid=(16, 8))
    whole = NativeEngine(denoiser, "test", threads=1).run(job)
    monkeypatch.setattr("mrsi_fast.engine.native.FILM_STEPS", 3)
    assert torch.equal(whole, NativeEngine(denoiser, "test", threads=1).run(job))


def test_progress_counts_every_evaluation(denoiser):
    seen = []
    NativeEngine(denoiser, "test").run(
        random_job(7, steps=4, batch=1, grid=(8, 8), on_step=lambda done, total: seen.append((done, total)))
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_an_exception_from_on_step_ends_the_run_and_the_engine_stays_usable(denoiser):
    engine, seen = NativeEngine(denoiser, "test"), []

    def stop(done, total):
        seen.append(done)
        if done == 2:
            raise TimeoutError("enough")

    with pytest.raises(TimeoutError, match="enough"):
        engine.run(random_job(7, steps=4, batch=1, grid=(8, 8), on_step=stop))
    assert seen == [1, 2]
    assert torch.equal(
        engine.run(random_job(7, steps=4, batch=1, grid=(8, 8))),
        NativeEngine(denoiser, "test").run(random_job(7, steps=4, batch=1, grid=(8, 8))),
    )


def test_ctrl_c_ends_a_run_within_one_step(denoiser):
    seen = []

    def interrupt(done, total):
        seen.append(done)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        NativeEngine(denoiser, "test").run(random_job(7, steps=4, batch=1, grid=(8, 8), on_step=interrupt))
    assert seen == [1]


def test_a_plan_serves_one_run_at_a_time(denoiser):
    engine = NativeEngine(denoiser, "test")

    def enter_again(done, total):
        engine.plan.native.evaluate(0)

    with pytest.raises(RuntimeError, match="running in another thread"):
        engine.run(random_job(7, steps=4, batch=1, grid=(8, 8), on_step=enter_again))


def test_ancestral_sampling_without_noise_says_so(denoiser):
    job = random_job(7, "ddpm", 4, 1, grid=(8, 8))
    with pytest.raises(ValueError, match="step_noise"):
        NativeEngine(denoiser, "test").run(SamplingJob(job.cond, job.initial, job.steps))
