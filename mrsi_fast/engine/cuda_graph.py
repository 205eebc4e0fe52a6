"""The CUDA-graph engine: the reverse-diffusion loop captured once per shape and replayed for every batch.

A captured step is the planned network (``mrsi_fast.engine.fused``) and one fused operation, ``solver_step``, that does
projection, update and noise. All that changes between runs lies in static buffers: state, condition, noise, tables of
what depends on the step, and the index of the step. The graph itself is behind a protocol, so that tests replay the
same loop on CPU tensors by the same rules (``tests/support/capture.py``).
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import mrsi_fast.ops  # noqa: F401  (registers torch.ops.mrsi_fast)
from mrsi_fast.diffusion.denoiser import Denoiser, standard_deviation
from mrsi_fast.diffusion.solvers import Step
from mrsi_fast.engine.eager import ieee_float32, kernel_lines
from mrsi_fast.engine.fused import FusedNetwork
from mrsi_fast.engine.job import Estimate, PlannedEngine, SamplingJob
from mrsi_fast.models.condition import Condition
from mrsi_fast.models.unet import SelfAttentionUNet

MAX_UNROLLED_STEPS = 16
"""Longest chain without noise that becomes one graph; longer ones replay a graph of one step. Rows of the tables."""
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
        """Keep the function, and run it once as a capture would."""
        self.function = function
        reset()
        function()

    def replay(self) -> None:
        """Run the function."""
        self.function()


@functools.cache
def _warm_up_stream(device: int) -> torch.cuda.Stream:
    """One for all captures on a device: cuBLAS keeps a workspace for every stream that it has seen."""
    return torch.cuda.Stream(device)


class TorchCudaGraph:
    """A ``torch.cuda.CUDAGraph`` with its own memory pool; capture errors concern the capturing thread only."""

    def capture(self, function: Callable[[], None], reset: Callable[[], None]) -> None:
        """Warm up on a side stream, then record."""
        current = torch.cuda.current_stream()
        side = _warm_up_stream(torch.cuda.current_device())
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


class NoiseFeed:
    """Noise on its way to the device: two host buffers in turn, so that a step's noise is drawn while another runs.

    Args:
        target: Buffer on the device.
        make_event: Makes an event with ``record`` and ``synchronize``; None where copies are not asynchronous.
    """

    def __init__(self, target: Tensor, make_event: Callable[[], Any] | None) -> None:
        self.target = target
        self.buffers = [torch.empty(target.shape, pin_memory=target.is_cuda) for _ in range(2)]
        self.left = [make_event() if make_event else None for _ in range(2)]  # recorded when a buffer's copy is over
        self.turn = 0

    def send(self, noise: Tensor) -> None:
        """Copy ``noise``, shape of the target, into the next host buffer and from there to the device."""
        buffer, left = self.buffers[self.turn], self.left[self.turn]
        if left is not None:
            left.synchronize()
        buffer.copy_(noise)
        self.target.copy_(buffer, non_blocking=True)
        if left is not None:
            left.record()
        self.turn = 1 - self.turn


@contextlib.contextmanager
def settled_convolutions() -> Iterator[None]:
    """Lets cuDNN choose by its rules and not by timing, and deterministically: a seed gives the same bits next time."""
    benchmark, deterministic = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = benchmark, deterministic


class _OwnCalls(TorchDispatchMode):
    """Counts calls of ``torch.ops.mrsi_fast``."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.namespace == "mrsi_fast"
        return func(*args, **(kwargs or {}))


def _traits(steps: Sequence[Step]) -> tuple[bool, bool, bool]:
    """Whether any step adds noise, whether any reads the estimate before, and whether all commit their state."""
    noisy, looks_back = any(step.noise != 0.0 for step in steps), any(step.prev != 0.0 for step in steps)
    return noisy, looks_back, all(step.commit for step in steps)


class CapturedLoop:
    """The sampling loop of one shape: static buffers, and a graph of one step or of a whole chain.

    Args:
        denoiser: In evaluation mode, float32, channels-last, on the device to run on.
        job: Gives shapes, number of steps, whether there is a projection and what the steps use; not its values.
        graph: Not yet captured.
        dtype: Precision of the network; state, estimates and solver stay float32.
        spread: Whether each step leaves the posterior standard deviation in ``sd``.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        job: SamplingJob,
        graph: Graph,
        dtype: torch.dtype = torch.float32,
        spread: bool = False,
    ) -> None:
        network = denoiser.network
        if not isinstance(network, SelfAttentionUNet):
            raise TypeError(f"The captured loop runs a SelfAttentionUNet, not a {type(network).__name__}.")
        self.denoiser, self.unet, self.graph = denoiser, network, graph
        self.device = network.stem.weight.device
        batch, maps, *grid = self.shape = tuple(job.initial.shape)
        self.network = FusedNetwork(network, batch, (grid[0], grid[1]), dtype, spread)
        noisy, self.looks_back, self.all_commit = _traits(job.steps)
        whole = not noisy and len(job.steps) <= MAX_UNROLLED_STEPS
        self.rows = min(len(job.steps), MAX_UNROLLED_STEPS)
        self.steps_per_replay = len(job.steps) if whole else 1

        def buffer(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=self.device)

        self.base, self.state, self.estimate = (buffer(*self.shape) for _ in range(3))
        self.before = buffer(*self.shape) if self.looks_back else None
        self.noise = buffer(*self.shape) if noisy else None
        self.sd = buffer(*self.shape) if spread else None
        self.feed: NoiseFeed | None = None
        self.films = buffer(self.rows, self.network.film_width, dtype=dtype)
        self.factors = buffer(self.rows, 2 + batch * maps)  # c_skip, c_out, c_in of each present map
        self.coefficients = buffer(self.rows, 4)
        self.commits = buffer(self.rows, dtype=torch.bool)
        self.index = buffer(1, dtype=torch.int64)
        stem, f = self.network.plan.stem, network.config.stem_factor
        self.stem = buffer(batch, stem.height, stem.width, stem.channels, dtype=dtype).permute(0, 3, 1, 2)
        self.padded = buffer(batch, maps, stem.height * f, stem.width * f)
        self.bases: tuple[Tensor | None, ...] = (None, None, None)
        if job.projection is not None:
            modes = job.projection.modes(torch.float32, self.device)
            self.bases = (modes.hr_x.contiguous(), modes.hr_y.contiguous(), modes.kept)
        self.captured = False

    # ---- what is captured

    def step(self) -> None:
        """One step on the buffers: only device work, nothing that depends on data or on a Python counter."""
        factors = self.factors.index_select(0, self.index)[0]
        self._feed_stem(factors[2:].view(*self.shape[:2], 1, 1))
        head = self.network(self.stem, self.films.index_select(0, self.index)[0])
        output = F.pixel_shuffle(head, self.unet.config.stem_factor)[..., : self.shape[2], : self.shape[3]]
        if self.sd is not None:
            output, log_sd = output.chunk(2, dim=1)
            self.sd.copy_(standard_deviation(log_sd.float()))
        torch.mul(self.state, factors[0], out=self.estimate)
        self.estimate.addcmul_(output, factors[1])
        torch.ops.mrsi_fast.solver_step_out(
            *(self.base, self.estimate, self.before, self.noise, self.coefficients, self.index, *self.bases),
            self.state,
        )
        if self.before is not None:
            self.before.copy_(self.estimate)
        if self.all_commit:
            self.base.copy_(self.state)
        else:
            torch.where(self.commits.index_select(0, self.index), self.state, self.base, out=self.base)
        self.index.add_(1)

    def _feed_stem(self, gain: Tensor) -> None:
        """Writes the scaled state, padded and pixel-unshuffled, into the stem's first channels."""
        f, (batch, maps, width, height) = self.unet.config.stem_factor, self.shape
        blocks = (batch, maps, self.stem.shape[2], f, self.stem.shape[3], f)
        target = self.stem[:, : maps * f * f].unflatten(1, (maps, f, f)).permute(0, 1, 4, 2, 5, 3)  # as `blocks`
        if self.padded.shape == self.state.shape:
            torch.mul(self.state.view(blocks), gain[..., None, None], out=target)
        else:
            torch.mul(self.state, gain, out=self.padded[..., :width, :height])
            target.copy_(self.padded.view(blocks))

    def _region(self) -> None:
        for _ in range(self.steps_per_replay):
            self.step()

    def _reset(self) -> None:
        self.index.zero_()
        if self.before is not None:
            self.before.zero_()

    def capture(self) -> None:
        """Record the region; whatever the buffers hold is used up.

        Raises:
            RuntimeError: Fewer of our operations were called than the plan has: something bypassed the dispatcher, and
                a graph would replay without it.
        """
        self.captured = False
        calls = wanted = self.steps_per_replay * (self.network.own_calls + 1)  # 1: solver_step

        def region() -> None:
            nonlocal calls
            if self.captured:
                return self._region()
            with _OwnCalls() as mode:
                self._region()
            calls = mode.count

        self.graph.capture(region, self._reset)
        if calls < wanted:
            raise RuntimeError(
                f"the capture recorded {calls} calls of torch.ops.mrsi_fast where the plan has {wanted}; "
                "a kernel was launched past torch's dispatcher"
            )
        self.captured = True

    # ---- around it

    def run(self, job: SamplingJob) -> Tensor:
        """Runs a job of the captured shape, capturing first if need be; returns the state, [B, K, X, Y] float32."""
        cond = job.cond.map(lambda t: t.to(self.device, torch.float32))
        self.load(cond, job.steps[: self.rows])
        stem = self.unet.stem_input(torch.zeros_like(cond.z), cond)
        self.stem.copy_(stem)
        if not self.captured:
            self.capture()
        self._reset()
        self.base.copy_(job.initial)
        self.state.copy_(job.initial)
        for first in range(0, len(job.steps), self.steps_per_replay):
            if first and first % self.rows == 0:
                self.load(cond, job.steps[first : first + self.rows])
            if self.noise is not None and job.steps[first].noise != 0.0:
                self._send_noise(job, first)
            self.graph.replay()
            if job.on_step is not None:
                job.on_step(first + self.steps_per_replay, len(job.steps))
        return self.state

    def load(self, cond: Condition, steps: Sequence[Step]) -> None:
        """Fill the tables for the next steps, at most ``rows`` of them, and point the index at the first.

        Args:
            cond: On the device, float32.
            steps: Of the solver.
        """
        c = self.denoiser.preconditioning(torch.tensor([step.sigma for step in steps], dtype=torch.float64))
        scalars = torch.stack([c.c_skip, c.c_out, c.c_in], 1).to(self.device, torch.float32)
        gains = scalars[:, 2:] * cond.presence.flatten()
        count = len(steps)
        self.films[:count].copy_(self.network.film_table(c.c_noise.tolist(), cond.vector))
        self.factors[:count].copy_(torch.cat([scalars[:, :2], gains], 1))
        self.coefficients[:count].copy_(torch.tensor([[s.base, s.now, s.prev, s.noise] for s in steps]))
        self.commits[:count].copy_(torch.tensor([s.commit for s in steps]))
        self.index.zero_()

    def _send_noise(self, job: SamplingJob, index: int) -> None:
        if job.step_noise is None or self.noise is None:
            raise ValueError("This solver adds noise between steps (ddpm), so the job needs `step_noise`.")
        if self.feed is None:
            self.feed = NoiseFeed(self.noise, torch.cuda.Event if self.noise.is_cuda else None)
        self.feed.send(job.step_noise(index))


class CudaGraphEngine(PlannedEngine):
    """Runs sampling jobs on one GPU through captured loops. One engine serves one caller at a time.

    Args:
        denoiser: In evaluation mode, float32.
        device: A CUDA device; the denoiser is moved there.
        reason: Why this engine was chosen.
        graph: Makes a graph; replaced in tests.
        dtype: Precision of the network's weights and features, float32, float16 or bfloat16; cast once at capture.
    """

    name = "cuda-graph"
    error_bound = 2e-5

    def __init__(
        self,
        denoiser: Denoiser,
        device: torch.device,
        reason: str,
        graph: Callable[[], Graph] = TorchCudaGraph,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.denoiser = denoiser.to(device).to(memory_format=torch.channels_last)
        self.device, self.reason, self.graph, self.dtype = device, reason, graph, dtype
        self.loops: OrderedDict[tuple[object, ...], CapturedLoop] = OrderedDict()

    def details(self) -> list[str]:
        """One line for each kind of call that a run makes."""
        operations = ("group_norm_silu", "self_attention", "solver_step")
        return ["convolutions: PyTorch (cuDNN)", *kernel_lines(self.device, operations)]

    def _run(self, job: SamplingJob, spread: bool) -> Estimate:
        """The final residual and, if requested, the posterior standard deviation of the last step."""
        with torch.inference_mode(), ieee_float32(), settled_convolutions():
            if job.initial.numel() == 0:
                empty = job.initial.to(torch.float32, copy=True)
                return Estimate(empty, empty.clone() if spread else None)
            loop = self._loop(job, spread)
            try:
                result = loop.run(job)
            except RuntimeError as error:
                if loop.captured or isinstance(loop.graph, DirectCalls):
                    raise
                self.reason = f"{self.reason}; without a graph, since capture failed: {error}"
                warnings.warn(f"mrsi_fast runs the sampling loop without a CUDA graph: {error}", stacklevel=3)
                loop.graph = DirectCalls()
                result = loop.run(job)
            sd = None if loop.sd is None else loop.sd.to("cpu", torch.float32, copy=True)
            return Estimate(result.to("cpu", torch.float32, copy=True), sd)

    def _loop(self, job: SamplingJob, spread: bool) -> CapturedLoop:
        traits = _traits(job.steps)
        replays_a_step = traits[0] or len(job.steps) > MAX_UNROLLED_STEPS
        length = MAX_UNROLLED_STEPS if len(job.steps) > MAX_UNROLLED_STEPS else len(job.steps)
        key = (tuple(job.initial.shape), length, replays_a_step, traits, job.projection, spread)
        if key not in self.loops:
            if len(self.loops) == MAX_GRAPHS:
                self.loops.popitem(last=False)
            self.loops[key] = CapturedLoop(self.denoiser, job, self.graph(), self.dtype, spread)
        self.loops.move_to_end(key)
        return self.loops[key]


def obstacle(device: torch.device) -> str | None:
    """Why this engine cannot run on a device, or None."""
    if device.type != "cuda":
        return f"CUDA graphs need a CUDA device, this is {device.type}"
    return None if torch.cuda.is_available() else "PyTorch finds no CUDA device"
