"""Regions on the maps' grid: label images on any grid, a region's mirror image in the other hemisphere, statistics.

Label images are usually finer than the maps. Each voxel of the maps takes the label that fills most of it; where no
label fills half of it the voxel belongs to none, so that a region's mean is not diluted by its surroundings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrsi_fast.files import LARGEST_TEXT
from mrsi_fast.mrsi.connected import largest_part, with_neighbours
from mrsi_fast.mrsi.geometry import check_affine, hr_affine, voxel_sizes_mm
from mrsi_fast.mrsi.images import read_image
from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.mrsi.nifti import Volume
from mrsi_fast.sample_store import forget_pages

SMALLEST_SHARE = 0.5
"""Least share of a voxel that a label has to fill."""
MIRROR_SEARCH_MM = 15.0
MIRROR_STEP_MM = 0.5
LEAST_REFERENCE_ML = 1.0
"""Smallest mirrored reference region; a smaller hotspot is grown to it before it is mirrored."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ReferenceRegion:
    """Where a ratio's reference level comes from.

    Attributes:
        mask: [X, Y, Z] bool on the maps' grid.
        source: One phrase for tables and reports, e.g. ``mirror image of the hotspot (mid-plane at x = 1.5 mm)``.
    """

    mask: Mask
    source: str


def labels_on_grid(source: str | Path | Volume, affine: ArrayLike, shape: Sequence[int]) -> NDArray[np.int32]:
    """Bring a label image to the maps' grid by the affines; each voxel takes the label that fills most of it.

    Args:
        source: NIfTI file of whole numbers, or a volume of one.
        affine: Affine of the maps' grid, [4, 4], mm.
        shape: Its voxels along X, Y, Z.

    Returns:
        [X, Y, Z] labels, 0 where no label fills :data:`SMALLEST_SHARE` of the voxel or the image ends.

    Raises:
        MapInputError: The image cannot be read, holds other than whole numbers, or does not overlap the grid.
    """
    from scipy import ndimage

    volume = source if isinstance(source, Volume) else read_image(source)
    where = "the label image" if isinstance(source, Volume) else Path(source).name
    target, size = check_affine(affine, "the maps"), tuple(int(n) for n in shape[:3])
    if volume.data.shape[0] != 1:
        raise MapInputError(f"{where}: holds {volume.data.shape[0]} volumes; give one label image.")
    values = np.nan_to_num(volume.data[0], nan=0.0, posinf=0.0, neginf=0.0)
    if not np.array_equal(values, np.round(values)) or values.min() < 0:
        raise MapInputError(f"{where}: holds values other than whole numbers of 0 and above, so it is no label image.")
    refine = [
        max(1, round(coarse / fine))
        for coarse, fine in zip(voxel_sizes_mm(target), _extents_mm(volume.affine, target), strict=True)
    ]
    labels = np.zeros(size, dtype=np.int32)
    to_source = np.linalg.inv(volume.affine)
    for z in range(size[2]):  # one slab of slices at a time bounds the memory
        slab = target.copy()
        slab[:3, 3] += target[:3, 2] * z
        dense = (size[0] * refine[0], size[1] * refine[1], refine[2])
        matrix = to_source @ hr_affine(slab, refine)
        found = ndimage.affine_transform(
            values, matrix[:3, :3], matrix[:3, 3], dense, order=0, mode="grid-constant", cval=0.0
        )
        labels[:, :, z] = _majority(found.reshape(size[0], refine[0], size[1], refine[1], refine[2]))
    if not labels.any():
        raise MapInputError(f"{where}: no label is on the maps' grid. Check that it is of the same person and session.")
    return labels


def _extents_mm(affine: NDArray[np.float64], target: NDArray[np.float64]) -> list[float]:
    """Voxel size of an image along each axis of another grid, mm (of the axis that runs closest to it)."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = np.abs((affine[:3, :3] / sizes).T @ (target[:3, :3] / np.linalg.norm(target[:3, :3], axis=0)))
    return [float(sizes[int(axis)]) for axis in cosines.argmax(axis=0)]


def _majority(blocks: NDArray[np.float32]) -> NDArray[np.int32]:
    """The label that fills most of each voxel [X, Y], from its points [X, rx, Y, ry, rz]; 0 below half of them."""
    points = blocks.shape[1] * blocks.shape[3] * blocks.shape[4]
    best = np.zeros((blocks.shape[0], blocks.shape[2]), dtype=np.int32)
    most = np.full(best.shape, max(1, int(np.ceil(SMALLEST_SHARE * points))))
    for label in np.unique(blocks[blocks > 0]):
        count = (blocks == label).sum(axis=(1, 3, 4))
        better = count >= most
        best[better], most[better] = int(label), count[better] + 1
    return best


def mid_sagittal_mm(support: Mask, affine: ArrayLike) -> float:
    """World x at which the support matches its own mirror image best, mm.

    Args:
        support: [X, Y, Z] where the maps are valid.
        affine: [4, 4] of its grid, RAS+ mm.
    """
    points = _centres_mm(support, affine)
    middle = float(np.median(points[:, 0]))
    offsets = np.arange(-MIRROR_SEARCH_MM, MIRROR_SEARCH_MM + MIRROR_STEP_MM / 2, MIRROR_STEP_MM)
    overlap = [int(_inside(_mirrored(points, middle + offset), support, affine).sum()) for offset in offsets]
    best = np.flatnonzero(np.asarray(overlap) == max(overlap))
    return middle + float(offsets[best].mean())


def mirror_image(region: Mask, support: Mask, affine: ArrayLike, plane: float) -> Mask:
    """[X, Y, Z] a region's mirror image across a sagittal plane, inside the support.

    Args:
        region: [X, Y, Z].
        support: [X, Y, Z] where the maps are valid.
        affine: [4, 4] of the grid, RAS+ mm.
        plane: World x of the plane, mm; see :func:`mid_sagittal_mm`.
    """
    # Each voxel asks where it comes from: pushing voxels forward would leave holes on an oblique grid.
    points = _centres_mm(support, affine)
    mirrored = np.zeros_like(support)
    mirrored[support] = _inside(_mirrored(points, plane), region, affine)
    return mirrored


def contralateral_reference(
    ratio: NDArray[np.float32], affine: ArrayLike, times: float, rounds: int = 8
) -> ReferenceRegion | None:
    """Reference region opposite the hotspot of a ratio map.

    The hotspot is the largest connected region above ``times`` the reference level; its mirror image, without voxels
    that are above that level themselves, gives the next level. This starts from the median of all voxels and is
    repeated until the region stays.

    Args:
        ratio: [X, Y, Z] ratio map, NaN outside the valid region.
        affine: [4, 4] of its grid, RAS+ mm.
        times: Multiple of the reference level that makes a hotspot.
        rounds: Most repetitions.

    Returns:
        The region, or None where no reference can be had this way: there is no hotspot, or less than half of its mirror
        image is valid and below the level (a lesion in the midline or on both sides).
    """
    valid = np.isfinite(ratio)
    values = np.where(valid, ratio, -np.inf)
    voxel_ml = float(np.prod(voxel_sizes_mm(np.asarray(affine)))) / 1000
    if not valid.any():
        return None
    level, region, plane = float(np.median(ratio[valid])), np.zeros_like(valid), np.nan
    for _ in range(rounds):
        high = values > times * level
        hotspot = _grown(largest_part(high), valid, LEAST_REFERENCE_ML / voxel_ml)
        if not hotspot.any():
            return None
        if np.isnan(plane):
            plane = mid_sagittal_mm(valid, affine)
        found = mirror_image(hotspot, valid, affine, plane) & ~high & ~hotspot
        if found.sum() < 0.5 * hotspot.sum():
            return None
        same, region = bool((found == region).all()), found
        level = float(np.median(ratio[region]))
        if same:
            break
    return ReferenceRegion(region, f"mirror image of the hotspot (mid-plane at x = {round(plane, 1) + 0.0} mm)")


def _grown(region: Mask, valid: Mask, voxels: float) -> Mask:
    """The region, grown by whole voxels inside ``valid`` until it has that many."""
    while region.any() and region.sum() < voxels:
        larger = with_neighbours(region) & valid
        if larger.sum() == region.sum():
            break
        region = larger
    return region


def _centres_mm(mask: Mask, affine: ArrayLike) -> NDArray[np.float64]:
    matrix = np.asarray(affine, dtype=np.float64)
    return np.argwhere(mask) @ matrix[:3, :3].T + matrix[:3, 3]


def _mirrored(points: NDArray[np.float64], plane: float) -> NDArray[np.float64]:
    return points * (-1.0, 1.0, 1.0) + (2 * plane, 0.0, 0.0)


def _inside(points: NDArray[np.float64], mask: Mask, affine: ArrayLike) -> Mask:
    """Whether the voxel that holds each point belongs to the mask."""
    inverse = np.linalg.inv(np.asarray(affine, dtype=np.float64))
    index = np.floor(points @ inverse[:3, :3].T + inverse[:3, 3] + 0.5).astype(int)
    there = ((index >= 0) & (index < mask.shape)).all(axis=1)
    result = np.zeros(len(points), dtype=bool)
    result[there] = mask[tuple(index[there].T)]
    return result


@dataclass(frozen=True)
class RegionRow:
    """One map in one region.

    Attributes:
        label: Number in the label image.
        name: Its name, or the number as text.
        voxels: Valid voxels of the finer grid.
        volume_ml: Their volume.
        mean: Mean of the super-resolved map.
        sd: Standard deviation over the voxels: how the map varies in the region.
        sd_of_mean: Standard deviation of the region's mean over posterior samples: how well the mean is known. None
            without samples.
        zero_filled: Mean of the zero-filled map in the same voxels.
        inferred: Share of the map's energy in the region that the zero-filled map does not hold, 0 to 1.
    """

    label: int
    name: str
    voxels: int
    volume_ml: float
    mean: float
    sd: float
    sd_of_mean: float | None
    zero_filled: float
    inferred: float


def region_rows(
    labels: NDArray[np.int32],
    mean: NDArray[np.float32],
    zero_filled: NDArray[np.float32],
    samples: NDArray[np.float32] | None,
    voxel_ml: float,
    names: Mapping[int, str] | None = None,
) -> list[RegionRow]:
    """Statistics of one map in every region that holds a valid voxel.

    Args:
        labels: [X, Y, Z] from :func:`labels_on_grid`.
        mean: [X, Y, Z] super-resolved map, NaN where it is not valid.
        zero_filled: [X, Y, Z] zero-filled map.
        samples: [S, X, Y, Z], or None.
        voxel_ml: Volume of a voxel, mL.
        names: Names of the labels.
    """
    rows, valid = [], np.isfinite(mean) & np.isfinite(zero_filled)
    for label in np.unique(labels[(labels > 0) & valid]):
        region = (labels == label) & valid
        values, plain = mean[region].astype(np.float64), zero_filled[region].astype(np.float64)
        energy = float((values**2).sum())
        spread = None if samples is None or len(samples) < 2 else _means(samples, region)
        rows.append(
            RegionRow(
                label=int(label),
                name=(names or {}).get(int(label), str(int(label))),
                voxels=int(region.sum()),
                volume_ml=float(region.sum()) * voxel_ml,
                mean=float(values.mean()),
                sd=float(values.std(ddof=1)) if values.size > 1 else float("nan"),
                sd_of_mean=None if spread is None else float(spread.std(ddof=1)),
                zero_filled=float(plain.mean()),
                inferred=float(((values - plain) ** 2).sum()) / energy if energy > 0 else float("nan"),
            )
        )
    return rows


def _means(samples: NDArray[np.float32], region: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[S] mean of each sample in a region, one sample at a time: they may be mapped from a file."""
    found = np.empty(len(samples))
    for number, one in enumerate(samples):
        found[number] = one[region].mean(dtype=np.float64)
        forget_pages(samples)
    return found


def label_names(path: Path) -> dict[int, str]:
    """Names beside a label image: ``NAME.tsv`` with the columns ``index`` and ``name`` (BIDS), if it is there."""
    table = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".tsv")
    if not table.is_file():
        return {}
    try:
        if table.stat().st_size > LARGEST_TEXT:
            raise ValueError("too large")
        lines = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines() if line.strip()]
        index, name = lines[0].index("index"), lines[0].index("name")
        return {int(line[index]): line[name].strip() for line in lines[1:]}
    except (ValueError, IndexError) as error:
        raise MapInputError(
            f"{table.name}: is no table of label names; it needs tab-separated columns 'index' and 'name'."
        ) from error
