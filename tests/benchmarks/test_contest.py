"""Contests: the same results first, then every peer and every ceiling in every round; what is missing says why."""

from __future__ import annotations

import math
import time

import pytest
import torch

from harness.contest import Entry, Missing, hold, peak_mb, reset_peak_mb
from harness.records import COPY, SGEMM, SGEMM_AGAIN


def entry(label: str, value: float = 1.0, case: str = "", **options) -> Entry:
    return Entry(label, lambda: lambda: torch.full((3,), value), case, **options)


def test_peers_and_ceilings_have_a_duration_in_every_round():
    threads = torch.get_num_threads()
    outcome = hold("ops", 1, [entry("ours"), entry("eager")], rounds=4)
    assert outcome.name == "ops-t1" and {len(values) for values in outcome.seconds.values()} == {4}
    assert {SGEMM, SGEMM_AGAIN, COPY} <= set(outcome.anchors)
    assert {len(values) for values in outcome.anchors.values()} == {4}
    assert torch.get_num_threads() == threads  # as it was before


def test_entries_run_with_the_threads_of_the_contest():
    seen = set()

    def run() -> torch.Tensor:
        seen.add(torch.get_num_threads())
        return torch.ones(1)

    hold("ops", 2, [Entry("eager", lambda: run)], rounds=1)
    assert seen == {2}


@pytest.mark.parametrize("value", [1.001, math.nan])
def test_peers_that_compute_something_else_are_not_timed(value):
    with pytest.raises(AssertionError, match="ours small: differs from eager by"):
        hold("ops", 1, [entry("ours", value, "small"), entry("eager", case="small")], rounds=1)


def test_each_case_is_compared_with_itself():
    entries = [entry(label, value, case) for label in ("ours", "eager") for case, value in (("a", 1.0), ("b", 2.0))]
    assert len(hold("ops", 1, entries, rounds=1).seconds) == 4


def test_nothing_to_compare_is_an_error_and_not_a_pass():
    with pytest.raises(AssertionError, match="returns nothing that could be compared"):
        hold("ops", 1, [Entry("eager", lambda: lambda: None)], rounds=1)
    assert hold("ops", 1, [Entry("eager", lambda: lambda: None)], same=False, rounds=1).seconds


def test_a_missing_peer_says_why_and_the_others_are_timed():
    def build():
        raise Missing("there is no compiler")

    outcome = hold("ops", 1, [Entry("ort", build), entry("eager")], rounds=1)
    assert outcome.missing == {("ort", ""): "there is no compiler"} and set(outcome.seconds) == {("eager", "")}


def test_the_reference_may_be_missing():
    def build():
        raise Missing("no PyTorch")

    entries = [Entry("eager", build), entry("a"), entry("b")]
    assert len(hold("ops", 1, entries, rounds=1).seconds) == 2
    with pytest.raises(AssertionError):
        hold("ops", 1, [Entry("eager", build), entry("a"), entry("b", 2.0)], rounds=1)


def test_cases_are_added_up_within_each_round():
    entries = [entry(label, case=case, flops=10.0) for label in ("ours", "eager") for case in ("a", "b")]
    outcome = hold("ops", 1, entries, rounds=3, sums={"all": {"a": 2, "b": 3}})
    a, b, total = (outcome.seconds["ours", case] for case in ("a", "b", "all"))
    assert total == [pytest.approx(2 * x + 3 * y) for x, y in zip(a, b, strict=True)]
    assert outcome.entries["ours", "all"].flops == 50.0


def test_a_sum_is_missing_where_a_part_of_it_is():
    def build():
        raise Missing("no extension")

    entries = [Entry("native", build, "a"), entry("eager", case="a"), entry("eager", case="b")]
    outcome = hold("ops", 1, entries, rounds=1, sums={"all": {"a": 1, "b": 1}})
    assert outcome.missing["native", "all"] == "no extension" and ("eager", "all") in outcome.seconds


def test_a_part_of_something_long_is_multiplied():
    outcome = hold("ops", 1, [entry("eager"), entry("chain", times=1e6)], rounds=3)
    assert min(outcome.seconds["chain", ""]) > 100 * max(outcome.seconds["eager", ""])


def test_what_ran_is_told_by_the_function_itself_where_it_knows():
    def build():
        run = lambda: torch.ones(1)
        run.backend = "reference"
        return run

    outcome = hold("ops", 1, [Entry("ours", build, backend="native"), entry("eager")], rounds=1)
    assert outcome.backends == {("ours", ""): "reference", ("eager", ""): "PyTorch"}


def test_memory_of_a_peer_is_the_growth_of_the_resident_peak():
    if math.isnan(reset_peak_mb()):
        pytest.skip("this system does not tell the resident peak")
    start = reset_peak_mb()
    block = torch.ones(30_000_000)  # 120 MB
    assert 110 < peak_mb() - start < 200
    del block
    assert reset_peak_mb() - start < 60  # freed: the next peer starts without it


def test_a_slow_function_is_found_slow():
    def slow() -> torch.Tensor:
        time.sleep(0.02)
        return torch.ones(1)

    outcome = hold("ops", 1, [Entry("eager", lambda: slow), entry("ours")], rounds=3)
    assert outcome.faster(("ours", ""), "eager").low > 1
