"""The intensities of an anatomical image, whatever its scale: padding found and set to 0, tissue brought above it.

T1 images come in scanner units, z-scored, with an offset (unsigned storage), padded with -1024, with a bright scalp.
The level of the background is judged from the image, never assumed to be 0. The network was trained on images that are
0 outside the head and positive within, so every kind is brought to that form; an image that has it already keeps its
values.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.mapset import Float32

PADDING_SHARE = 0.2
"""Share of the image's outer faces that one value has to hold to be padding."""

BRIGHTEST = 2.0
"""Times the median inside the maps' region beyond which intensities are clipped (white matter lies at 1.3 to 1.5 times
the median of a T1): scalp fat, vessels, spikes."""

GROUND_SHARE = 0.02
"""Share of the other voxels that their lowest value has to hold to be a second padding: an image with an offset that
was resampled and padded with 0 since."""

_OFFSET_SHARE = 0.5  # dark tissue lies below half of the range above a padding that is the image's zero
_AIR_SHARE = 0.1  # of the range: air lies no higher above the darkest values
_DARKEST = 0.15  # where the zero is not known, the darkest tissue gets this share of the range: CSF on a T1


def without_padding(data: Float32) -> Float32:
    """The image with 0 outside the head and positive values within.

    Where the padding lies a little below the darkest tissue it is the image's zero and is subtracted. Where it lies
    amid the tissue (z-scored in the brain, 0 outside) or far below it (-1024), the zero is not known, and the robust
    range of the tissue is mapped to 0.15 to 1. Without padding the darkest values are the zero where they are negative,
    or lie well above 0 and fill the image's border: noisy air with an offset.

    The result goes through unchanged if it is given again.

    Args:
        data: [X, Y, Z]; values that are not finite are padding.

    Returns:
        [X, Y, Z] float32, not negative.
    """
    finite = np.isfinite(data)
    if not finite.any():
        return np.zeros_like(data)
    padding = _padding(data, finite)
    tissue = finite if padding is None else finite & (data != padding)
    two_valued = not tissue.any() or data[tissue].min() == data[tissue].max()
    if two_valued:  # shapes on a ground: no head on padding
        padding, tissue = None, finite
    if padding is not None:
        lowest = data[tissue].min()
        within = tissue & (data > lowest)
        if (data[tissue] == lowest).mean() >= GROUND_SHARE and np.ptp(data[within]) > 0:
            padding, tissue = max(padding, float(lowest)), within
    low, high = (float(v) for v in np.percentile(data[tissue], (1.0, 99.0)))
    if padding is None and (low >= 0 or finite.all()):
        shifted = data - low if low < 0 or (not two_valued and _dark_border(data, finite, low, high)) else data
    elif padding is not None and high > padding and 0 <= low - padding <= _OFFSET_SHARE * (high - padding):
        shifted = data - np.float32(padding)
    else:
        span = max(high - low, 1e-30)
        shifted = _DARKEST + (1.0 - _DARKEST) * (data - low) / span
        shifted = np.maximum(shifted, _DARKEST / 2)
    return np.where(tissue, np.maximum(shifted, 0), 0).astype(np.float32)


def clipped(on_grid: NDArray, region: NDArray[np.bool_] | None) -> NDArray:
    """The image without intensities far above those inside the region.

    Args:
        on_grid: [X, Y, Z], 0 outside the head.
        region: Where the maps hold tissue, [X, Y, Z]; without it nothing is clipped.
    """
    inside = on_grid[region & (on_grid > 0)] if region is not None else on_grid[:0]
    if inside.size == 0:
        return on_grid
    return np.minimum(on_grid, BRIGHTEST * float(np.median(inside)))


def _border(data: Float32, finite: NDArray[np.bool_]) -> NDArray:
    """The finite values of the six outer faces."""
    faces = [np.take(data, (0, -1), axis=axis)[np.take(finite, (0, -1), axis=axis)] for axis in range(3)]
    return np.concatenate(faces)


def _dark_border(data: Float32, finite: NDArray[np.bool_], low: float, high: float) -> bool:
    """Whether the border holds the image's darkest values, and these are far from 0 for the image's range."""
    dark = _AIR_SHARE * (high - low)
    border = _border(data, finite)
    return low > dark and border.size > 0 and float(np.median(border)) - low < dark


def _padding(data: Float32, finite: NDArray[np.bool_]) -> float | None:
    """The value that most of the outer faces hold, if one holds a fair share; faces of one voxel's depth count once."""
    border = _border(data, finite)
    if border.size == 0:
        return None
    values, counts = np.unique(border, return_counts=True)
    most = int(np.argmax(counts))
    return float(values[most]) if counts[most] >= PADDING_SHARE * border.size else None
