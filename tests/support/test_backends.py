"""The guard against silent fallbacks, and the header that says what a run uses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mrsi_fast.ops import _native
from support.backends import describe, missing_required

ROOT = Path(__file__).resolve().parents[2]


def test_nothing_is_required_by_default(monkeypatch):
    monkeypatch.delenv("MRSI_FAST_REQUIRE", raising=False)
    assert missing_required() == {}


def test_a_missing_backend_is_named_with_its_reason(monkeypatch):
    monkeypatch.setenv("MRSI_FAST_REQUIRE", "native, nonsense")
    monkeypatch.setattr(_native, "module", lambda: None)
    monkeypatch.setattr(_native, "reason", lambda: "it was left out")
    missing = missing_required()
    assert missing["native"] == "it was left out"
    assert "knows native, cuda and triton" in missing["nonsense"]
    assert any("native: it was left out" in line for line in describe())


@pytest.mark.parametrize("folder", ["tests", "benchmarks"])
def test_a_run_that_requires_it_ends_with_code_4(folder):
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", str(ROOT / folder / "conftest.py")]
    environment = {**os.environ, "MRSI_FAST_REQUIRE": "nonsense"}
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert run.returncode == 4, run.stdout + run.stderr
    assert "MRSI_FAST_REQUIRE asks for what is not here: nonsense" in run.stdout + run.stderr
