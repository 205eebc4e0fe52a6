"""The intensities of an image as a few overlapping bands, and what lies between their voxels.

A tissue is a range of intensities, and a voxel of the maps holds several tissues. So a voxel of the image counts for
the two bands next to its intensity, by its distance from either; sums of bands are then any piecewise linear function
of the intensity, whatever the contrast of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mrsi_fast.mrsi.geometry import voxel_sizes_mm

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

PERCENTILES = (1.0, 15.0, 35.0, 55.0, 75.0, 99.0)
"""Where the bands are centred, among the image's voxels with signal."""

VOXEL_MM = 2.0
"""Bands are averaged to about this voxel: fine beside any map, and ten times less to interpolate than 1 mm."""

SIGNAL_SHARE = 0.05
"""Voxels below this share of the 99th percentile are background."""

DIFFERENCE = 0.05
"""Voxels between the two points that a slope is taken from; the bands are linear from voxel to voxel."""


@dataclass(frozen=True, eq=False)
class Bands:
    """Bands of an image.

    Attributes:
        values: [bands, Z, Y, X] shares from 0 to 1, the outermost voxels 0.
        affine: From voxels to mm [4, 4].
    """

    values: Tensor
    affine: Float64

    @classmethod
    def of(cls, image: NDArray, affine: Float64) -> Bands:
        """Splits an image [X, Y, Z].

        Raises:
            ValueError: It has one value.
        """
        image = np.nan_to_num(np.asarray(image, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        thinned = image[::2, ::2, ::2] if image.size > 1e6 else image
        floor = SIGNAL_SHARE * np.percentile(thinned[thinned > 0], 99) if (thinned > 0).any() else np.inf
        signal = thinned[thinned > floor]
        centres = np.unique(np.percentile(signal, PERCENTILES)).astype(np.float32) if signal.size else signal
        if len(centres) < 2:
            raise ValueError("An image with one value shows no anatomy.")
        image, affine = _cropped(image, image > floor, affine)
        inside = image > floor
        values = np.clip(image, centres[0], centres[-1])
        steps = [max(1, round(VOXEL_MM / size)) for size in voxel_sizes_mm(affine)]
        bands = []
        for index, centre in enumerate(centres):
            weights = np.ones_like(values)
            if index > 0:
                weights = np.minimum(weights, (values - centres[index - 1]) / (centre - centres[index - 1]))
            if index + 1 < len(centres):
                weights = np.minimum(weights, (centres[index + 1] - values) / (centres[index + 1] - centre))
            bands.append(_block_means(np.where(inside, np.maximum(weights, 0), 0), steps))
        return cls(*_bordered(np.stack(bands), _of_blocks(affine, steps)))

    def coarser(self, voxel_mm: float) -> Bands:
        """Averaged to about cubes of a size."""
        steps = [max(1, round(voxel_mm / float(size))) for size in voxel_sizes_mm(self.affine)]
        return Bands(
            *_bordered(_block_means(self.values.permute(0, 3, 2, 1).numpy(), steps), _of_blocks(self.affine, steps))
        )

    def moved(self, matrix: Float64) -> Bands:
        """In another place, by a matrix [4, 4] in mm."""
        return replace(self, affine=matrix @ self.affine)

    def at(self, points: Tensor) -> Tensor:
        """Interpolates the bands linearly at places [N, 3] in voxels: [bands, N], 0 beyond the image."""
        size = torch.tensor(self.values.shape[:0:-1])  # X, Y, Z
        grid = (2 * points / (size - 1) - 1)[None, None, None]
        found = functional.grid_sample(self.values[None], grid, padding_mode="zeros", align_corners=True)
        return found[0, :, 0, 0]

    def slopes(self, points: Tensor) -> Tensor:
        """Slopes of the bands along their X, Y, Z at places [N, 3] in voxels: [3, bands, N] a voxel."""
        here = self.at(points)
        return torch.stack([self.at(points + step) - here for step in DIFFERENCE * torch.eye(3)]) / DIFFERENCE


def _cropped(image: Float32, inside: Bool, affine: Float64) -> tuple[Float32, Float64]:
    """The image within the box that holds all of ``inside``, and its affine."""
    box = []
    for axis in range(3):
        used = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ np.array([part.start for part in box])
    return image[tuple(box)], moved


def _block_means(image: NDArray, steps: Sequence[int]) -> Float32:
    """Means [..., X/x, Y/y, Z/z] over blocks of [..., X, Y, Z]; blocks beyond the end are filled with zeros."""
    (x, y, z), rest = steps, image.shape[:-3]
    padding = [(0, -n % step) for n, step in zip(image.shape[-3:], steps, strict=True)]
    padded = np.pad(image, [(0, 0)] * len(rest) + padding)
    nx, ny, nz = padded.shape[-3:]
    blocks = padded.reshape(*rest, nx // x, x, ny // y, y, nz // z, z)
    return blocks.mean(axis=(-5, -3, -1), dtype=np.float32)


def _of_blocks(affine: Float64, steps: Sequence[int]) -> Float64:
    """Affine of blocks of voxels."""
    coarse = affine.copy()
    coarse[:3, 3] = affine[:3, :3] @ ((np.array(steps) - 1) / 2) + affine[:3, 3]
    coarse[:3, :3] = affine[:3, :3] * np.array(steps)
    return coarse


def _bordered(values: Float32, affine: Float64) -> tuple[Tensor, Float64]:
    """Bands [bands, X, Y, Z] as [bands, Z, Y, X] with one voxel of nothing around, and the affine."""
    moved = affine.copy()
    moved[:3, 3] -= affine[:3, :3].sum(axis=1)
    bordered = np.pad(values, [(0, 0)] + [(1, 1)] * 3).transpose(0, 3, 2, 1)
    return torch.from_numpy(np.ascontiguousarray(bordered)), moved
