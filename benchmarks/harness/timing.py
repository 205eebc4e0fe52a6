"""Fair timing on a machine that drifts: peers in shuffled round-robin, compared by ratios taken within each round."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from harness.ratios import Ratio, paired_ratio

__all__ = ["Ratio", "interleave", "paired_ratio"]

Label = TypeVar("Label", bound=Hashable)

FEWEST_ROUNDS, MOST_ROUNDS = 5, 120
LONG_S = 1.0
"""What takes longer is warm after one call."""


def interleave(
    functions: Mapping[Label, Callable[[], object]],
    rounds: int | None = None,
    at_least_s: float = 0.0,
    seed: int = 0,
    budget_s: float = 10.0,
    pause_s: float = 0.0,
) -> dict[Label, list[float]]:
    """Time functions against each other.

    Every round calls all of them, so that a slow minute of the machine falls on all alike, in an order shuffled anew or
    that of the round before backwards: what follows what, and so finds its data in cache, evens out.
    Once each: a call that follows the others finds caches full of their data and may take twice as long as the next, so
    a mean over several calls depends on their number; and a number that is measured differs between processes.

    Args:
        functions: What to time, by label; called without arguments.
        rounds: Number of rounds; by default as many as the budget allows, within 5 and 120.
        at_least_s: Functions that end too early to be timed one by one (on a GPU, which has to be waited for; between
            others that take seconds) are called several times in a row until about this long, and the mean is kept.
        seed: Of the shuffling.
        budget_s: About how long all rounds may take together.
        pause_s: Rest before each call, where one leaves work behind: a process that ended is still being cleared away.

    Returns:
        Seconds per call, one value a round, by label.
    """
    repeats, one_round = {}, 0.0
    for label, function in functions.items():
        once = _once(function)  # warm: caches, first-call set-up
        if once < LONG_S:
            once = _once(function)
        repeats[label] = max(1, round(at_least_s / once))
        one_round += repeats[label] * once
    if rounds is None:
        rounds = min(MOST_ROUNDS, max(FEWEST_ROUNDS, int(budget_s / max(one_round, 1e-9))))
    order, shuffle = list(functions), random.Random(seed).shuffle
    seconds: dict[Label, list[float]] = {label: [] for label in functions}
    for number in range(rounds):
        if number % 2:
            order.reverse()
        else:
            shuffle(order)
        for label in order:
            function, count = functions[label], repeats[label]
            if pause_s:
                time.sleep(pause_s)
            start = time.perf_counter()
            for _ in range(count):
                function()
            seconds[label].append((time.perf_counter() - start) / count)
    return seconds


def _once(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return max(time.perf_counter() - start, 1e-7)
