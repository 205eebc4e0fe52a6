"""The program as a whole starts fast and says what it offers."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

import mrsi_fast
from mrsi_fast.cli.app import app

HEAVY = ("torch", "numpy", "nibabel", "matplotlib", "scipy", "pydantic")
PROGRAM = "import sys; from mrsi_fast.cli import main; sys.argv[0] = 'mrsi-fast'; main()"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=60)


def test_help_imports_nothing_heavy() -> None:
    program = f"""
import sys, typer
from mrsi_fast.cli.app import app
sys.argv = ["mrsi-fast", "--help"]
try:
    app()
except SystemExit as end:
    assert end.code == 0
loaded = [name for name in {HEAVY} if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout and "Research use only" in done.stdout


def test_version() -> None:
    done = run("--version")
    assert done.returncode == 0 and done.stdout == f"mrsi-fast {mrsi_fast.__version__}\n"


def test_unknown_commands_and_options_are_usage_errors() -> None:
    for arguments in (["superresolve"], ["train", "--colour"], ["train"]):
        assert run(*arguments).returncode == 2


@pytest.mark.parametrize(
    "arguments", [["sr", "-i", "", "-o", "out"], ["sr", "-i", "maps", "--output="], ["ratio", " "]]
)
def test_a_shell_variable_that_is_not_set_is_not_the_folder_that_one_is_in(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2 and "is empty" in done.output
