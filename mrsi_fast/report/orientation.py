"""How a slice is turned for viewing: radiological view from its affine, with letters at its edges."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, NDArray

_OPPOSITE = dict(zip("LRPAIS", "RLAPSI", strict=True))
_TO_THE_RIGHT = {"L": "L", "R": "L", "A": "P", "P": "P", "S": "S", "I": "S"}
_UPWARDS = {"A": "A", "P": "A", "S": "S", "I": "S", "L": "L", "R": "L"}


@dataclass(frozen=True)
class SliceView:
    """Turns in-plane arrays ``[X, Y]`` so that they look as radiologists expect: patient's right on the left side.

    Attributes:
        transpose: The second array axis runs horizontally.
        flip_horizontal: The horizontal axis has to be reversed.
        flip_vertical: The vertical axis has to be reversed.
        edges: Letters at the left, right, bottom and top edge of the picture.
        oblique_deg: Largest angle between an array axis and the body axis that its letter names.
    """

    transpose: bool
    flip_horizontal: bool
    flip_vertical: bool
    edges: tuple[str, str, str, str]
    oblique_deg: float

    def turn(self, slice_xy: ArrayLike) -> NDArray:
        """Returns ``[vertical, horizontal]``, to be drawn with the first row at the bottom."""
        image = np.asarray(slice_xy)
        image = image if self.transpose else image.T
        return image[:: -1 if self.flip_vertical else 1, :: -1 if self.flip_horizontal else 1]

    def size_mm(self, shape_xy: tuple[int, int], voxel_mm: tuple[float, float]) -> tuple[float, float]:
        """Width and height of the drawn slice, mm."""
        x, y = shape_xy[0] * voxel_mm[0], shape_xy[1] * voxel_mm[1]
        return (y, x) if self.transpose else (x, y)


def slice_view(affine: ArrayLike) -> SliceView:
    """Works out how the first two array axes are to be turned for viewing.

    Args:
        affine: Voxel to RAS+ mm, [4, 4]; oblique grids take the nearest body axes.
    """
    matrix = np.asarray(affine, dtype=np.float64)
    codes = nib.aff2axcodes(matrix)
    unit = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    oblique = float(np.degrees(np.arccos(np.clip(np.abs(unit).max(axis=0), 0, 1)).max()))
    rank = "LRAPSI".index  # left-right runs horizontally if it is in the plane, else front-back
    transpose = rank(codes[1]) // 2 < rank(codes[0]) // 2
    horizontal, vertical = (codes[1], codes[0]) if transpose else (codes[0], codes[1])
    right, top = _TO_THE_RIGHT[horizontal], _UPWARDS[vertical]
    return SliceView(
        transpose=transpose,
        flip_horizontal=horizontal != right,
        flip_vertical=vertical != top,
        edges=(_OPPOSITE[right], right, _OPPOSITE[top], top),
        oblique_deg=oblique,
    )
