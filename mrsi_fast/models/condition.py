"""Inputs of the network besides the noisy residual, and their units.

Everything here is relative to each map's own scale, so that multiplying all maps by one constant changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

NOISE_FLOOR = 1e-3
"""Relative noise below this is passed to the network as noise-free."""


@dataclass(frozen=True)
class Condition:
    """Conditioning of a batch of slices in network units.

    Attributes:
        z: [B, K, X, Y] estimate that the measured data alone give, map / scale; absent maps are 0.
        mask: [B, K, X, Y] 1 where the measurement is trusted.
        anatomy: [B, 1, X, Y] standardised anatomical image, 0 if there is none.
        vector: [B, 3 K + 5] presence (K), log relative scale (K), log relative noise (K), log2 factors (2),
            log voxel size (2), anatomy flag (1).
    """

    z: Tensor
    mask: Tensor
    anatomy: Tensor
    vector: Tensor

    @property
    def presence(self) -> Tensor:
        """[B, K] 1 for maps that exist."""
        return self.vector[:, : self.z.shape[1]]

    def map(self, function: Callable[[Tensor], Tensor]) -> Condition:
        """Applies ``function`` to every tensor (moving to a device, repeating for samples, indexing)."""
        return Condition(*(function(getattr(self, field.name)) for field in fields(self)))


def vector_width(channels: int) -> int:
    """Length of the conditioning vector for ``channels`` map channels."""
    return 3 * channels + 5


def condition_vector(
    presence: Tensor, scale: Tensor, noise: Tensor, factors: Tensor, voxel_mm: Tensor, anatomy_present: Tensor
) -> Tensor:
    """Builds the [B, 3 K + 5] vector of ``Condition``.

    Args:
        presence: [B, K] 1 for maps that exist.
        scale: [B, K] scale of each map, in the maps' units.
        noise: [B, K] noise standard deviation of one low-resolution voxel, same units; 0 if noise-free.
        factors: [B, 2] super-resolution factor per axis.
        voxel_mm: [B, 2] high-resolution voxel size in mm.
        anatomy_present: [B] 1 if an anatomical image is given.
    """
    safe_scale = torch.where(presence > 0, scale.clamp_min(torch.finfo(scale.dtype).tiny), torch.ones_like(scale))
    log_scale = safe_scale.log()
    mean = (log_scale * presence).sum(1, keepdim=True) / presence.sum(1, keepdim=True).clamp_min(1)
    relative_noise = (noise / safe_scale).clamp_min(0)
    log_noise = ((relative_noise + NOISE_FLOOR).log() - math.log(NOISE_FLOOR)) / 3
    return torch.cat(
        [
            presence,
            (log_scale - mean) * presence / 2,
            log_noise * presence,
            factors.log2(),
            voxel_mm.log(),
            anatomy_present[:, None],
        ],
        dim=1,
    )


def batch_condition(batch: Mapping[str, Tensor]) -> Condition:
    """Conditioning of a batch in the layout of ``Simulator.batch`` (values in the maps' units).

    Args:
        batch: Tensors ``z``, ``mask`` [B, K, X, Y]; ``presence``, ``scale``, ``noise`` [B, K]; ``factors``,
            ``voxel_mm`` [B, 2]; ``anatomy`` [B, 1, X, Y]; ``anatomy_present`` [B].
    """
    presence = batch["presence"]
    present = presence[:, :, None, None]
    scale = torch.where(presence > 0, batch["scale"], torch.ones_like(presence))[:, :, None, None]
    flag = batch["anatomy_present"]
    vector = condition_vector(presence, batch["scale"], batch["noise"], batch["factors"], batch["voxel_mm"], flag)
    return Condition(
        z=batch["z"] / scale * present,
        mask=batch["mask"] * present,
        anatomy=batch["anatomy"] * flag[:, None, None, None],
        vector=vector,
    )


def residual_rms(table: Mapping[str, Sequence[float]], factors: Tensor) -> Tensor:
    """Fixed RMS of the residual for each factor and channel, interpolated in log2 of the geometric-mean factor.

    Args:
        table: RMS per channel under the keys "2", "4", "8" (``DiffusionConfig.residual_rms``).
        factors: [B, 2].

    Returns:
        [B, K]; factors outside the table take its nearest row.
    """
    keys = sorted(table, key=float)
    # Copied without waiting for a GPU, which may still be busy with the training step before.
    knots, rows = (
        torch.tensor(values, dtype=factors.dtype).to(factors.device, non_blocking=True)
        for values in ([math.log2(float(key)) for key in keys], [list(table[key]) for key in keys])
    )
    rows = rows.log()
    position = factors.log2().mean(1).clamp(knots[0], knots[-1])
    upper = torch.searchsorted(knots, position).clamp(1, len(keys) - 1) if len(keys) > 1 else position.long() * 0
    lower = (upper - 1).clamp_min(0)
    span = (knots[upper] - knots[lower]).clamp_min(1e-6)
    weight = ((position - knots[lower]) / span)[:, None]
    return torch.lerp(rows[lower], rows[upper], weight).exp()
