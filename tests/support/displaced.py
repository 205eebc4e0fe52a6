"""A head without symmetry, as a fine image and as coarse maps of it, for tests of alignment."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mrsi_fast.mrsi.forward import Acquisition

VOXEL_MM, MATRIX, SLICES = 8.0, 24, 8


@lru_cache(maxsize=1)
def head() -> tuple[NDArray, NDArray]:
    """An image of 2 mm without symmetry, [96, 96, 32], and its affine: an ellipsoid with random structure."""
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.normal(size=(96, 96, 32)), 4)
    x, y, z = (np.arange(n) - (n - 1) / 2 for n in noise.shape)
    inside = (x[:, None, None] / 36) ** 2 + (y[None, :, None] / 42) ** 2 + (z[None, None, :] / 30) ** 2 < 1
    image = np.where(inside, 2 + noise / noise.std(), 0).clip(0)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = [-95.0, -95.0, -31.0]
    return image.astype(np.float32), affine


@lru_cache(maxsize=1)
def maps() -> tuple[NDArray, NDArray, NDArray]:
    """Two maps of 8 mm that depend on the image without being linear in it, voxels that count, and the affine."""
    image, _ = head()
    fine = np.stack([np.sqrt(image), np.exp(-image) * (image > 0)])
    slices = fine.reshape(2, 96, 96, SLICES, 4).mean(-1)
    low = np.moveaxis(Acquisition((MATRIX, MATRIX), (4, 4)).forward(np.moveaxis(slices, -1, 0)), 0, -1)
    affine = np.diag([VOXEL_MM, VOXEL_MM, 8.0, 1.0])
    affine[:3, 3] = [-92.0, -92.0, -28.0]
    noisy = low + 0.03 * low.max() * np.random.default_rng(1).normal(size=low.shape)
    return noisy, low[0] > 0.4 * low[0].max(), affine
