"""The captured sampling loop on CPU tensors: replay by a CUDA graph's rules, against the same loop run directly."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mrsi_fast.diffusion.solvers import make_steps
from mrsi_fast.engine import cuda_graph
from mrsi_fast.engine.cuda_graph import CapturedLoop, CudaGraphEngine, DirectCalls, NoiseFeed
from mrsi_fast.engine.eager import EagerEngine
from mrsi_fast.mrsi.forward import Acquisition
from support.capture import ReplayGraph
from support.networks import SIGMA_START, random_denoiser, random_job

CPU = torch.device("cpu")
X2 = Acquisition((8, 8), (2, 2))
ELLIPSE = Acquisition((4, 4), (4, 4), support="ellipse")


@pytest.fixture
def denoiser():
    return random_denoiser()


@pytest.mark.parametrize("solver, count", [("dpmpp_2m", 8), ("heun", 4), ("ddpm", 8), ("ddim", 18)])
def test_replay_equals_direct_calls_bit_for_bit(denoiser, solver, count):
    replayed = CudaGraphEngine(denoiser, CPU, "test", graph=ReplayGraph)
    direct = CudaGraphEngine(denoiser, CPU, "test", graph=DirectCalls)
    results = []
    for seed in (1, 2):  # the second input meets the graph that the first one captured
        job = random_job(seed, solver, count, projection=X2)
        results.append(replayed.run(job))
        assert torch.equal(results[-1], direct.run(job))
    assert len(replayed.loops) == 1 and not torch.equal(*results)


@pytest.mark.parametrize("where", [{"projection": X2}, {"projection": ELLIPSE}, {"grid": (13, 18)}], ids=str)
@pytest.mark.parametrize("solver, count", [("dpmpp_2m", 8), ("heun", 4), ("ddpm", 18), ("ddim", 1)])
def test_equals_the_eager_engine(denoiser, solver, count, where):
    job = random_job(3, solver, count, **where)
    wanted = EagerEngine(denoiser, CPU, "test").run(job)
    result = CudaGraphEngine(denoiser, CPU, "test", graph=DirectCalls).run(job)
    # Roundings of float32, which a step multiplies by what the solver and the network make of them; the absent last
    # map means nothing.
    assert (result - wanted)[:, :-1].abs().max() <= 2e-5 * wanted[:, :-1].abs().max()


def test_half_precision_weights_keep_a_float32_state():
    job = random_job(3, projection=X2)
    wanted = EagerEngine(random_denoiser(), CPU, "test").run(job)
    engine = CudaGraphEngine(random_denoiser(), CPU, "test", graph=DirectCalls, dtype=torch.float16)
    result = engine.run(job)
    (loop,) = engine.loops.values()
    assert loop.stem.dtype == loop.films.dtype == torch.float16
    assert loop.state.dtype == loop.factors.dtype == result.dtype == torch.float32
    error = (result - wanted)[:, :-1].norm() / wanted[:, :-1].norm()
    assert 1e-6 < error < 8 * 2.0**-11  # eight steps of a network that rounds to 11 bits; more would be a lost digit


def test_short_chains_are_one_graph_and_long_ones_replay_a_step(denoiser):
    for count, expected in [(8, 8), (cuda_graph.MAX_UNROLLED_STEPS + 1, 1)]:
        assert CapturedLoop(denoiser, random_job(1, steps=count), DirectCalls()).steps_per_replay == expected
    assert CapturedLoop(denoiser, random_job(1, "ddpm"), DirectCalls()).steps_per_replay == 1


def test_a_long_chain_reads_its_tables_piece_by_piece(denoiser):
    loop = CapturedLoop(denoiser, random_job(1, "ddpm", 200), DirectCalls())
    assert len(loop.films) == len(loop.coefficients) == cuda_graph.MAX_UNROLLED_STEPS


def test_chains_of_one_kind_share_a_graph_whatever_their_length_beyond_the_tables(denoiser):
    engine = CudaGraphEngine(denoiser, CPU, "test", graph=DirectCalls)
    for count in (20, 35):
        job = random_job(4, "ddim", count)
        wanted = EagerEngine(denoiser, CPU, "test").run(job)
        assert (engine.run(job) - wanted)[:, :-1].abs().max() <= 2e-5 * wanted.abs().max()
    assert len(engine.loops) == 1


def test_a_bounded_number_of_graphs_is_kept_the_latest_used(denoiser):
    engine = CudaGraphEngine(denoiser, CPU, "test", graph=DirectCalls)
    for count in (2, 3, 4, 5, 2, 6):
        engine.run(random_job(1, steps=count))
    assert [len(loop.films) for loop in engine.loops.values()] == [4, 5, 2, 6]
    assert len(engine.loops) == cuda_graph.MAX_GRAPHS


def test_solvers_that_read_other_things_do_not_share_a_loop(denoiser):
    engine = CudaGraphEngine(denoiser, CPU, "test", graph=ReplayGraph)
    for solver, count in (("dpmpp_2m", 7), ("heun", 4), ("ddim", 7), ("ddpm", 7)):  # seven evaluations each
        job = random_job(2, solver, count)
        wanted = EagerEngine(denoiser, CPU, "test").run(job)
        assert (engine.run(job) - wanted)[:, :-1].abs().max() <= 2e-5 * wanted.abs().max()
    assert len(engine.loops) == 4


def test_progress_and_missing_noise(denoiser):
    seen = []
    job = random_job(1, "ddpm", 4)
    job = dataclasses.replace(job, on_step=lambda done, total: seen.append((done, total)))
    engine = CudaGraphEngine(denoiser, CPU, "test", graph=DirectCalls)
    engine.run(job)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    with pytest.raises(ValueError, match="step_noise"):
        engine.run(dataclasses.replace(job, step_noise=None))


def test_a_noise_buffer_is_filled_again_only_when_its_copy_has_left():
    log = []

    class Event:
        def __init__(self):
            self.name = f"event{sum(entry[0] == 'made' for entry in log)}"
            log.append(("made", self.name))

        def synchronize(self):
            log.append(("wait", self.name))

        def record(self):
            log.append(("record", self.name))

    target = torch.zeros(3)
    feed = NoiseFeed(target, Event)
    for index in range(3):
        feed.send(torch.full((3,), float(index)))
        assert torch.equal(target, torch.full((3,), float(index)))
    assert feed.buffers[0].data_ptr() != feed.buffers[1].data_ptr()
    turns = [("wait", "event0"), ("record", "event0"), ("wait", "event1"), ("record", "event1")]
    assert log[2:] == [*turns, ("wait", "event0"), ("record", "event0")]


def test_a_failed_capture_falls_back_to_the_loop_without_a_graph(denoiser):
    class Failing:
        def capture(self, function, reset):
            raise RuntimeError("out of memory in the pool")

    engine = CudaGraphEngine(denoiser, CPU, "test", graph=Failing)
    with pytest.warns(UserWarning, match="out of memory in the pool"):
        result = engine.run(random_job(1))
    assert "capture failed" in engine.reason
    assert torch.equal(result, CudaGraphEngine(denoiser, CPU, "test", graph=DirectCalls).run(random_job(1)))


def test_convolutions_are_chosen_by_rule_while_the_engine_runs_and_as_before_afterwards(denoiser, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    seen = []
    job = dataclasses.replace(
        random_job(1, steps=1),
        on_step=lambda done, total: seen.append((torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic)),
    )
    CudaGraphEngine(denoiser, CPU, "test", graph=DirectCalls).run(job)
    assert seen == [(False, True)]
    assert torch.backends.cudnn.benchmark and not torch.backends.cudnn.deterministic


def test_an_empty_batch_is_an_empty_result(denoiser):
    job = random_job(1, batch=0)
    assert CudaGraphEngine(denoiser, CPU, "test", graph=DirectCalls).run(job).shape == job.initial.shape


def test_the_engine_says_why_it_cannot_run(denoiser):
    assert "cpu" in cuda_graph.obstacle(CPU)
    with pytest.raises(TypeError, match="SelfAttentionUNet, not a Linear"):
        denoiser.network = torch.nn.Linear(2, 2)
        CapturedLoop(denoiser, random_job(1), DirectCalls())


def test_one_step_is_the_denoiser_itself(denoiser):
    job = random_job(7, steps=1)
    assert job.steps == make_steps("dpmpp_2m", (SIGMA_START, 0.0))
    with torch.inference_mode():
        wanted = denoiser(job.initial, SIGMA_START, job.cond)
    result = CudaGraphEngine(denoiser, CPU, "test", graph=ReplayGraph).run(job)
    assert (result - wanted)[:, :-1].abs().max() <= 2e-5 * wanted.abs().max()
