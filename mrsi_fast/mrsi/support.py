"""Where there is tissue, from the maps alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.connected import connected_parts
from mrsi_fast.mrsi.mapset import MapSet
from mrsi_fast.mrsi.names import ABSENT_IN_HEALTHY_BRAIN, is_lipid_or_macromolecule

Bool = NDArray[np.bool_]

_SUPPORT_THRESHOLD = 0.2
_SMALLEST_PART = 0.1


def estimate_support(maps: MapSet, fitted: Bool | None = None) -> Bool:
    """Where there is tissue, from the maps alone: a voxel belongs if most maps hold a fair share of their level there.

    Each map is divided by its 90th percentile of fitted, positive values; the median over maps of metabolites that
    healthy brain holds must reach 0.2 (a voxel one fifth full). Small parts apart from the head are dropped, holes in
    each slice (ventricles, necrosis, failed fits) are filled.

    Args:
        maps: The maps.
        fitted: [M, X, Y, Z] bool; default every finite value.

    Returns:
        [X, Y, Z] bool; everywhere True when no map determines it (only lesion metabolites, or all maps empty).
    """
    fitted = np.isfinite(maps.maps) if fitted is None else fitted
    shares = []
    for name, values, known in zip(maps.names, maps.maps, fitted, strict=True):
        positive = values[known & (values > 0)]  # zeros outside a small excited volume would drown it
        full = np.percentile(positive, 90) if positive.size else 0.0
        if full > 0 and name not in ABSENT_IN_HEALTHY_BRAIN and not is_lipid_or_macromolecule(name):
            shares.append(np.where(known, values / full, np.nan))
    if not shares:
        return np.ones(maps.shape, dtype=bool)
    stack = np.stack(shares)
    nothing = np.isnan(stack).all(axis=0)
    stack[:, nothing] = 0.0
    support = np.nanmedian(stack, axis=0) >= _SUPPORT_THRESHOLD
    if not support.any():
        return np.ones(maps.shape, dtype=bool)
    support = _large_parts(support)
    return np.ascontiguousarray(
        np.moveaxis(_without_holes(np.moveaxis(support, maps.slice_axis, -1)), -1, maps.slice_axis)
    )


def _large_parts(region: Bool) -> Bool:
    """The connected parts of a region that hold at least a tenth of the voxels of the largest one."""
    parts = connected_parts(region)
    sizes = np.bincount(parts.ravel(), minlength=2)
    sizes[0] = 0
    return (sizes >= _SMALLEST_PART * sizes.max())[parts] & region


def _without_holes(region: Bool) -> Bool:
    """[X, Y, Z] with what the border of each plane [X, Y] cannot reach from outside filled in."""
    outside = np.pad(~region, ((1, 1), (1, 1), (0, 0)), constant_values=True)
    parts = connected_parts(outside, axes=(0, 1))
    return ~(parts == parts[0, 0])[1:-1, 1:-1]


def head_is_unusable(maps: MapSet, trusted: Bool) -> bool:
    """Whether what is trusted is background only: the head is there, but nothing in it can be believed.

    The head is estimated from every value, believed or not. Rejected values may also lie around the head (fits of
    noise); they reach the border of the field of view more than tissue does.

    Args:
        maps: The maps.
        trusted: [M, X, Y, Z] bool.
    """
    usable: Bool = np.logical_or.reduce(trusted, axis=0)
    if maps.mask is not None or not usable.any():
        return maps.mask is None or not (usable & maps.mask).any()
    head = estimate_support(maps, np.isfinite(maps.maps) & (maps.maps != 0))
    if head.all() or (usable & head).any():
        return False
    return _share_at_border(head, maps.slice_axis) <= _share_at_border(usable, maps.slice_axis)


def _share_at_border(region: Bool, slice_axis: int) -> float:
    """Share of the in-plane border of the grid that a region covers."""
    faces = [np.take(region, (0, -1), axis=axis).ravel() for axis in range(3) if axis != slice_axis]
    return float(np.concatenate(faces).mean())
