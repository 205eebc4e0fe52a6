"""The denoiser `D(x, sigma, cond) -> x0`: EDM preconditioning around any network.

Source: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022, equation 7
and Table 1, with `sigma_data = 1` because the residual that is diffused has unit RMS. The state is the EDM one,
`x = x0 + sigma * n`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

LOG_SD_RANGE = (-7.0, 3.0)
"""What ln of a posterior standard deviation, in units of the residual's RMS, is held to: 0.0009 to 20."""


def standard_deviation(log_sd: Tensor) -> Tensor:
    """Posterior standard deviation in units of the residual's RMS from what the network's second head gives."""
    return log_sd.clamp(*LOG_SD_RANGE).exp()


class Preconditioning(NamedTuple):
    """Coefficients of `D = c_skip * x + c_out * F(c_in * x, c_noise, cond)`, one value per sample."""

    c_in: Tensor
    c_skip: Tensor
    c_out: Tensor
    c_noise: Tensor


class Denoiser(nn.Module):
    """Estimates the clean signal from a noisy one, at any noise level, with a network that sees unit-variance input.

    Within the trained range the coefficients are those of Karras et al. 2022, Table 1, with `sigma_data = 1`:
    `c_in = 1 / sqrt(sigma^2 + 1)`, `c_skip = c_in^2`, `c_out = sigma * c_in`, `c_noise = ln(sigma) / 4`. Outside it:

    - above `sigma_max`, `D(x, sigma) = D(x * sigma_max / sigma, sigma_max)`. There the clean signal has no weight
      beside the noise, so the rescaled input looks like one at `sigma_max`; a long reference chain may start far above
      the trained range;
    - below `sigma_min` only the noise label is held, so `D(x, 0) = x` is finite.

    Args:
        network: Callable `F(x_in, noise_label, cond)` with `x_in` of the shape of `x`, `noise_label` of shape [B] and
            `cond` passed on untouched; returns the shape of `x`. An `nn.Module` becomes the submodule `network`. With
            a second head, its method `with_spread` takes the same and returns both (`SelfAttentionUNet`).
        sigma_max: Highest noise level of training, in units of the residual's RMS.
        sigma_min: Noise level below which the network's label no longer changes, same units.

    Raises:
        ValueError: If not `0 < sigma_min < sigma_max < inf`.
    """

    def __init__(
        self, network: Callable[[Tensor, Tensor, Any], Tensor], sigma_max: float, sigma_min: float = 0.002
    ) -> None:
        super().__init__()
        if not 0.0 < sigma_min < sigma_max < math.inf:
            raise ValueError(
                f"Denoiser needs 0 < sigma_min < sigma_max < inf, but got sigma_min={sigma_min} and "
                f"sigma_max={sigma_max}; use the noise levels that the network was trained on."
            )
        self.network: Any = network
        self.sigma_max = float(sigma_max)
        self.sigma_min = float(sigma_min)

    @property
    def tells_spread(self) -> bool:
        """Whether the network has the second head that `with_spread` needs."""
        return getattr(self.network, "spread", None) is not None

    def preconditioning(self, sigma: Tensor) -> Preconditioning:
        """Coefficients at noise levels `sigma`, the rule above `sigma_max` included, in its shape and dtype.

        A plan that bakes them in as constants passes a float64 tensor.
        """
        shrink = (self.sigma_max / sigma).clamp(max=1.0)  # sigma = 0 gives inf, hence 1
        inside = sigma.clamp(max=self.sigma_max)
        norm = (inside * inside + 1.0).rsqrt()
        return Preconditioning(
            c_in=shrink * norm,
            c_skip=shrink * norm * norm,
            c_out=inside * norm,
            c_noise=inside.clamp(min=self.sigma_min).log() / 4.0,
        )

    def forward(self, x: Tensor, sigma: Tensor | float, cond: Any = None) -> Tensor:
        """Denoise a batch.

        Args:
            x: Noisy residual [B, ...], in units of its RMS.
            sigma: Noise level of each sample [B], or one number for all; same units. Values are not checked (that would
                stop an accelerator); negative or NaN levels give meaningless output.
            cond: Anything; handed to the network as it is.

        Returns:
            Estimate of the clean residual, shape and dtype of `x`. What the network returns (bfloat16 under autocast)
            is converted to that dtype before it is combined, so low precision never touches the skip path.

        Raises:
            ValueError: If a `sigma` tensor does not have shape [B].
        """
        sigma = self._levels(x, sigma)
        c = self.preconditioning(sigma)
        output = self.network(_per_sample(c.c_in, x) * x, c.c_noise, cond)
        return self._estimate(x, c, output)

    def with_spread(self, x: Tensor, sigma: Tensor | float, cond: Any = None) -> tuple[Tensor, Tensor]:
        """Denoise a batch and estimate the spread of the posterior, by one evaluation of a network with two heads.

        Args:
            x: As for `forward`. The spread has a meaning at the one-step point only: a state of 0 at `sigma_max`.
            sigma: As for `forward`.
            cond: As for `forward`.

        Returns:
            The estimate, as `forward` gives it, and ln of the posterior standard deviation of the residual in units of
            its RMS, shape and dtype of `x`, not held to a range (see `standard_deviation`).

        Raises:
            ValueError: If a `sigma` tensor does not have shape [B], or the network has no second head.
        """
        sigma = self._levels(x, sigma)
        c = self.preconditioning(sigma)
        output, log_sd = self.network.with_spread(_per_sample(c.c_in, x) * x, c.c_noise, cond)
        return self._estimate(x, c, output), log_sd.to(x.dtype)

    def _levels(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`sigma` as one noise level a sample, at least in float32."""
        dtype = torch.promote_types(x.dtype, torch.float32)  # ln(sigma) in half precision would blur the label
        if not isinstance(sigma, Tensor):
            return torch.full((x.shape[0],), float(sigma), dtype=dtype, device=x.device)
        if sigma.shape != x.shape[:1]:
            raise ValueError(
                f"Denoiser got sigma of shape {tuple(sigma.shape)} for a batch of {x.shape[0]}; "
                "pass one noise level per sample, shape [B], or one number."
            )
        return sigma.to(dtype)

    def _estimate(self, x: Tensor, c: Preconditioning, output: Tensor) -> Tensor:
        return _per_sample(c.c_skip, x) * x + _per_sample(c.c_out, x) * output.to(x.dtype)


def _per_sample(values: Tensor, x: Tensor) -> Tensor:
    """One value a sample in the dtype of `x`, shaped to multiply it."""
    return values.to(x.dtype).view((-1,) + (1,) * (x.ndim - 1))
