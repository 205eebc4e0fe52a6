"""A session on a borrowed GPU keeps to its time, and what it carries to its size."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from gpu import session
from gpu.__main__ import at_most
from support.data import checkout


def test_a_part_that_takes_too_long_is_ended_and_keeps_its_output() -> None:
    code = "import time; print('begun', flush=True); time.sleep(60)"
    done = session.run(session.Part("slow", [sys.executable, "-c", code], ".", 1.0), allowed=3.0)
    assert done.code == 124 and done.seconds < 30 and "begun" in done.tail


def test_a_part_is_told_the_time_that_is_left() -> None:
    code = "import sys; print(sys.argv[-2:])"
    done = session.run(session.Part("told", [sys.executable, "-c", code, "--seconds"], ".", 1.0), allowed=60.0)
    assert done.code == 0 and "['--seconds', '50']" in done.tail


def test_what_is_carried_fits() -> None:
    assert 1 < session.carried_mb() < session.CARRIED_MB


def test_a_search_without_end_becomes_a_gap() -> None:
    with pytest.raises(TimeoutError, match="time was up"), at_most(0.2):
        while True:
            time.sleep(0.01)
    with at_most(30.0):
        pass
    time.sleep(0.25)  # no alarm is left behind


@pytest.mark.gpu_static
def test_a_session_runs_dry(tmp_path) -> None:
    command = [sys.executable, "-m", "gpu.session", "--dry-run", str(tmp_path)]
    done = subprocess.run(command, cwd=checkout() / "benchmarks", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    log = json.loads((tmp_path / "gpu-session.json").read_text())
    assert [part["part"] for part in log["parts"]] == ["tests", "benchmarks"]
    assert sum(part["seconds"] for part in log["parts"]) <= log["session_s"]
    assert (tmp_path / "dry-run-on-a-cpu.json").exists() and (tmp_path / "gpu_choices.json").exists()
