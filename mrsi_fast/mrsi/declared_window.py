"""Whether maps can have passed the k-space window that was declared for them.

A window makes noise and object smooth alike: whatever passed it, high differences of neighbouring voxels are at most as
large against low ones as in white noise that passed it, since no spectrum of an object rises towards the edge of
k-space. Maps that did not pass it have more, and undoing the window then turns their noise into a chequered pattern.
Figures behind the limit: docs/decisions/declared_window.md.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.volume_operator import Operator, VolumeAcquisition

LARGEST_EXCESS = 1.5
"""Median over maps of the measured ratio over that of white noise, above which the window is doubted."""

FEWEST = 100
"""Differences from which a map is judged."""

_FIRST, _SECOND, _THIRD = np.array([-1.0, 1.0]), np.array([1.0, -2.0, 1.0]), np.array([-1.0, 3.0, -3.0, 1.0])
_ONE = np.ones(1)

Stencils = tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]

RATIOS: tuple[tuple[Stencils, Stencils], ...] = (
    (((_SECOND, _SECOND),), ((_FIRST, _FIRST),)),
    (((_THIRD, _ONE), (_ONE, _THIRD)), ((_FIRST, _ONE), (_ONE, _FIRST))),
)
"""High over low differences: across both axes, and along each."""


def remarks_on_window(maps: NDArray[np.float32], valid: NDArray[np.bool_], operator: Operator) -> list[str]:
    """A sentence if maps cannot have passed the declared window.

    Args:
        maps: [M, X, Y, Z] measured maps.
        valid: [M, X, Y, Z] voxels that are data.
        operator: The acquisition.
    """
    plane = operator.plane if isinstance(operator, VolumeAcquisition) else operator
    excess = excess_over_window(maps, valid, plane)
    if excess is None or excess <= LARGEST_EXCESS:
        return []
    return [
        f"The maps cannot have passed the declared {plane.window} window: their detail from voxel to voxel is "
        f"{excess:.2g} times that of noise under it, in the median over maps. Undoing a window that was not applied "
        "turns noise into a chequered pattern: declare none, unless it was applied before the fit."
    ]


def excess_over_window(maps: NDArray[np.float32], valid: NDArray[np.bool_], plane: Acquisition) -> float | None:
    """How many times more detail than white noise maps have, the larger of :data:`RATIOS`, as noise under the window.

    Returns:
        The median over maps; None where no window was declared, or no map has enough voxels.
    """
    if plane.window == "none" or plane.acquired is not None or min(plane.lr_shape) < 6:
        return None
    found = []
    for high, low in RATIOS:
        expected = _expected(plane, high) / _expected(plane, low)
        pairs = [(_energy(one, use, high), _energy(one, use, low)) for one, use in zip(maps, valid, strict=True)]
        each = [above / below / expected for above, below in pairs if np.isfinite(above) and below > 0]
        found += [float(np.median(each))] if each else []
    return max(found, default=None)


def _energy(values: NDArray[np.float32], valid: NDArray[np.bool_], stencils: Stencils) -> float:
    """Sum of variances of differences, by their median, which outliers do not move; NaN where there are too few."""
    total = 0.0
    for across_x, across_y in stencils:
        rows, columns = (values.shape[axis] - len(weights) + 1 for axis, weights in enumerate((across_x, across_y)))
        difference, whole = np.zeros((rows, columns, values.shape[2])), np.ones((rows, columns, values.shape[2]), bool)
        for i, first in enumerate(across_x):
            for j, second in enumerate(across_y):
                part = np.s_[i : i + rows, j : j + columns]
                difference += first * second * np.nan_to_num(values[part])
                whole &= valid[part]
        if whole.sum() < FEWEST:
            return float("nan")
        total += float(np.median(np.abs(difference[whole]))) ** 2
    return total


@lru_cache(maxsize=64)
def _correlation(plane: Acquisition) -> NDArray[np.float64]:
    """Correlation of noise between voxels (i, j) apart, from 0 to 3."""
    kernel = Acquisition(plane.lr_shape, (1, 1), plane.support, plane.window)
    point = np.zeros(plane.lr_shape)
    point[0, 0] = 1.0
    shape = kernel.forward(kernel.adjoint(point))
    return np.asarray(shape[:4, :4] / shape[0, 0])


def _expected(plane: Acquisition, stencils: Stencils) -> float:
    """The same of noise that passed the window."""
    correlation, total = _correlation(plane), 0.0
    for across_x, across_y in stencils:
        apart_x, apart_y = (np.abs(np.subtract.outer(range(len(w)), range(len(w)))) for w in (across_x, across_y))
        shared = correlation[apart_x[:, :, None, None], apart_y[None, None]]
        weights = (np.outer(across_x, across_x), np.outer(across_y, across_y))
        total += float(np.einsum("ij,km,ijkm->", *weights, shared))
    return total
