"""The anatomical image behind the maps: on a grid that divides the maps' voxels, so that both show without blending."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.geometry import hr_affine, voxel_sizes_mm
from mrsi_fast.mrsi.images import read_image
from mrsi_fast.report.embed import pack_grey

FINEST_MM = 1.0
"""Voxels need not be finer than this."""
MOST_VOXELS = 700_000
MARGIN_MM = 30.0
CONTEXT_MM = 230.0
"""Maps with a field of view smaller than a head get a margin within the plane, so that their place can be seen."""


def packed_background(
    path: Path, affine: NDArray[np.float64], shape: Sequence[int], transform: NDArray[np.float64] | None = None
) -> str:
    """Resample an anatomical image around the maps' grid and return it as compressed NIfTI text.

    Args:
        path: Image in any format that ``read_image`` reads.
        affine: [4, 4] of the maps' finer grid.
        shape: Its voxels.
        transform: [4, 4] from the image's world to the maps' world, mm, if the image had to be moved.

    Raises:
        MapInputError: The image cannot be read.
    """
    from scipy import ndimage

    volume = read_image(path)
    grid, size = background_grid(affine, shape)
    place = volume.affine if transform is None else transform @ volume.affine
    matrix = np.linalg.inv(place) @ grid
    data = np.nan_to_num(volume.data[0], nan=0.0, posinf=0.0, neginf=0.0)
    values = ndimage.affine_transform(data, matrix[:3, :3], matrix[:3, 3], size, order=1, mode="constant", cval=0.0)
    return pack_grey(grey_levels(values), grid)


def background_grid(
    affine: NDArray[np.float64], shape: Sequence[int]
) -> tuple[NDArray[np.float64], tuple[int, int, int]]:
    """Grid of the background: whole fractions of the maps' voxels, with a margin of whole voxels in the plane."""
    sizes = voxel_sizes_mm(affine)
    thick = int(np.argmax(sizes))  # the slice axis; on an isotropic grid any axis will do
    missing = [(CONTEXT_MM - n * size) / 2 for n, size in zip(shape, sizes, strict=False)]
    margin = [
        0 if axis == thick else int(np.ceil(np.clip(missing[axis], 0, MARGIN_MM) / sizes[axis])) for axis in range(3)
    ]
    counts = [int(n) + 2 * m for n, m in zip(shape[:3], margin, strict=True)]
    moved = affine.copy()
    moved[:3, 3] -= affine[:3, :3] @ margin
    fractions = [max(1, round(size / FINEST_MM)) for size in sizes]
    while np.prod(fractions) * np.prod(counts) > MOST_VOXELS and max(fractions) > 1:
        finest = min((sizes[axis] / fractions[axis], axis) for axis in range(3) if fractions[axis] > 1)[1]
        fractions[finest] -= 1
    x, y, z = (n * f for n, f in zip(counts, fractions, strict=True))
    return hr_affine(moved, fractions), (x, y, z)


def grey_levels(values: NDArray) -> NDArray[np.uint8]:
    """Grey levels 0 to 255 between 0 and the 99.5th percentile of what is not background."""
    inside = values[values > 0]
    high = float(np.percentile(inside, 99.5)) if inside.size else 1.0
    return np.clip(values / max(high, 1e-30) * 255, 0, 255).astype(np.uint8)
