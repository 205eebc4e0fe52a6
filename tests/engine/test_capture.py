"""Capture discipline: what a CUDA graph cannot hold, or would get wrong, planted in a step and reported each time."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._pytree import tree_leaves

from mrsi_fast.engine.cuda_graph import CapturedLoop, CudaGraphEngine, DirectCalls
from mrsi_fast.engine.fused import Weights
from mrsi_fast.mrsi.forward import Acquisition
from support.capture import CaptureError, CaptureGuard, ReplayGraph
from support.networks import random_denoiser, random_job

X2 = Acquisition((8, 8), (2, 2))
CPU = torch.device("cpu")


class Planted(CapturedLoop):
    """The loop with one fault in its step."""

    fault = ""
    counter = 0

    def step(self) -> None:
        if self.fault == "item" and self.factors[0, 0].item() < 0:
            return
        if self.fault == "host tensor":
            self.factors.mul_(torch.tensor([1.0]))
        if self.fault == "mask":
            self.state[self.state > 1e9] = 0.0
        if self.fault == "to the host":
            self.state.cpu()
        if self.fault == "direct launch":
            _launches[0] += 1
        super().step()
        if self.fault == "baked index":
            self.state.mul_(1.0 + 0.01 * self.counter)  # a Python number of this step, frozen at capture
            self.counter += 1
        if self.fault == "rebinding":
            self.state = self.state + 0.0


_launches = [0]


def planted(fault: str, graph, solver: str = "dpmpp_2m") -> Planted:
    loop = Planted(random_denoiser(), random_job(1, solver, projection=X2), graph)
    loop.fault = fault
    return loop


# ---- on CPU tensors, replayed by a CUDA graph's rules


@pytest.mark.parametrize("fault", ["item", "host tensor", "mask", "direct launch"])
def test_what_a_graph_cannot_hold_is_refused_at_capture(fault):
    loop = planted(fault, ReplayGraph(launch_count=lambda: _launches[0]))
    with pytest.raises(CaptureError), torch.inference_mode():
        loop.run(random_job(1, projection=X2))


@pytest.mark.parametrize("fault", ["baked index", "rebinding"])
def test_what_a_graph_would_get_wrong_shows_in_the_result(fault):
    results = []
    for graph in (ReplayGraph(), DirectCalls()):
        loop = planted(fault, graph, "ddpm")  # one step a replay
        with torch.inference_mode():
            results.append(loop.run(random_job(1, "ddpm", projection=X2)).clone())
    assert not torch.allclose(*results, rtol=1e-3)


def test_without_a_fault_nothing_is_reported_and_nothing_differs():
    results = []
    for graph in (ReplayGraph(launch_count=lambda: _launches[0]), DirectCalls()):
        with torch.inference_mode():
            results.append(planted("", graph, "ddpm").run(random_job(1, "ddpm", projection=X2)).clone())
    assert torch.equal(*results)


def test_a_capture_that_recorded_fewer_calls_than_the_plan_has_is_refused(monkeypatch):
    loop = planted("", DirectCalls())
    monkeypatch.setattr(torch.ops.mrsi_fast, "solver_step_out", lambda *arguments: None)
    with pytest.raises(RuntimeError, match="past torch's dispatcher"), torch.inference_mode():
        loop.run(random_job(1, projection=X2))


def test_the_engine_runs_without_a_graph_where_the_capture_was_refused(monkeypatch):
    engine = CudaGraphEngine(random_denoiser(), CPU, "test", graph=ReplayGraph)
    job = random_job(1, projection=X2)
    engine.loops[("planted",)] = planted("item", ReplayGraph())
    monkeypatch.setattr(engine, "_loop", lambda job, spread: engine.loops["planted",])
    with pytest.warns(UserWarning, match="waits for the device"):
        result = engine.run(job)
    assert torch.equal(result, CudaGraphEngine(random_denoiser(), CPU, "test", graph=DirectCalls).run(job))


# ---- on fake CUDA tensors, through the whole loop


def on_fake_cuda(loop: CapturedLoop) -> None:
    """Puts everything that a captured loop touches onto a CUDA device that is not there. Under a FakeTensorMode."""

    def fake(t: torch.Tensor | None) -> torch.Tensor | None:
        return None if t is None else torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="cuda")

    for name, value in vars(loop).items():
        if isinstance(value, torch.Tensor):
            setattr(loop, name, fake(value))
    loop.bases = tuple(map(fake, loop.bases))
    weights = loop.network._weights
    loop.network._weights = {
        name: Weights(fake(one.conv), tuple(map(fake, one.norm)), fake(one.lacking), fake(one.added))
        for name, one in weights.items()
    }


class Guarded:
    """A graph that captures on fake CUDA tensors: one run of the region under the guard."""

    def capture(self, function, reset) -> None:
        reset()
        self.guard = CaptureGuard("cuda")
        with self.guard:
            function()


@pytest.fixture
def fake_cuda():
    if not torch.backends.cuda.is_built():
        pytest.skip("fake CUDA tensors need a CUDA build of PyTorch (no GPU and no driver)")
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        yield


@pytest.mark.parametrize("solver", ["dpmpp_2m", "heun", "ddpm"])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_the_whole_loop_stays_on_the_device(solver, half, request):
    denoiser = random_denoiser().to(memory_format=torch.channels_last)
    job = random_job(1, solver, 8, projection=X2)
    loop = CapturedLoop(denoiser, job, Guarded(), torch.float16 if half else torch.float32)
    request.getfixturevalue("fake_cuda")  # from here on; what is built before is real
    on_fake_cuda(loop)
    loop.capture()
    calls = loop.graph.guard.calls
    assert calls.count("mrsi_fast.solver_step_out.default") == loop.steps_per_replay
    own = sum(call.startswith("mrsi_fast") for call in calls)
    assert own == loop.steps_per_replay * (loop.network.own_calls + 1)
    assert loop.steps_per_replay == (1 if solver == "ddpm" else len(job.steps))


@pytest.mark.parametrize("fault", ["item", "host tensor", "mask", "to the host"])
def test_faults_are_refused_on_fake_cuda_tensors_too(fault, request):
    loop = planted(fault, Guarded())
    request.getfixturevalue("fake_cuda")
    on_fake_cuda(loop)
    with pytest.raises((CaptureError, DataDependentOutputException)):
        loop.capture()


def test_results_on_the_device_keep_channels_last(request):
    loop = CapturedLoop(random_denoiser().to(memory_format=torch.channels_last), random_job(1), Guarded())
    request.getfixturevalue("fake_cuda")
    on_fake_cuda(loop)
    head = loop.network(loop.stem, loop.films[0])
    assert head.is_cuda and head.is_contiguous(memory_format=torch.channels_last)


# ---- step 0 and step 7 are the same calls


def test_the_traced_first_and_last_step_are_the_same_calls():
    job = random_job(1, steps=8, projection=X2)
    loop = CapturedLoop(random_denoiser().to(memory_format=torch.channels_last), job, DirectCalls())
    loop.load(job.cond, job.steps)
    texts = []
    for index in (0, 7):
        loop.index.fill_(index)
        graph = ReplayGraph()
        graph.capture(loop.step, lambda: None)
        leaves = [tree_leaves((args, kwargs)) for _, args, kwargs, _ in graph.tape]
        numbers = [[one for one in given if isinstance(one, (int, float))] for given in leaves]
        texts.append([str(call) + str(n) for (call, *_), n in zip(graph.tape, numbers, strict=True)])
    assert texts[0] == texts[1] and len(texts[0]) > 40
    assert sum(text.startswith("mrsi_fast.solver_step_out") for text in texts[0]) == 1
