"""The clock of a command's stages books every moment once, and every stage names functions that there are."""

from __future__ import annotations

import time

import pytest

from harness.stages import PACK, REST, SELF_TEST, STAGES, Clock, stage_seconds


def test_a_stage_inside_another_stops_the_outer_one() -> None:
    clock = Clock()
    inner = clock.timed("inner", lambda: time.sleep(0.05))

    def both() -> None:
        time.sleep(0.02)
        inner()

    started = time.perf_counter()
    clock.timed("outer", both)()
    clock.switch()
    whole = time.perf_counter() - started
    assert clock.seconds["inner"] >= 0.05 and clock.seconds["outer"] >= 0.02
    assert sum(clock.seconds.values()) == pytest.approx(whole, abs=0.02)


def test_a_self_tests_own_run_is_its_time_but_for_packing() -> None:
    clock = Clock()
    steps = [clock.timed(stage, lambda: None) for stage in ("prepare", PACK, "one step")]
    clock.timed(SELF_TEST, lambda: [step() for step in steps])()
    assert set(clock.seconds) == {REST, SELF_TEST, PACK}


@pytest.mark.slow
def test_a_command_passes_every_stage(tmp_path) -> None:
    from support.data import checkout

    source = checkout() / "examples" / "simulated_glioma"
    few = ["--metabolites", "tNAA", "--samples", "1", "--steps", "2"]
    seconds = stage_seconds(["sr", "-i", str(source), "-o", str(tmp_path), "--quiet", *few])
    assert set(seconds) >= {*STAGES, REST, "import torch", "import the rest"}
    assert all(one >= 0 for one in seconds.values()) and any(tmp_path.iterdir())
