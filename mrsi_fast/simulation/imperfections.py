"""Departures of measured maps from what is stated of them: k-space weighting, noise beyond the Cramér-Rao bound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.simulation.config import SignalConfig
from mrsi_fast.simulation.fields import Array, Axis, SmoothField
from mrsi_fast.simulation.keys import Key

EXCESS_WIDTH_MM = 25.0  # width of the smooth field that excess noise follows (assumed)
OWN_EXCESS_SD = 0.25  # SD of the logarithm of each map's own excess around the common one (assumed)


@dataclass(frozen=True)
class Mismatch:
    """Difference between the true k-space weighting and the declared one.

    A window of other width, the density of spiral or concentric trajectories and T2* decay along them all act as a
    smooth factor over k-space; an offset of the grid acts as a shift.

    Attributes:
        damping: The line at radius r (1 at the edge of the square) is multiplied by exp(-damping r^2).
        shift: Displacement per axis, LR voxels.
    """

    damping: float
    shift: tuple[float, float]

    def apply(self, maps: Array) -> Array:
        """LR maps [..., nx, ny] with the weighting, in their own precision."""
        kx, ky = (np.fft.fftfreq(n)[:, None] if axis == 0 else np.fft.rfftfreq(n)[None, :]
                  for axis, n in enumerate(maps.shape[-2:]))  # fmt: skip
        weight = np.exp(-self.damping * 4 * (kx**2 + ky**2))
        phase = np.exp(-2j * np.pi * (kx * self.shift[0] + ky * self.shift[1]))
        lines = np.fft.rfft2(maps) * (weight * phase)
        return np.fft.irfft2(lines, maps.shape[-2:]).astype(maps.dtype)


def draw_mismatch(rng: np.random.Generator, settings: SignalConfig) -> Mismatch | None:
    """Draws a mismatch for a share of the acquisitions."""
    present, damping = rng.random() < settings.mismatch, float(rng.uniform(*settings.mismatch_damping))
    shift = np.clip(settings.mismatch_shift * rng.standard_t(3, 2), -0.5, 0.5)
    return Mismatch(damping, (float(shift[0]), float(shift[1]))) if present else None


def excess_noise(
    clean: Array,
    stated_sd: Array,
    support: NDArray[np.bool_],
    axes: tuple[Axis, Axis],
    planes: Array,
    excess: float,
    settings: SignalConfig,
    key: Key,
) -> Array:
    """Factor [M, nx, ny] of the true noise on the stated one.

    It is common to all maps up to a factor of their own, follows a smooth field, and varies from voxel to voxel, which
    makes the tails of the error heavy.

    Args:
        clean: LR maps without noise [M, nx, ny].
        stated_sd: Stated noise SD [M, nx, ny], same unit.
        support: Voxels with tissue [nx, ny].
        axes: LR axes.
        planes: Heights of the slice, mm.
        excess: Level common to all maps, at least 1.
        settings: Spread of the rest.
        key: The slice's key.
    """
    rng = key.stream("excess noise")
    level = np.maximum(excess * np.exp(OWN_EXCESS_SD * rng.standard_normal(len(clean))), 1.0)
    if support.any():  # a map that noise buries carries no information
        typical = np.median(np.abs(clean[:, support]), axis=1)
        stated = np.median(np.broadcast_to(stated_sd, clean.shape)[:, support], axis=1)
        level = np.clip(level, 1.0, np.maximum(settings.excess_largest * typical / np.maximum(stated, 1e-12), 1.0))
    factor = np.broadcast_to(level.astype(clean.dtype)[:, None, None], clean.shape)
    if settings.excess_field_sd > 0:
        wave = SmoothField(key, "excess", 1, EXCESS_WIDTH_MM, clean.dtype.name).slab(*axes, planes)[0]
        factor = factor * np.exp(settings.excess_field_sd * wave)
    tail = settings.noise_tail
    if tail > 0:  # the mean square of the amplitude is 1
        factor = factor * np.exp(tail * rng.standard_normal(clean.shape, dtype=clean.dtype) - tail**2)
    return factor
