"""``mrsi-fast doctor`` says what is there and why the rest is not, and fails only when ``sr`` cannot run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mrsi_fast import ops
from mrsi_fast.cli.app import app
from mrsi_fast.ops import _native


def doctor(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["doctor", *map(str, arguments)])


def test_json_names_compiled_loaded_and_missing(model_folder: Path) -> None:
    done = doctor("--json", "--model", model_folder)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["can_run"] is True
    assert {"mrsi_fast", "python", "torch", "numpy", "nibabel"} <= set(found["versions"])
    checks = {check["name"]: check for check in found["checks"]}
    assert {
        "packages",
        "native extension",
        "AMX engine",
        "CUDA kernels",
        "GPU",
        "CPU threads",
        "weights",
        "self-test",
    } <= set(checks)
    assert all(check["detail"] for check in checks.values())
    assert (checks["native extension"]["status"] == "ok") == (_native.module() is not None)
    assert [(row["op"], row["backend"]) for row in found["kernels"]] == [
        (row["op"], row["backend"]) for row in ops.status()
    ]
    assert all(row["usable"] or row["reason"] for row in found["kernels"])
    assert "engine: " in found["engine"]


def test_for_people_it_ends_with_the_verdict(model_folder: Path) -> None:
    done = doctor("--model", model_folder, "--no-self-test")
    assert done.exit_code == 0 and done.output.rstrip().endswith("mrsi-fast sr can run here.")


def test_without_weights_sr_cannot_run(tmp_path: Path) -> None:
    done = doctor("--model", tmp_path / "nowhere", "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found["can_run"] is False
    states = {check["name"]: check["status"] for check in found["checks"]}
    assert states["weights"] == "failed" and states["self-test"] == "failed"


def test_a_missing_extension_is_no_failure(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "_load", lambda: (None, "the compiled extension is not there"))
    done = doctor("--model", model_folder, "--no-self-test")
    assert done.exit_code == 0 and "the compiled extension is not there" in done.output


def test_a_broken_resolver_is_found_by_the_self_test(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mrsi_fast.resolver import SuperResolver

    def broken(self: SuperResolver, *args: object, **options: object) -> None:
        raise RuntimeError("the kernel returned NaN")

    monkeypatch.setattr(SuperResolver, "__call__", broken)
    done = doctor("--model", model_folder)
    assert done.exit_code == 1 and "RuntimeError: the kernel returned NaN" in done.output
