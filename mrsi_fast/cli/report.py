"""``mrsi-fast report``: rebuilds the HTML page of a run from its files; nothing is computed again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mrsi_fast.cli.exits import CommandError, ExitCode, guarded
from mrsi_fast.cli.inputs import make_writable
from mrsi_fast.cli.options import Debug
from mrsi_fast.cli.terminal import Terminal
from mrsi_fast.report.cohort import FRONT_PAGE
from mrsi_fast.report.plain_text import visible


@guarded
def report(
    results: Annotated[
        Path, typer.Option("--input", "-i", help="Folder that `mrsi-fast sr` wrote, or the JSON file of one result.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="HTML file. Default: report.html beside the maps.")
    ] = None,
    anatomy: Annotated[
        Path | None, typer.Option(help="Anatomical image to show behind the maps; it has to be coregistered.")
    ] = None,
    regions: Annotated[
        Path | None,
        typer.Option(
            help="Label image (NIfTI, any grid, coregistered) for a table of every map in every region; names come "
            "from a .tsv beside it with the columns index and name."
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Make the interactive HTML file of a result again: maps, ratios, numbers and warnings. It needs no network.

    For a folder with several results it makes the page that leads to them.
    """
    from mrsi_fast.mrsi.mapset import MapInputError
    from mrsi_fast.report.html import write_report
    from mrsi_fast.report.view import ReportError

    for option, path in (("--anatomy", anatomy), ("--regions", regions)):
        if path is not None and not path.is_file():
            raise CommandError(f"{option} {path}: there is no such file.")
    folder = results.parent if results.is_file() else results
    target = output or folder / FRONT_PAGE
    refuse_other_files(target)
    if not results.exists():
        raise CommandError(f"{results}: there is no such file or folder.", ExitCode.NO_VALID_INPUT)
    make_writable(target.parent)
    complete, incomplete = results_below(folder)
    if results.is_file():
        complete, incomplete = ([path for path in found if path == results] for found in (complete, incomplete))
    for record in incomplete:
        why = "files are missing, have changed or are links out of the folder"
        Terminal().warn(f"{record.name}: {why}; the result is left out")
    if incomplete and not complete:
        raise CommandError(f"{results}: holds no complete result. Run `mrsi-fast sr` again.", ExitCode.NO_VALID_INPUT)
    try:
        if len(complete) > 1 and anatomy is None and regions is None:
            print(visible(str(_front_page(folder, target, complete))))
        else:
            print(visible(str(write_report(folder, complete, target, anatomy, regions))))
    except (ReportError, MapInputError) as error:
        raise CommandError(str(error), ExitCode.NO_VALID_INPUT) from error


def _front_page(folder: Path, target: Path, records: list[Path]) -> Path:
    """A page that leads to the page of every result."""
    from mrsi_fast.cli.summary import table_row
    from mrsi_fast.publication import RECORD_TAIL
    from mrsi_fast.report.cohort import write_cohort

    rows = []
    for path in records:
        where = path.relative_to(folder)
        label = str(where).removesuffix(RECORD_TAIL)
        rows.append(table_row({"label": label, "status": "done", "record": where.as_posix()}, folder))
    return write_cohort(folder, target, rows)


def refuse_other_files(target: Path) -> None:
    """Refuses to write a page over anything but a page.

    Raises:
        CommandError: The target has another ending, or is something else.
    """
    if target.suffix.lower() not in (".html", ".htm"):
        raise CommandError(f"{target}: a report is an HTML file. Give -o a name that ends in .html.")
    if target.exists() and not (target.is_file() and _looks_like_html(target)):
        raise CommandError(f"{target}: is not an HTML page and is not overwritten. Choose another name for -o.")


def _looks_like_html(path: Path) -> bool:
    with path.open("rb") as stream:
        start = stream.read(512).lstrip().lower()
    return not start or start.startswith((b"<!doctype html", b"<html"))


def results_below(folder: Path) -> tuple[list[Path], list[Path]]:
    """Records of the results in a folder and below: the complete ones, and those that miss files.

    Links to folders and links that lead out of the folder are not followed; hidden folders and former results
    (``earlier``) are not looked at.
    """
    from mrsi_fast.files import leads_out
    from mrsi_fast.publication import EARLIER, RECORD_TAIL, UnreadableRecord, missing_files, read_record

    complete: list[Path] = []
    incomplete: list[Path] = []
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != EARLIER)
        for path in (Path(where) / name for name in sorted(names)):
            if not path.name.endswith(RECORD_TAIL) or path.name.startswith(".") or not path.is_file():
                continue
            if leads_out(path, folder):
                incomplete.append(path)
                continue
            try:
                record = read_record(path)
                away = [name for name in record["files"] if leads_out(path.with_name(str(name)), folder)]
                bad = away or missing_files(path.parent, record)
            except (UnreadableRecord, OSError):
                bad = [path.name]
            (incomplete if bad else complete).append(path)
    return complete, incomplete
