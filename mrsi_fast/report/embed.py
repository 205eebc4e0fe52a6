"""Volumes for a page: small compressed NIfTI images as base64 text.

Float32 maps hardly compress: their last bits are noise. A page needs what a reader can see and quote, so values are
rounded to a step that is a small share of the map's range and stored as whole numbers with NIfTI's scale factor. The
NIfTI files of the result keep every bit.
"""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

NO_VALUE = {np.dtype(np.uint8): 255, np.dtype(np.int16): -32768}
"""Code of NaN in each stored type."""
_SMALL = 254  # levels that fit into a byte beside the mark for NaN


@dataclass(frozen=True)
class Precision:
    """Steps from 0 to a map's 99.5th percentile.

    Attributes:
        map: For super-resolved maps and ratios: the values that a reader quotes.
        beside: For what is shown for comparison (zero-filled maps).
        spread: For standard deviations and probabilities.
    """

    map: int
    beside: int
    spread: int


PRECISIONS = (
    Precision(4000, 1000, 250),
    Precision(2000, 500, 250),
    Precision(1000, 250, 200),
    Precision(250, 200, 120),
)
"""From fine to coarse; a page takes the first that keeps it below its size limit."""


def pack(values: NDArray, affine: NDArray[np.float64], levels: int) -> str:
    """Round a volume and return it as base64 text of a gzipped NIfTI-1 image.

    Args:
        values: [X, Y, Z]; NaN is kept.
        affine: [4, 4], mm.
        levels: Steps from 0 to the 99.5th percentile of the absolute values.
    """
    finite = np.abs(values[np.isfinite(values)].astype(np.float64))
    largest = float(finite.max()) if finite.size else 0.0
    usual = float(np.percentile(finite, 99.5)) if finite.size else 0.0
    negative = bool(finite.size) and float(np.nanmin(values)) < 0
    step = (usual or largest or 1.0) / levels
    kind = np.dtype(np.uint8 if levels <= _SMALL and not negative else np.int16)
    room = _SMALL if kind == np.uint8 else 32767
    step = max(step, largest / room)  # an outlier widens the steps rather than being cut
    stored = np.full(values.shape, NO_VALUE[kind], dtype=kind)
    known = np.isfinite(values)
    stored[known] = np.round(values[known].astype(np.float64) / step).astype(kind)
    return _encoded(stored, affine, step)


def pack_grey(values: NDArray[np.uint8], affine: NDArray[np.float64]) -> str:
    """A grey-level image as it is, as base64 text of a gzipped NIfTI-1 image."""
    return _encoded(values, affine, 1.0)


def _encoded(stored: NDArray, affine: NDArray[np.float64], step: float) -> str:
    image = nib.Nifti1Image(stored, affine)
    image.header.set_slope_inter(step, 0.0)
    image.header.set_xyzt_units("mm")
    return base64.b64encode(gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)).decode("ascii")
