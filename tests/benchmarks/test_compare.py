"""Which rows became slower: planted slowdowns are found, noise and drift are not taken for one."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest

from harness.compare import compare
from harness.records import SGEMM, History

OURS = "bench_norm[ours-t1]"
LABELS = ("ours", "eager")


def regressions(old, new) -> list[str]:
    return [one.name for one in compare(old, new) if one.regression]


SHAPES = {
    f"bench_{name}{number}[{label}-t1]": 1e-3 for name in ("conv", "norm") for number in range(15) for label in LABELS
}
"""Two kernels of ours at fifteen shapes each, beside eager PyTorch."""
QUIET = {"processes": 3, "noise": 0.001}
PROCESSES = {"processes": 3, "between": 0.02, "drift": 0.02}
"""As recorded on a machine that does nothing else: a row moves by 2 % from process to process, the machine as well."""


@pytest.mark.parametrize("seed", range(10))
def test_a_planted_slowdown_of_a_fifth_is_found_and_noise_is_not(history, seed):
    slow = {name: 1.2 for name in SHAPES if name.startswith("bench_norm") and "ours" in name}
    old, again = (history(2 * seed + i, rows=SHAPES, **PROCESSES) for i in (0, 1))
    planted = history(2 * seed + 1, slow, rows=SHAPES, **PROCESSES)
    assert regressions(old, again) == []
    found = regressions(old, planted)
    assert set(found) <= set(slow) and len(found) > len(slow) / 2


@pytest.mark.parametrize("seed", range(10))
def test_a_single_row_is_found_where_processes_agree(history, seed):
    old, planted = (history(2 * seed + i, {OURS: 1.2} if i else {}, processes=3, between=0.01) for i in (0, 1))
    assert regressions(old, planted) == [OURS]


@pytest.mark.parametrize("between", [0.02, 0.05])
@pytest.mark.parametrize("seed", range(10))
def test_what_processes_differ_by_accuses_nobody(history, seed, between):
    """Rounds agree within a process, so that taken one by one they would swear to a difference that is none."""
    old, again = (history(2 * seed + i, rows=SHAPES, processes=3, between=between, noise=0.01) for i in (0, 1))
    assert regressions(old, again) == []


def test_rows_that_were_timed_in_another_way_are_unfit(history):
    old = history(0, **QUIET)
    older = old.model_copy(update={"runs": [run.model_copy(update={"timing": 1}) for run in old.runs]})
    new = history(1, {OURS: 1.5}, **QUIET).model_copy(
        update={"runs": [r.model_copy(update={"timing": 2}) for r in old.runs]}
    )
    assert {one.verdict for one in compare(older, new)} == {"unfit"}
    assert regressions(older, history(1, {OURS: 1.5}, **QUIET)) == [OURS]


def test_a_process_on_another_machine_is_left_out(history):
    """One of three had its cores taken away: anchors and rows took longer, not all alike."""
    busy = {SGEMM: 1.5, "bench_norm[eager-t1]": 1.5, OURS: 1.9, "bench_conv[ours-t1]": 1.9}
    steady = [history(seed, noise=0.001) for seed in range(6)]
    old = history(6, busy, noise=0.001).updated(steady[0]).updated(steady[1])
    new = steady[2].updated(steady[3]).updated(steady[4])
    judged = {one.name: one for one in compare(old, new)}
    assert judged[OURS].verdict == judged["bench_conv[ours-t1]"].verdict == "same"
    assert judged[OURS].changes[SGEMM].high < 1.05  # as narrow as without it


def test_one_process_each_says_nothing_about_the_next_process(history):
    judged = {one.name: one for one in compare(history(0), history(1, {OURS: 1.2, "bench_conv[ours-t1]": 0.8}))}
    assert judged[OURS].verdict == "again" and not judged[OURS].regression
    assert judged["bench_conv[ours-t1]"].verdict == "again" and "record both again" in judged[OURS].reason
    assert judged["bench_norm[eager-t1]"].verdict == "same"


def test_one_new_process_is_judged_by_what_the_older_ones_differ_by(history):
    old = history(0, processes=3, between=0.01)
    assert regressions(old, history(1, {OURS: 1.4})) == [OURS]
    assert regressions(history(0, processes=3, between=0.15), history(1, {OURS: 1.2})) == []


@pytest.mark.parametrize("seed", range(10))
def test_a_machine_that_drifts_far_accuses_nobody(history, seed):
    old, new = (history(2 * seed + i, drift=0.5, processes=3) for i in (0, 1))
    assert regressions(old, new) == []


def test_a_row_is_unfit_where_its_anchors_moved(history):
    everything = dict.fromkeys([SGEMM, OURS, "bench_norm[eager-t1]", "bench_conv[ours-t1]"], 1.3)
    judged = {one.name: one for one in compare(history(0, **QUIET), history(1, everything, **QUIET))}
    assert judged[OURS].verdict == "unfit" and not judged[OURS].regression
    assert "sgemm moved +30%" in judged[OURS].reason and "bench_norm[eager-t1] moved +30%" in judged[OURS].reason


def test_one_anchor_that_moved_is_enough(history):
    """What made eager PyTorch slower (memory, another tenant) may have made ours slower, too."""
    new = history(1, {"bench_norm[eager-t1]": 1.3, OURS: 1.3}, **QUIET)
    judged = {one.name: one for one in compare(history(0, **QUIET), new)}
    assert judged[OURS].verdict == "unfit" and list(judged[OURS].changes) == [SGEMM]
    assert judged["bench_conv[ours-t1]"].verdict == "same"  # the anchor is none of its own


def test_anchors_that_contradict_each_other_accuse_nobody(history):
    new = history(1, {"bench_norm[eager-t1]": 0.92, OURS: 1.04}, **QUIET)  # 1.13 of one, 1.04 of the other
    judged = {one.name: one for one in compare(history(0, **QUIET), new)}
    assert judged[OURS].verdict == "same"


def test_a_yardstick_that_became_slower_is_no_regression(history):
    new = history(1, {"bench_norm[eager-t1]": 1.2, OURS: 1.0}, **QUIET)
    judged = {one.name: one for one in compare(history(0, **QUIET), new)}
    assert judged["bench_norm[eager-t1]"].verdict == "slower" and not judged["bench_norm[eager-t1]"].regression
    assert regressions(history(0, **QUIET), new) == []


def test_faster_is_told_too(history):
    judged = {
        one.name: one.verdict for one in compare(history(0, **QUIET), history(1, {"bench_conv[ours-t1]": 0.8}, **QUIET))
    }
    assert judged["bench_conv[ours-t1]"] == "faster"


def test_instructions_are_judged_without_any_band_for_noise(history):
    old = history(0, instructions={"norm": 1_000_000, "conv": 1_000_000, "gone": 5})
    new = history(1, instructions={"norm": 1_010_000, "conv": 1_030_000, "new": 5})
    counted = {one.name: one for one in compare(old, new) if "instructions" in one.changes}
    assert counted["norm"].verdict == "same" and counted["conv"].regression
    assert counted["conv"].reason == "1,030,000 instructions, +3.0%" and set(counted) == {"norm", "conv"}


RECORDED = {
    kind: [History.parse(run) for run in runs]
    for kind, runs in json.loads(Path(__file__).with_name("recorded.json").read_text()).items()
}
"""Real runs of ``bench_conv3x3_gn_silu`` for one slice and one thread, a process each, one after the other: six of
the code as it is, five in which every piece of the convolution was followed by idling for a fifth of its duration."""


def three(kind: str, picked: tuple[int, ...]) -> History:
    first, second, third = (RECORDED[kind][number] for number in picked)
    return first.updated(second).updated(third)


@pytest.mark.parametrize(
    ("before", "planted"), list(zip(list(combinations(range(6), 3))[:10], combinations(range(5), 3), strict=True))
)
def test_recorded_runs_ten_of_ten(before, planted):
    old = three("plain", before)
    assert regressions(old, three("plain", tuple(set(range(6)) - set(before)))) == []
    found = regressions(old, three("planted", planted))
    assert found and all(name.startswith("bench_conv3x3_gn_silu[native-") for name in found)
