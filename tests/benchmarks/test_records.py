"""The history of a machine: what follows from raw repeats, how a newer run replaces an older one, what is written."""

from __future__ import annotations

import json

import pytest

from harness.records import (
    COPY,
    COPY_BYTES,
    GEMM_FLOPS,
    OWN_GEMM,
    SESSIONS,
    SGEMM,
    SGEMM_AGAIN,
    History,
    in_band,
)
from mrsi_fast.config import ConfigError


def test_written_and_read_back_it_is_the_same(history, tmp_path):
    made = history(0, instructions={"norm": 7})
    made.save(tmp_path / "machine.json")
    assert History.load(tmp_path / "machine.json") == made
    lines = (tmp_path / "machine.json").read_text().splitlines()
    assert [line for line in lines if line.startswith('  "bench_conv')]  # one line a row: a readable difference in git
    with pytest.raises(ConfigError, match=r"other\.json"):
        (tmp_path / "other.json").write_text(json.dumps({"machine": {}, "row": {}}))
        History.load(tmp_path / "other.json")


def test_rates_and_shares_follow_from_flops_bytes_and_the_ceilings(history):
    made = history(0, noise=0.0)
    found = made.shares("bench_conv[ours-t1]")
    seconds, gemm, copy = 6e-3, 25e-3, 12e-3
    assert found["gflop_per_s"] == pytest.approx(2e9 / seconds / 1e9)
    assert found["share_of_gemm"] == pytest.approx((2e9 / seconds) / (GEMM_FLOPS / gemm))
    assert found["gb_per_s"] == pytest.approx(8e6 / seconds / 1e9)
    assert found["share_of_copy"] == pytest.approx((8e6 / seconds) / (COPY_BYTES / copy))
    assert "gflop_per_s" not in made.shares("bench_norm[ours-t1]")


def test_arithmetic_is_measured_by_the_better_product(history):
    assert history(0, noise=0.0).contests["ops-t1"].gemm == SGEMM
    assert history(0, {OWN_GEMM: 0.5}, noise=0.0).contests["ops-t1"].gemm == OWN_GEMM


def test_the_model_lets_winograd_multiply_a_quarter_as_often(history):
    made = history(0, noise=0.0)
    row = made.rows["bench_conv[ours-t1]"].model_copy(update={"facts": {"winograd_flops": 1.7e9}})
    made = made.model_copy(update={"rows": {**made.rows, "bench_conv[ours-t1]": row}})
    rate = GEMM_FLOPS / 25e-3
    assert made.over_model("bench_conv[ours-t1]") == pytest.approx(6e-3 / (1.7e9 / 3.4 / rate + 0.3e9 / rate))
    assert made.over_model("bench_norm[ours-t1]") is None


def test_scaling_is_that_of_the_row_over_that_of_the_product(history):
    one, two = history(0, noise=0.0), history(1, {SGEMM: 0.5, "bench_conv[ours-t1]": 0.6}, noise=0.0)
    contests = {**one.contests, "ops-t2": two.contests["ops-t1"].model_copy(update={"threads": 2})}
    more = two.rows["bench_conv[ours-t1]"].model_copy(update={"contest": "ops-t2"})
    both = one.model_copy(update={"contests": contests, "rows": {**one.rows, "bench_conv[ours-t2]": more}})
    assert both.scaling("bench_conv[ours-t1]").median == pytest.approx((1 / 0.6) / (1 / 0.5))
    assert one.scaling("bench_conv[ours-t1]") is None


def test_drift_of_the_machine_cancels_in_every_ratio(history):
    made = history(3, drift=0.5, noise=0.0)
    assert made.faster("bench_norm[ours-t1]").median == pytest.approx(1.8)
    assert made.against("bench_norm[ours-t1]", COPY).high == pytest.approx(1 / 12)
    assert made.faster("bench_conv[ours-t1]") is None  # nothing to compare it with


def test_a_control_outside_its_band_makes_the_machine_unfit(history):
    assert in_band(history(0, noise=0.0).controls()["ops-t1"])
    assert not in_band(history(0, {SGEMM_AGAIN: 1.04}, noise=0.0).controls()["ops-t1"])
    made = history(0, {"bench_norm[ours-t1]": 1.8}, noise=0.0)  # as slow as the other label: one function, so to speak
    rows = dict(made.rows)
    rows["bench_norm[ours-t1]"] = rows["bench_norm[ours-t1]"].model_copy(update={"facts": {"band": 0.03}})
    controls = made.model_copy(update={"rows": rows}).controls()
    assert in_band(controls["bench_norm[ours-t1]"]) and "bench_norm[eager-t1]" not in controls


def test_rows_of_an_unfit_contest_are_no_evidence(history):
    assert history(0, noise=0.0).fit_part() == history(0, noise=0.0)
    part = history(0, {SGEMM_AGAIN: 1.1}, noise=0.0, instructions={"a": 1}).fit_part()
    assert part.rows == {} and part.contests == {} and part.instructions == {"a": 1}


def on_other_code(made: History) -> History:
    return made.model_copy(update={"runs": [run.model_copy(update={"code": "1"}) for run in made.runs]})


def test_a_newer_contest_replaces_the_older_one_as_a_whole(history):
    old, new = history(0, instructions={"a": 1}), on_other_code(history(1, instructions={"b": 2}))
    only = {name: row for name, row in new.rows.items() if name == "bench_norm[ours-t1]"}
    newer = new.model_copy(update={"rows": only, "missing": {"bench_conv[ours-t1]": "no compiler"}})
    merged = old.updated(newer)
    assert set(merged.rows) == {"bench_norm[ours-t1]"}  # older rows of that contest have lost their anchors
    assert merged.contests["ops-t1"].anchors == new.contests["ops-t1"].anchors
    assert len(merged.runs) == 1 and merged.contests["ops-t1"].sessions == [
        (0, 20)
    ]  # the older run has no row any more
    assert merged.instructions == {"a": 1, "b": 2} and merged.missing == {"bench_conv[ours-t1]": "no compiler"}


def test_other_contests_stay_with_the_run_that_timed_them(history):
    old, new = history(0), history(1)
    contests = {"unet-t1": new.contests["ops-t1"]}
    rows = {"bench_unet[a-t1]": new.rows["bench_conv[ours-t1]"].model_copy(update={"contest": "unet-t1"})}
    merged = old.updated(new.model_copy(update={"contests": contests, "rows": rows}))
    assert merged.contests["ops-t1"].sessions == [(0, 20)] and merged.contests["unet-t1"].sessions == [(1, 20)]
    assert len(merged.runs) == 2
    assert set(merged.rows) == {*old.rows, "bench_unet[a-t1]"}


def test_another_process_on_the_same_code_adds_its_rounds(history):
    one, two = history(0, rounds=4), history(1, rounds=3)
    merged = one.updated(two)
    contest, row = merged.contests["ops-t1"], merged.rows["bench_norm[ours-t1]"]
    assert contest.sessions == [(0, 4), (1, 3)] and contest.parts == [slice(0, 4), slice(4, 7)]
    assert len(merged.runs) == 2 and list(merged.rows) == list(one.rows)
    for made, part in zip((one, two), contest.parts, strict=True):
        assert row.seconds[part] == made.rows["bench_norm[ours-t1]"].seconds
        assert contest.anchors[COPY][part] == made.contests["ops-t1"].anchors[COPY]


def test_the_latest_processes_stay(history):
    merged = history(0, rounds=1)
    for seed in range(1, SESSIONS + 2):
        merged = merged.updated(history(seed, rounds=1 + seed))
    assert [rounds for _, rounds in merged.contests["ops-t1"].sessions] == [3, 4, 5]
    assert [run for run, _ in merged.contests["ops-t1"].sessions] == [0, 1, 2] and len(merged.runs) == SESSIONS
    last = history(SESSIONS + 1, rounds=SESSIONS + 2)
    assert merged.rows["bench_norm[ours-t1]"].seconds[-5:] == last.rows["bench_norm[ours-t1]"].seconds


@pytest.mark.parametrize("changed", [{"code": "1"}, {"code": ""}, {"versions": {"torch": "3"}}, {"rounds": 3}])
def test_a_process_that_timed_something_else_does_not(history, changed):
    runs = [run.model_copy(update=changed) for run in history(0).runs]
    old, new = history(0), history(1)
    if changed == {"code": ""}:  # unknown on both sides is not the same
        old = old.model_copy(update={"runs": runs})
    merged = old.updated(new.model_copy(update={"runs": runs}))
    assert merged.rows == new.rows and merged.contests["ops-t1"].sessions == [(0, 20)]


def test_a_contest_of_other_rows_is_another_one(history):
    old, new = history(0), history(1)
    fewer = {name: row for name, row in new.rows.items() if "norm" in name}
    merged = old.updated(new.model_copy(update={"rows": fewer}))
    assert merged.rows == fewer and merged.contests["ops-t1"].sessions == [(0, 20)]
