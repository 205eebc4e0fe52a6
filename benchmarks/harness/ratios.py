"""Ratios of durations with intervals: bootstrapped over rounds within a process, Student's between processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

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


def change(old: ArrayLike, new: ArrayLike, level: float = 0.95, seed: int = 0) -> Ratio:
    """Median of ``new`` over median of ``old``, two unpaired sets of repeats, with its interval.

    Args:
        old: One value a round of the older run.
        new: The same of the newer run; the number of rounds may differ.
        level: Of the interval.
        seed: Of the bootstrap.
    """
    before, after = np.asarray(old, dtype=np.float64), np.asarray(new, dtype=np.float64)
    draws = _medians(after, seed) / _medians(before, seed + 1)
    return Ratio(float(np.median(after) / np.median(before)), *_interval(draws, level))


@dataclass(frozen=True)
class Processes:
    """How long something took in each of several processes: the logarithm of its median over the rounds of each.

    Attributes:
        values: One a process.
        error: Variance that their rounds alone would give such a value, the mean over the processes.
    """

    values: NDArray[np.float64]
    error: float

    @classmethod
    def of(cls, sessions: Sequence[ArrayLike], seed: int = 0) -> Processes:
        """From the repeats of each process."""
        logs = [np.log(np.asarray(repeats, dtype=np.float64)) for repeats in sessions]
        errors = [float(np.var(_medians(log, seed))) for log in logs]
        return cls(np.array([np.median(log) for log in logs]), float(np.mean(errors)))


@dataclass(frozen=True)
class Change:
    """The processes of two runs, old and new, that timed the same thing."""

    old: Processes
    new: Processes

    @property
    def freedom(self) -> int:
        """Degrees of freedom of what processes of one run differ by; 0 where both have one."""
        return len(self.old.values) + len(self.new.values) - 2

    @property
    def spread(self) -> float:
        """Variance between processes of one run; 0 where both have one."""
        squares = sum(float(((one.values - one.values.mean()) ** 2).sum()) for one in (self.old, self.new))
        return squares / max(self.freedom, 1)

    @property
    def error(self) -> float:
        """Variance between processes that the rounds alone explain."""
        return (self.old.error + self.new.error) / 2

    def ratio(self, shared: float, weight: int, level: float) -> Ratio:
        """New over old with its interval, the variance between processes moderated by what others have.

        Args:
            shared: Variance that processes add to that of the rounds, on the average of all that were compared.
            weight: Degrees of freedom that ``shared`` counts as; with two or three processes a run, a spread of its own
                is often small by chance.
            level: Of the interval.
        """
        freedom = weight + self.freedom
        variance = (weight * (self.error + shared) + self.freedom * self.spread) / freedom
        width = float(student.ppf((1 + level) / 2, freedom))
        width *= (variance * (1 / len(self.old.values) + 1 / len(self.new.values))) ** 0.5
        middle = float(self.new.values.mean() - self.old.values.mean())
        return Ratio(*(float(np.exp(middle + step)) for step in (0.0, -width, width)))


def shared_spread(changes: Sequence[Change]) -> float:
    """Variance that processes add to that of the rounds, pooled over everything that two runs have in common."""
    freedom = sum(change.freedom for change in changes)
    excess = sum(change.freedom * (change.spread - change.error) for change in changes)
    return max(excess / freedom, 0.0) if freedom else 0.0
