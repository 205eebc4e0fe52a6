"""What every engine is given and what it gives back, and the one place where an engine is chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from mrsi_fast.diffusion.denoiser import Denoiser
from mrsi_fast.diffusion.solvers import Step, make_steps
from mrsi_fast.models.condition import Condition
from mrsi_fast.mrsi.forward import Acquisition

ENGINES = ("eager", "compile", "native", "native-amx", "cuda-graph")


class EngineError(RuntimeError):
    """An engine that was asked for by name and cannot run here; the message says why and what to use instead."""


@dataclass(frozen=True)
class SamplingJob:
    """One batch of reverse diffusion.

    Attributes:
        cond: What the network is told about each slice of the batch, on the CPU.
        initial: [B, K, X, Y] state at ``steps[0].sigma`` (that many times standard normal noise), float32, on the CPU.
        steps: The solver's steps.
        projection: For hard data consistency, the operator whose measured band is removed from every estimate of the
            residual (the residual of a map that agrees with the data has none); None for no projection.
        step_noise: ``step_noise(index)`` is the standard normal noise of step ``index``, [B, K, X, Y] on the CPU;
            called only for steps that add noise.
        on_step: Called after each evaluation with (done, all); raises to cancel.
    """

    cond: Condition
    initial: Tensor
    steps: tuple[Step, ...]
    projection: Acquisition | None = None
    step_noise: Callable[[int], Tensor] | None = None
    on_step: Callable[[int, int], None] | None = None


@dataclass(frozen=True)
class Estimate:
    """What one evaluation at the one-step point says of the residual, in units of its RMS.

    Attributes:
        mean: [B, K, X, Y] posterior mean, float32, on the CPU.
        sd: Its posterior standard deviation, likewise; None if the network has no head for it.
    """

    mean: Tensor
    sd: Tensor | None


def one_step_job(
    cond: Condition,
    sigma_max: float,
    projection: Acquisition | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> SamplingJob:
    """The one-step point as a job: one evaluation at ``sigma_max`` from a state of 0, which goes to noise level 0."""
    steps = make_steps("ddim", (sigma_max, 0.0))
    return SamplingJob(cond, torch.zeros_like(cond.z), steps, projection, on_step=on_step)


class Engine(Protocol):
    """Runs sampling jobs with one set of weights."""

    name: str
    denoiser: Denoiser
    reason: str
    """Why this engine was chosen, one clause."""

    def run(self, job: SamplingJob) -> Tensor:
        """Returns the final residual [B, K, X, Y], float32, on the CPU."""

    def estimate(
        self,
        cond: Condition,
        projection: Acquisition | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Estimate:
        """Posterior mean and standard deviation from one evaluation.

        Args:
            cond: As in ``SamplingJob``.
            projection: As in ``SamplingJob``; it acts on the mean.
            on_step: As in ``SamplingJob``.
        """


@dataclass(frozen=True)
class EngineChoice:
    """The engine that runs, and one sentence for each that does not."""

    engine: Engine
    refused: dict[str, str] = field(default_factory=dict)


def choose_engine(name: str, denoiser: Denoiser, device: torch.device) -> EngineChoice:
    """Builds the engine of that name; ``auto`` takes the fastest one that can run, and says why not another.

    Args:
        name: "auto", "eager", "compile", "native", "native-amx" or "cuda-graph". "auto" takes only what computes in
            float32.
        denoiser: In evaluation mode, on ``device``.
        device: Where to run.

    Raises:
        EngineError: The engine was asked for by name and cannot run here, or there is no engine of that name.
    """
    from mrsi_fast.engine import cuda_graph, eager, native

    if name == "cuda-graph" or (name == "auto" and device.type == "cuda"):
        obstacle = cuda_graph.obstacle(device)
        if obstacle is None:
            reason = "the fastest on this device" if name == "auto" else "asked for by name"
            return EngineChoice(cuda_graph.CudaGraphEngine(denoiser, device, reason))
        if name == "cuda-graph":
            raise EngineError(f"The cuda-graph engine cannot run here: {obstacle}; use engine 'native' or 'auto'.")
    if name in ("auto", "native", "native-amx"):
        pairs = name == "native-amx"
        obstacle = native.obstacle(denoiser, device, pairs)
        if obstacle is None:
            reason = "the fastest on this device" if name == "auto" else "asked for by name"
            return EngineChoice(native.NativeEngine(denoiser, reason, pairs=pairs))
        if name != "auto":
            raise EngineError(f"The {name} engine cannot run here: {obstacle}; use engine 'eager' or 'auto'.")
        reason = f"plain PyTorch, since the native engine cannot run: {obstacle}"
        return EngineChoice(eager.EagerEngine(denoiser, device, reason), refused={"native": obstacle})
    if name == "eager":
        return EngineChoice(eager.EagerEngine(denoiser, device, reason="asked for by name"))
    if name == "compile":
        return EngineChoice(eager.CompileEngine(denoiser, device, reason="asked for by name"))
    raise EngineError(f"There is no engine '{name}'; choose one of auto, {', '.join(ENGINES)}.")
