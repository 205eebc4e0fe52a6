"""Commands in README and guide work as written, each page in a folder of its own; links lead somewhere."""

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
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
ALL_TEXTS = [
    *(
        ROOT / name
        for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md", "training/README.md")
    ),
    *sorted((ROOT / "docs").rglob("*.md")),
]
BLOCK = re.compile(r"(<!-- not run: [^>]+ -->\n)?```(bash|python)\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)(#[^)\s]+)?\)")
README_WORDS = 1200


def blocks(page: Path, language: str) -> list[str]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [code for skip, name, code in found if name == language and not skip]


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


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
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, cwd=folder, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_weights
@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "bash")], ids=named)
def test_examples_of_a_page(page: Path, place: tuple[Path, dict[str, str]]) -> None:
    output = run(["bash", "-euo", "pipefail", "-c", "\n".join(blocks(page, "bash"))], place)
    assert "moved 0.000 mm" in output
    if python := blocks(page, "python"):
        output += run([sys.executable, "-c", "\n".join(python)], place)
    results = place[0] / "out" / "glioma"
    if page.name in ("README.md", "from_fit_to_ratio.md"):
        assert "tCho/tNAA: median of 8 samples" in output and "90 % interval" in output
        written = {path.name for path in results.iterdir()}
        stem = "res-x4_met-NAANAAG_desc"
        assert {f"{stem}-sr_mrsi.nii.gz", f"{stem}-srstd_mrsi.nii.gz", f"{stem}-zerofilled_mrsi.nii.gz"} <= written
        assert "res-x4_met-GPCPChOverNAANAAG_desc-ratio_mrsi.nii.gz" in written
        assert any(name.endswith("report.html") for name in written)
        assert not any(name.endswith(".png") for name in written)


@needs_weights
@pytest.mark.slow
def test_tour(place: tuple[Path, dict[str, str]]) -> None:
    output = run([sys.executable, "examples/tour.py", "tour"], place)
    assert "tCho/tNAA" in output and (place[0] / "tour").is_dir()


def test_every_command_of_the_guide_is_run_or_marked() -> None:
    """A command line in a block without a language would be run by nobody."""
    for page in PAGES:
        for language, code in re.findall(r"```(\w*)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            assert language or "mrsi-fast" not in code, f"{named(page)}: {code}"


def test_there_are_examples_to_run() -> None:
    assert sum(bool(blocks(page, "bash")) for page in PAGES) >= 7
    assert len(blocks(ROOT / "README.md", "bash")) >= 1 and len(blocks(ROOT / "README.md", "python")) >= 1


@pytest.mark.parametrize("page", ALL_TEXTS, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith(("mrsi_fast/weights", "docs/example.png")) and without_weights():
            continue
        found = page.parent / target if target else page
        assert found.exists(), f"{named(page)} links to {target}, which is not there"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {f"#{re.sub(r'[^a-z0-9 -]', '', head.lower()).replace(' ', '-')}" for head in heads}
            assert anchor in anchors, f"{named(page)} links to {target}{anchor}; its heads are {sorted(anchors)}"


def commands_of(text: str) -> list[tuple[str, list[str]]]:
    """(command, its long and short options) of every ``mrsi-fast`` command line in a text, continued lines joined."""
    lines = re.sub(r"\\\n\s*", " ", text)
    found = re.findall(r"mrsi-fast (\w+)([^\n`#|]*)", lines)
    return [(command, re.findall(r"(?<=\s)(--?[a-zA-Z][\w-]*)", rest)) for command, rest in found]


def unknown(text: str) -> list[str]:
    """What a text names and the program has not: commands, and options of commands."""
    from typer.main import get_command

    from mrsi_fast.cli.app import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    missing = []
    for command, options in commands_of(text):
        if command not in commands:
            missing.append(command)
            continue
        known = {name for one in commands[command].params for name in (*one.opts, *one.secondary_opts)}
        missing += [f"{command} {option}" for option in options if option not in known | {"-h", "--help"}]
    return missing


@pytest.mark.parametrize("page", [page for page in ALL_TEXTS if page.name != "CHANGELOG.md"], ids=named)
def test_commands_and_options_exist(page: Path) -> None:
    """Run or not: every ``mrsi-fast`` command line that people read is one that the program takes."""
    text = page.read_text(encoding="utf-8")
    assert page != ROOT / "README.md" or len(commands_of(text)) >= 4
    assert unknown(text) == []


def test_a_command_or_option_that_is_not_there_is_found() -> None:
    planted = "`mrsi-fast sr -i a --scael 4 \\\n  --solver heun -x` then `mrsi-fast bench compare`"
    assert unknown(planted) == ["sr --scael", "sr -x", "bench"]


def test_readme_is_a_page_that_can_be_read() -> None:
    words = (ROOT / "README.md").read_text(encoding="utf-8").split()
    assert len(words) <= README_WORDS


@needs_weights
@pytest.mark.slow
def test_pictures_of_the_guide_are_drawn_again(place: tuple[Path, dict[str, str]]) -> None:
    """``make pictures`` writes the figures of the cases into the page, and into nothing else of it."""
    page = ROOT / "docs" / "guide" / "uncertainty.md"
    marks = re.compile(r"(?<=<!-- figures of the cases -->).*?(?=<!-- end of the figures -->)", re.DOTALL)
    (place[0] / page.name).write_text(marks.sub("\n", page.read_text(encoding="utf-8")))
    run([sys.executable, "examples/make_guide_picture.py", "--output", str(place[0])], place)
    assert (place[0] / "uncertainty_cases.png").stat().st_size > 50_000
    written = (place[0] / page.name).read_text(encoding="utf-8")
    assert marks.sub("\n", written) == marks.sub("\n", page.read_text(encoding="utf-8"))
    errors = dict(re.findall(r"^\| ([^|]+) \| ([\d.]+) \|", marks.search(written)[0], re.MULTILINE))
    assert float(errors["right T1"]) < float(errors["no image"]) < float(errors["zero-filled"])
