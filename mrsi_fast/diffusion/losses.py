"""What training draws and minimises: noise levels and the weighted denoising error.

Sources: Karras et al. 2022 (EDM), Table 1, "Training", with `sigma_data = 1`; evenly spread draws after Kingma et al.,
"Variational Diffusion Models", NeurIPS 2021, appendix I.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mrsi_fast.diffusion.denoiser import LOG_SD_RANGE, Denoiser


@dataclass(frozen=True)
class SigmaDistribution:
    """Noise levels of training: a share at exactly `sigma_max`, the rest log-normal, clipped to [sigma_min, sigma_max].

    The share at `sigma_max` trains the one-step operating point (the posterior mean), which a log-normal alone almost
    never visits.

    Attributes:
        sigma_min: Lowest level, in units of the residual's RMS.
        sigma_max: Highest level, same units.
        share_at_max: Fraction of draws at exactly `sigma_max`, 0 to 1.
        log_mean: Mean of ln(sigma) of the rest. Karras et al. use -1.2 at sigma_data = 0.5: -0.5 at sigma_data = 1.
        log_std: Standard deviation of ln(sigma) of the rest.

    Raises:
        ValueError: If not `0 < sigma_min < sigma_max < inf`, the share lies outside [0, 1], or `log_std <= 0`.
    """

    sigma_min: float
    sigma_max: float
    share_at_max: float = 0.25
    log_mean: float = -0.5
    log_std: float = 1.2

    def __post_init__(self) -> None:
        if not 0.0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(
                "Training noise levels need 0 < sigma_min < sigma_max < inf, "
                f"but got sigma_min={self.sigma_min} and sigma_max={self.sigma_max}."
            )
        if not 0.0 <= self.share_at_max <= 1.0:
            raise ValueError(f"share_at_max is a fraction of the draws, between 0 and 1, but got {self.share_at_max}.")
        if not self.log_std > 0.0:
            raise ValueError(
                f"log_std is the standard deviation of ln(sigma) and must be above 0, but got {self.log_std}."
            )

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `count` noise levels [count], float32, on the generator's device, from this generator alone.

        The draws of one batch share one uniform offset and are spread evenly over the distribution, so a batch sees
        high and low levels in their true proportion; each single draw still follows the distribution exactly.
        Neighbours in a batch therefore have neighbouring levels: the items of a batch must be exchangeable.
        """
        device = generator.device
        offset = torch.rand((), generator=generator, dtype=torch.float64, device=device)
        u = torch.remainder(offset + torch.arange(count, dtype=torch.float64, device=device) / max(count, 1), 1.0)
        # u < share is the atom at sigma_max; the remaining interval, stretched to [0, 1), drives the log-normal.
        rest = ((u - self.share_at_max) / max(1.0 - self.share_at_max, 1e-12)).clamp(0.0, 1.0)
        sigma = torch.exp(self.log_mean + self.log_std * torch.special.ndtri(rest)).clamp(
            self.sigma_min, self.sigma_max
        )
        return torch.where(u < self.share_at_max, self.sigma_max, sigma).to(torch.float32)


class DenoisingLoss(NamedTuple):
    """Result of `denoising_loss`: `mean` is a scalar to minimise; `per_sample` [B] is detached, for logs."""

    mean: Tensor
    per_sample: Tensor


def denoising_loss(
    denoiser: Denoiser, clean: Tensor, cond: Any, sigma: Tensor, noise: Tensor, weight: Tensor
) -> DenoisingLoss:
    """Weighted denoising error at given noise levels.

    `lambda(sigma) * w * (D(clean + sigma * noise, sigma, cond) - clean)^2`, with
    `lambda = (sigma^2 + 1) / sigma^2 = 1 / c_out^2` (Karras et al. 2022, equation 8 and Table 1), summed and divided by
    the sum of `w` over the whole batch: each trusted voxel of each present map counts the same. All channels are
    noised, absent ones too, as they are in sampling.

    Args:
        denoiser: The denoiser under training.
        clean: Clean residual [B, K, X, Y], in units of its RMS; finite everywhere.
        cond: Passed to the network untouched.
        sigma: Noise levels [B], positive, at most the denoiser's `sigma_max`.
        noise: Standard normal noise, shape of `clean`.
        weight: Presence times voxel weight, not negative, broadcastable to `clean`: [B, K, 1, 1] for presence alone,
            [B, 1, X, Y] for voxels alone. A batch without any weight gives 0 and zero gradients.

    Returns:
        The batch mean, and the detached mean of each sample.

    Raises:
        ValueError: If `noise` does not have the shape of `clean` (broadcast noise would be shared between samples).
    """
    return estimate_loss(denoiser(noisy_state(clean, sigma, noise), sigma, cond), clean, sigma, weight)


def noisy_state(clean: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """`clean + sigma * noise` for noise levels [B].

    Raises:
        ValueError: If `noise` does not have the shape of `clean` (broadcast noise would be shared between samples).
    """
    if noise.shape != clean.shape:
        raise ValueError(
            f"denoising_loss got noise of shape {tuple(noise.shape)} for residuals of shape {tuple(clean.shape)}; "
            "draw independent noise of the same shape."
        )
    return clean + _per_sample(sigma, clean) * noise


def _per_sample(sigma: Tensor, clean: Tensor) -> Tensor:
    return sigma.to(clean.dtype).view((-1,) + (1,) * (clean.ndim - 1))


def estimate_loss(
    estimate: Tensor, clean: Tensor, sigma: Tensor, weight: Tensor, total_weight: Tensor | None = None
) -> DenoisingLoss:
    """The weighted error of `denoising_loss` for an estimate that is already made.

    `total_weight`, a scalar, replaces the sum of the weights where this is a part of a larger batch.
    """
    level = _per_sample(sigma, clean)
    scaled = (estimate - clean) * ((level * level + 1.0).sqrt() / level)
    weight = weight.to(clean.dtype).expand_as(clean)
    dims = tuple(range(1, clean.ndim))
    error, total = (weight * scaled * scaled).sum(dims), weight.sum(dims)
    tiny = torch.finfo(clean.dtype).tiny
    return DenoisingLoss(
        mean=error.sum() / (total.sum() if total_weight is None else total_weight).clamp(min=tiny),
        per_sample=(error / total.clamp(min=tiny)).detach(),
    )


def spread_loss(
    log_sd: Tensor,
    estimate: Tensor,
    clean: Tensor,
    weight: Tensor,
    beta: float = 0.5,
    total_weight: Tensor | None = None,
) -> Tensor:
    """Gaussian negative log-likelihood of the error of an estimate, as a loss of its predicted spread alone.

    `w sg(s^(2 beta)) (e^2 / (2 s^2) + ln s)` with `e = sg(estimate) - clean` and `sg` the stop of gradients (Kendall &
    Gal, NeurIPS 2017, equation 5; weighted by `s^(2 beta)` after Seitzer et al., ICLR 2022, equation 6, which keeps
    voxels of large error from being given up). The estimate gets no gradient.

    Args:
        log_sd: ln of the predicted standard deviation, shape of `clean`.
        estimate: Estimate of `clean`.
        clean: Clean residual [B, K, X, Y], in units of its RMS.
        weight: Not negative, broadcastable to `clean`.
        beta: 0 is the plain likelihood, 1 the gradient of a squared error.
        total_weight: In place of the sum of the weights, where this is a part of a larger batch.

    Returns:
        Scalar: the mean over the weights, 0 without any.
    """
    bounded = log_sd.clamp(*LOG_SD_RANGE)
    error = estimate.detach() - clean
    likelihood = 0.5 * error * error * torch.exp(-2 * bounded) + bounded
    weight = weight.to(clean.dtype).expand_as(clean)
    total = (weight.sum() if total_weight is None else total_weight).clamp(min=torch.finfo(clean.dtype).tiny)
    return (weight * torch.exp(2 * beta * bounded.detach()) * likelihood).sum() / total
