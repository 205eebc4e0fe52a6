"""Connected parts of a region of voxels; neighbours share a face.

``scipy.ndimage.label`` and ``binary_dilation`` do the same. Importing them takes longer than all else that a report
needs, and three times as long as reading the maps of a whole brain.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Bool = NDArray[np.bool_]


def connected_parts(region: Bool, axes: Sequence[int] | None = None) -> NDArray[np.int64]:
    """Parts of a region, numbered from 1; 0 outside.

    Args:
        region: An image of any dimensions.
        axes: Those along which neighbours are connected; default all. ``(0, 1)`` takes each plane [X, Y] by itself.
    """
    label = np.where(region, np.arange(1, region.size + 1).reshape(region.shape), 0)
    while True:
        grown = label.copy()
        for axis in range(region.ndim) if axes is None else axes:
            line, former = np.moveaxis(grown, axis, 0), np.moveaxis(grown.copy(), axis, 0)
            np.maximum(line[1:], former[:-1], out=line[1:])
            np.maximum(line[:-1], former[1:], out=line[:-1])
            grown[~region] = 0
        root = np.concatenate(([0], grown.ravel()))
        grown = root[grown]  # the label of the voxel that a label is named after is at least as far along
        if np.array_equal(grown, label):
            break
        label = grown
    return np.unique(label, return_inverse=True)[1].reshape(region.shape) + int(region.all())


def largest_part(region: Bool) -> Bool:
    """The part with most voxels, the first of equal ones; empty for an empty region."""
    parts = connected_parts(region)
    sizes = np.bincount(parts.ravel(), minlength=2)
    sizes[0] = 0
    return (parts == np.argmax(sizes)) & region


def with_neighbours(region: Bool) -> Bool:
    """The region and all voxels that share a face with it."""
    grown = region.copy()
    for axis in range(region.ndim):
        line, former = np.moveaxis(grown, axis, 0), np.moveaxis(region, axis, 0)
        line[1:] |= former[:-1]
        line[:-1] |= former[1:]
    return grown
