"""Smooth Gaussian random fields in three dimensions that can be evaluated on one slice at a time.

A field is white noise on a cubic lattice, interpolated by cubic B-splines whose weights are divided by their Euclidean
norm, so that its variance is 1 at every point. Lattice planes are drawn from the subject's key plane by plane: a slice
needs the few planes around it, and a stack of slices is the same field as the volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.simulation.keys import Key

Array = NDArray[np.floating]

SPLINE_WIDTH = 1 / np.sqrt(3.0)  # standard deviation of the cubic B-spline, in lattice spacings
HALF_EXTENT_MM = 150.0  # lattices cover this far from the centre; beyond it the field stays what it is at the edge


@dataclass(frozen=True)
class Axis:
    """A regular axis of points.

    Attributes:
        start: First point, mm.
        step: Distance of points, mm.
        count: Number of points.
        dtype: ``float32`` for speed, ``float64`` for results that can be published with a checksum.
    """

    start: float
    step: float
    count: int
    dtype: str = "float32"

    @classmethod
    def centred(cls, centre: float, extent: float, count: int, dtype: str = "float32") -> Axis:
        """``count`` cell centres over ``extent`` mm around ``centre``."""
        step = extent / count
        return cls(centre - extent / 2 + step / 2, step, count, dtype)

    @property
    def points(self) -> Array:
        """Coordinates [count], mm."""
        return (self.start + self.step * np.arange(self.count)).astype(self.dtype)

    def part(self, low: int, high: int) -> Axis:
        """The points ``low`` to ``high`` (exclusive)."""
        return Axis(self.start + self.step * low, self.step, high - low, self.dtype)

    def merged(self, count: int) -> Axis:
        """The centres of blocks of ``count`` points."""
        return Axis(self.start + self.step * (count - 1) / 2, self.step * count, self.count // count, self.dtype)

    def weights(self, spacing_mm: float) -> Array:
        """Unit-norm spline weights [count, knots] of the points on a lattice."""
        return _weights(self, spacing_mm)


def _half_knots(spacing_mm: float) -> int:
    return int(np.ceil(HALF_EXTENT_MM / spacing_mm)) + 2


@lru_cache(maxsize=64)
def _weights(axis: Axis, spacing_mm: float) -> Array:
    half = _half_knots(spacing_mm)
    first, taps = _taps(np.clip((axis.start + axis.step * np.arange(axis.count)) / spacing_mm, 2 - half, half - 3))
    weights = np.zeros((axis.count, 2 * half + 1), axis.dtype)
    weights[np.arange(axis.count)[:, None], first[:, None] + np.arange(half, half + 4)] = taps
    weights.flags.writeable = False
    return weights


def _taps(points: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """First of the four knots of each point (in lattice spacings) and the knots' unit-norm weights [count, 4]."""
    below = np.floor(points)
    t = points - below
    taps = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1)
    return below.astype(np.int64) - 1, taps / np.sqrt((taps**2).sum(1, keepdims=True))


class SmoothField:
    """``channels`` independent unit-variance Gaussian fields, smooth over ``width_mm`` (SD of the kernel)."""

    def __init__(self, key: Key, name: str, channels: int, width_mm: float, dtype: str = "float32") -> None:
        self.key, self.name, self.channels, self.dtype = key, name, channels, dtype
        self.spacing = width_mm / SPLINE_WIDTH
        self.knots = 2 * _half_knots(self.spacing) + 1

    def lattice(self, planes_mm: Array) -> Array:
        """Lattice values [channels, knots, knots] of the mean over planes at the given heights."""
        first, taps = _taps(np.asarray(planes_mm, np.float64) / self.spacing)
        weights: dict[int, float] = {}
        for start, row in zip(first.tolist(), (taps / len(taps)).tolist(), strict=True):
            for offset, weight in enumerate(row):
                weights[start + offset] = weights.get(start + offset, 0.0) + weight
        total = np.zeros((self.channels, self.knots, self.knots), self.dtype)
        normals = self.key.normals(self.name, weights, total.shape, self.dtype)
        for weight, plane in zip(weights.values(), normals, strict=True):
            plane *= weight
            total += plane
        return total

    def slab(self, x: Axis, y: Axis, planes_mm: Array) -> Array:
        """The field on a slice [channels, X, Y], averaged over the given planes."""
        return upsample(self.lattice(planes_mm), x, y, self.spacing)


def upsample(lattice: Array, x: Axis, y: Axis, spacing_mm: float) -> Array:
    """Interpolates lattice values [..., knots, knots] to a slice [..., X, Y]."""
    return x.weights(spacing_mm) @ lattice @ y.weights(spacing_mm).T


def correlate(names: Sequence[str], first: str, second: str, value: float, dtype: str) -> Array:
    """Matrix [M, M] that turns independent channels into ones of which two are correlated.

    Args:
        names: Name of each channel.
        first: Channel that becomes a mixture.
        second: Channel that it is correlated with; where either is absent the matrix is the identity.
        value: Correlation coefficient.
        dtype: Of the matrix.
    """
    mixing = np.eye(len(names), dtype=dtype)
    if first in names and second in names:
        row = list(names).index(first)
        mixing[row, row], mixing[row, list(names).index(second)] = np.sqrt(1 - value**2), value
    return mixing
