"""What the README tells people to type works as it stands, in order, in one folder."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mrsi_fast.models.pretrained import ModelFolderError, shipped_folder

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(<!-- not run: [^>]+ -->\n)?```(\w+)\n(.*?)```", re.DOTALL)


def blocks(language: str) -> list[str]:
    return [code for skip, found, code in BLOCK.findall(README) if found == language and not skip]


def without_weights() -> str:
    try:
        return "" if shipped_folder() else "no weights"
    except ModelFolderError as error:
        return str(error)


needs_weights = pytest.mark.skipif(bool(without_weights()), reason=without_weights() or "weights are there")


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A folder with the examples and the program ``mrsi-fast`` of the Python that runs the tests."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    program = tmp_path / "bin" / "mrsi-fast"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom mrsi_fast.cli import main\n\nmain()\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    return tmp_path, {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def run(command: list[str], place: tuple[Path, dict[str, str]]) -> str:
    folder, environ = place
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=folder, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_weights
@pytest.mark.slow
def test_shell_examples(place: tuple[Path, dict[str, str]]) -> None:
    output = run(["bash", "-euo", "pipefail", "-c", "\n".join(blocks("bash"))], place)
    assert "moved 0.000 mm" in output and "tCho/tNAA: median of 8 samples" in output
    written = {path.name for path in (place[0] / "out" / "glioma").iterdir()}
    assert {"res-x4_met-NAANAAG_desc-sr_mrsi.nii.gz", "res-x4_met-NAANAAG_desc-srstd_mrsi.nii.gz"} <= written
    assert "res-x4_met-GPCPChOverNAANAAG_desc-ratio_mrsi.nii.gz" in written


@needs_weights
@pytest.mark.slow
def test_python_examples(place: tuple[Path, dict[str, str]]) -> None:
    output = run([sys.executable, "-c", "\n".join(blocks("python"))], place)
    assert "('tNAA', 'tCr', 'tCho', 'Ins', 'Glx', '2HG') (6, 64, 64, 3)" in output
    assert "engine: " in output


def test_there_are_examples_to_run() -> None:
    assert len(blocks("bash")) >= 2 and len(blocks("python")) >= 2


@pytest.mark.parametrize("target", re.findall(r"\]\((?!https?://)([^)#]+)\)", README))
def test_links_lead_somewhere(target: str) -> None:
    if target.startswith(("mrsi_fast/weights", "docs/example.png")) and without_weights():
        pytest.skip(without_weights())
    assert (ROOT / target).exists(), f"README.md links to {target}, which is not there"


def commands_of(text: str) -> list[tuple[str, list[str]]]:
    """(command, its long and short options) of every ``mrsi-fast`` command line in a text, continued lines joined."""
    lines = re.sub(r"\\\n\s*", " ", text)
    found = re.findall(r"mrsi-fast (\w+)([^\n`#|]*)", lines)
    return [(command, re.findall(r"(?<=\s)(--?[a-zA-Z][\w-]*)", rest)) for command, rest in found]


def unknown(text: str) -> list[str]:
    """What a text names and the program has not: commands, and options of commands."""
    from typer.main import get_command

    from mrsi_fast.cli.app import app

    commands = get_command(app).commands
    missing = []
    for command, options in commands_of(text):
        if command not in commands:
            missing.append(command)
            continue
        known = {name for one in commands[command].params for name in (*one.opts, *one.secondary_opts)} | {
            "-h",
            "--help",
        }
        missing += [f"{command} {option}" for option in options if option not in known]
    return missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_exist(page: Path) -> None:
    """Run or not: every ``mrsi-fast`` command line that people read is one that the program takes."""
    text = page.read_text(encoding="utf-8")
    assert page.name != "README.md" or page.parent != ROOT or len(commands_of(text)) > 4
    assert unknown(text) == []


def test_a_command_or_option_that_is_not_there_is_found() -> None:
    planted = "`mrsi-fast sr -i a --scael 4 \\\n  --solver heun -x` then `mrsi-fast bench compare`"
    assert unknown(planted) == ["sr --scael", "sr -x", "bench"]
