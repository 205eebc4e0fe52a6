"""Fair timing on a machine that drifts: peers in shuffled round-robin, compared by ratios taken within each round."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Label = TypeVar("Label", bound=Hashable)

FEWEST_ROUNDS, MOST_ROUNDS = 7, 40


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
    functions: Mapping[Label, Callable[[], object]],
    rounds: int | None = None,
    at_least_s: float = 2e-3,
    seed: int = 0,
    budget_s: float = 10.0,
) -> dict[Label, list[float]]:
    """Time functions against each other.

    Every round calls all of them, in an order shuffled anew, so that a slow minute of the machine falls on all alike.

    Args:
        functions: What to time, by label; called without arguments.
        rounds: Number of rounds; by default as many as the budget allows, within 7 and 40.
        at_least_s: Short functions are called several times in a row until about this long, and the mean is kept.
        seed: Of the shuffling.
        budget_s: About how long all rounds may take together.

    Returns:
        Seconds per call, one value a round, by label.
    """
    repeats, one_round = {}, 0.0
    for label, function in functions.items():
        function()  # warm: caches, first-call set-up
        start = time.perf_counter()
        function()
        once = max(time.perf_counter() - start, 1e-7)
        repeats[label] = max(1, round(at_least_s / once))
        one_round += repeats[label] * once
    if rounds is None:
        rounds = min(MOST_ROUNDS, max(FEWEST_ROUNDS, int(budget_s / max(one_round, 1e-9))))
    order, shuffle = list(functions), random.Random(seed).shuffle
    seconds: dict[Label, list[float]] = {label: [] for label in functions}
    for _ in range(rounds):
        shuffle(order)
        for label in order:
            function, count = functions[label], repeats[label]
            start = time.perf_counter()
            for _ in range(count):
                function()
            seconds[label].append((time.perf_counter() - start) / count)
    return seconds


def paired_ratio(slow: Sequence[float], fast: Sequence[float], seed: int = 0, draws: int = 2000) -> Ratio:
    """Median of the rounds' ratios ``slow / fast`` with a 95 % bootstrap interval over rounds."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    pick = random.Random(seed)
    medians = sorted(statistics.median(pick.choices(ratios, k=len(ratios))) for _ in range(draws))
    return Ratio(statistics.median(ratios), medians[int(0.025 * draws)], medians[int(0.975 * draws)])
