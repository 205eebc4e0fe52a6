"""Marks of failed fits: values that a program writes where it has none, and that are no measurement.

Concentrations: NaN, infinity, an exact zero in tissue, one value that many voxels share (-1, 9999). Cramér-Rao bounds:
NaN, infinity, zero or less beside a concentration (the uncertainty was not finite), 999 % and more (in whole numbers
always, else unless the concentration is about zero, so that any noise is many times it), and the largest value where
many voxels share it (a cap: the true bound is not known).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.mapset import Float32, MapSet
from mrsi_fast.mrsi.units import NO_FIT_PERCENT

Bool = NDArray[np.bool_]

LARGEST_BOUND_RISE = 5.0
"""How many times the median absolute bound a voxel's may be where there is nothing else to hold it against."""

_TIED_VOXELS = 3
_TIED_SHARE = 0.005
_FAR_ABOVE = 20.0  # times the median of the other values: beyond any concentration
_CAP_SHARE = 0.01
_CAP_VOXELS = 5
_CAP_DISTINCT = 10


def shared_values(values: Float32) -> list[tuple[float, int]]:
    """Values that stand for "nothing here" in a map: shared by several voxels, and negative or far above the rest.

    A negative value counts if it is the only negative one, or if most voxels of the map have a value of their own (maps
    stored in whole numbers share values by nature).

    Args:
        values: One map, any shape.

    Returns:
        (value, number of voxels) of each mark; empty for an ordinary map.
    """
    known = values[np.isfinite(values) & (values != 0)]
    if known.size == 0:
        return []
    distinct, counts = np.unique(known, return_counts=True)
    many = counts >= max(_TIED_VOXELS, _TIED_SHARE * known.size)
    if not many.any() or len(distinct) == 1:
        return []
    own_value = counts[~many].sum() > 0.5 * counts[~many | (distinct > 0)].sum()
    negative = distinct < 0
    marks = many & negative & (own_value | (negative.sum() == 1))
    for index in np.flatnonzero(many & (distinct > 0)):
        rest = known[(known != distinct[index]) & (known > 0)]
        marks[index] = rest.size > 0 and distinct[index] > _FAR_ABOVE * np.median(rest)
    return [(float(v), int(n)) for v, n in zip(distinct[marks], counts[marks], strict=True)]


def cap_of(bound: Float32) -> float | None:
    """The largest bound, if so many voxels share it that it must be a limit that was set.

    A distribution thins out towards its end: where the largest value holds more than three times as many voxels as the
    fifth of the range below it, it was cut there.

    Args:
        bound: Bounds of the fitted voxels of one map, [N], finite and positive.

    Returns:
        The cap, or None.
    """
    if bound.size == 0:
        return None
    largest = bound.max()
    at_cap = int((bound == largest).sum())
    below = bound[bound < largest]
    if at_cap < max(_CAP_VOXELS, _CAP_SHARE * bound.size) or len(np.unique(below)) < _CAP_DISTINCT:
        return None
    crowded = at_cap > 3 * int((below >= 0.8 * largest).sum())
    return float(largest) if crowded and largest >= 3.0 * np.median(below) else None


def failed_bounds(maps: MapSet, remarks: list[str]) -> tuple[Bool, Float32 | None]:
    """Voxels whose bound says that there was no fit, and the absolute bound of the others.

    Args:
        maps: Maps with their bounds.
        remarks: Sentences are added here.

    Returns:
        [M, X, Y, Z] bool, and the noise standard deviation in the maps' units, NaN where not known (None without CRLB).
    """
    no_fit = np.zeros(maps.maps.shape, dtype=bool)
    if maps.crlb is None:
        return no_fit, None
    absolute = maps.crlb_unit == "absolute"
    with np.errstate(over="ignore", invalid="ignore"):
        sigma = np.abs(maps.crlb if absolute else maps.crlb / 100.0 * maps.maps).astype(np.float32)
        positive = np.isfinite(maps.crlb) & (maps.crlb > 0)
        marked = np.abs(maps.crlb - NO_FIT_PERCENT) < 0.05  # integers with a slope need not give 999 exactly
        beyond = maps.crlb > NO_FIT_PERCENT
    for index, name in enumerate(maps.names):
        fits = positive[index]
        if not absolute:
            plain = fits & ~beyond[index] & ~marked[index] & (sigma[index] > 0)
            percent = maps.crlb[index][plain]
            whole = bool((np.abs(percent - np.round(percent)) < 0.01).all())  # LCModel: 999 and more are marks
            usual = 0.0 if whole else LARGEST_BOUND_RISE * float(np.median(sigma[index][plain]))
            fits = fits & ~marked[index] & ~(beyond[index] & ~(sigma[index] <= usual))
        if not positive[index].any():
            if np.isfinite(maps.crlb[index]).any():
                remarks.append(f"{name}: its CRLB is zero or less in every voxel, so it is not used.")
            sigma[index] = np.nan
            continue
        no_fit[index] = ~fits | (maps.maps[index] == 0)
        cap = cap_of(maps.crlb[index][fits & (maps.maps[index] != 0)])
        if cap is not None:
            at_cap = fits & (maps.crlb[index] == cap)
            no_fit[index] |= at_cap
            remarks.append(
                f"{name}: {int(at_cap.sum())} voxels have the largest CRLB of the map, "
                f"{cap:.4g}{'' if absolute else ' %'}, a cap set by the fit: their noise level is unknown, and they "
                "count as failed fits."
            )
    sigma[no_fit | ~np.isfinite(sigma)] = np.nan
    return no_fit, sigma


def zeros_in_tissue(maps: MapSet, support: Bool) -> Bool:
    """Exact zeros in tissue: failed fits, for maps without a CRLB to say so. A measurement is never exactly zero.

    A zero counts where another map holds a value and, in all maps alike, where the support was told from the maps or
    given, so that tissue encloses it. A map that is zero in most of the support is empty (2HG without a tumour), and
    its zeros stay what they are.
    """
    known = np.zeros(len(maps.names), dtype=bool) if maps.crlb is None else np.isfinite(maps.crlb).any(axis=(1, 2, 3))
    zero = maps.maps == 0
    mostly_zero = (zero & support).sum(axis=(1, 2, 3)) > 0.5 * support.sum()
    judged = support if not support.all() else (~zero & np.isfinite(maps.maps)).any(axis=0)
    return zero & judged & ~(known | mostly_zero)[:, None, None, None]
