"""Statistics by head: exact p-values, their refusal, Holm, bootstrap."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mrsi_fast.evaluation import statistics as stats


def exact_p_by_enumeration(difference: np.ndarray) -> float:
    """Two-sided signed-rank p over all sign patterns."""
    ranks = np.argsort(np.argsort(np.abs(difference))) + 1.0
    observed = abs((np.sign(difference) * ranks).sum())
    patterns = [abs((np.array(signs) * ranks).sum()) for signs in itertools.product((-1, 1), repeat=len(ranks))]
    return float(np.mean(np.array(patterns) >= observed))


def heads(values) -> dict[str, float]:
    return {f"h{k}": float(v) for k, v in enumerate(values)}


def test_exact_p_equals_enumeration() -> None:
    rng = np.random.default_rng(4)
    difference = rng.standard_normal(7) + 0.8
    result = stats.compare(heads(difference), {"other": heads(np.zeros(7))}, True)["other"]
    assert result.p == pytest.approx(exact_p_by_enumeration(difference))
    assert result.better == int((difference > 0).sum())
    assert result.mean == pytest.approx(difference.mean())


@pytest.mark.parametrize(("count", "smallest"), [(3, 0.25), (4, 0.125), (5, 0.0625), (6, 0.03125)])
def test_the_smallest_p(count: int, smallest: float) -> None:
    assert stats.smallest_p(count) == smallest
    result = stats.compare(heads(np.arange(1, count + 1)), {"other": heads(np.zeros(count))}, True)["other"]
    if smallest > 0.05:
        assert result.p is None and f"p >= {smallest:.3g} at best" in result.refusal
        assert "p =" not in result.sentence()
    else:
        assert result.p == pytest.approx(smallest)


def test_a_family_raises_the_number_of_heads_that_is_needed() -> None:
    six = heads(np.arange(1, 7))
    zero = heads(np.zeros(6))
    assert stats.compare(six, {"a": zero}, True)["a"].p is not None
    both = stats.compare(six, {"a": zero, "b": zero}, True)
    assert both["a"].p is None and both["b"].p is None


def test_direction() -> None:
    lower = stats.compare(heads([0.1, 0.2, 0.1]), {"zf": heads([0.3, 0.4, 0.05])}, larger_is_better=False)["zf"]
    assert lower.better == 2 and lower.sentence().startswith("2 of 3, -")


def test_only_common_heads_are_paired() -> None:
    result = stats.compare({"a": 1.0, "b": 2.0}, {"m": {"b": 1.0, "c": 5.0}}, True)["m"]
    assert (result.heads, result.mean) == (1, 1.0)
    assert np.isnan(result.low)


def test_holm_against_its_definition() -> None:
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]
    assert stats.holm([]) == []


def test_bootstrap_is_repeatable_and_covers_the_mean() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 10.0])
    low, high = stats.bootstrap_interval(values)
    assert (low, high) == stats.bootstrap_interval(values)
    assert 1.0 < low < values.mean() < high < 10.0
    spread = values.std() / np.sqrt(5)
    assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.15)
    assert np.isnan(stats.bootstrap_interval(values[:2])[0])


def test_head_means_leave_out_what_is_not_finite() -> None:
    rows = [("b", 1.0), ("a", 2.0), ("b", 3.0), ("a", float("nan")), ("c", float("inf"))]
    assert stats.head_means(rows) == {"a": 2.0, "b": 2.0}
