"""Working through several inputs: one that fails never stops the others, and the end says how each one went."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import typer

from mrsi_fast.cli.exits import CommandError, ExitCode, Terminated, sentence
from mrsi_fast.cli.inputs import InputSet
from mrsi_fast.cli.terminal import Terminal

Status = Literal["done", "skipped", "invalid", "failed", "interrupted"]
SUMMARY = "run.json"


@dataclass(frozen=True)
class Outcome:
    """How one input went.

    Attributes:
        label: The input.
        status: ``done``, ``skipped`` (finished before), ``invalid`` (cannot be used), ``failed`` or ``interrupted``.
        detail: Why, or empty.
        seconds: Time spent.
    """

    label: str
    status: Status
    detail: str = ""
    seconds: float = 0.0


class Skipped(Exception):
    """Raised by the work on one input when there is nothing to do; the message says why."""


def run_batch(
    sets: Sequence[InputSet],
    work: Callable[[InputSet, Path], None],
    folders: Sequence[Path],
    terminal: Terminal,
    debug: bool = False,
) -> list[Outcome]:
    """Works on each input; an interruption ends the batch after noting it.

    Args:
        sets: The inputs.
        work: Does one input into its output folder; raises ``Skipped``, ``MapInputError`` or anything else.
        folders: One output folder an input.
        terminal: Where to speak.
        debug: Print tracebacks of failures.

    Returns:
        One outcome an input that was begun.
    """
    from mrsi_fast.mrsi.mapset import MapInputError

    outcomes: list[Outcome] = []
    for entry, folder in zip(sets, folders, strict=True):
        start = time.monotonic()
        status, detail = "done", ""
        try:
            work(entry, folder)
        except Skipped as reason:
            status, detail = "skipped", str(reason)
            terminal.say(f"{entry.label}: {detail}")
        except MapInputError as error:
            status, detail = "invalid", str(error)
            terminal.error(f"{entry.label}: {detail}")
        except (KeyboardInterrupt, Terminated) as error:
            status, detail = "interrupted", "SIGTERM" if isinstance(error, Terminated) else "Ctrl-C"
        except Exception as error:
            known = isinstance(error, (CommandError, OSError, ValueError, MemoryError))
            status, detail = "failed", sentence(error) if known else f"unexpected {type(error).__name__}: {error}"
            terminal.error(f"{entry.label}: {detail}")
            if debug:
                traceback.print_exc()
        outcomes.append(Outcome(entry.label, status, detail, round(time.monotonic() - start, 2)))  # type: ignore[arg-type]
        if status == "interrupted":
            break
    return outcomes


def conclude(sets: Sequence[InputSet], outcomes: Sequence[Outcome], output: Path, terminal: Terminal) -> None:
    """Writes the summary, says it if there was more than one input, and ends the command with its exit code.

    Raises:
        typer.Exit: Always, unless every input went well.
    """
    from mrsi_fast.files import write_text

    code = exit_code(outcomes)
    counts = {status: sum(outcome.status == status for outcome in outcomes) for status in ("done", "skipped")}
    begun = {outcome.label for outcome in outcomes}
    left = [entry.label for entry in sets if entry.label not in begun]
    record = {"exit_code": int(code), "inputs": [asdict(outcome) for outcome in outcomes], "not_begun": left}
    write_text(output / SUMMARY, json.dumps(record, indent=2) + "\n")
    bad = [outcome for outcome in outcomes if outcome.status not in ("done", "skipped")]
    if len(sets) > 1:
        terminal.say(f"\n{counts['done']} done, {counts['skipped']} skipped, {len(bad)} failed of {len(sets)} inputs.")
        for outcome in bad:
            terminal.error(f"{outcome.status}: {outcome.label}: {outcome.detail}")
    if left:
        terminal.error(f"not begun: {', '.join(left)}")
    if code is not ExitCode.WELL:
        raise typer.Exit(int(code))


def exit_code(outcomes: Sequence[Outcome]) -> ExitCode:
    """The exit code of a batch: interruption first, then 3 if no input was usable, then 4 if any failed."""
    states = {outcome.status for outcome in outcomes}
    if "interrupted" in states:
        terminated = any(outcome.detail == "SIGTERM" for outcome in outcomes)
        return ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED
    if states == {"invalid"}:
        return ExitCode.NO_VALID_INPUT
    return ExitCode.SOME_FAILED if states & {"invalid", "failed"} else ExitCode.WELL
