"""Ratios of durations: paired within a run, unpaired between runs, with intervals that cover."""

from __future__ import annotations

import numpy as np
import pytest

from mrsi_fast.report.benchmarks.ratios import change, paired_ratio


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
