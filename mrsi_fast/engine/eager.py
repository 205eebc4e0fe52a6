"""Plain PyTorch engines: the readable reference of every other engine, and the fallback where none of them runs."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from mrsi_fast import ops
from mrsi_fast.diffusion.denoiser import Denoiser, standard_deviation
from mrsi_fast.diffusion.solvers import sample
from mrsi_fast.engine.job import Estimate, SamplingJob
from mrsi_fast.models.condition import Condition
from mrsi_fast.mrsi.forward import Acquisition


@contextlib.contextmanager
def ieee_float32() -> Iterator[None]:
    """Keeps TF32 out of float32 products for the time of a run: these are quantitative maps."""
    matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, convolution


def kernel_lines(device: torch.device, operations: Sequence[str]) -> list[str]:
    """Which kernels of our own operations can serve calls on a device, and why others cannot."""
    return [
        f"{row['op']}: {row['backend']}" + ("" if row["usable"] else f" no ({row['reason']})")
        for row in ops.status()
        if row["device"] == device.type and row["op"] in operations
    ]


class EagerEngine:
    """Runs the solver's steps one by one in PyTorch, channels-last, in the denoiser's own precision.

    Args:
        denoiser: In evaluation mode.
        device: Where to run; the denoiser is moved there.
        reason: Why this engine was chosen.
    """

    name = "eager"
    error_bound = 2e-5

    def __init__(self, denoiser: Denoiser, device: torch.device, reason: str) -> None:
        self.denoiser = denoiser.to(device).to(memory_format=torch.channels_last)
        self.device, self.reason = device, reason
        self.dtype = next(denoiser.parameters()).dtype

    def run(self, job: SamplingJob) -> Tensor:
        """Returns the final residual [B, K, X, Y], float32, on the CPU."""
        cond = job.cond.map(self._place)

        def denoise(x: Tensor, sigma: float) -> Tensor:
            estimate = self.denoiser(x, sigma, cond)
            return estimate if job.projection is None else job.projection.null(estimate)

        with torch.inference_mode(), ieee_float32():
            final = sample(denoise, self._place(job.initial), job.steps, job.step_noise, job.on_step)
            return final.to("cpu", torch.float32)

    def details(self) -> list[str]:
        """One line for each kind of call that a run makes."""
        return ["convolutions: PyTorch", *kernel_lines(self.device, ("group_norm_silu", "self_attention"))]

    def estimate(
        self,
        cond: Condition,
        projection: Acquisition | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Estimate:
        """Posterior mean and standard deviation from one evaluation, float32, on the CPU."""
        cond, sigma = cond.map(self._place), self.denoiser.sigma_max
        state, log_sd = torch.zeros_like(cond.z), None
        with torch.inference_mode(), ieee_float32():
            if self.denoiser.tells_spread:
                mean, log_sd = self.denoiser.with_spread(state, sigma, cond)
            else:
                mean = self.denoiser(state, sigma, cond)
            mean = (mean if projection is None else projection.null(mean)).to("cpu", torch.float32)
            sd = None if log_sd is None else standard_deviation(log_sd).to("cpu", torch.float32)
        if on_step is not None:
            on_step(1, 1)
        return Estimate(mean, sd)

    def _place(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.dtype)


class CompileEngine(EagerEngine):
    """The eager loop around a network that ``torch.compile`` has specialised; pays seconds once per batch shape."""

    name = "compile"

    def __init__(self, denoiser: Denoiser, device: torch.device, reason: str) -> None:
        super().__init__(denoiser, device, reason)
        compiled = Compiled(self.denoiser.network)
        self.denoiser = Denoiser(compiled, denoiser.sigma_max, denoiser.sigma_min).eval()


class Compiled:
    """A network whose evaluations with one head and with both are compiled, each at its first use."""

    def __init__(self, network: Any) -> None:
        self.spread = getattr(network, "spread", None)
        self._one = Fallback(torch.compile(network), network)
        self._both = None
        if self.spread is not None:
            self._both = Fallback(torch.compile(network.with_spread), network.with_spread)

    def __call__(self, x: Tensor, noise_label: Tensor, cond: Condition) -> Tensor:
        """As ``SelfAttentionUNet.forward``."""
        return self._one(x, noise_label, cond)

    def with_spread(self, x: Tensor, noise_label: Tensor, cond: Condition) -> tuple[Tensor, Tensor]:
        """As ``SelfAttentionUNet.with_spread``."""
        assert self._both is not None
        return self._both(x, noise_label, cond)


class Fallback:
    """A compiled function, or the plain one from the first call that cannot be compiled (no C++ compiler, no Triton).

    Args:
        compiled: From ``torch.compile``; compiles when it is first called.
        plain: The same function uncompiled.
    """

    def __init__(self, compiled: Callable[..., Any], plain: Callable[..., Any]) -> None:
        self._call, self._plain = compiled, plain

    def __call__(self, *arguments: Any) -> Any:
        """Calls the one that works."""
        try:
            return self._call(*arguments)
        except Exception as error:  # Inductor and Dynamo raise many types
            if self._call is self._plain:
                raise
            result = self._plain(*arguments)  # what is wrong with the inputs is raised here again
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            warnings.warn(
                f"torch.compile does not work here ({type(error).__name__}: {reason}); running eager.", stacklevel=2
            )
            self._call = self._plain
            return result
