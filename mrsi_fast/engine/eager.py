"""Plain PyTorch engines: the readable reference of every other engine, and the fallback where none of them runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from mrsi_fast.diffusion.denoiser import Denoiser
from mrsi_fast.diffusion.solvers import sample
from mrsi_fast.engine.job import SamplingJob


@contextlib.contextmanager
def ieee_float32() -> Iterator[None]:
    """Keeps TF32 out of float32 products for the time of a run: these are quantitative maps."""
    matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, convolution


class EagerEngine:
    """Runs the solver's steps one by one in PyTorch, channels-last, in the denoiser's own precision.

    Args:
        denoiser: In evaluation mode.
        device: Where to run; the denoiser is moved there.
        reason: Why this engine was chosen.
    """

    name = "eager"

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

    def _place(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.dtype)


class CompileEngine(EagerEngine):
    """The eager loop around a network that ``torch.compile`` has specialised; pays seconds once per batch shape."""

    name = "compile"

    def __init__(self, denoiser: Denoiser, device: torch.device, reason: str) -> None:
        super().__init__(denoiser, device, reason)
        compiled = Denoiser(torch.compile(self.denoiser.network), denoiser.sigma_max, denoiser.sigma_min)
        self.denoiser = compiled.eval()
