"""The clock of stages: outer stages stand still while inner ones run, except for the self-test's own run."""

from __future__ import annotations

import pytest

from harness import stages


@pytest.fixture
def clock(monkeypatch):
    readings = iter(range(100))
    monkeypatch.setattr(stages.time, "perf_counter", lambda: float(next(readings)))
    return stages.Clock()


def test_an_inner_stage_stops_the_outer_one(clock):
    inner = clock.timed("prepare", lambda: None)
    clock.timed("report", inner)()
    assert clock.seconds == {stages.REST: 1.0, "report": 2.0, "prepare": 1.0}


def test_a_self_tests_run_is_its_own_time_but_for_packing(clock):
    steps = [clock.timed(stage, lambda: None) for stage in ("prepare", stages.PACK, "one step")]
    clock.timed(stages.SELF_TEST, lambda: [step() for step in steps])()
    assert clock.seconds == {stages.REST: 1.0, stages.SELF_TEST: 2.0, stages.PACK: 1.0}


def test_every_stage_names_functions_that_exist():
    for functions in stages.STAGES.values():
        for module, name in functions:
            owner = __import__(module, fromlist=[name])
            for part in name.split("."):
                owner = getattr(owner, part)
            assert callable(owner)
