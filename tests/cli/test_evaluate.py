"""``mrsi-fast evaluate`` from the outside: files, output and exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mrsi_fast.cli.app import app
from mrsi_fast.cli.evaluate import _numbers
from mrsi_fast.cli.exits import CommandError

PROGRAM = "import sys; from mrsi_fast.cli import main; sys.argv[0] = 'mrsi-fast'; main()"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, "evaluate", *arguments], capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_baselines_on_the_analytic_head(tmp_path: Path) -> None:
    done = run("--model", "none", "--phantom", "--slices", "1", "--scales", "4", "-o", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "Published, other data, conventions unknown" in done.stdout
    assert "zero-fill" in (tmp_path / "results.csv").read_text()
    assert (tmp_path / "spectrum_x4.png").stat().st_size > 1000


def test_missing_things_end_with_a_sentence(tmp_path: Path) -> None:
    model = run("--model", str(tmp_path / "none"), "--phantom", "-o", str(tmp_path))
    assert model.returncode == 5 and "no such model folder" in model.stderr
    data = run("--held-out", str(tmp_path / "nowhere"), "--model", "none", "-o", str(tmp_path))
    assert data.returncode == 2 and "no such folder" in data.stderr
    assert "Traceback" not in model.stderr + data.stderr


def test_lists_of_numbers() -> None:
    assert _numbers("2,4,8", "--scales") == (2, 4, 8)
    with pytest.raises(CommandError, match="--steps"):
        _numbers("8;16", "--steps")


def test_somebody_elses_results_stay(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("my,own")
    for output, said in (
        (tmp_path, "results.csv: was not written by"),
        (tmp_path / "results.csv", "cannot be written"),
    ):
        done = CliRunner().invoke(app, ["evaluate", "--model", "none", "-o", str(output)])
        assert done.exit_code == 2 and said in done.output
    assert (tmp_path / "results.csv").read_text() == "my,own"
