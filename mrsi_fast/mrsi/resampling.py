"""Recognising lines of voxels that were interpolated from fewer: such lines are combinations of fewer functions.

Interpolation is linear: ``n`` voxels made of ``m`` values are ``W a``, with a matrix ``W`` [n, m] that the kernel and
the place of the two grids fix. Lines of a map that was interpolated so lie in the span of its columns to rounding.
Those of a measured map do not, because noise fills all directions. Each kernel, place and ``m`` is tried; a fit counts
where it is exact and that with one value less is far from it. Smooth maps fit a little better with every value, and do
not.

Kernels: linear; cubic convolution (Keys 1981, IEEE Trans ASSP 29:1153, with a = -0.5 and -0.75); cubic B-splines (Unser
1999, IEEE Signal Process Mag 16(6):22); and zero-filled k-space, for lines without a mask. Places: fields of view that
agree, first and last voxels that agree, first voxels that agree. An image that was turned, or interpolated twice, is
not recognised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

EXACT = 3e-4
"""Largest residual of an interpolated line over its level: what storage in 16 bits leaves."""

CLEAR = 20.0
"""Times larger that the residual with one value less has to be."""

DETAIL = 0.005
"""Least residual over the level with one value less: maps without that much detail are smooth by nature."""

_FEWEST_VALUES = 4
_SHORTEST_RUN = 8
_SPARE = 3  # voxels beyond the values that explain them
_FEWEST_LINES, _MOST_LINES = 4, 32
_MOST_OF_MATRIX = 0.85
_MOST_RUNS = 64


def values_behind(lines: Sequence[NDArray], n: int) -> int | None:
    """Number of values that the lines along an axis were interpolated from.

    Args:
        lines: Per map [L, n]; NaN and 0 where there is no tissue.
        n: Voxels along the axis.

    Returns:
        The number, below ``n``; None if the lines look as measured.
    """
    every = np.concatenate(lines) if lines else np.empty((0, n))
    tissue = np.isfinite(every) & (every != 0)
    run = _common_run(tissue)
    if run is None:
        return None
    start, stop = run
    whole = tissue[:, start:stop].all(axis=1)
    inside = every[whole, start:stop].astype(np.float64)
    inside /= np.sqrt(np.mean(inside**2, axis=1, keepdims=True))
    inside = inside[np.ptp(inside, axis=1) > 0.01]
    if len(inside) < _FEWEST_LINES:
        return None
    inside = inside[np.linspace(0, len(inside) - 1, min(len(inside), _MOST_LINES)).round().astype(int)]
    kernels: list[Callable[[int], Float64]] = [
        lambda m, kernel=kernel, place=place: kernel(place(m, n))  # type: ignore[misc]
        for kernel in (_linear, _keys(-0.5), _keys(-0.75), _spline)
        for place in (_same_field, _same_ends, _same_start)
    ]
    if stop - start == n:
        kernels.append(lambda m: _fourier(m, n))
    found = [m for basis in kernels if (m := _fewest(inside.T, basis, start, stop, n)) is not None]
    return min(found, default=None)


def _fewest(lines: Float64, basis: Callable[[int], Float64], start: int, stop: int, n: int) -> int | None:
    """The smallest number of values that explains lines [R, L] exactly, where one less does not."""
    former = np.inf
    for m in range(_FEWEST_VALUES, int(_MOST_OF_MATRIX * n) + 1):
        functions = basis(m)[start:stop]
        functions = functions[:, np.abs(functions).max(axis=0) > 1e-6]
        if len(functions) - functions.shape[1] < _SPARE:
            return None
        span = np.linalg.qr(functions)[0]
        left = float(np.sqrt(np.mean((lines - span @ (span.T @ lines)) ** 2)))
        if left < EXACT and max(CLEAR * left, DETAIL) < former < np.inf:
            return m
        former = left
    return None


def _common_run(tissue: NDArray[np.bool_]) -> tuple[int, int] | None:
    """The longest run of tissue [L, n] that a few lines share."""
    edges = np.diff(np.pad(tissue, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    starts, stops = np.nonzero(edges == 1)[1], np.nonzero(edges == -1)[1]
    long = stops - starts >= _SHORTEST_RUN
    runs = {(int(a), int(b)) for a, b in zip(starts[long], stops[long], strict=True)}
    longest = sorted(runs, key=lambda run: (run[0] - run[1], run[0]))[:_MOST_RUNS]
    return next((run for run in longest if tissue[:, run[0] : run[1]].all(axis=1).sum() >= _FEWEST_LINES), None)


def _same_field(m: int, n: int) -> Float64:
    """Place of each voxel of ``n`` among ``m`` values, fields of view agreeing; [n, columns] distances to values."""
    return _distances((np.arange(n) + 0.5) * m / n - 0.5, m)


def _same_ends(m: int, n: int) -> Float64:
    return _distances(np.arange(n) * (m - 1) / (n - 1), m)


def _same_start(m: int, n: int) -> Float64:
    return _distances(np.arange(n) * m / n, m)


def _distances(places: Float64, m: int) -> Float64:
    """Signed distances of places to the values -2 ... m+1: those beyond the ends stand for any boundary rule."""
    return places[:, None] - np.arange(-2, m + 2)[None, :]


def _linear(distance: Float64) -> Float64:
    return np.maximum(1 - np.abs(distance), 0)


def _keys(a: float) -> Callable[[Float64], Float64]:
    def kernel(distance: Float64) -> Float64:
        x = np.abs(distance)
        near = (a + 2) * x**3 - (a + 3) * x**2 + 1
        far = a * (x**3 - 5 * x**2 + 8 * x - 4)
        return np.where(x < 1, near, np.where(x < 2, far, 0.0))

    return kernel


def _spline(distance: Float64) -> Float64:
    x = np.abs(distance)
    return np.where(x < 1, 2 / 3 - x**2 + x**3 / 2, np.where(x < 2, (2 - x) ** 3 / 6, 0.0))


def _fourier(m: int, n: int) -> Float64:
    """The ``m`` lowest waves of ``n`` voxels; of an even number the highest as one cosine and one sine."""
    waves = np.arange(m // 2 + 1)[None, :] * (2 * np.pi * np.arange(n)[:, None] / n)
    return np.concatenate([np.cos(waves), np.sin(waves[:, 1:])], axis=1)
