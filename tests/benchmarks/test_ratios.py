"""Ratios of durations: paired within a run, unpaired between runs, with intervals that cover."""

from __future__ import annotations

import numpy as np
import pytest

from harness.ratios import Change, Processes, change, paired_ratio, shared_spread


def test_ratios_are_taken_within_rounds():
    drift = [1.0, 5.0, 2.0, 9.0, 1.5]  # the machine's speed, common to both
    ratio = paired_ratio([2.0 * d for d in drift], drift)
    assert (ratio.median, ratio.low, ratio.high) == (2.0, 2.0, 2.0)
    assert str(ratio) == "2.00 [2.00, 2.00]"
    assert str(paired_ratio([1234.5] * 3, [1.0] * 3)) == "1234 [1234, 1234]"
    spread = paired_ratio([1.0, 2.0, 3.0, 4.0, 5.0], [1.0] * 5)
    assert spread.low < spread.median == 3.0 < spread.high


def test_rounds_have_to_match():
    with pytest.raises(ValueError, match="same rounds of both, got 2 and 1"):
        paired_ratio([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="got 0 and 0"):
        paired_ratio([], [])


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    draw, held = np.random.default_rng(1), 0
    for _ in range(150):
        old, new = (np.exp(draw.normal(0, 0.1, 25)) for _ in range(2))
        found = change(old, 1.1 * new, level=0.8)
        held += found.low <= 1.1 <= found.high
    assert 0.68 < held / 150 < 0.95  # bootstrapped medians are a little conservative


def test_the_same_repeats_give_the_same_interval():
    values = list(np.linspace(1, 2, 20))
    assert change(values, values[::-1]) == change(values, values[::-1])
    assert change(values, values).median == 1.0


def timed(draw: np.random.Generator, processes: int, between: float, middle: float = 1.0) -> Processes:
    effects = draw.normal(0, between, processes)
    return Processes.of([middle * np.exp(effect + draw.normal(0, 0.02, 25)) for effect in effects])


@pytest.mark.parametrize(("olds", "news"), [(3, 3), (3, 1), (2, 2)])
def test_intervals_between_processes_hold_the_truth_about_as_often_as_they_say(olds, news):
    """With each row's own spread in doubt, and what rows share known from all of them."""
    draw = np.random.default_rng(2)
    changes = [Change(timed(draw, olds, 0.03), timed(draw, news, 0.03, 1.1)) for _ in range(300)]
    shared = shared_spread(changes)
    assert shared**0.5 == pytest.approx(0.03, rel=0.15)
    found = [one.ratio(shared, weight=4, level=0.8) for one in changes]
    held = sum(one.low <= 1.1 <= one.high for one in found) / len(found)
    assert 0.74 < held < 0.9  # a little conservative: rows that are alike know their spread better than is assumed


def test_one_process_each_knows_no_spread():
    draw = np.random.default_rng(3)
    change = Change(timed(draw, 1, 0.0), timed(draw, 1, 0.0))
    assert change.freedom == 0 and change.spread == 0.0 and shared_spread([change]) == shared_spread([]) == 0.0
