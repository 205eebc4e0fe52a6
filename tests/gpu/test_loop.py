"""The captured loop on a GPU: graph against the same calls without one, and against the eager engine."""

from __future__ import annotations

import pytest
import torch

from mrsi_fast.engine.cuda_graph import MAX_GRAPHS, CapturedLoop, CudaGraphEngine, DirectCalls, TorchCudaGraph
from mrsi_fast.engine.eager import EagerEngine
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.ops import _native
from support.capture import ReplayGraph
from support.networks import random_denoiser, random_job

X2 = Acquisition((8, 8), (2, 2))
RUNS = [
    ("dpmpp_2m", 8),
    *(pytest.param(*one, marks=pytest.mark.slow) for one in [("heun", 4), ("ddpm", 6), ("ddim", 18)]),
]


@pytest.fixture
def graph(device):
    return TorchCudaGraph if device.type == "cuda" else ReplayGraph


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
@pytest.mark.parametrize("solver, count", RUNS)
def test_graph_equals_direct_calls_bit_for_bit(device, graph, solver, count, half):
    def engine(kind):
        dtype = torch.float16 if half else torch.float32
        return CudaGraphEngine(random_denoiser(), device, "test", graph=kind, dtype=dtype)

    captured, direct = engine(graph), engine(DirectCalls)
    for seed in (1, 2):
        job = random_job(seed, solver, count, projection=X2)
        assert torch.equal(captured.run(job), direct.run(job))
    assert captured.reason == "test"  # no fallback


@pytest.mark.parametrize("grid", [(16, 16), (13, 18)], ids=str)
@pytest.mark.parametrize("solver, count", RUNS)
def test_graph_equals_the_eager_engine(device, graph, solver, count, grid):
    job = random_job(3, solver, count, grid=grid)
    wanted = EagerEngine(random_denoiser(), device, "test").run(job)
    result = CudaGraphEngine(random_denoiser(), device, "test", graph=graph).run(job)
    assert (result - wanted)[:, :-1].abs().max() <= 5e-5 * wanted[:, :-1].abs().max()


def test_results_of_the_gpu_are_those_of_the_cpu(device, graph):
    job = random_job(4, projection=X2)
    wanted = EagerEngine(random_denoiser(), torch.device("cpu"), "test").run(job)
    result = CudaGraphEngine(random_denoiser(), device, "test", graph=graph).run(job)
    assert (result - wanted)[:, :-1].abs().max() <= 5e-5 * wanted[:, :-1].abs().max()


@pytest.mark.slow
def test_noise_arrives_in_order_through_the_pinned_buffers(device, graph):
    job = random_job(5, "ddpm", 40)
    wanted = EagerEngine(random_denoiser(), device, "test").run(job)
    result = CudaGraphEngine(random_denoiser(), device, "test", graph=graph).run(job)
    assert (result - wanted)[:, :-1].abs().max() <= 5e-5 * wanted[:, :-1].abs().max()


@pytest.mark.slow
def test_dropped_graphs_give_their_memory_back(device, graph):
    engine = CudaGraphEngine(random_denoiser(), device, "test", graph=graph)
    used = []
    for count in range(2, 2 + 3 * MAX_GRAPHS):
        engine.run(random_job(1, steps=count))
        used.append(torch.cuda.memory_reserved() if device.type == "cuda" else 0)
    assert len(engine.loops) == MAX_GRAPHS
    assert used[-1] <= 1.5 * used[MAX_GRAPHS]


class Waiting(CapturedLoop):
    """A step that waits for the device."""

    def step(self) -> None:
        self.factors[0, 0].item()
        super().step()


def test_what_cannot_be_captured_falls_back_with_the_reason(device, graph, monkeypatch):
    engine = CudaGraphEngine(random_denoiser(), device, "test", graph=graph)
    monkeypatch.setattr("mrsi_fast.engine.cuda_graph.CapturedLoop", Waiting)
    job = random_job(1, projection=X2)
    with pytest.warns(UserWarning, match="without a CUDA graph"):
        result = engine.run(job)
    monkeypatch.undo()
    wanted = CudaGraphEngine(random_denoiser(), device, "test", graph=DirectCalls).run(job)
    assert torch.equal(result, wanted)


def test_our_kernels_were_launched_in_the_captured_step(device, graph):
    if device.type != "cuda":
        pytest.skip("counts launches of a GPU")
    count = _native.module().cuda_launch_count
    engine = CudaGraphEngine(random_denoiser(), device, "test", graph=DirectCalls)
    job = random_job(1, projection=X2)
    engine.run(job)
    (loop,) = engine.loops.values()
    before = count()
    engine.run(job)
    norms = sum(getattr(one, "norm", None) is not None for one in loop.network.plan.operations)
    assert count() - before == len(job.steps) * (norms + 1)
