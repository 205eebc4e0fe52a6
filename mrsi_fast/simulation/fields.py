"""Smooth Gaussian random fields in three dimensions that can be evaluated on one slice at a time.

A field is white noise on a cubic lattice, interpolated by cubic B-splines whose weights are divided by their Euclidean
norm, so that its variance is 1 at every point. Lattice planes are drawn from the subject's key plane by plane: a slice
needs the few planes around it, and a stack of slices is the same field as the volume.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.simulation.keys import Key

Array = NDArray[np.float32]

SPLINE_WIDTH = 1 / np.sqrt(3.0)  # standard deviation of the cubic B-spline, in lattice spacings
HALF_EXTENT_MM = 150.0  # lattices cover this far from the centre; beyond it the field stays what it is at the edge


@lru_cache(maxsize=64)
def _weights(start_mm: float, step_mm: float, count: int, spacing_mm: float) -> Array:
    """Unit-norm cubic B-spline weights [count, knots] of points on a regular axis."""
    half = int(np.ceil(HALF_EXTENT_MM / spacing_mm)) + 2
    points = np.clip((start_mm + step_mm * np.arange(count)) / spacing_mm, 2 - half, half - 3)
    first, taps = _taps(points)
    weights = np.zeros((count, 2 * half + 1), np.float32)
    weights[np.arange(count)[:, None], first[:, None] + np.arange(half, half + 4)] = taps
    return weights


def _taps(points: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """First of the four knots of each point (in lattice spacings) and the knots' unit-norm weights [count, 4]."""
    below = np.floor(points)
    t = points - below
    taps = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1)
    return below.astype(np.int64) - 1, taps / np.sqrt((taps**2).sum(1, keepdims=True))


class Axis:
    """A regular axis of points: first coordinate, step and count, in mm."""

    __slots__ = ("count", "start", "step")

    def __init__(self, start: float, step: float, count: int) -> None:
        self.start, self.step, self.count = float(start), float(step), int(count)

    @classmethod
    def centred(cls, centre: float, extent: float, count: int) -> Axis:
        """``count`` cell centres over ``extent`` mm around ``centre``."""
        step = extent / count
        return cls(centre - extent / 2 + step / 2, step, count)

    @property
    def points(self) -> Array:
        """Coordinates, float32 [count]."""
        return (self.start + self.step * np.arange(self.count)).astype(np.float32)

    def part(self, low: int, high: int) -> Axis:
        """The points ``low`` to ``high`` (exclusive)."""
        return Axis(self.start + self.step * low, self.step, high - low)

    def merged(self, count: int) -> Axis:
        """The centres of blocks of ``count`` points."""
        return Axis(self.start + self.step * (count - 1) / 2, self.step * count, self.count // count)

    def weights(self, spacing_mm: float) -> Array:
        """Spline weights of the points; see :func:`_weights`."""
        return _weights(round(self.start, 6), round(self.step, 9), self.count, round(spacing_mm, 6))


class SmoothField:
    """``channels`` independent unit-variance Gaussian fields, smooth over ``width_mm`` (SD of the kernel)."""

    def __init__(self, key: Key, name: str, channels: int, width_mm: float) -> None:
        self.key, self.name, self.channels = key, name, channels
        self.spacing = width_mm / SPLINE_WIDTH
        self.knots = 2 * (int(np.ceil(HALF_EXTENT_MM / self.spacing)) + 2) + 1

    def lattice(self, planes_mm: Array) -> Array:
        """Lattice values [channels, knots, knots] of the mean over planes at the given heights."""
        first, taps = _taps(np.asarray(planes_mm, np.float64) / self.spacing)
        weights: dict[int, float] = {}
        for start, row in zip(first.tolist(), (taps / len(taps)).tolist(), strict=True):
            for offset, weight in enumerate(row):
                weights[start + offset] = weights.get(start + offset, 0.0) + weight
        total = np.zeros((self.channels, self.knots, self.knots), np.float32)
        for weight, plane in zip(weights.values(), self.key.normals(self.name, weights, total.shape), strict=True):
            plane *= np.float32(weight)
            total += plane
        return total

    def slab(self, x: Axis, y: Axis, planes_mm: Array) -> Array:
        """The field on a slice [channels, X, Y], averaged over the given planes."""
        return upsample(self.lattice(planes_mm), x, y, self.spacing)


def upsample(lattice: Array, x: Axis, y: Axis, spacing_mm: float) -> Array:
    """Interpolates lattice values [..., knots, knots] to a slice [..., X, Y]."""
    return x.weights(spacing_mm) @ lattice @ y.weights(spacing_mm).T
