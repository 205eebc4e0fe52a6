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
    assert "knows native, cuda, triton, amx, plain, avx2, avx512" in missing["nonsense"]
    assert any("native: it was left out" in line for line in describe())


@pytest.mark.parametrize("folder", ["tests", "benchmarks"])
def test_a_run_that_requires_it_ends_with_code_4(folder):
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", str(ROOT / folder / "conftest.py")]
    environment = {**os.environ, "MRSI_FAST_REQUIRE": "nonsense"}
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert run.returncode == 4, run.stdout + run.stderr
    assert "MRSI_FAST_REQUIRE asks for what is not here: nonsense" in run.stdout + run.stderr


def test_an_instruction_set_can_be_required(monkeypatch):
    extension = _native.module()
    if extension is None:
        pytest.skip(_native.reason())
    monkeypatch.setenv("MRSI_FAST_REQUIRE", "plain")
    before = extension.use_isa("plain")
    try:
        assert missing_required() == {}
        for isa in set(extension.usable_isas()) - {"plain"}:
            extension.use_isa(isa)
            assert f"kernels for {isa} are in use" in missing_required()["plain"]
    finally:
        extension.use_isa(before)
    monkeypatch.setattr(_native, "module", lambda: type("Old", (), {"usable_isas": lambda self: ["plain"]})())
    monkeypatch.setenv("MRSI_FAST_REQUIRE", "avx512")
    assert missing_required()["avx512"] == "usable here are the kernels for plain"


def test_amx_can_be_required(monkeypatch):
    monkeypatch.setenv("MRSI_FAST_REQUIRE", "amx")
    monkeypatch.setattr("mrsi_fast.engine.native.amx_obstacle", lambda: "no tiles in this processor")
    assert missing_required() == {"amx": "no tiles in this processor"}
