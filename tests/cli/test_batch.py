"""One bad input never stops the others, and the exit code says what happened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer

from mrsi_fast.cli.batch import Outcome, Skipped, exit_code, run_batch
from mrsi_fast.cli.exits import Terminated
from mrsi_fast.cli.inputs import InputSet
from mrsi_fast.cli.summary import RUN, conclude
from mrsi_fast.cli.terminal import Terminal
from mrsi_fast.mrsi.mapset import MapInputError


def sets(*labels: str) -> list[InputSet]:
    return [InputSet(Path(label), label) for label in labels]


def run(plan: dict[str, BaseException | None], debug: bool = False) -> list[Outcome]:
    def work(entry: InputSet, folder: Path, wait: bool) -> None:
        error = plan[entry.label]
        if error is not None:
            raise error

    entries = sets(*plan)
    return run_batch(entries, work, [Path(entry.label) for entry in entries], Terminal(), debug)


def test_failures_are_noted_and_the_next_input_runs(capsys: pytest.CaptureFixture[str]) -> None:
    empty = MapInputError("a.nii.gz: the file is empty.")
    outcomes = run({"a": empty, "b": RuntimeError("odd"), "c": None, "d": Skipped("finished")})
    assert [outcome.status for outcome in outcomes] == ["invalid", "failed", "done", "skipped"]
    printed = capsys.readouterr()
    assert "error: a: a.nii.gz: the file is empty." in printed.err
    assert "error: b: unexpected RuntimeError: odd" in printed.err
    assert "Traceback" not in printed.err and "d: finished" in printed.out


def test_tracebacks_only_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    run({"b": RuntimeError("odd")}, debug=True)
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (Terminated(), 143)])
def test_an_interruption_ends_the_batch(error: BaseException, code: int) -> None:
    outcomes = run({"a": None, "b": error, "c": None})
    assert [outcome.status for outcome in outcomes] == ["done", "interrupted"]
    assert exit_code(outcomes) == code


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (["done", "skipped"], 0),
        (["invalid", "invalid"], 3),
        (["done", "invalid"], 4),
        (["invalid", "failed"], 4),
        (["failed"], 4),
    ],
)
def test_exit_codes(states: Sequence[str], code: int) -> None:
    assert exit_code([Outcome(str(number), state) for number, state in enumerate(states)]) == code  # type: ignore[arg-type]


def test_the_summary_is_written_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = [Outcome("a", "done", seconds=1.5), Outcome("b", "invalid", "b: no such file.")]
    with pytest.raises(typer.Exit) as caught:
        conclude(sets("a", "b", "c"), outcomes, tmp_path, Terminal())
    assert caught.value.exit_code == 4
    record = json.loads((tmp_path / RUN).read_text())
    assert record["exit_code"] == 4 and record["not_begun"] == ["c"]
    assert [entry["status"] for entry in record["inputs"]] == ["done", "invalid"]
    printed = capsys.readouterr()
    assert "1 done, 0 skipped, 1 failed of 3 inputs." in printed.out
    assert "invalid: b: b: no such file." in printed.err and "not begun: c" in printed.err
