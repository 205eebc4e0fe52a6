"""Mean and spread from one evaluation: every engine against the network in float64."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from mrsi_fast.diffusion.denoiser import LOG_SD_RANGE, Denoiser, standard_deviation
from mrsi_fast.engine.cuda_graph import CudaGraphEngine
from mrsi_fast.engine.eager import CompileEngine, EagerEngine
from mrsi_fast.engine.job import Engine, Estimate, SamplingJob, one_step_job
from mrsi_fast.engine.native import NativeEngine, amx_obstacle
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.ops import _native
from support.capture import ReplayGraph
from support.networks import SMALL, random_job, random_network

CPU = torch.device("cpu")
CASES = [
    (2, (16, 16), None),
    (1, (13, 22), None),
    (3, (7, 5), None),
    (2, (20, 28), Acquisition((5, 7), (4, 4), support="ellipse")),
]


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    network = random_network(SMALL.model_copy(update={"spread": True}))
    with torch.no_grad():  # some values reach past both ends of the range
        network.spread.weight.mul_(6)
        network.spread.bias.add_(torch.linspace(-6, 2, len(network.spread.bias)))
    return Denoiser(network, sigma_max=20.0, sigma_min=0.02).eval().requires_grad_(False)


def reference(denoiser: Denoiser, job: SamplingJob) -> Estimate:
    """By the definition, in float64: the denoiser's estimate and exp of what the second head says."""
    exact, cond = copy.deepcopy(denoiser).double(), job.cond.map(torch.Tensor.double)
    label = torch.full((len(cond.z),), exact.sigma_max, dtype=torch.float64).log() / 4
    with torch.no_grad():
        mean, log_sd = exact.network.with_spread(torch.zeros_like(cond.z), label, cond)
        mean = mean * exact.sigma_max / (exact.sigma_max**2 + 1) ** 0.5
        mean = mean if job.projection is None else job.projection.null(mean)
    low, high = LOG_SD_RANGE
    assert log_sd.min() < low and log_sd.max() > high
    return Estimate(mean, log_sd.clamp(low, high).exp())


def check(found: Estimate, exact: Estimate, bar: float) -> None:
    for one, other in ((found.mean, exact.mean), (found.sd, exact.sd)):
        assert one.dtype == torch.float32 and one.shape == other.shape
        assert ((one - other).abs().amax((2, 3)) / other.abs().amax((2, 3))).max() < bar


def eager(denoiser: Denoiser) -> Engine:
    return EagerEngine(copy.deepcopy(denoiser), CPU, "test")


def compiled(denoiser: Denoiser) -> Engine:
    return CompileEngine(copy.deepcopy(denoiser), CPU, "test")


def replayed(denoiser: Denoiser) -> Engine:
    return CudaGraphEngine(copy.deepcopy(denoiser), CPU, "test", graph=ReplayGraph)


def native(denoiser: Denoiser) -> Engine:
    if _native.module() is None:
        pytest.skip(_native.reason())
    return NativeEngine(denoiser, "test", threads=2)


def native_amx(denoiser: Denoiser) -> Engine:
    if amx_obstacle() is not None:
        pytest.skip(str(amx_obstacle()))
    return NativeEngine(denoiser, "test", threads=2, pairs=True)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize(("make", "bar"), [(eager, 2e-5), (replayed, 2e-5), (native, 2e-5), (native_amx, 2e-4)])
def test_one_evaluation_tells_mean_and_spread(denoiser, make, bar, case):
    batch, grid, projection = case
    job = random_job(7, steps=4, batch=batch, projection=projection, grid=grid)
    engine = make(denoiser)
    check(engine.estimate(job.cond, projection), reference(denoiser, job), bar)
    again = random_job(
        8, "ddim", 4, batch, projection=projection, grid=grid
    )  # another condition meets the same plan or graph
    again = dataclasses.replace(again, cond=again.cond.map(lambda tensor: tensor * 0.5))
    check(engine.estimate(again.cond, projection), reference(denoiser, again), bar)


@pytest.mark.slow
def test_the_compiled_engine_compiles_both_heads(denoiser):
    job = random_job(7, steps=4, batch=2, grid=(16, 16))
    check(compiled(denoiser).estimate(job.cond), reference(denoiser, job), 2e-5)


@pytest.mark.parametrize("isa", _native.module().usable_isas() if _native.module() else [])
def test_every_instruction_set_tells_the_spread(denoiser, isa):
    job, module = random_job(7, steps=4, batch=2, grid=(13, 9)), _native.module()
    before = module.use_isa(isa)
    try:
        check(native(denoiser).estimate(job.cond), reference(denoiser, job), 2e-5)
    finally:
        module.use_isa(before)


@pytest.mark.parametrize("make", [eager, replayed, native, native_amx])
def test_the_mean_is_that_of_a_run_of_one_step_and_runs_in_between_change_nothing(denoiser, make):
    engine, job = make(denoiser), random_job(7, steps=4, batch=2, grid=(13, 22))
    first = engine.estimate(job.cond)
    run = engine.run(one_step_job(job.cond, denoiser.sigma_max))
    assert (first.mean - run).abs().max() <= 2e-6 * run.abs().max()
    engine.run(job)
    again = engine.estimate(job.cond)
    assert torch.equal(first.mean, again.mean) and torch.equal(first.sd, again.sd)


@pytest.mark.parametrize("make", [eager, replayed, native, native_amx])
def test_a_network_of_one_head_tells_no_spread(make):
    one_head = Denoiser(random_network(), sigma_max=20.0, sigma_min=0.02).eval().requires_grad_(False)
    engine, job = make(one_head), random_job(7, steps=4, batch=2, grid=(13, 22))
    found = engine.estimate(job.cond)
    assert found.sd is None
    assert torch.equal(found.mean, engine.run(one_step_job(job.cond, one_head.sigma_max)))


@pytest.mark.parametrize("make", [eager, replayed, native])
def test_progress_is_told_once_and_can_cancel(denoiser, make):
    engine, cond, seen = make(denoiser), random_job(7, steps=4, batch=1, grid=(8, 8)).cond, []
    engine.estimate(cond, on_step=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 1)]

    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.estimate(cond, on_step=cancel)


def test_the_sampling_plan_does_not_compute_the_second_head(denoiser):
    engine, job = native(denoiser), random_job(7, steps=4, batch=1, grid=(16, 16))
    engine.run(job)
    names = [operation.name for operation in engine.plan.plan.operations] + ["heads", "solver"]
    seconds = dict(zip(names, engine.plan.native.take_seconds(), strict=True))
    assert seconds["head"] > 0 and seconds["heads"] == 0
    engine.estimate(job.cond)
    seconds = dict(zip(names, engine.plan.native.take_seconds(), strict=True))
    assert seconds["head"] == 0 and seconds["heads"] > 0


def test_a_plan_follows_conditions_and_projections_that_change(denoiser):
    """What a plan keeps from run to run must not be another run's."""
    engine = native(denoiser)
    hard = [Acquisition((5, 7), (4, 4), support="ellipse"), None, Acquisition((10, 14), (2, 2))]
    for turn, projection in enumerate([*hard, *hard]):
        job = random_job(turn, batch=2, grid=(20, 28))
        job = dataclasses.replace(job, projection=projection)
        check(engine.estimate(job.cond, projection), reference(denoiser, job), 2e-5)
        run = engine.run(job)
        assert torch.equal(run, native(denoiser).run(job))


def test_a_plan_without_the_head_refuses_to_tell_the_spread():
    module = _native.module()
    if module is None:
        pytest.skip(_native.reason())
    with pytest.raises(RuntimeError, match="no head for the spread"):
        module.Plan(64, 0, 1).run([], 0, lambda step: None, lambda step: None, True)


def test_the_range_is_the_same_in_every_implementation():
    assert standard_deviation(torch.tensor([-1e9, 1e9])).log().tolist() == pytest.approx(list(LOG_SD_RANGE))
