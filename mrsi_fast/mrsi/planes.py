"""Along which array axis the slices are stacked, and turning a set so that it is the last one: the network is planar.

The axis is found from the voxel sizes (two that agree are in plane; else the largest is the slice's thickness) and from
the matrix (a single slice, or a few of many voxels). NIfTI has no field for it, and the third axis is only usual.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrsi_fast.mrsi.geometry import voxel_sizes_mm
from mrsi_fast.mrsi.mapset import MapInputError, MapSet

MINIMUM_MATRIX = 6
"""Fewest voxels along an in-plane axis: the network was trained on fine grids from 12 voxels, 6 at a factor of 2."""

AXIS_NAMES = ("first", "second", "third")
_SAME_SIZE = 1.05
_THICKER = 1.25
_FEW_SLICES = 4
FEW_SHARE = 0.4


def find_slice_axis(affine: ArrayLike, shape: Sequence[int], where: str) -> int:
    """Find the axis along which slices are stacked.

    Args:
        affine: [4, 4], mm.
        shape: Voxels along the three axes.
        where: How to call the maps in messages.

    Returns:
        0, 1 or 2; 2 where it is undetermined (a cube of cubic voxels).

    Raises:
        MapInputError: Voxel sizes and matrix contradict each other, so that the user has to state it.
    """
    sizes, counts = voxel_sizes_mm(affine), tuple(int(n) for n in shape[:3])
    single = [axis for axis in range(3) if counts[axis] == 1]
    if single:
        return single[0] if len(single) == 1 else 2
    by_size, by_count = _thick_axis(sizes), _few_axis(counts)
    if by_size is None or by_count is None or by_size == by_count:
        return next((axis for axis in (by_count, by_size) if axis is not None), 2)
    raise MapInputError(
        f"{where}: by the matrix {'x'.join(map(str, counts))} the slices are along the {AXIS_NAMES[by_count]} axis, "
        f"by the voxel sizes {' x '.join(f'{mm:.4g}' for mm in sizes)} mm along the {AXIS_NAMES[by_size]}. Say which "
        f"with --slice-axis {AXIS_NAMES[by_count]}."
    )


def check_matrix(maps: MapSet) -> None:
    """Refuse a matrix too small for super-resolution.

    Raises:
        MapInputError: Fewer than :data:`MINIMUM_MATRIX` voxels along an in-plane axis.
    """
    plane = [n for axis, n in enumerate(maps.shape) if axis != maps.slice_axis]
    if min(plane) < MINIMUM_MATRIX:
        raise MapInputError(
            f"{maps.source}: {plane[0]}x{plane[1]} voxels in plane ({'x'.join(map(str, maps.shape))} in all, slices "
            f"along the {AXIS_NAMES[maps.slice_axis]} axis) are too few to super-resolve: at least "
            f"{MINIMUM_MATRIX}x{MINIMUM_MATRIX} are needed. The measured values are the best estimate there is."
        )


def slices_last(maps: MapSet) -> MapSet:
    """The same maps with the axis of the slices moved to the end; each voxel stays where it is in space."""
    axis = maps.slice_axis
    if axis == 2:
        return maps

    def moved(values: NDArray | None) -> NDArray | None:
        return None if values is None else np.ascontiguousarray(np.moveaxis(values, axis - 3, -1))

    arrays = {name: moved(getattr(maps, name)) for name in ("maps", "crlb", "snr", "fwhm", "mask", "lipid")}
    return replace(maps, **arrays, affine=reordered(maps.affine, order_with_last(axis)), slice_axis=2)  # type: ignore[arg-type]


def order_with_last(axis: int) -> tuple[int, int, int]:
    """Axes in order with ``axis`` at the end: ``order_with_last(0) == (1, 2, 0)``."""
    first, second = (other for other in range(3) if other != axis)
    return first, second, axis


def back_to(axis: int) -> tuple[int, int, int]:
    """The order that undoes :func:`order_with_last`."""
    first, second, third = np.argsort(order_with_last(axis)).tolist()
    return first, second, third


def slices_back(values: NDArray, axis: int) -> NDArray:
    """[..., X, Y, Z] values of :func:`slices_last` with the slices on ``axis`` again."""
    return np.ascontiguousarray(np.moveaxis(values, -1, axis - 3))


def reordered(affine: NDArray[np.float64], order: Sequence[int]) -> NDArray[np.float64]:
    """The affine of a grid whose axis ``i`` is axis ``order[i]`` of the given one."""
    result = affine.copy()
    result[:3, :3] = affine[:3, list(order)]
    return result


def _thick_axis(sizes: Sequence[float]) -> int | None:
    for axis in range(3):
        one, other = (sizes[i] for i in range(3) if i != axis)
        if max(one, other) <= _SAME_SIZE * min(one, other):
            differs = max(sizes[axis], one) / min(sizes[axis], one)
            return axis if differs > _SAME_SIZE else None
    largest = int(np.argmax(sizes))
    return largest if sizes[largest] > _THICKER * sorted(sizes)[1] else None


def _few_axis(counts: Sequence[int]) -> int | None:
    fewest = int(np.argmin(counts))
    others = [n for axis, n in enumerate(counts) if axis != fewest]
    few = counts[fewest] <= FEW_SHARE * min(others) and counts[fewest] <= max(_FEW_SLICES, min(others) // 4)
    return fewest if few else None
