"""Recognising maps that were interpolated before they came here: their matrix says more voxels than were measured.

Scanners and pipelines zero-fill k-space or resample maps to finer grids. Taken for measured voxels, such maps make the
acquisition model wrong by the factor of the interpolation. Three traces are looked for along each in-plane axis:

- repeated blocks: neighbours that are equal at the same places in every line;
- lines that fewer values explain exactly by linear or cubic interpolation (see ``resampling``);
- an empty outer part of k-space: beyond some line less than :data:`EMPTY_SD` of the map's level is left, as a standard
  deviation per voxel, which no measured spectroscopic map reaches (fits scatter by percents), and less than
  :data:`EMPTY_SHARE` of the power just inside.

The spectrum comes from the runs of voxels within the head along the axis, Hann-tapered, so that a mask does not fill
it. Maps of a strong window (Hann) count as interpolated: the lines that it set to nothing are as good as not measured.
Maps that hold less than :data:`DETAIL_SD` of detail just inside the edge are smooth by nature, and tell nothing. Not
recognised are maps that were turned or smoothed when they were resampled, and zero-filled ones of fewer than 16 voxels
under a mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.mapset import MapSet
from mrsi_fast.mrsi.names import ABSENT_IN_HEALTHY_BRAIN, is_lipid_or_macromolecule
from mrsi_fast.mrsi.resampling import values_behind
from mrsi_fast.mrsi.support import estimate_support

Float64 = NDArray[np.float64]

EMPTY_SD = 0.005
EMPTY_SHARE = 0.01
DETAIL_SD = 0.02

_SHORTEST_RUN = 8
_FREQUENCIES = 129  # from 0 to half a cycle per voxel
_FEWEST_LINES = 6
_MOST_OF_MATRIX = 0.8
_LINES_AT_ONCE = 256
_SMALLEST_MATRIX = 16  # below, a spectrum has too few lines to tell an edge from a slope


def estimate_acquired_matrix(maps: MapSet) -> tuple[int, int] | None:
    """Estimate the matrix that was measured, from maps that hold fewer details than voxels.

    Args:
        maps: The maps; ``slice_axis`` says which axes are in plane.

    Returns:
        Voxels along the two in-plane axes in array order; None if the maps look as measured.
    """
    head = estimate_support(maps)
    ordinary = [
        np.where(head, values, np.nan)
        for name, values in zip(maps.names, maps.maps, strict=True)
        if name not in ABSENT_IN_HEALTHY_BRAIN and not is_lipid_or_macromolecule(name)
    ]
    axes = [axis for axis in range(3) if axis != maps.slice_axis]
    found = []
    for axis in axes:
        lines = [np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis]) for values in ordinary]
        n = maps.shape[axis]
        found.append(_by_repeats(lines, n) or values_behind(lines, n) or _by_spectrum(lines, n))
    if all(one is None for one in found):
        return None
    first, second = (maps.shape[axis] if one is None else one for axis, one in zip(axes, found, strict=True))
    return first, second


def remarks_on_interpolation(maps: MapSet) -> list[str]:
    """A sentence with the estimate where the maps appear to be interpolated."""
    found = estimate_acquired_matrix(maps)
    if found is None:
        return []
    plane = [n for axis, n in enumerate(maps.shape) if axis != maps.slice_axis]
    return [
        f"The maps have {plane[0]}x{plane[1]} voxels in plane but no detail beyond about {found[0]}x{found[1]}: "
        f"they appear to be interpolated. State the acquired matrix (--acquired-matrix {found[0]},{found[1]}); "
        "otherwise every voxel counts as a measurement."
    ]


def _by_repeats(lines: Sequence[NDArray], n: int) -> int | None:
    """Number of blocks of equal values along an axis of ``n`` voxels, if all maps repeat at the same places."""
    if not lines or n < _FEWEST_LINES:
        return None
    every = np.concatenate(lines)
    both = np.isfinite(every[:, 1:]) & np.isfinite(every[:, :-1]) & (every[:, 1:] != 0) & (every[:, :-1] != 0)
    told = both.sum(axis=0) >= 3
    if told.sum() < _FEWEST_LINES:
        return None
    equal = ((every[:, 1:] == every[:, :-1]) & both).sum(axis=0)[told] / both.sum(axis=0)[told]
    repeats, steps = equal > 0.95, equal < 0.5
    if not (repeats | steps).all() or repeats.mean() < 0.15 or steps.sum() < 3:
        return None
    return _near_whole_factor(n * float(steps.mean()), n)


def _by_spectrum(lines: Sequence[NDArray], n: int) -> int | None:
    """The matrix beyond whose lines nothing is left, or None."""
    if n < _SMALLEST_MATRIX:
        return None
    spectra, length = [], 0.0
    for one in lines:
        power, runs = _power(one)
        if power is not None:
            spectra.append(power)
            length = max(length, runs)
    if not spectra:
        return None
    power = np.mean(spectra, axis=0)
    frequency = np.linspace(0.0, 0.5, _FREQUENCIES)
    guard = 1.5 / length  # half the width of the taper's main lobe and a little more
    shift = max(1, round(guard / (frequency[1])))
    inner, outer = power[: -2 * shift], power[2 * shift :]  # at f - guard and f + guard for f = middle
    middle = frequency[shift:-shift]
    usable = (middle >= 0.5 * _FEWEST_LINES / n) & (middle <= 0.5 * _MOST_OF_MATRIX)
    if not usable.any():
        return None
    drop = np.where(usable, np.log(inner + 1e-30) - np.log(outer + 1e-30), -np.inf)
    edge = int(np.argmax(drop))
    beyond = float(power[edge + 2 * shift :].mean())
    if np.sqrt(beyond) > EMPTY_SD or beyond > EMPTY_SHARE * inner[edge] or inner[edge] < DETAIL_SD**2:
        return None
    widened = 1.0 / length  # by the taper
    return _near_whole_factor(2.0 * n * (float(middle[edge]) - widened), n)


def _power(lines: NDArray) -> tuple[Float64 | None, float]:
    """Mean tapered spectrum of the longest run of values in each line, over the square of the map's level.

    White noise of standard deviation s has the value s^2 at every frequency.
    """
    tissue = np.isfinite(lines) & (lines != 0)
    level = float(np.median(lines[tissue])) if tissue.any() else 0.0
    if level <= 0:
        return None, 0.0
    tissue &= np.abs(lines) < 5.0 * level
    starts, lengths = _longest_runs(tissue)
    total, weight = np.zeros(_FREQUENCIES), 0.0
    for length in np.unique(lengths[lengths >= _SHORTEST_RUN]):
        place = np.linspace(-1.0, 1.0, length)
        taper = np.hanning(length + 2)[1:-1]
        alike = np.flatnonzero(lengths == length)
        for some in np.array_split(alike, -(-len(alike) // _LINES_AT_ONCE)):
            run = lines[some[:, None], starts[some, None] + np.arange(length)].astype(np.float64) / level
            run -= run.mean(axis=1, keepdims=True)
            run -= (run @ place / (place @ place))[:, None] * place  # the straight line that fits best
            total += (np.abs(np.fft.rfft(run * taper, 2 * (_FREQUENCIES - 1))) ** 2).sum(axis=0)
        weight += len(alike) * float((taper**2).sum())
    return (total / weight, float(lengths.max())) if weight else (None, 0.0)


def _longest_runs(inside: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start and length of the first longest run of true values in each of [L, n] lines."""
    place = np.arange(1, inside.shape[1] + 1)
    length = place - np.maximum.accumulate(np.where(inside, 0, place), axis=1)  # of the run that ends here
    stop, longest = length.argmax(axis=1) + 1, length.max(axis=1)
    return stop - longest, longest


def _near_whole_factor(estimate: float, n: int) -> int | None:
    """Round an estimate, to a whole share of the matrix if one is near; None if it is the matrix itself."""
    factor = n / max(estimate, 1e-9)
    whole = round(factor)
    if 2 <= whole <= n // _FEWEST_LINES and abs(factor - whole) < 0.2 * whole and n % whole == 0:
        return n // whole
    rounded = round(estimate)
    return rounded if _FEWEST_LINES <= rounded < n else None
