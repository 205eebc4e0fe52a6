"""``mrsi-fast report``: rebuilds the HTML page of a run from its files; nothing is computed again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mrsi_fast.cli.exits import CommandError, ExitCode, guarded
from mrsi_fast.cli.options import Debug

REPORT = "report.html"


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

    try:
        target = write_report(results, output or results / REPORT, results.resolve().name)
    except ReportError as error:
        raise CommandError(str(error), ExitCode.NO_VALID_INPUT) from error
    print(target)
