"""``mrsi-fast report``: rebuilds the HTML page of a run from its files; nothing is computed again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mrsi_fast.cli.exits import CommandError, ExitCode, guarded
from mrsi_fast.cli.options import Debug
from mrsi_fast.cli.terminal import Terminal

FRONT_PAGE = "report.html"


def page_name(stem: str) -> str:
    """File name of the page of one result."""
    return f"{stem}_report.html"


@guarded
def report(
    results: Annotated[Path, typer.Option("--input", "-i", help="Folder that `mrsi-fast sr` wrote.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="HTML file. Default: report.html in it.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Make one HTML file of a run: numbers, warnings and pictures of every result; it needs no network."""
    from mrsi_fast.report.html import ReportError, write_report

    target = output or results / FRONT_PAGE
    refuse_other_files(target)
    complete, incomplete = results_below(results)
    for record in incomplete:
        Terminal().warn(f"{record.name}: files are missing or not as they were written; the result is left out")
    if incomplete and not complete:
        raise CommandError(f"{results}: holds no complete result. Run `mrsi-fast sr` again.", ExitCode.NO_VALID_INPUT)
    try:
        target = write_report(results, target, results.resolve().name, complete)
    except ReportError as error:
        raise CommandError(str(error), ExitCode.NO_VALID_INPUT) from error
    print(target)


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

    Links to folders are not followed; hidden folders and former results (``earlier``) are not looked at.
    """
    from mrsi_fast.publication import EARLIER, RECORD_TAIL, UnreadableRecord, missing_files, read_record

    complete: list[Path] = []
    incomplete: list[Path] = []
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != EARLIER)
        for path in (Path(where) / name for name in sorted(names)):
            if not path.name.endswith(RECORD_TAIL) or path.name.startswith(".") or not path.is_file():
                continue
            try:
                bad = missing_files(path.parent, read_record(path))
            except (UnreadableRecord, OSError):
                bad = [path.name]
            (incomplete if bad else complete).append(path)
    return complete, incomplete
