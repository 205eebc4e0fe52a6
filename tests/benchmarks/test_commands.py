"""``python -m harness``: exit codes of a comparison, and the section and plots that a report writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from harness import __main__ as commands
from harness.__main__ import app
from harness.readme import BEGIN, END, rewrite, section, short_table
from harness.records import COPY, SGEMM, SGEMM_AGAIN, Contest, History, Row, Run, cpu_histories
from support.data import checkout


def recorded(
    path: Path,
    slower: float = 1.0,
    cpu: str = "Example 1",
    started: str = "2026-01-01 00:00 UTC",
    sessions: tuple[tuple[int, int], ...] = ((0, 8), (0, 6), (0, 6)),
) -> Path:
    draw = np.random.default_rng(len(path.name))

    def about(seconds: float) -> list[float]:
        return [float(v) for v in seconds * np.exp(draw.normal(0, 0.02, 20))]

    rows = {
        "bench_unet[native-t1]": Row(
            contest="c", label="native", ours=True, than="bench_unet[eager-t1]", backend="native", seconds=about(slower)
        ),
        "bench_unet[eager-t1]": Row(contest="c", label="eager", backend="PyTorch", seconds=about(2.0)),
    }
    anchors = {name: about(1.0) for name in (SGEMM, COPY)}
    contest = Contest(sessions=list(sessions), threads=1, anchors={**anchors, SGEMM_AGAIN: anchors[SGEMM]})
    run = Run(started=started, commit="0", versions={}, waiting="passive")
    History(machine={"cpu": cpu, "cpus": 2}, runs=[run], contests={"c": contest}, rows=rows).save(path)
    return path


def bench(*arguments: object):
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_a_regression_ends_with_1_and_names_the_row(tmp_path):
    old = recorded(tmp_path / "old.json")
    assert bench("compare", old, recorded(tmp_path / "again.json")).exit_code == 0
    result = bench("compare", old, recorded(tmp_path / "slower.json", slower=1.2))
    assert result.exit_code == 1 and "1 of ours became slower: bench_unet[native-t1]" in result.output
    assert "slower   bench_unet[native-t1]" in result.output
    assert bench("compare", recorded(tmp_path / "slower.json", slower=1.2), old).exit_code == 0  # faster


def test_one_process_each_is_no_regression_but_is_to_be_timed_again(tmp_path):
    old, new = (
        recorded(tmp_path / name, slower, sessions=((0, 20),))
        for name, slower in (("old.json", 1.0), ("new.json", 1.2))
    )
    result = bench("compare", old, new)
    assert result.exit_code == 0 and "again    bench_unet[native-t1]" in result.output
    assert "record both again" in " ".join(result.output.split())


def test_what_cannot_be_compared_is_said(tmp_path):
    old = recorded(tmp_path / "old.json")
    other = recorded(tmp_path / "other.json", cpu="Example 2")
    assert "Other machines: Example 1 and Example 2" in bench("compare", old, other).output
    (tmp_path / "broken.json").write_text("{}")
    result = bench("compare", old, tmp_path / "broken.json")
    assert result.exit_code == 3 and "broken.json: machine: Field required" in result.output
    History(machine={"cpu": "Example 1"}).save(tmp_path / "empty.json")
    assert bench("compare", old, tmp_path / "empty.json").exit_code == 3


def test_the_report_writes_section_and_plots(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\n{END}\n")
    arguments = ("report", recorded(tmp_path / "a.json"), "--page", readme, "--plots", tmp_path / "docs")
    result = bench(*arguments)
    assert result.exit_code == 0 and "rewritten" in result.output
    assert "| **mrsi_fast, native engine** | 1" in readme.read_text()
    assert "(docs/speed_engines.png)" in readme.read_text() and (tmp_path / "docs" / "speed_engines.png").is_file()
    assert "as before" in bench(*arguments).output
    readme.write_text("nothing\n")
    assert bench(*arguments).exit_code == 2


def test_plots_are_those_of_the_latest_machine(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\n{END}\n")
    older = recorded(tmp_path / "a.json")
    newer = recorded(tmp_path / "b.json", cpu="Example 2", started="2026-01-02 00:00 UTC")
    for folder, histories in (("both", (older, newer)), ("newer", (newer,))):
        result = bench("report", *histories, "--page", readme, "--plots", tmp_path / folder)
        assert result.exit_code == 0, result.output
    both, alone = ((tmp_path / folder / "speed_engines.png").read_bytes() for folder in ("both", "newer"))
    assert both == alone


def test_without_a_history_there_is_nothing_to_report(tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "checkout", lambda: tmp_path)
    result = bench("report")
    assert result.exit_code == 3 and "record one with make bench" in result.output


def test_the_pages_say_what_was_recorded(tmp_path):
    """No number of the speed tables is typed by hand: they are written anew from the committed histories."""
    root = checkout()
    histories = [History.load(path) for path in cpu_histories(root / "benchmarks" / "results")]
    if not histories:
        pytest.skip("no benchmarks are recorded")
    text = (root / "docs" / "speed.md").read_text()
    plots = [line.split("(")[1].rstrip(")") for line in text[text.index(BEGIN) :].splitlines() if line.startswith("![")]
    for page, written in (("docs/speed.md", section(histories, plots)), ("README.md", short_table(histories))):
        copy = tmp_path / "page.md"
        copy.write_text((root / page).read_text())
        assert not rewrite(copy, written), f"{page}: run make bench-report"
    assert plots and all((root / "docs" / plot).is_file() for plot in plots)
