"""The captured sampling loop on CPU tensors: replay by a CUDA graph's rules, against the same loop run directly."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mrsi_fast.diffusion.denoiser import Denoiser
from mrsi_fast.diffusion.schedules import karras
from mrsi_fast.diffusion.solvers import make_steps
from mrsi_fast.engine import cuda_graph
from mrsi_fast.engine.cuda_graph import CapturedLoop, CudaGraphEngine, DirectCalls
from mrsi_fast.engine.eager import EagerEngine
from mrsi_fast.engine.job import SamplingJob
from mrsi_fast.models.condition import Condition, vector_width
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.testing.capture import CaptureError, ReplayGraph

MAPS, GRID = 2, (8, 8)
CPU = torch.device("cpu")


class Network(torch.nn.Module):
    """Small, but reads everything that the real one reads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(2 * MAPS + 1, MAPS, 3, padding=1)
        self.film = torch.nn.Linear(vector_width(MAPS) + 1, MAPS)

    def forward(self, x: torch.Tensor, label: torch.Tensor, cond: Condition) -> torch.Tensor:
        film = self.film(torch.cat([label[:, None], cond.vector], 1))[:, :, None, None]
        return torch.tanh(self.conv(torch.cat([x, cond.z * cond.mask, cond.anatomy], 1)) * (1 + film))


def make_job(seed: int, solver: str = "dpmpp_2m", count: int = 8, projected: bool = True) -> SamplingJob:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    cond = Condition(
        normal(3, MAPS, *GRID), torch.ones(3, MAPS, *GRID), normal(3, 1, *GRID), normal(3, vector_width(MAPS))
    )
    return SamplingJob(
        cond=cond,
        initial=20 * normal(3, MAPS, *GRID),
        steps=make_steps(solver, karras(count, 0.01, 20.0)),
        projection=Acquisition((4, 4), (2, 2)) if projected else None,
        step_noise=lambda index: torch.randn(3, MAPS, *GRID, generator=torch.Generator().manual_seed(seed + index)),
    )


@pytest.fixture
def denoiser() -> Denoiser:
    return Denoiser(Network(), sigma_max=20.0).eval().requires_grad_(False)


@pytest.mark.parametrize("solver, count", [("dpmpp_2m", 8), ("heun", 4), ("ddpm", 8), ("ddim", 18)])
def test_replay_equals_direct_calls_bit_for_bit(denoiser, solver, count):
    replayed = CudaGraphEngine(denoiser, CPU, "test", graph=ReplayGraph)
    direct = CudaGraphEngine(denoiser, CPU, "test", graph=DirectCalls)
    for seed in (1, 2):  # the second input meets the graph that the first one captured
        job = make_job(seed, solver, count)
        assert torch.equal(replayed.run(job), direct.run(job))
    assert len(replayed.loops) == 1


@pytest.mark.parametrize("projected", [True, False])
@pytest.mark.parametrize("solver", ["dpmpp_2m", "heun", "ddpm", "ddim"])
def test_equals_the_eager_engine(denoiser, solver, projected):
    job = make_job(3, solver, projected=projected)
    wanted = EagerEngine(denoiser, CPU, "test").run(job)
    result = CudaGraphEngine(denoiser, CPU, "test", graph=DirectCalls).run(job)
    torch.testing.assert_close(result, wanted, rtol=1e-4, atol=1e-4)


def test_short_chains_are_one_graph_and_long_ones_replay_a_step(denoiser):
    for count, expected in [(8, 8), (cuda_graph.MAX_UNROLLED_STEPS + 1, 1)]:
        assert CapturedLoop(denoiser, make_job(1, count=count), DirectCalls()).steps_per_replay == expected
    assert CapturedLoop(denoiser, make_job(1, "ddpm"), DirectCalls()).steps_per_replay == 1


def test_the_traced_first_and_last_step_are_the_same_calls(denoiser):
    loop = CapturedLoop(denoiser, make_job(1), DirectCalls())
    texts = []
    for index in (0, 7):
        loop.index.fill_(index)
        graph = ReplayGraph()
        graph.capture(loop.step, lambda: None)
        numbers = [[a for a in args if isinstance(a, (int, float))] for _, args, _, _ in graph.tape]
        texts.append([str(call) + str(n) for (call, *_), n in zip(graph.tape, numbers, strict=True)])
    assert texts[0] == texts[1] and len(texts[0]) > 10
    assert texts[0].count("mrsi_fast.solver_step_out.default[]") == 1


class Planted(CapturedLoop):
    """The loop with one fault in its step."""

    fault = ""
    counter = 0

    def step(self) -> None:
        if self.fault == "item" and float(self.sigmas[0]) < 0:
            return
        if self.fault == "host tensor":
            self.sigmas.mul_(torch.tensor([1.0]))
        if self.fault == "mask":
            self.state[self.state > 1e9] = 0.0
        if self.fault == "direct launch":
            _launches[0] += 1
        super().step()
        if self.fault == "baked index":
            self.state.mul_(1.0 + 0.01 * self.counter)  # a Python number of this step, frozen at capture
            self.counter += 1
        if self.fault == "rebinding":
            self.state = self.state + 0.0


_launches = [0]


@pytest.mark.parametrize("fault", ["item", "host tensor", "mask", "direct launch"])
def test_what_a_graph_cannot_hold_is_refused_at_capture(denoiser, fault):
    loop = Planted(denoiser, make_job(1), ReplayGraph(launch_count=lambda: _launches[0]))
    loop.fault = fault
    with pytest.raises(CaptureError):
        loop.run(make_job(1))


@pytest.mark.parametrize("fault", ["baked index", "rebinding"])
def test_what_a_graph_would_get_wrong_shows_in_the_result(denoiser, fault):
    results = []
    for graph in (ReplayGraph(), DirectCalls()):
        loop = Planted(denoiser, make_job(1, "ddpm"), graph)  # one step a replay
        loop.fault = fault
        results.append(loop.run(make_job(1, "ddpm")).clone())
    assert not torch.allclose(*results, rtol=1e-3)


def test_a_bounded_number_of_graphs_is_kept(denoiser):
    engine = CudaGraphEngine(denoiser, CPU, "test", graph=DirectCalls)
    for count in range(2, 2 + cuda_graph.MAX_GRAPHS + 2):
        engine.run(make_job(1, count=count))
    assert len(engine.loops) == cuda_graph.MAX_GRAPHS


def test_progress_and_missing_noise(denoiser):
    seen = []
    job = make_job(1, "ddpm", 4)
    job = SamplingJob(
        job.cond, job.initial, job.steps, None, job.step_noise, lambda done, total: seen.append((done, total))
    )
    engine = CudaGraphEngine(denoiser, CPU, "test", graph=DirectCalls)
    engine.run(job)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    with pytest.raises(ValueError, match="step_noise"):
        engine.run(dataclasses.replace(job, step_noise=None))


def test_a_failed_capture_falls_back_to_the_loop_without_a_graph(denoiser):
    class Failing(DirectCalls):
        def capture(self, function, reset):
            raise RuntimeError("out of memory in the pool")

    engine = CudaGraphEngine(denoiser, CPU, "test", graph=Failing)
    with pytest.warns(UserWarning, match="out of memory in the pool"):
        result = engine.run(make_job(1))
    assert "capture failed" in engine.reason
    assert torch.equal(result, CudaGraphEngine(denoiser, CPU, "test", graph=DirectCalls).run(make_job(1)))


def test_the_engine_says_why_it_cannot_run():
    assert "cpu" in cuda_graph.obstacle(CPU)
