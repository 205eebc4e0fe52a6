"""The account of an output folder: ``run.json``, ``summary.csv`` and the front page, whichever runs filled it.

Several processes may work on parts of a cohort into one folder, so each adds its rows to those of the others.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from mrsi_fast.cli.batch import Outcome, exit_code
from mrsi_fast.cli.exits import CommandError, ExitCode, interruption
from mrsi_fast.cli.inputs import InputSet
from mrsi_fast.cli.layout import DESCRIPTION, IGNORED
from mrsi_fast.cli.terminal import Terminal
from mrsi_fast.files import atomic_path, read_json, read_regular, write_text
from mrsi_fast.publication import RECORD_TAIL, UnreadableRecord, exclusive, read_record
from mrsi_fast.report.cohort import FRONT_PAGE, page_name, verdict_of

RUN, TABLE = "run.json", "summary.csv"
_FOLDERS = re.compile(r"(?<![\w.:/])(?:~|[A-Za-z]:)?[/\\](?:[^/\\\s:;,'\"()]+[/\\])+(?=[^/\\\s])")
COLUMNS = (
    "input", "status", "verdict", "residual_over_expected", "warnings", "seconds", "maps", "result", "finished",
    "detail",
)  # fmt: skip


def conclude(sets: Sequence[InputSet], outcomes: Sequence[Outcome], output: Path, terminal: Terminal) -> None:
    """Writes the summary, prints it if there was more than one input, and ends the command with its exit code.

    Raises:
        typer.Exit: Always, unless every input went well.
    """
    code = interruption() or exit_code(outcomes)
    counts = {status: sum(outcome.status == status for outcome in outcomes) for status in ("done", "skipped")}
    begun = {outcome.label for outcome in outcomes}
    left = [entry.label for entry in sets if entry.label not in begun]
    write_summary(output, int(code), outcomes, left)
    bad = [outcome for outcome in outcomes if outcome.status not in ("done", "skipped")]
    if len(sets) > 1:
        terminal.say()
        terminal.say(f"{counts['done']} done, {counts['skipped']} skipped, {len(bad)} failed of {len(sets)} inputs.")
        for outcome in bad:
            terminal.error(f"{outcome.status}: {outcome.label}: {outcome.detail}")
    if left:
        terminal.error(f"not begun: {', '.join(left)}")
    if code is not ExitCode.WELL:
        raise typer.Exit(int(code))


def refuse_files_of_others(output: Path) -> None:
    """Refuses an output folder in which the account of the run would replace files that this package has not written.

    Raises:
        CommandError: ``summary.csv``, ``run.json`` or ``report.html`` is somebody else's, or no file.
    """
    for name, is_ours in ((TABLE, _is_our_table), (RUN, _is_our_run), (FRONT_PAGE, _is_our_page)):
        path = output / name
        if path.exists() and not (path.is_file() and is_ours(read_regular(path, 2**16))):
            raise CommandError(
                f"{path}: was not written by mrsi-fast, and would be replaced. Move it, or choose another folder (-o)."
            )


def _is_our_table(start: bytes) -> bool:
    return not start or start.startswith(b"input,status,")


def _is_our_run(start: bytes) -> bool:
    return not start or b'"inputs"' in start  # the list of inputs may be longer than what is read


def _is_our_page(start: bytes) -> bool:
    return not start or b"mrsi_fast</title>" in start


def write_summary(output: Path, code: int, outcomes: Sequence[Outcome], left: Sequence[str]) -> None:
    """Brings the account of an output folder up to date.

    Args:
        output: The output folder.
        code: Exit code of this run.
        outcomes: How its inputs went.
        left: Labels of those that it did not begin.

    Raises:
        OSError: The folder cannot be written.
    """
    with exclusive(output / f".{RUN}.lock"):
        for name in (RUN, TABLE, FRONT_PAGE, DESCRIPTION, IGNORED):
            for leftover in output.glob(f".{name}.*.part*"):
                leftover.unlink(missing_ok=True)
        now = [_row(outcome, output) for outcome in outcomes]
        rows = [row for row in _former_rows(output) if not _is_redone(row, now)] + now
        run = {"exit_code": code, "inputs": rows, "not_begun": list(left)}
        write_text(output / RUN, json.dumps(run, indent=2) + "\n")
        table = [table_row(row, output) for row in rows]
        write_text(output / TABLE, _csv(table))
        _write_front_page(output, table)


def _row(outcome: Outcome, output: Path) -> dict[str, Any]:
    """One input in ``run.json``; the record's path is relative to the folder."""
    record = None if outcome.record is None else os.path.relpath(outcome.record, output)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    detail = without_folders(outcome.detail)
    return asdict(outcome) | {"detail": detail, "record": record, "finished": when}


def without_folders(text: str) -> str:
    """A message in which absolute paths are cut to their last part: folders often hold names of people."""
    return _FOLDERS.sub("", text)


def _former_rows(output: Path) -> list[dict[str, Any]]:
    """Rows of other runs; none of a result that is no longer there."""
    try:
        rows = read_json(output / RUN)["inputs"]
        known = [row for row in rows if isinstance(row["label"], str) and isinstance(row["status"], str)]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [row for row in known if row.get("record") is None or _is_there(output, row["record"])]


def _is_redone(former: Mapping[str, Any], now: Sequence[Mapping[str, Any]]) -> bool:
    """Whether this run has a row for the same result; for one without a result, a row of the same name.

    Two inputs can have one name (folders of two people that are both called ``maps``); their results have two places.
    """
    key = "label" if former.get("record") is None else "record"
    return any(row[key] == former[key] for row in now)


def _is_there(output: Path, record: Any) -> bool:
    """Whether a record is a file in the output folder; a path that leads out of it is none of ours."""
    inside = isinstance(record, str) and not os.path.isabs(record) and ".." not in Path(record).parts
    return inside and (output / record).is_file()


def table_row(row: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """One row of ``summary.csv``, with figures from the record of the result."""
    line = dict.fromkeys(COLUMNS, "") | {
        "input": row["label"],
        "status": row["status"],
        "result": row.get("record") or "",
        "seconds": row.get("seconds", ""),
        "finished": row.get("finished", ""),
        "detail": _detail(row),
    }
    if line["result"]:
        try:
            record = read_record(output / line["result"])
            line |= {
                "verdict": verdict_of(record.get("evidence")),
                "maps": " ".join(record["maps"]),
                "residual_over_expected": _worst_residual(record["maps"]),
                "warnings": len(record["warnings"]),
            }
        except (UnreadableRecord, OSError, KeyError, TypeError, ValueError):
            line["detail"] = line["detail"] or "the JSON file of the result cannot be read"
    return line


def _detail(row: Mapping[str, Any]) -> str:
    again = (
        f"begun {row['runs']} times: a worker was lost, or could not read or write" if row.get("runs", 1) > 1 else ""
    )
    return ". ".join(text for text in (str(row.get("detail", "")).removesuffix("."), again) if text)


def _worst_residual(maps: Mapping[str, Mapping[str, Any]]) -> str:
    """Largest ratio over the maps of the whitened residual to its expectation from noise."""
    pairs = [(one.get("residual_whitened"), one.get("residual_expected")) for one in maps.values()]
    ratios = [residual / expected for residual, expected in pairs if residual is not None and expected]
    return f"{max(ratios):.3g}" if ratios else ""


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _no_formula(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _no_formula(value: Any) -> Any:
    """A text that a spreadsheet does not take for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _write_front_page(output: Path, table: Sequence[Mapping[str, Any]]) -> None:
    """The page of the only result, or a page that leads to all of them."""
    if len(table) == 1 and table[0]["result"]:
        record = output / table[0]["result"]
        page = record.with_name(page_name(record.name.removesuffix(RECORD_TAIL)))
        if page.is_file():
            with atomic_path(output / FRONT_PAGE) as temporary:
                shutil.copyfile(page, temporary)
            return
    from mrsi_fast.report.cohort import write_cohort

    write_cohort(output, output / FRONT_PAGE, table)
