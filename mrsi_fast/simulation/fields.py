"""Smooth Gaussian random fields in three dimensions that can be evaluated on one slice at a time.

A field is white noise on a cubic lattice, interpolated by cubic B-splines whose weights are divided by their Euclidean
norm, so that its variance is 1 at every point. The noise is uniform, which is faster to draw; a point mixes up to 64
values, so the field is near Gaussian with lighter tails (excess kurtosis -0.15 between lattice points, -0.6 on one).
Lattice planes are drawn from the key plane by plane: a slice needs the few planes around it, and a stack of slices is
the same field as the volume.
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

    def refined(self, count: int) -> Axis:
        """Each point replaced by ``count`` points over its cell; undone by ``merged``."""
        step = self.step / count
        return Axis(self.start - step * (count - 1) / 2, step, self.count * count, self.dtype)

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
    square, cube = t * t, t * t * t
    taps = np.empty((len(t), 4))
    taps[:, 0], taps[:, 1] = (1 - t) ** 3, 3 * cube - 6 * square + 4
    taps[:, 2], taps[:, 3] = 3 * (square + t - cube) + 1, cube
    return below.astype(np.int64) - 1, taps / np.sqrt(np.einsum("ij,ij->i", taps, taps))[:, None]


class SmoothField:
    """``channels`` independent unit-variance Gaussian fields, smooth over ``width_mm`` (SD of the kernel)."""

    def __init__(self, key: Key, name: str, channels: int, width_mm: float, dtype: str = "float32") -> None:
        self.key, self.name, self.channels, self.dtype = key, name, channels, dtype
        self.spacing = width_mm / SPLINE_WIDTH
        self.knots = 2 * _half_knots(self.spacing) + 1

    def lattice(self, planes_mm: Array) -> Array:
        """Lattice values [channels, knots, knots] of the mean over planes at the given heights."""
        weights = self._plane_weights(planes_mm)
        return self._mix(weights.mean(axis=0, keepdims=True), self._first_knot(planes_mm))[0]

    def lattices(self, planes_mm: Array) -> Array:
        """Lattice values [planes, channels, knots, knots] of each plane."""
        return self._mix(self._plane_weights(planes_mm), self._first_knot(planes_mm))

    def _first_knot(self, planes_mm: Array) -> int:
        return int(np.floor(float(np.min(planes_mm)) / self.spacing)) - 1

    def _plane_weights(self, planes_mm: Array) -> NDArray[np.float64]:
        """Weights [planes, lattice planes] along the third axis."""
        first, taps = _taps(np.asarray(planes_mm, np.float64) / self.spacing)
        start = self._first_knot(planes_mm)
        weights = np.zeros((len(first), int(first.max()) - start + 4))
        np.put_along_axis(weights, (first - start)[:, None] + np.arange(4), taps, axis=1)
        return weights

    def _mix(self, weights: NDArray[np.float64], start: int) -> Array:
        total = np.zeros((len(weights), self.channels, self.knots, self.knots), self.dtype)
        indices = range(start, start + weights.shape[1])
        noise = self.key.white_noise(self.name, indices, total.shape[1:], self.dtype)
        for column, plane in zip(weights.T, noise, strict=True):
            for row, weight in enumerate(column.tolist()):
                if weight:
                    total[row] += weight * plane
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
