"""Positions of voxels in the scanner: affines of finer grids, field-of-view corners, orientation checks.

An affine maps voxel indices to RAS+ millimetres of the voxel's centre (NIfTI). Super-resolution keeps the field of view
(FOV), so the first HR centre is not the first LR centre: it lies ``(1/f - 1)/2`` LR voxels from it along each axis.
``nibabel.affines.rescale_affine`` anchors elsewhere and moves the FOV by millimetres, hence these few lines.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrsi_fast.mrsi.mapset import MapInputError

IN_PLANE_FACTORS: tuple[int, ...] = (1, 2, 4, 8)
"""Factors an in-plane axis may be refined by (1 leaves an axis as it is)."""

LARGEST_THROUGH_PLANE = 4
"""Largest factor along the axis of the slices."""

SHEAR_TOLERANCE = 1e-3
"""Largest cosine between two axes that still counts as orthogonal: ITK-based tools refuse much more than this."""

Float64 = NDArray[np.float64]


def parse_factors(scale: int | str | Sequence[int], slice_axis: int | None = None) -> tuple[int, int, int]:
    """Read a super-resolution scale.

    Args:
        scale: ``4`` (both in-plane axes), ``"4,2"`` or ``(4, 2)`` (per in-plane axis), ``"4,2,1"`` or ``(4, 2, 2)``.
        slice_axis: The axis along which slices are stacked, whose factor is at most 4; None before it is known (the
            third for one and two numbers, any with such a factor for three).

    Returns:
        One factor an array axis.

    Raises:
        ValueError: Not whole numbers, a factor other than 1, 2, 4, 8, all 1, or a through-plane factor above 4.
    """
    choices = "Use 2, 4 or 8, or a factor for each axis such as 4,2,1 (or 2,2,2: through the plane too)."
    parts = scale.split(",") if isinstance(scale, str) else scale if isinstance(scale, Sequence) else [scale]
    try:
        factors = [int(part) for part in parts]
        whole = all(float(part) == int(part) for part in parts)
    except (TypeError, ValueError):
        raise ValueError(f"Scale {scale!r} is not a whole number. {choices}") from None
    if len(factors) == 1:
        factors *= 2
    if len(factors) == 2:
        factors.insert(2 if slice_axis is None else slice_axis, 1)
    if not whole or len(factors) != 3 or any(f not in IN_PLANE_FACTORS for f in factors) or max(factors) == 1:
        raise ValueError(f"Scale {scale!r} is not offered. {choices}")
    through = min(factors) if slice_axis is None else factors[slice_axis]
    if through > LARGEST_THROUGH_PLANE:
        which = "one" if slice_axis is None else ("the first", "the second", "the third")[slice_axis]
        raise ValueError(
            f"Scale {scale!r} refines {through} times through the plane; at most {LARGEST_THROUGH_PLANE} times is "
            f"offered: {which} of the three factors belongs to the axis along which the slices are stacked."
        )
    return factors[0], factors[1], factors[2]


def factors_label(factors: Sequence[int], slice_axis: int | None = None) -> str:
    """What names a result: ``x4``, ``x4x2``; with a through-plane factor all three, ``x2x2x2``.

    Args:
        factors: One an array axis.
        slice_axis: The axis of the slices; None where one of the factors is 1. In plane the last factor that is 1 is
            left out (any, as two axes may be left as they are).
    """
    named = [int(f) for f in factors]
    if slice_axis is None or named[slice_axis] == 1:
        through = max(axis for axis in range(3) if named[axis] == 1)
        del named[through]
        named = named[:1] if named[0] == named[1] else named
    return "".join(f"x{f}" for f in named)


def hr_affine(affine: ArrayLike, factors: Sequence[float]) -> Float64:
    """Affine of the grid that is ``factors`` times finer over the same field of view.

    Per axis ``B[:3,:3] = A[:3,:3]/f`` and ``B[:3,3] = A[:3,:3] @ ((1/f-1)/2) + A[:3,3]``.
    Factors below 1 give the coarser grid, so ``hr_affine(hr_affine(A, f), 1/f) == A``.

    Args:
        affine: LR affine, [4, 4], mm.
        factors: One positive factor per axis.

    Returns:
        HR affine, [4, 4] float64, mm.
    """
    lr = np.asarray(affine, dtype=np.float64)
    inverse = 1.0 / np.broadcast_to(np.asarray(factors, dtype=np.float64), 3)
    hr = lr.copy()
    hr[:3, :3] = lr[:3, :3] * inverse
    hr[:3, 3] = lr[:3, :3] @ ((inverse - 1.0) / 2.0) + lr[:3, 3]
    return hr


def voxel_sizes_mm(affine: ArrayLike) -> tuple[float, float, float]:
    """Voxel edge lengths along the three array axes, mm."""
    sizes = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    return float(sizes[0]), float(sizes[1]), float(sizes[2])


def fov_corners_mm(affine: ArrayLike, shape: Sequence[int]) -> Float64:
    """World positions of the eight outer corners (voxel edges, not centres) of a grid.

    Args:
        affine: [4, 4], mm.
        shape: Voxels along the three axes.

    Returns:
        [8, 3] in mm, in the order of the array axes' ends: (0,0,0), (0,0,1), (0,1,0) ...
    """
    ends = [(-0.5, size - 0.5) for size in shape[:3]]
    return nib.affines.apply_affine(np.asarray(affine, dtype=np.float64), np.array(list(itertools.product(*ends))))


def fov_corner_difference_mm(
    affine_a: ArrayLike, shape_a: Sequence[int], affine_b: ArrayLike, shape_b: Sequence[int]
) -> float:
    """Largest distance between matching FOV corners of two grids, mm; 0 when both cover the same box."""
    apart = fov_corners_mm(affine_a, shape_a) - fov_corners_mm(affine_b, shape_b)
    return float(np.linalg.norm(apart, axis=1).max())


def check_affine(affine: ArrayLike, where: str) -> Float64:
    """Return the affine as float64 after refusing what cannot place an image in space.

    Args:
        affine: [4, 4].
        where: What the affine belongs to, for the message.

    Raises:
        MapInputError: Wrong shape or last row, a NaN or infinite entry, or a singular (for example all-zero) matrix.
    """
    advice = "Export the maps again from the software that made them; the geometry cannot be guessed."
    try:
        matrix = np.array(affine, dtype=np.float64)
    except (TypeError, ValueError):
        raise MapInputError(f"{where}: the affine is not a matrix of numbers. {advice}") from None
    if matrix.shape != (4, 4):
        raise MapInputError(f"{where}: the affine has shape {matrix.shape}, expected (4, 4). {advice}")
    if not np.isfinite(matrix).all():
        raise MapInputError(f"{where}: the affine is not finite (NaN or infinite entries). {advice}")
    sizes = np.linalg.norm(matrix[:3, :3], axis=0)
    if sizes.min() == 0 or abs(np.linalg.det(matrix[:3, :3] / np.where(sizes, sizes, 1))) < 1e-6:
        raise MapInputError(f"{where}: the affine is singular, so voxels have no volume. {advice}")
    if not np.allclose(matrix[3], (0, 0, 0, 1)):
        raise MapInputError(f"{where}: the last row of the affine is {matrix[3].tolist()}, expected 0 0 0 1. {advice}")
    return matrix


def shear_cosine(affine: ArrayLike) -> float:
    """Largest absolute cosine between two voxel axes: 0 for an orthogonal grid."""
    matrix = np.asarray(affine, dtype=np.float64)[:3, :3]
    unit = matrix / np.linalg.norm(matrix, axis=0)
    return float(np.abs(unit.T @ unit - np.eye(3)).max())


def axis_codes(affine: ArrayLike) -> str:
    """Directions in which the three array axes run, e.g. ``RAS`` or ``LPS``."""
    return "".join(nib.aff2axcodes(np.asarray(affine, dtype=np.float64)))


def describe_grid(affine: ArrayLike, shape: Sequence[int]) -> str:
    """One line about a grid: matrix, voxel size, orientation, centre; for reports and messages."""
    size = " x ".join(f"{mm:.4g}" for mm in voxel_sizes_mm(affine))
    centre = nib.affines.apply_affine(np.asarray(affine), (np.asarray(shape[:3]) - 1) / 2)
    return (
        f"{'x'.join(str(n) for n in shape[:3])} voxels of {size} mm, {axis_codes(affine)}, "
        f"centre ({', '.join(f'{mm:.1f}' for mm in centre)}) mm"
    )
