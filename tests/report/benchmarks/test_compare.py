"""Which rows became slower: planted slowdowns are found, noise and drift are not taken for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mrsi_fast.report.benchmarks.compare import compare
from mrsi_fast.report.benchmarks.records import SGEMM, History

OURS = "bench_norm[ours-t1]"


def regressions(old, new) -> list[str]:
    return [one.name for one in compare(old, new) if one.regression]


@pytest.mark.parametrize("seed", range(10))
def test_a_planted_slowdown_of_a_fifth_is_found_and_noise_is_not(history, seed):
    old = history(2 * seed, drift=0.04)
    again = history(2 * seed + 1, drift=0.04)
    planted = history(2 * seed + 1, {OURS: 1.2}, drift=0.04)
    assert regressions(old, again) == []
    assert regressions(old, planted) == [OURS]


@pytest.mark.parametrize("seed", range(10))
def test_a_machine_that_drifts_far_accuses_nobody(history, seed):
    assert regressions(history(2 * seed, drift=0.5), history(2 * seed + 1, drift=0.5)) == []


def test_a_row_is_unfit_where_its_anchors_moved(history):
    everything = dict.fromkeys([SGEMM, OURS, "bench_norm[eager-t1]", "bench_conv[ours-t1]"], 1.3)
    judged = {one.name: one for one in compare(history(0, noise=0.001), history(1, everything, noise=0.001))}
    assert judged[OURS].verdict == "unfit" and not judged[OURS].regression
    assert "sgemm moved +30%" in judged[OURS].reason and "bench_norm[eager-t1] moved +30%" in judged[OURS].reason


def test_one_anchor_that_moved_is_enough(history):
    """What made eager PyTorch slower (memory, another tenant) may have made ours slower, too."""
    new = history(1, {"bench_norm[eager-t1]": 1.3, OURS: 1.3}, noise=0.001)
    judged = {one.name: one for one in compare(history(0, noise=0.001), new)}
    assert judged[OURS].verdict == "unfit" and list(judged[OURS].changes) == [SGEMM]
    assert judged["bench_conv[ours-t1]"].verdict == "same"  # the anchor is none of its own


def test_anchors_that_contradict_each_other_accuse_nobody(history):
    new = history(1, {"bench_norm[eager-t1]": 0.92, OURS: 1.04}, noise=0.001)  # 1.13 of one, 1.04 of the other
    judged = {one.name: one for one in compare(history(0, noise=0.001), new)}
    assert judged[OURS].verdict == "same"


def test_a_yardstick_that_became_slower_is_no_regression(history):
    new = history(1, {"bench_norm[eager-t1]": 1.2, OURS: 1.0}, noise=0.001)
    judged = {one.name: one for one in compare(history(0, noise=0.001), new)}
    assert judged["bench_norm[eager-t1]"].verdict == "slower" and not judged["bench_norm[eager-t1]"].regression
    assert regressions(history(0, noise=0.001), new) == []


def test_faster_is_told_too(history):
    judged = {one.name: one.verdict for one in compare(history(0), history(1, {"bench_conv[ours-t1]": 0.8}))}
    assert judged["bench_conv[ours-t1]"] == "faster"


def test_instructions_are_judged_without_any_band_for_noise(history):
    old = history(0, instructions={"norm": 1_000_000, "conv": 1_000_000, "gone": 5})
    new = history(1, instructions={"norm": 1_010_000, "conv": 1_030_000, "new": 5})
    counted = {one.name: one for one in compare(old, new) if "instructions" in one.changes}
    assert counted["norm"].verdict == "same" and counted["conv"].regression
    assert counted["conv"].reason == "1,030,000 instructions, +3.0%" and set(counted) == {"norm", "conv"}


RECORDED = json.loads(Path(__file__).with_name("recorded.json").read_text())
"""Real runs of the forward rows of ``bench_group_norm_silu``, one after the other on one machine: eleven of the code as
it is, and ten in which the kernel was followed by idling for a fifth of its own duration."""


@pytest.mark.parametrize("number", range(10))
def test_recorded_runs_ten_of_ten(number):
    before, again, planted = (
        History.parse(RECORDED[kind][index])
        for kind, index in (("plain", number), ("plain", number + 1), ("planted", number))
    )
    assert regressions(before, again) == []
    found = regressions(before, planted)
    assert found and all(name.startswith("bench_group_norm_silu[ours-forward") for name in found)
