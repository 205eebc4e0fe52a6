"""Output of commands: results on stdout, remarks and progress on stderr, a bar on a terminal only."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from mrsi_fast.report.plain_text import visible

_LINE_SECONDS = 15.0
"""Least time between progress lines where there is no terminal."""


class Progress(Protocol):
    """How far a command has come; a message is something worth a line of its own."""

    def __call__(self, done: int, total: int, message: str = "") -> None:
        """``done`` of ``total`` units of work are done."""


class Terminal:
    """The voice of one command.

    Args:
        quiet: Say nothing but warnings and errors.
        verbose: Say details too.
    """

    def __init__(self, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet, self.verbose = quiet, verbose

    def say(self, text: str = "") -> None:
        """One line of the result, on stdout."""
        if not self.quiet:
            print(visible(text), flush=True)

    def block(self, text: str) -> None:
        """Lines that this package composed (a table of results), on stdout."""
        if not self.quiet:
            print(visible(text, lines=True), flush=True)

    def detail(self, text: str) -> None:
        """A line for ``--verbose``."""
        if self.verbose and not self.quiet:
            print(visible(text), flush=True)

    def warn(self, text: str) -> None:
        """A remark that must be seen, on stderr."""
        print(f"warning: {visible(text)}", file=sys.stderr, flush=True)

    def error(self, text: str) -> None:
        """A failure, on stderr."""
        print(f"error: {visible(text)}", file=sys.stderr, flush=True)

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table with aligned columns; the last column is as wide as it needs."""
        cells = [[visible(cell) for cell in row] for row in (heads, *rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
        for row in cells:
            self.say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """Gives ``report(done, total, message)``: a bar on a terminal, lines elsewhere, nothing when quiet."""
        if self.quiet:
            yield lambda done, total, message="": None
        elif sys.stderr.isatty():
            with _bar(label) as report:
                yield report
        else:
            yield _Lines(label)


class _Lines:
    """Progress for log files: a line for every message, else whenever enough time has passed."""

    def __init__(self, label: str) -> None:
        self.label, self.start = visible(label), time.monotonic()
        self.last = self.start

    def __call__(self, done: int, total: int, message: str = "") -> None:
        now = time.monotonic()
        if not message and (now - self.last < _LINE_SECONDS or done >= total):
            return
        self.last, spent = now, now - self.start
        left = f", about {spent / done * (total - done):.0f} s left" if 0 < done < total else ""
        note = f": {visible(message)}" if message else ""
        print(f"{self.label}: {done} of {total} after {spent:.0f} s{left}{note}", file=sys.stderr, flush=True)


@contextmanager
def _bar(label: str) -> Iterator[Progress]:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        label = visible(label)
        task = bar.add_task(label, total=None)

        def report(done: int, total: int, message: str = "") -> None:
            description = f"{label}: {visible(message)}" if message else None
            bar.update(task, completed=done, total=total, description=description)

        yield report
