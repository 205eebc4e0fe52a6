"""What every engine is given and what it gives back."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mrsi_fast.diffusion.denoiser import Denoiser
from mrsi_fast.diffusion.solvers import Step, make_steps
from mrsi_fast.models.condition import Condition
from mrsi_fast.mrsi.forward import Acquisition


class EngineError(RuntimeError):
    """An engine that was requested by name and cannot run here; the message gives the reason and an alternative."""


@dataclass(frozen=True)
class SamplingJob:
    """One batch of reverse diffusion.

    Attributes:
        cond: Condition of each slice of the batch, on the CPU.
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
    """Estimate of the residual from one evaluation at the one-step point, in units of its RMS.

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
    return SamplingJob(cond, torch.zeros_like(cond.z), _one_step(sigma_max), projection, on_step=on_step)


@functools.cache
def _one_step(sigma_max: float) -> tuple[Step, ...]:
    """The same object each time, so that an engine sees that nothing has changed."""
    return make_steps("ddim", (sigma_max, 0.0))


class Engine(Protocol):
    """Runs sampling jobs with one set of weights."""

    name: str
    denoiser: Denoiser
    reason: str
    """Why this engine was chosen, one clause."""
    error_bound: float
    """Largest error of a whole run over the largest value of a map, against float64, that its tests let pass."""

    def details(self) -> list[str]:
        """One line for each kind of call that a run makes."""

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


class PlannedEngine(ABC):
    """An engine whose one-step estimate is a job like any other: both go through ``_run``."""

    denoiser: Denoiser

    def run(self, job: SamplingJob) -> Tensor:
        """Returns the final residual [B, K, X, Y], float32, on the CPU."""
        return self._run(job, spread=False).mean

    def estimate(
        self,
        cond: Condition,
        projection: Acquisition | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Estimate:
        """Posterior mean and standard deviation from one evaluation, float32, on the CPU."""
        job = one_step_job(cond, self.denoiser.sigma_max, projection, on_step)
        return self._run(job, self.denoiser.tells_spread)

    @abstractmethod
    def _run(self, job: SamplingJob, spread: bool) -> Estimate:
        """The final residual and, if requested, the posterior standard deviation of the last step."""
