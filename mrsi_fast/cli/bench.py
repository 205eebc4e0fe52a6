"""``mrsi-fast bench``: compares recorded benchmarks, and writes the README's speed section and the plots from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrsi_fast.cli.exits import CommandError, ExitCode, guarded
from mrsi_fast.cli.options import Debug
from mrsi_fast.cli.terminal import Terminal

if TYPE_CHECKING:
    from mrsi_fast.report.benchmarks.records import History

bench = typer.Typer(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
RESULTS = Path("benchmarks") / "results"


@bench.callback()
def _about() -> None:
    """Compare and report recorded benchmarks; `pytest benchmarks/ --benchmark-only --save-results` records them."""


@bench.command()
@guarded
def compare(
    old: Annotated[Path, typer.Argument(help="History (JSON) to compare with.")],
    new: Annotated[Path, typer.Argument(help="The newer one, of the same machine.")],
    everything: Annotated[bool, typer.Option("--all", help="Also the rows that did not change.")] = False,
    debug: Debug = False,
) -> None:
    """Find what became slower, by ratios to anchors of the same rounds and by instruction counts.

    The exit code is 1 if a row of ours became slower. A row whose anchors moved by more than 10 % is unfit, not judged.
    A row that looks changed, but was timed by one process before and after, is to be timed again (`make bench` records
    three): what two processes differ by is not known.
    """
    from mrsi_fast.report.benchmarks import compare as comparison
    from mrsi_fast.report.benchmarks.records import same_processor

    terminal, before, after = Terminal(), _read(old), _read(new)
    if not same_processor(before.machine, after.machine):
        terminal.warn(f"Other machines: {before.machine.get('cpu')} and {after.machine.get('cpu')}.")
    judged = comparison.compare(before, after)
    if not judged:
        raise CommandError("The two histories have no row in common.", ExitCode.NO_VALID_INPUT)
    shown = [one for one in judged if everything or one.verdict != "same"]
    if shown:
        rows = [(one.verdict if one.ours else f"({one.verdict})", one.name, one.reason) for one in shown]
        terminal.table(("verdict", "row", "why"), rows)
    counts = {
        word: sum(one.verdict == word for one in judged) for word in ("slower", "faster", "same", "again", "unfit")
    }
    terminal.say("; ".join(f"{count} {word}" for word, count in counts.items()) + f"; of {len(judged)} rows.")
    regressions = [one.name for one in judged if one.regression]
    if regressions:
        terminal.error(f"{len(regressions)} of ours became slower: {', '.join(regressions)}.")
        raise typer.Exit(int(ExitCode.UNEXPECTED))


@bench.command()
@guarded
def report(
    histories: Annotated[
        list[Path] | None, typer.Argument(help="Histories (JSON); default all of benchmarks/results/.")
    ] = None,
    readme: Annotated[Path, typer.Option(help="File whose marked section is written.")] = Path("README.md"),
    plots: Annotated[Path, typer.Option(help="Folder of the plots.")] = Path("docs"),
    debug: Debug = False,
) -> None:
    """Write the speed section of the README from recorded benchmarks, and the plots of the latest machine."""
    import os

    from mrsi_fast.report.benchmarks.plots import draw
    from mrsi_fast.report.benchmarks.readme import rewrite, section
    from mrsi_fast.report.benchmarks.records import cpu_histories, newest_first

    paths = histories or cpu_histories(RESULTS)
    if not paths:
        raise CommandError(f"There is no history in {RESULTS}: record one with make bench.", ExitCode.NO_VALID_INPUT)
    read = [_read(path) for path in paths]
    files = draw(newest_first(read)[0], plots)
    try:
        changed = rewrite(readme, section(read, [os.path.relpath(file, readme.parent) for file in files]))
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from error
    Terminal().say(f"{readme}: {'rewritten' if changed else 'as it was'}; {', '.join(map(str, files))}.")


def _read(path: Path) -> History:
    from mrsi_fast.config import ConfigError
    from mrsi_fast.report.benchmarks.records import History

    try:
        return History.load(path)
    except ConfigError as error:
        raise CommandError(str(error), ExitCode.NO_VALID_INPUT) from error
