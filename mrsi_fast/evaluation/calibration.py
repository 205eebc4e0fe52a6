"""Calibration of the spread of samples: coverage of intervals, CRPS."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student


def interval_factor(samples: int, level: float = 0.9) -> float:
    """Half width of a prediction interval in standard deviations of ``samples`` draws.

    The next draw of a normal distribution lies within ``mean +- k sd`` with probability ``level`` for
    ``k = t_{S-1} sqrt(1 + 1/S)``; 1.807 for 90 % and 16 samples.

    Raises:
        ValueError: Fewer than two samples.
    """
    if samples < 2:
        raise ValueError(f"An interval needs at least 2 samples, got {samples}.")
    return float(student.ppf(0.5 + level / 2, samples - 1) * np.sqrt(1 + 1 / samples))


def coverage(truth: NDArray, samples: NDArray, weights: NDArray, level: float = 0.9) -> float:
    """Weighted share of voxels whose truth lies in ``mean +- k sd`` of the samples.

    Args:
        truth: Any shape.
        samples: [S, ...] draws.
        weights: Shape of ``truth``, at least 0: a mask, or the share of a tissue in each voxel.
        level: Intended share.

    Returns:
        The share; NaN where the weights are all 0. Voxels without any spread and without error count as covered.
    """
    weight = np.asarray(weights, np.float64)
    use = weight > 0
    if not use.any():
        return float("nan")
    draws = np.asarray(samples, np.float64)[:, use]
    half = interval_factor(len(draws), level) * draws.std(axis=0, ddof=1)
    inside = np.abs(np.asarray(truth, np.float64)[use] - draws.mean(axis=0)) <= half
    return float(np.average(inside, weights=weight[use]))


def crps(truth: NDArray, samples: NDArray) -> NDArray[np.float64]:
    """Continuous ranked probability score of an ensemble, the estimate that is fair for few members (Ferro 2014).

    ``mean_i |x_i - y| - 1/(2 S (S-1)) sum_ij |x_i - x_j|``; in the unit of the maps, smaller is better. For one sample
    it is the absolute error.

    Args:
        truth: Any shape.
        samples: [S, ...].

    Returns:
        Shape of ``truth``.
    """
    draws = np.sort(np.asarray(samples, np.float64), axis=0)
    count = len(draws)
    error = np.abs(draws - np.asarray(truth, np.float64)).mean(axis=0)
    if count < 2:
        return error
    # sum_ij |x_i - x_j| = 2 sum_i (2 i - S + 1) x_(i) for sorted draws
    rank = (2 * np.arange(count) - count + 1).reshape(-1, *[1] * (draws.ndim - 1))
    return error - (rank * draws).sum(axis=0) / (count * (count - 1))
