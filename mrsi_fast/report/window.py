"""The window of values that a map is shown in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def display_window(*maps: NDArray) -> tuple[float, float]:
    """One window for several stages of a map: from 0 (or the 1st percentile, if negative) to the 99.5th percentile.

    Args:
        maps: Arrays of any shape; NaN and infinite values are left out.

    Returns:
        Lower and upper end in the maps' unit; (0, 1) when there is nothing to show.
    """
    values = np.concatenate([array[np.isfinite(array)] for array in map(np.asarray, maps)])  # a copy, reordered below
    high = float(np.percentile(values, 99.5, overwrite_input=True)) if values.size else 0.0
    if high <= 0:
        return (0.0, 1.0) if not values.size or not values.any() else (float(values.min()), float(values.max()) or 1.0)
    low = float(np.percentile(values, 1.0, overwrite_input=True))
    return (low if low < -0.02 * high else 0.0), high
