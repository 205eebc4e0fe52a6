"""Reading the volumes of one set onto one grid: that of the first map, whatever order or axes the others are stored in.

Another order of the same voxels (axes permuted or reversed) is put right without loss. Anything else would have to be
resampled, which invents values: it is done for masks alone, and said.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from mrsi_fast.mrsi.anatomy import box_average
from mrsi_fast.mrsi.arrays import plain_array
from mrsi_fast.mrsi.geometry import check_affine, describe_grid, fov_corner_difference_mm, voxel_sizes_mm
from mrsi_fast.mrsi.images import read_image
from mrsi_fast.mrsi.mapset import Float32, MapInputError
from mrsi_fast.mrsi.masks import as_mask
from mrsi_fast.mrsi.nifti import MAX_MAP_VALUES, MAX_VALUES, SAME_PLACE_MM, Form, Volume, check_size, volume_from_image

Source = Any
"""A path, a NIfTI image, ``(array, affine)``, or for quality data also an array on the maps' grid."""

SAME_GRID_VOXELS = 0.05
"""Two grids of the same matrix whose corners lie this close, in voxels, are one: headers are rounded and edited."""


@dataclass
class Reader:
    """Reads volumes onto one grid (the first volume's) and gathers remarks, each once for all files it holds for.

    Attributes:
        form: Orientation to use where sform and qform differ.
        grid: The common grid; None before the first volume.
        first: How to call the volume that the grid comes from.
        remarks: Remark -> what it holds for.
    """

    form: Form
    grid: Volume | None = None
    first: str = ""
    remarks: dict[str, list[str]] = field(default_factory=dict)

    def remark(self, where: str, text: str) -> None:
        """Note something that a careful reader of ``where`` should know; a sentence without its full stop."""
        self.remarks.setdefault(text, []).append(where)

    def sentences(self) -> tuple[str, ...]:
        """All remarks, one sentence each."""
        return tuple(
            f"{where[0]}{f' and {len(where) - 1} more' if len(where) > 1 else ''}: {text}."
            for text, where in self.remarks.items()
        )

    def volume(self, source: Source, what: str) -> tuple[Float32, str]:
        """Return [N, X, Y, Z] on the common grid, and how to call the source in messages.

        Raises:
            MapInputError: It cannot be read, or lies on another grid.
        """
        volume, where = self._load(source, what, MAX_MAP_VALUES)
        if self.grid is None:
            self.grid, self.first = volume, where
        turned = self._on_grid(volume, where)
        if turned is None:
            raise MapInputError(f"{self._elsewhere(volume, where)} Resample it to the maps' grid first.")
        return turned, where

    def mask(self, source: Source, what: str, labels: tuple[int, ...] | None = None) -> NDArray[np.bool_]:
        """Return a mask [X, Y, Z] on the common grid; one on another grid is resampled, and that is said.

        A voxel belongs to the mask if more than half of its volume does.

        Raises:
            MapInputError: It cannot be read or understood, or does not overlap the grid.
        """
        volume, where = self._load(source, what)
        assert self.grid is not None
        if volume.data.shape[0] != 1:
            raise MapInputError(f"{where}: holds {volume.data.shape[0]} volumes; give one mask.")
        inside, remarks = as_mask(volume.data[0], where, labels)
        for text in remarks:
            self.remark(where, text)
        turned = self._on_grid(replace(volume, data=inside[None].astype(np.float32)), where)
        if turned is not None:
            return turned[0] > 0
        share = box_average(inside.astype(np.float32), volume.affine, self.grid.affine, self.grid.data.shape[1:])
        self.remark(
            where,
            f"is on another grid than the maps ({describe_grid(volume.affine, inside.shape)}); it was resampled, "
            "and a voxel counts as inside where more than half of it is",
        )
        result = share > 0.5
        if inside.any() and not result.any():
            raise MapInputError(
                f"{self._elsewhere(volume, where)} It does not overlap the maps. Check that it is the right file."
            )
        return result

    def _load(self, source: Source, what: str, max_values: int = MAX_VALUES) -> tuple[Volume, str]:
        where = Path(source).name if isinstance(source, (str, Path)) else what
        if isinstance(source, (str, Path)):
            volume = read_image(source, self.form, max_values)
        elif isinstance(source, Volume):
            volume = source
        elif isinstance(source, SpatialImage):
            volume = volume_from_image(source, where, self.form, max_values)
        else:
            volume = self._from_array(source, where)
            check_size(volume.data.shape, where, max_values)
        for text in volume.remarks:
            self.remark(where, text)
        return volume, where

    def _from_array(self, source: Source, where: str) -> Volume:
        if isinstance(source, tuple) and len(source) == 2:
            array, affine = plain_array(source[0], where), check_affine(source[1], where)
        elif self.grid is not None and not isinstance(source, (tuple, Mapping)):
            array, affine = plain_array(source, where), self.grid.affine
        else:
            raise MapInputError(
                f"{where}: give a path, a NIfTI image or (array, affine); a {type(source).__name__} "
                "alone has no position in the head."
            )
        if array.dtype.kind not in "fiub" or array.ndim not in (2, 3, 4) or array.size == 0:
            raise MapInputError(
                f"{where}: an array of {array.dtype} and shape {array.shape} cannot be used; give real "
                "numbers of shape [X, Y], [X, Y, Z] or [M, X, Y, Z]."
            )
        expected = None if self.grid is None else self.grid.data.shape[1:]
        if array.shape != expected and (*array.shape[1:], 1) == expected:  # [M, X, Y] for maps of one slice
            array = array[..., None]
        shape = {2: (1, *array.shape, 1), 3: (1, *array.shape)}.get(array.ndim, array.shape)
        with np.errstate(over="ignore"):  # beyond float32 becomes inf: no value
            return Volume(array.astype(np.float32).reshape(shape), affine, 1, ())

    def _on_grid(self, volume: Volume, where: str) -> Float32 | None:
        """The volume's values in the grid's order of voxels; None if they are other voxels."""
        assert self.grid is not None
        expected = self.grid.data.shape[1:]
        if not volume.placed and volume.data.shape[1:] == expected:
            if self.grid.placed:
                self.remark(
                    where, "has no position in its header; used voxel by voxel, because its matrix is that of the maps"
                )
            return volume.data
        order = turn_between(volume.affine, self.grid.affine)
        if order is None:
            return None
        data, affine = turned(volume.data, volume.affine, order)
        apart = fov_corner_difference_mm(affine, data.shape[1:], self.grid.affine, expected)
        if data.shape[1:] != expected or apart > SAME_GRID_VOXELS * min(voxel_sizes_mm(self.grid.affine)):
            return None
        if order != _AS_IT_IS:
            self.remark(where, "has another voxel order than the maps; reordered, not resampled")
        if apart > SAME_PLACE_MM:
            self.remark(where, f"is {apart:.2f} mm off the maps, a small fraction of a voxel; taken as the same grid")
        return data

    def _elsewhere(self, volume: Volume, where: str) -> str:
        assert self.grid is not None
        shape, expected = volume.data.shape[1:], self.grid.data.shape[1:]
        apart = fov_corner_difference_mm(volume.affine, shape, self.grid.affine, expected)
        return (
            f"{where}: is on another grid ({describe_grid(volume.affine, shape)}) than {self.first} "
            f"({describe_grid(self.grid.affine, expected)}); their corners differ by up to {apart:.2f} mm."
        )


Turn = tuple[tuple[int, int, int], tuple[int, int, int]]
_AS_IT_IS: Turn = ((0, 1, 2), (1, 1, 1))


def turn_between(affine: NDArray[np.float64], target: NDArray[np.float64]) -> Turn | None:
    """The permutation and signs of array axes that bring one grid's axes onto another's; None if they do not match.

    Returns:
        For each axis of the target the axis of the first grid, and +1 or -1 for its direction. Axes match if they
        differ by less than 1 % of a voxel a voxel (a few tenths of a degree).
    """
    between = np.linalg.solve(target[:3, :3], affine[:3, :3])  # [target axis, axis]: target voxels a step along axis
    for order in itertools.permutations(range(3)):
        picked = between[:, order]
        signs = np.sign(np.diag(picked))
        if np.abs(picked - np.diag(signs)).max() < 0.01:
            return (order[0], order[1], order[2]), (int(signs[0]), int(signs[1]), int(signs[2]))
    return None


def turned(values: Float32, affine: NDArray[np.float64], turn: Turn) -> tuple[Float32, NDArray[np.float64]]:
    """Values [N, X, Y, Z] and affine after permuting and reversing axes; each voxel stays where it is in space."""
    order, signs = turn
    values = np.transpose(values, (0, *(1 + axis for axis in order)))
    affine = affine.copy()
    affine[:3, :3] = affine[:3, order]
    for axis, sign in enumerate(signs):
        if sign < 0:
            values = np.flip(values, axis=1 + axis)
            affine[:3, 3] += affine[:3, axis] * (values.shape[1 + axis] - 1)
            affine[:3, axis] *= -1
    return np.ascontiguousarray(values), affine
