"""Pictures of an anatomical image with the outlines of the maps, where its affine puts it and where it fits best.

Three planes through the middle of the maps, in radiological view. The outlines are level lines of the measured maps:
the edge of the brain and the ventricles, which have to coincide with those of the image.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.images import read_image
from mrsi_fast.report.background import grey_levels
from mrsi_fast.report.stills import indexed_png
from mrsi_fast.report.view import ResultView

PIXEL_MM = 1.25
MARGIN_MM = 15.0
"""Shown around the maps, so that a displacement can be seen."""
LEAST_MM = 110.0
"""A slab of a few slices is shown with more of the head around it."""

_LEVEL = 0.5
"""Level of the outline, as a share of the median over trusted voxels."""
_LINE, _BOX = 254, 255
_LINE_RGB, _BOX_RGB = (255, 176, 0), (90, 200, 250)
PLANES = (("axial", 0, 1, 2), ("coronal", 0, 2, 1), ("sagittal", 1, 2, 0))
"""Name; world axis that runs across the picture, from right to left or from front to back; axis upwards; normal."""

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class AlignmentPicture:
    """One plane.

    Attributes:
        plane: ``axial``, ``coronal`` or ``sagittal``.
        data: Base64 text of a PNG.
        width: Pixels.
        height: Pixels.
    """

    plane: str
    data: str
    width: int
    height: int


def alignment_pictures(view: ResultView, anatomy: Path, matrix: Float64) -> dict[str, list[AlignmentPicture]]:
    """Three planes before and after the image is moved.

    Args:
        view: The result, whose measured maps give the outlines.
        anatomy: The anatomical image.
        matrix: [4, 4] from the image's world to the maps' world, mm.

    Returns:
        ``before`` and ``after``; nothing where no measured map is known.

    Raises:
        MapInputError: The image cannot be read.
    """
    outline = outline_map(view)
    if outline is None:
        return {}
    volume = read_image(anatomy)
    image = grey_levels(np.nan_to_num(volume.data[0], nan=0.0, posinf=0.0, neginf=0.0))
    low, high = _box(view.lr_affine, outline.shape)
    found: dict[str, list[AlignmentPicture]] = {"before": [], "after": []}
    for plane, across, up, normal in PLANES:
        points, shape = _plane(low, high, across, up, normal)
        lines = _boundary(np.asarray(_sample(outline, view.lr_affine, points, shape, 1) >= _LEVEL))
        within = ((points >= low - 1e-6) & (points <= high + 1e-6))[:, [across, up]]
        inside = np.asarray(within.all(axis=1)).reshape(shape)
        for key, place in (("before", volume.affine), ("after", matrix @ volume.affine)):
            pixels = np.minimum(_sample(image, place, points, shape, 1), _LINE - 1).astype(np.uint8)
            pixels[_boundary(inside)] = _BOX
            pixels[lines] = _LINE
            found[key].append(AlignmentPicture(plane, _png(pixels), shape[1], shape[0]))
    return found


def outline_map(view: ResultView) -> Float64 | None:
    """[x, y, z] mean of the measured maps, each over its median in trusted voxels; None without measured maps."""
    parts = []
    for one in view.maps:
        if one.measured is None or one.zero_filled is None:
            continue
        signal = one.zero_filled[np.isfinite(one.zero_filled)]
        median = float(np.median(signal)) if signal.size else 0.0
        if median > 0:
            parts.append(np.clip(np.nan_to_num(one.measured.astype(np.float64)) / median, 0, 2))
    return np.mean(parts, axis=0) if parts else None


def _box(affine: Float64, shape: tuple[int, ...]) -> tuple[Float64, Float64]:
    """Corners of the box along the world's axes that holds the field of view, mm."""
    ends = [(-0.5, n - 0.5) for n in shape]
    corners = np.array(np.meshgrid(*ends, indexing="ij")).reshape(3, -1)
    world = affine[:3, :3] @ corners + affine[:3, 3:]
    return world.min(axis=1), world.max(axis=1)


def _plane(low: Float64, high: Float64, across: int, up: int, normal: int) -> tuple[Float64, tuple[int, int]]:
    """World points [N, 3] of a plane through the middle of the maps, row by row from the top, and its shape."""
    extent = [max(high[axis] - low[axis] + 2 * MARGIN_MM, LEAST_MM) for axis in (up, across)]
    counts = [int(np.ceil(size / PIXEL_MM)) for size in extent]
    middle = (low + high) / 2
    rows = middle[up] - (np.arange(counts[0]) - (counts[0] - 1) / 2) * PIXEL_MM
    # RAS+: the patient's right (+x) is on the left of the picture, and so is the front (+y) of a sagittal plane
    columns = middle[across] - (np.arange(counts[1]) - (counts[1] - 1) / 2) * PIXEL_MM
    points = np.empty((counts[0], counts[1], 3))
    points[..., up], points[..., across], points[..., normal] = rows[:, None], columns[None], middle[normal]
    return points.reshape(-1, 3), (counts[0], counts[1])


def _sample(
    values: NDArray, affine: Float64, points: Float64, shape: tuple[int, int], order: int
) -> NDArray[np.float64]:
    """Values of a volume at world points; 0 outside."""
    from scipy import ndimage

    inverse = np.linalg.inv(affine)
    voxels = points @ inverse[:3, :3].T + inverse[:3, 3]
    found = ndimage.map_coordinates(values.astype(np.float64), voxels.T, order=order, mode="grid-constant", cval=0.0)
    return np.asarray(found).reshape(shape)


def _boundary(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels inside that have a neighbour outside."""
    padded = np.pad(inside, 1, mode="edge")
    whole = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside & ~whole


def _png(pixels: NDArray[np.uint8]) -> str:
    palette = bytes(np.repeat(np.arange(254, dtype=np.uint8), 3)) + bytes(_LINE_RGB) + bytes(_BOX_RGB)
    return base64.b64encode(indexed_png(pixels, palette)).decode("ascii")
