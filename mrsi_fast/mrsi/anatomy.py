"""An anatomical image (T1) brought to the grid of the super-resolved maps, as the network's optional condition.

Resampling follows the two affines alone: the image has to be coregistered with the maps, which is checked only by how
much of the maps' region it covers. An image finer than the grid is averaged over each voxel's box, not merely sampled,
so that thin structures do not alias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import ArrayLike, NDArray

from mrsi_fast.mrsi.arrays import plain_array
from mrsi_fast.mrsi.discovery import NOUNS, content_of
from mrsi_fast.mrsi.geometry import check_affine, hr_affine
from mrsi_fast.mrsi.images import read_image
from mrsi_fast.mrsi.intensity import clipped, without_padding
from mrsi_fast.mrsi.mapset import Float32, MapInputError
from mrsi_fast.mrsi.nifti import Volume, volume_from_image

MINIMUM_OVERLAP = 0.9
"""Below this share of covered voxels there is a warning that the image may not belong to the maps."""

MOST_POINTS = 16
"""Most points that a target voxel is averaged over, per axis."""


_ELSEWHERE = (
    "{}: does not overlap the maps. Check that it is of the same person and session, and coregistered with the maps."
)


@dataclass(frozen=True, eq=False)
class Anatomy:
    """An anatomical image on the maps' grid.

    Attributes:
        image: [X, Y, Z] float32, 0 where it covers nothing and in its padding, positive elsewhere (see ``intensity``).
        overlap: Share of the region of interest (or of the grid) that the image covers with non-zero values, 0 to 1.
        warnings: Sentences about the image.
    """

    image: Float32
    overlap: float
    warnings: tuple[str, ...]


def resample_anatomy(
    source: Any, affine: ArrayLike, shape: Sequence[int], region: NDArray[np.bool_] | None = None
) -> Anatomy:
    """Bring an anatomical image to a grid by the affines and average it over each voxel.

    Args:
        source: A path, a NIfTI image or ``(array, affine)``, [X, Y, Z], coregistered with the maps.
        affine: Affine of the target grid, [4, 4], mm.
        shape: Voxels of the target grid along X, Y, Z.
        region: Where coverage matters (the brain), [X, Y, Z] bool on the target grid; default everywhere.

    Returns:
        The image on the grid.

    Raises:
        MapInputError: The source cannot be used, is constant, or does not overlap the grid.
    """
    target = check_affine(affine, "the maps")
    volume, where = load_anatomy(source)
    data = without_padding(volume.data[0])
    on_grid = box_average(data, volume.affine, target, tuple(int(n) for n in shape[:3]))
    inside = on_grid != 0
    wanted = np.ones(inside.shape, dtype=bool) if region is None else region
    overlap = float(inside[wanted].mean()) if wanted.any() else 0.0
    if overlap == 0.0:
        raise MapInputError(_ELSEWHERE.format(where))
    if not float(on_grid[inside].std()) > 1e-6 * abs(float(on_grid[inside].mean())):
        raise MapInputError(f"{where}: has the same value everywhere and shows no anatomy. Give another image.")
    remarks = [f"{where}: {text}." for text in volume.remarks]
    if overlap < MINIMUM_OVERLAP:
        remarks.append(f"{where}: covers {100 * overlap:.0f} % of the maps' region; check that it is coregistered.")
    return Anatomy(clipped(on_grid, region).astype(np.float32), overlap, tuple(remarks))


def check_overlap(volume: Volume, where: str, affine: ArrayLike, region: NDArray[np.bool_]) -> None:
    """Checks that the box of an image holds the centre of at least one voxel of a region.

    Args:
        volume: The image.
        where: What to call it.
        affine: Of the region.
        region: [X, Y, Z] voxels.

    Raises:
        MapInputError: It holds none.
    """
    to_image = np.linalg.inv(volume.affine) @ check_affine(affine, "the maps")
    index = np.argwhere(region) @ to_image[:3, :3].T + to_image[:3, 3]
    if not ((index > -0.5) & (index < np.array(volume.data.shape[1:]) - 0.5)).all(axis=1).any():
        raise MapInputError(_ELSEWHERE.format(where))


def load_anatomy(source: Any) -> tuple[Volume, str]:
    """The image with its affine, and what to call it in messages.

    Raises:
        MapInputError: The source cannot be read, or holds more than one volume.
    """
    volume, where = _read(source)
    if volume.data.shape[0] != 1:
        raise MapInputError(f"{where}: holds {volume.data.shape[0]} volumes; give one anatomical image.")
    return volume, where


def _read(source: Any) -> tuple[Volume, str]:
    if isinstance(source, SpatialImage):
        return volume_from_image(source, "anatomy"), "anatomy"
    if isinstance(source, tuple) and len(source) == 2:
        data = plain_array(source[0], "anatomy")
        if data.ndim != 3 or data.dtype.kind not in "fiub" or data.size == 0:
            raise MapInputError(
                f"anatomy: an array of {data.dtype} of shape {data.shape} is no image; give [X, Y, Z] of real numbers."
            )
        return Volume(data[None].astype(np.float32), check_affine(source[1], "anatomy"), 1, ()), "anatomy"
    if not isinstance(source, str | PathLike):
        raise MapInputError(
            f"anatomy: give a path, a NIfTI image or (array, affine); a {type(source).__name__} alone has no "
            "position in the head."
        )
    if not Path(source).is_file():
        raise MapInputError(f"anatomy: {source}: there is no such file.")
    what = content_of(Path(source))
    if what.role not in ("anatomy", "other") or "mask" in what.reason:
        kind = NOUNS.get(what.role, "a mask")
        raise MapInputError(
            f"anatomy: {Path(source).name}: is {kind} by its name, which guides nothing. Give "
            "a T1, T2 or FLAIR image; rename the file if it is one."
        )
    volume = read_image(Path(source))
    return volume, str(getattr(source, "name", source)).rsplit("/", 1)[-1]


def box_average(
    data: Float32, affine: NDArray[np.float64], target: NDArray[np.float64], shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Mean over each target voxel's box, from linear interpolation at points as dense as the image's own voxels.

    The dense points are the grid that refines the target by whole factors (``hr_affine``), so each target voxel holds
    a block of them, at any angle between the two images. One slab of slices at a time bounds the memory. Voxels have an
    extent: those at the image's border, and an image of one slice, are continued beyond their centres.

    Args:
        data: The image, [X, Y, Z].
        affine: Its affine, mm.
        target: Affine of the grid.
        shape: Voxels of the grid.

    Returns:
        [X, Y, Z] float64 on the grid; 0 beyond the image.
    """
    from nibabel.processing import resample_from_to  # brings scipy.ndimage, 0.35 s: only where there is an image

    data = np.pad(data, 1, mode="edge")
    affine = affine.copy()
    affine[:3, 3] -= affine[:3, :3].sum(axis=1)
    refine = _refinement(affine, target)
    image = nib.Nifti1Image(data, affine)
    result = np.empty(shape)
    for z in range(shape[2]):
        slab = target.copy()
        slab[:3, 3] += target[:3, 2] * z
        dense_shape = (shape[0] * refine[0], shape[1] * refine[1], refine[2])
        dense = resample_from_to(image, (dense_shape, hr_affine(slab, refine)), order=1, mode="constant", cval=0.0)
        blocks = np.asarray(dense.dataobj).reshape(shape[0], refine[0], shape[1], refine[1], refine[2])
        result[:, :, z] = blocks.mean(axis=(1, 3, 4), dtype=np.float64)
    return result


def _refinement(affine: NDArray[np.float64], target: NDArray[np.float64]) -> list[int]:
    """Points along each axis of a target voxel: as many as image voxels that the axis crosses, at most 16.

    Sixteen points an axis average well over anything finer; an image with slices of 0.05 mm would need a hundred.
    """
    crossed = np.abs(np.linalg.solve(affine[:3, :3], target[:3, :3]))  # [image axis, target axis]
    return [int(np.clip(np.ceil(n - 1e-6), 1, MOST_POINTS)) for n in crossed.max(axis=0)]
