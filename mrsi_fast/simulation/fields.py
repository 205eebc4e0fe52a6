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
HALF_EXTENT_MM = 150.0  # lattices cover at least this far from the centre; beyond it the outermost knots fade out


@lru_cache(maxsize=64)
def _weights(start_mm: float, step_mm: float, count: int, spacing_mm: float) -> Array:
    """Unit-norm cubic B-spline weights [count, knots] of points on a regular axis."""
    half = int(np.ceil(HALF_EXTENT_MM / spacing_mm))
    points = (start_mm + step_mm * np.arange(count)) / spacing_mm
    t = np.abs(points[:, None] - np.arange(-half, half + 1)[None, :])
    weights = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.where(t < 2, (2 - t) ** 3 / 6, 0.0))
    norm = np.linalg.norm(weights, axis=1, keepdims=True)
    return np.ascontiguousarray((weights / np.maximum(norm, 1e-9)).astype(np.float32))


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
        self.knots = 2 * int(np.ceil(HALF_EXTENT_MM / self.spacing)) + 1

    def _plane(self, index: int) -> Array:
        rng = self.key.stream(self.name, index)
        return rng.standard_normal((self.channels, self.knots, self.knots), dtype=np.float32)

    def lattice(self, planes_mm: Array) -> Array:
        """Lattice values [channels, knots, knots] of the mean over planes at the given heights."""
        z = np.asarray(planes_mm, np.float64) / self.spacing
        first, last = int(np.floor(z.min())) - 1, int(np.floor(z.max())) + 2
        t = np.abs(z[:, None] - np.arange(first, last + 1)[None, :])
        weights = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.where(t < 2, (2 - t) ** 3 / 6, 0.0))
        weights = (weights / np.linalg.norm(weights, axis=1, keepdims=True)).mean(0)
        return sum(np.float32(w) * self._plane(k) for k, w in zip(range(first, last + 1), weights, strict=True) if w)

    def slab(self, x: Axis, y: Axis, planes_mm: Array) -> Array:
        """The field on a slice [channels, X, Y], averaged over the given planes."""
        return upsample(self.lattice(planes_mm), x, y, self.spacing)


def upsample(lattice: Array, x: Axis, y: Axis, spacing_mm: float) -> Array:
    """Interpolates lattice values [..., knots, knots] to a slice [..., X, Y]."""
    return x.weights(spacing_mm) @ lattice @ y.weights(spacing_mm).T
