"""Quantitative bias: the level of each tissue by fraction-weighted regression, and agreement after Bland and Altman."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def tissue_levels(image: NDArray, fractions: Mapping[str, NDArray], region: Mask) -> dict[str, float]:
    """Concentration of each tissue, as if it filled its voxels: least squares of the map on the tissue fractions.

    ``image(r) = sum_t level_t f_t(r)`` over the region. Every voxel counts with what it holds, so thin grey matter is
    not judged by its few pure voxels alone. Finite resolution shows here as exchange between the tissues.

    Args:
        image: Map, any shape and unit.
        fractions: Share of each tissue in each voxel, same shape, 0 to 1.
        region: Voxels that count, same shape: the brain without the lesion.

    Returns:
        Level per tissue in the map's unit; NaN for all tissues where the fractions do not determine them.
    """
    names = list(fractions)
    design = np.stack([np.asarray(fractions[name], np.float64)[region] for name in names], axis=1)
    values = np.asarray(image, np.float64)[region]
    if len(values) < 4 * len(names) or np.linalg.matrix_rank(design) < len(names):
        return dict.fromkeys(names, float("nan"))
    levels = np.linalg.lstsq(design, values, rcond=None)[0]
    return {name: float(level) for name, level in zip(names, levels, strict=True)}


def relative_bias_percent(found: float, true: float) -> float:
    """``100 (found - true) / true``; NaN for a true value that is not positive."""
    return 100 * (found - true) / true if true > 0 else float("nan")


@dataclass(frozen=True)
class Agreement:
    """Bland-Altman summary of ``found - true`` (Bland and Altman 1986, 10.1016/S0140-6736(86)90837-8).

    Attributes:
        count: Pairs.
        bias: Mean difference.
        lower: Lower limit of agreement, ``bias - 1.96 SD``; NaN below three pairs.
        upper: Upper limit.
    """

    count: int
    bias: float
    lower: float
    upper: float


def bland_altman(found: Sequence[float], true: Sequence[float]) -> Agreement:
    """Bias and limits of agreement of paired values, one pair per head; pairs with a NaN are left out.

    Raises:
        ValueError: The two have different lengths.
    """
    if len(found) != len(true):
        raise ValueError(f"Bland-Altman needs pairs, got {len(found)} and {len(true)} values.")
    difference = np.asarray(found, np.float64) - np.asarray(true, np.float64)
    difference = difference[np.isfinite(difference)]
    if not len(difference):
        return Agreement(0, float("nan"), float("nan"), float("nan"))
    bias = float(difference.mean())
    spread = 1.96 * float(difference.std(ddof=1)) if len(difference) >= 3 else float("nan")
    return Agreement(len(difference), bias, bias - spread, bias + spread)
