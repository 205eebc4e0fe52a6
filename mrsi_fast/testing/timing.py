"""Fair timing on a machine that drifts: peers in shuffled round-robin, compared by ratios taken within each round."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """How many times longer one function took than another: median over rounds, and its bootstrap interval."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        """As in a table: 1.83 [1.79, 1.90]."""
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


def interleave(
    functions: Mapping[str, Callable[[], object]], rounds: int = 30, at_least_s: float = 2e-3, seed: int = 0
) -> dict[str, list[float]]:
    """Time functions against each other.

    Every round calls all of them, in an order shuffled anew, so that a slow minute of the machine falls on all alike.

    Args:
        functions: What to time, by label; called without arguments.
        rounds: Number of rounds.
        at_least_s: Short functions are called several times in a row until about this long, and the mean is kept.
        seed: Of the shuffling.

    Returns:
        Seconds per call, one value a round, by label.
    """
    repeats = {}
    for label, function in functions.items():
        function()  # warm: caches, first-call set-up
        start = time.perf_counter()
        function()
        repeats[label] = max(1, round(at_least_s / max(time.perf_counter() - start, 1e-7)))
    order, shuffle = list(functions), random.Random(seed).shuffle
    seconds: dict[str, list[float]] = {label: [] for label in functions}
    for _ in range(rounds):
        shuffle(order)
        for label in order:
            function, count = functions[label], repeats[label]
            start = time.perf_counter()
            for _ in range(count):
                function()
            seconds[label].append((time.perf_counter() - start) / count)
    return seconds


def paired_ratio(slow: list[float], fast: list[float], seed: int = 0, draws: int = 2000) -> Ratio:
    """Median of the rounds' ratios ``slow / fast`` with a 95 % bootstrap interval over rounds."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    pick = random.Random(seed)
    medians = sorted(statistics.median(pick.choices(ratios, k=len(ratios))) for _ in range(draws))
    return Ratio(statistics.median(ratios), medians[int(0.025 * draws)], medians[int(0.975 * draws)])
