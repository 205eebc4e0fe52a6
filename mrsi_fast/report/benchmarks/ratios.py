"""Ratios of durations with bootstrap intervals: within one run paired by round, between two runs not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWS = 2000


@dataclass(frozen=True)
class Ratio:
    """How many times longer one thing took than another: a median, and its bootstrap interval."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        """As in a table: 1.83 [1.79, 1.90]; without decimals from 100 on."""
        digits = 2 if self.median < 100 else 0
        return f"{self.median:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def _medians(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Medians of ``DRAWS`` samples with replacement."""
    picked = np.random.default_rng(seed).integers(len(values), size=(DRAWS, len(values)))
    return np.median(values[picked], axis=1)


def _interval(draws: NDArray[np.float64], level: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_ratio(slow: Sequence[float], fast: Sequence[float], level: float = 0.95, seed: int = 0) -> Ratio:
    """Median over rounds of ``slow / fast``, each ratio from one round, with its interval.

    Args:
        slow: Durations of one function, a value a round.
        fast: Those of the other, of the same rounds.
        level: Of the interval.
        seed: Of the bootstrap.

    Raises:
        ValueError: The numbers of rounds differ, or there are none.
    """
    if len(slow) != len(fast) or not slow:
        raise ValueError(f"Paired ratios need the same rounds of both, got {len(slow)} and {len(fast)}.")
    ratios = np.asarray(slow, dtype=np.float64) / np.asarray(fast, dtype=np.float64)
    return Ratio(float(np.median(ratios)), *_interval(_medians(ratios, seed), level))


def change(old: ArrayLike, new: ArrayLike, level: float = 0.99, seed: int = 0) -> Ratio:
    """Median of ``new`` over median of ``old``, two unpaired sets of repeats, with its interval.

    Args:
        old: One value a round of the older run.
        new: The same of the newer run; the number of rounds may differ.
        level: Of the interval; high, because a comparison asks it of hundreds of rows.
        seed: Of the bootstrap.
    """
    before, after = np.asarray(old, dtype=np.float64), np.asarray(new, dtype=np.float64)
    draws = _medians(after, seed) / _medians(before, seed + 1)
    return Ratio(float(np.median(after) / np.median(before)), *_interval(draws, level))
