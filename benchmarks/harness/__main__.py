"""``python -m harness`` from ``benchmarks/``: compares recorded benchmarks, writes what is written from them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from harness import compare as comparison
from harness import numerics as accuracy
from harness import time_table
from harness.plots import draw
from harness.readme import rewrite, section, short_table
from harness.records import History, cpu_histories, newest_first, same_processor
from harness.table import aligned
from mrsi_fast.config import ConfigError
from support.data import checkout

app = typer.Typer(
    name="python -m harness",
    help="Compare recorded benchmarks and write what is told of them; "
    "`pytest benchmarks/ --benchmark-only --save-results` records them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


SLOWER, USAGE, UNUSABLE = 1, 2, 3
"""Exit codes: a row of ours became slower; a wrong argument; no history that can be used."""


@app.command()
def compare(
    old: Annotated[Path, typer.Argument(help="History (JSON) to compare with.")],
    new: Annotated[Path, typer.Argument(help="The newer one, of the same machine.")],
    everything: Annotated[bool, typer.Option("--all", help="Also the rows that did not change.")] = False,
) -> None:
    """Find what became slower, by ratios to anchors of the same rounds and by instruction counts.

    The exit code is 1 if a row of ours became slower. A row whose anchors moved by more than 10 % is unfit, not judged.
    A row that looks changed, but was timed by one process before and after, is to be timed again (`make bench` records
    three): what two processes differ by is not known.
    """
    before, after = _read(old), _read(new)
    if not same_processor(before.machine, after.machine):
        typer.echo(f"warning: Other machines: {before.machine.get('cpu')} and {after.machine.get('cpu')}.", err=True)
    judged = comparison.compare(before, after)
    if not judged:
        raise _ended("The two histories have no row in common.", UNUSABLE)
    shown = [one for one in judged if everything or one.verdict != "same"]
    if shown:
        rows = [(one.verdict if one.ours else f"({one.verdict})", one.name, one.reason) for one in shown]
        typer.echo("\n".join(aligned([("verdict", "row", "why"), *rows], numbers=False)))
    counts = {
        word: sum(one.verdict == word for one in judged) for word in ("slower", "faster", "same", "again", "unfit")
    }
    typer.echo("; ".join(f"{count} {word}" for word, count in counts.items()) + f"; of {len(judged)} rows.")
    regressions = [one.name for one in judged if one.regression]
    if regressions:
        raise _ended(f"{len(regressions)} of ours became slower: {', '.join(regressions)}.", SLOWER)


@app.command()
def report(
    histories: Annotated[
        list[Path] | None, typer.Argument(help="Histories (JSON); default all of benchmarks/results/.")
    ] = None,
    page: Annotated[Path | None, typer.Option(help="File of all tables; default docs/speed.md.")] = None,
    readme: Annotated[
        Path | None, typer.Option(help="File of the short table; default README.md if --page is not given.")
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder of the plots; default docs/.")] = None,
) -> None:
    """Write docs/speed.md and the README's table from recorded benchmarks, and the plots of the latest machine."""
    root = checkout()
    readme = readme or (root / "README.md" if page is None else None)
    page, plots = page or root / "docs" / "speed.md", plots or root / "docs"
    paths = histories or cpu_histories(root / "benchmarks" / "results")
    if not paths:
        raise _ended("There is no history in benchmarks/results: record one with make bench.", UNUSABLE)
    read = [_read(path) for path in paths]
    files = draw(newest_first(read)[0], plots)
    try:
        changed = rewrite(page, section(read, [os.path.relpath(file, page.parent) for file in files]))
        if readme is not None:
            changed |= rewrite(readme, short_table(read))
    except (OSError, ValueError) as error:
        raise _ended(str(error), USAGE) from error
    written = [one for one in (page, readme) if one is not None]
    told = " and ".join(map(str, written))
    typer.echo(f"{told}: {'rewritten' if changed else 'as before'}; {', '.join(map(str, files))}.")


@app.command()
def times(
    batch: Annotated[int, typer.Argument(help="Slices of a batch.")] = 8,
    size: Annotated[int, typer.Argument(help="Rows and columns of a map.")] = 64,
    engine: Annotated[str, typer.Argument(help="native or native-amx.")] = "native",
) -> None:
    """Print where the native engine's time goes, for 1 and for 2 threads."""
    for threads in (1, 2):
        typer.echo("\n".join(time_table.lines(batch, size, threads, engine == "native-amx")) + "\n")


@app.command()
def numerics(
    write: Annotated[bool, typer.Option("--write", help="Write docs/numerics.md instead of printing.")] = False,
) -> None:
    """Measure the tables of docs/numerics.md: errors against float64. Takes minutes."""
    if write:
        accuracy.write()
    else:
        typer.echo(accuracy.tables())


def _ended(message: str, code: int) -> typer.Exit:
    typer.echo(f"error: {message}", err=True)
    return typer.Exit(code)


def _read(path: Path) -> History:
    try:
        return History.load(path)
    except ConfigError as error:
        raise _ended(str(error), UNUSABLE) from error


if __name__ == "__main__":
    app()
