"""Tests with the head as the unit: maps and slices of one head are not independent observations.

Few heads cannot give small p-values, whatever the method: the smallest two-sided p of an exact paired Wilcoxon test is
``2^(1-n)`` (n = 3: 0.25, 4: 0.125, 5: 0.0625), and Holm's correction multiplies it. Where that cannot reach 0.05 no p
is given; the number of heads that agree in sign, and a bootstrap interval by head, are reported instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

SIGNIFICANCE = 0.05
BOOTSTRAP_DRAWS = 10_000
_BOOTSTRAP_SEED = 20_250_902


def smallest_p(heads: int) -> float:
    """Smallest two-sided p that an exact paired Wilcoxon test of so many heads can give."""
    return min(1.0, 2.0 ** (1 - heads)) if heads > 0 else 1.0


@dataclass(frozen=True)
class Comparison:
    """One method against another over the heads.

    Attributes:
        heads: Number of paired heads.
        better: Heads on which the first is better.
        mean: Mean difference, first minus second.
        low: Lower end of the 95 % bootstrap interval by head; NaN below three heads.
        high: Upper end.
        p: Exact two-sided Wilcoxon p after Holm's correction, or None where it is refused.
        refusal: Why there is no p.
    """

    heads: int
    better: int
    mean: float
    low: float
    high: float
    p: float | None
    refusal: str | None

    def sentence(self) -> str:
        """The comparison in a few words for a table; the reason for a missing p is given elsewhere."""
        text = f"{self.better} of {self.heads}, {self.mean:+.3g}"
        if np.isfinite(self.low):
            text += f" [{self.low:+.3g}, {self.high:+.3g}]"
        return text if self.p is None else f"{text}, p = {self.p:.3g}"


def head_means(values: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Mean per head of values given as (head, value); NaN and infinite values are left out."""
    heads: dict[str, list[float]] = {}
    for head, value in values:
        if np.isfinite(value):
            heads.setdefault(head, []).append(float(value))
    return {head: float(np.mean(found)) for head, found in sorted(heads.items())}


def bootstrap_interval(values: NDArray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the mean, heads drawn with replacement; the draws are the same in every run.

    With few heads it is too narrow, and it is never wider than the heads' own range; NaN below three heads.
    """
    values = np.asarray(values, np.float64)
    if len(values) < 3:
        return float("nan"), float("nan")
    rng = np.random.default_rng(_BOOTSTRAP_SEED)
    means = values[rng.integers(len(values), size=(BOOTSTRAP_DRAWS, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjusted p-values, in the order given."""
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[int(index)] = largest
    return adjusted


def compare(
    ours: Mapping[str, float], others: Mapping[str, Mapping[str, float]], larger_is_better: bool
) -> dict[str, Comparison]:
    """Compares one method with several others, head by head.

    Args:
        ours: Value per head.
        others: Method to value per head; only heads that both have are used.
        larger_is_better: True for PSNR and SSIM, False for LPIPS and errors.

    Returns:
        Method to comparison, p-values corrected over all methods. No p is given unless the family as a whole can
        reach 0.05 with these heads.
    """
    differences: dict[str, NDArray] = {}
    for name, values in others.items():
        heads = sorted(set(ours) & set(values))
        differences[name] = np.array([ours[head] - values[head] for head in heads])
    able = [n for n, d in differences.items() if smallest_p(int(np.count_nonzero(d))) * len(others) <= SIGNIFICANCE]
    tested = dict(zip(able, holm([_exact_p(differences[name]) for name in able]), strict=True))
    result = {}
    for name, difference in differences.items():
        low, high = bootstrap_interval(difference)
        sign = difference if larger_is_better else -difference
        least = smallest_p(int(np.count_nonzero(difference)))
        reason = (
            None
            if name in tested
            else (
                f"{len(difference)} heads give p >= {least:.3g} at best, {min(1.0, least * len(others)):.3g} after "
                f"correction for {len(others)} comparisons"
            )
        )
        mean = float(difference.mean()) if len(difference) else float("nan")
        result[name] = Comparison(len(difference), int((sign > 0).sum()), mean, low, high, tested.get(name), reason)
    return result


def _exact_p(difference: NDArray) -> float:
    """Exact two-sided Wilcoxon signed-rank p; heads without a difference are dropped, as Wilcoxon did."""
    moved = difference[difference != 0]
    return float(wilcoxon(moved, method="exact", alternative="two-sided").pvalue)
