"""The CUDA-graph engine: the reverse-diffusion loop captured once per shape and replayed for every batch.

A captured region holds the denoiser and one fused operation, ``solver_step``, that does projection, update and noise.
All that changes between runs lies in static buffers: state, condition, noise, coefficients and the index of the step.
The graph itself stands behind a protocol, so that tests replay the same loop on CPU tensors by the same rules
(``mrsi_fast.testing.capture.ReplayGraph``). Not yet run on a GPU.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

import mrsi_fast.ops  # noqa: F401  (registers torch.ops.mrsi_fast)
from mrsi_fast.diffusion.denoiser import Denoiser
from mrsi_fast.engine.eager import ieee_float32
from mrsi_fast.engine.job import SamplingJob
from mrsi_fast.models.condition import Condition

MAX_UNROLLED_STEPS = 16
"""Longest chain without noise that becomes one graph; longer ones replay a graph of one step."""
MAX_GRAPHS = 4
"""Loops kept by an engine, the least recently used dropped first: each holds a private memory pool."""
WARM_UP_RUNS = 2
"""Runs before a capture, in which libraries choose algorithms and allocate their workspaces."""


class Graph(Protocol):
    """Something that records the device work of a function and repeats it on the same memory."""

    def capture(self, function: Callable[[], None], reset: Callable[[], None]) -> None:
        """Record ``function``; ``reset`` puts its buffers back before each run that the recording needs."""

    def replay(self) -> None:
        """Repeat what was recorded."""


class DirectCalls:
    """No graph: runs the function each time. The fused loop without capture, and what tests compare with."""

    def capture(self, function: Callable[[], None], reset: Callable[[], None]) -> None:
        """Keep the function."""
        self.function = function

    def replay(self) -> None:
        """Run the function."""
        self.function()


class TorchCudaGraph:
    """A ``torch.cuda.CUDAGraph`` with its own memory pool; capture errors concern the capturing thread only."""

    def capture(self, function: Callable[[], None], reset: Callable[[], None]) -> None:
        """Warm up on a side stream, then record."""
        current = torch.cuda.current_stream()
        side = torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_RUNS):
                reset()
                function()
        current.wait_stream(side)
        reset()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            function()

    def replay(self) -> None:
        """Launch the recorded work on the current stream."""
        self.graph.replay()


class CapturedLoop:
    """The sampling loop of one shape: static buffers, and a graph of one step or of a whole chain.

    Args:
        denoiser: In evaluation mode, on the device of the buffers.
        job: Gives shapes, number of steps, whether there is a projection and whether steps add noise; not its values.
        graph: Not yet captured.
    """

    def __init__(self, denoiser: Denoiser, job: SamplingJob, graph: Graph) -> None:
        parameter = next(denoiser.parameters())
        self.denoiser, self.graph, self.device = denoiser, graph, parameter.device
        steps, noisy = len(job.steps), any(step.noise != 0.0 for step in job.steps)

        def buffer(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=self.device)

        shape = job.initial.shape
        self.base, self.state, self.next, self.before = (buffer(*shape) for _ in range(4))
        self.noise = buffer(*shape) if noisy else None
        self.cond: Condition = job.cond.map(lambda t: buffer(*t.shape, dtype=parameter.dtype))
        self.coefficients, self.sigmas = buffer(steps, 4), buffer(steps)
        self.commits = buffer(steps, dtype=torch.bool)
        self.index = buffer(1, dtype=torch.int64)
        self.bases: tuple[Tensor | None, ...] = (None, None, None)
        if job.projection is not None:
            modes = job.projection.modes(torch.float32, self.device)
            self.bases = (modes.hr_x.contiguous(), modes.hr_y.contiguous(), modes.kept)
        self.steps_per_replay = 1 if noisy or steps > MAX_UNROLLED_STEPS else steps
        self.captured = False

    def step(self) -> None:
        """One step on the buffers: only device work, nothing that depends on data or on a Python counter."""
        sigma = self.sigmas.index_select(0, self.index).expand(len(self.state))
        estimate = self.denoiser(self.state, sigma, self.cond)
        torch.ops.mrsi_fast.solver_step_out(
            self.base, estimate, self.before, self.noise, self.coefficients, self.index, *self.bases, self.next
        )
        self.before.copy_(estimate)
        self.base.copy_(torch.where(self.commits.index_select(0, self.index), self.next, self.base))
        self.state.copy_(self.next)
        self.index.add_(1)

    def _region(self) -> None:
        for _ in range(self.steps_per_replay):
            self.step()

    def _reset(self) -> None:
        self.index.zero_()
        self.before.zero_()

    def run(self, job: SamplingJob) -> Tensor:
        """Runs a job of the captured shape, capturing first if need be; returns the state, [B, K, X, Y] float32."""
        self.fill(job)
        if not self.captured:
            self.capture()
        self._reset()
        self.base.copy_(job.initial)
        self.state.copy_(job.initial)
        for first in range(0, len(job.steps), self.steps_per_replay):
            if self.noise is not None and job.steps[first].noise != 0.0:
                if job.step_noise is None:
                    raise ValueError("This solver adds noise between steps (ddpm), so the job needs `step_noise`.")
                self.noise.copy_(job.step_noise(first))
            self.graph.replay()
            if job.on_step is not None:
                job.on_step(first + self.steps_per_replay, len(job.steps))
        return self.state

    def fill(self, job: SamplingJob) -> None:
        """Copy condition, coefficients and noise levels of a job into the buffers."""
        self.coefficients.copy_(torch.tensor([[step.base, step.now, step.prev, step.noise] for step in job.steps]))
        self.sigmas.copy_(torch.tensor([step.sigma for step in job.steps]))
        self.commits.copy_(torch.tensor([step.commit for step in job.steps]))
        for buffer, value in zip(vars(self.cond).values(), vars(job.cond).values(), strict=True):
            buffer.copy_(value)

    def capture(self) -> None:
        """Record the region; whatever the buffers hold is used up."""
        self.graph.capture(self._region, self._reset)
        self.captured = True


class CudaGraphEngine:
    """Runs sampling jobs on one GPU through captured loops. One engine serves one caller at a time.

    Args:
        denoiser: In evaluation mode, in the precision to run in (half-precision weights are cast before, once).
        device: A CUDA device; the denoiser is moved there.
        reason: Why this engine was chosen.
        graph: Makes a graph; replaced in tests.
    """

    name = "cuda-graph"

    def __init__(
        self, denoiser: Denoiser, device: torch.device, reason: str, graph: Callable[[], Graph] = TorchCudaGraph
    ) -> None:
        self.denoiser = denoiser.to(device).to(memory_format=torch.channels_last)
        self.device, self.reason, self.graph = device, reason, graph
        self.loops: OrderedDict[tuple[object, ...], CapturedLoop] = OrderedDict()

    def run(self, job: SamplingJob) -> Tensor:
        """Returns the final residual [B, K, X, Y], float32, on the CPU."""
        with torch.inference_mode(), ieee_float32():
            loop = self._loop(job)
            if not loop.captured:
                self._capture(loop, job)
            return loop.run(job).to("cpu", torch.float32, copy=True)

    def _capture(self, loop: CapturedLoop, job: SamplingJob) -> None:
        loop.fill(job)
        try:
            loop.capture()
        except RuntimeError as error:
            self.reason = f"{self.reason}; without a graph, since capture failed: {error}"
            warnings.warn(f"mrsi_fast runs the sampling loop without a CUDA graph: {error}", stacklevel=4)
            loop.graph = DirectCalls()
            loop.capture()

    def _loop(self, job: SamplingJob) -> CapturedLoop:
        noisy = any(step.noise != 0.0 for step in job.steps)
        key = (tuple(job.initial.shape), len(job.steps), noisy, job.projection)
        if key not in self.loops:
            if len(self.loops) == MAX_GRAPHS:
                self.loops.popitem(last=False)
            self.loops[key] = CapturedLoop(self.denoiser, job, self.graph())
        self.loops.move_to_end(key)
        return self.loops[key]


def obstacle(device: torch.device) -> str | None:
    """Why this engine cannot run on a device, or None."""
    if device.type != "cuda":
        return f"CUDA graphs need a CUDA device, this is {device.type}"
    return None if torch.cuda.is_available() else "PyTorch finds no CUDA device"
