"""Ridge regression from LR neighbourhoods to HR voxels, fitted on the train heads.

The best linear, shift-invariant guess: per map and HR position inside an LR voxel, weights on the map's own 5x5 LR
neighbourhood, added to the estimate that the data alone give. Maps are not mixed: fitted across maps, the regression
fell apart on lesions, where 2HG appears that hardly any train voxel holds. The ridge parameter is chosen per map by
leaving one head out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

RADIUS = 2
RADIUS_THROUGH = 1
"""Neighbouring slices on either side that count where the slices are refined too."""

STRENGTHS: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Ridge parameters that are tried, relative to the mean variance of a feature."""


@dataclass(frozen=True, eq=False)
class Ridge:
    """A fitted regression.

    Attributes:
        weights: [M, 25, fx fy], or [M, 75, fx fy g] where the slices are refined too.
        factors: In-plane factors, and that through the plane where there is one.
        strengths: [M] the ridge parameter that left-out heads liked best.
    """

    weights: Float64
    factors: tuple[int, ...]
    strengths: Float64

    def estimate(self, low: NDArray, z: NDArray) -> Float32:
        """Refines maps.

        Args:
            low: [M, nx, ny, Z] LR maps over their scale, untrusted voxels filled.
            z: [M, X, Y, Z] estimate from the data alone, over the same scale.

        Returns:
            [M, X, Y, Z] over that scale.
        """
        (maps, nx, ny, slices), (fx, fy, g) = low.shape, (*self.factors, 1)[:3]
        detail = neighbourhoods(low, g > 1) @ self.weights
        detail = detail.reshape(maps, slices, nx, ny, fx, fy, g).transpose(0, 2, 4, 3, 5, 1, 6)
        return (z + detail.reshape(maps, nx * fx, ny * fy, slices * g)).astype(np.float32)


def neighbourhoods(low: NDArray, through: bool = False) -> Float64:
    """Features [M, Z nx ny, 25] of LR maps [M, nx, ny, Z]; 0 beyond the field of view.

    Args:
        low: The maps.
        through: Take the slices on either side too, which makes 75 features.
    """
    reach = (RADIUS, RADIUS, RADIUS_THROUGH if through else 0)
    padded = np.pad(np.asarray(low, np.float64), ((0, 0), *((r, r) for r in reach)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, tuple(2 * r + 1 for r in reach), axis=(1, 2, 3))
    maps, nx, ny, slices = low.shape
    return windows.transpose(0, 3, 1, 2, 4, 5, 6).reshape(maps, slices * nx * ny, -1)


@dataclass(eq=False)
class _Sums:
    """Normal equations of one head: [M, 25, 25], [M, 25, fx fy], [M]."""

    gram: Float64
    cross: Float64
    power: Float64

    def plus(self, other: _Sums) -> _Sums:
        return _Sums(self.gram + other.gram, self.cross + other.cross, self.power + other.power)


def fit_ridge(pairs: Iterable[tuple[str, NDArray, NDArray]], factors: tuple[int, ...]) -> Ridge:
    """Fits the regression.

    Args:
        pairs: ``(head, low, detail)``: LR maps [M, nx, ny, Z] and ``truth - z`` [M, X, Y, Z], over the maps' scale.
        factors: In-plane factors, and that through the plane where there is one.

    Raises:
        ValueError: Fewer than two heads.
    """
    sums: dict[str, _Sums] = {}
    for head, low, detail in pairs:
        own = _normal_equations(low, detail, factors)
        sums[head] = sums[head].plus(own) if head in sums else own
    if len(sums) < 2:
        raise ValueError(f"The ridge parameter is chosen by leaving heads out, which needs two heads; got {len(sums)}.")
    parts = list(sums.values())
    whole = reduce(_Sums.plus, parts)
    unit = np.trace(whole.gram, axis1=1, axis2=2) / whole.gram.shape[1]
    unit = np.where(unit > 0, unit, 1.0)  # an empty map
    errors = np.zeros((len(STRENGTHS), len(unit)))
    for row, strength in enumerate(STRENGTHS):
        for own in parts:
            weights = _solve(whole.gram - own.gram, whole.cross - own.cross, strength * unit)
            errors[row] += own.power - 2 * (weights * own.cross).sum(axis=(1, 2))
            errors[row] += (weights * (own.gram @ weights)).sum(axis=(1, 2))
    best = np.array(STRENGTHS)[errors.argmin(axis=0)]
    return Ridge(_solve(whole.gram, whole.cross, best * unit), factors, best)


def _normal_equations(low: NDArray, detail: NDArray, factors: tuple[int, ...]) -> _Sums:
    (maps, nx, ny, slices), (fx, fy, g) = low.shape, (*factors, 1)[:3]
    features = neighbourhoods(low, g > 1)
    target = np.asarray(detail, np.float64).reshape(maps, nx, fx, ny, fy, slices, g).transpose(0, 5, 1, 3, 2, 4, 6)
    target = target.reshape(maps, slices * nx * ny, fx * fy * g)
    turned = features.transpose(0, 2, 1)
    return _Sums(turned @ features, turned @ target, (target**2).sum(axis=(1, 2)))


def _solve(gram: Float64, cross: Float64, ridge: Float64) -> Float64:
    regular = gram + ridge[:, None, None] * np.eye(gram.shape[1])
    return np.asarray(np.linalg.solve(regular, cross), np.float64)
