"""Working through several inputs: one that fails never stops the others, and a summary lists the outcome of each."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

from mrsi_fast.cli.exits import CommandError, ExitCode, Terminated, interruption, sentence
from mrsi_fast.cli.inputs import InputSet
from mrsi_fast.cli.terminal import Terminal

Status = Literal["done", "skipped", "invalid", "failed", "interrupted"]


@dataclass(frozen=True)
class Outcome:
    """How one input went.

    Attributes:
        label: The input.
        status: ``done``, ``skipped`` (finished before), ``invalid`` (cannot be used), ``failed`` or ``interrupted``.
        detail: Why, or empty.
        seconds: Time spent.
        record: The JSON file of its result, if there is one.
        runs: How often it was begun: more than once where a worker was lost or it was tried again.
    """

    label: str
    status: Status
    detail: str = ""
    seconds: float = 0.0
    record: Path | None = field(default=None, compare=False)
    runs: int = 1


class Skipped(Exception):
    """Raised by the work on one input when there is nothing to do; the message gives the reason.

    Attributes:
        record: The JSON file of the result that is there.
    """

    def __init__(self, message: str, record: Path | None = None) -> None:
        super().__init__(message)
        self.record = record


class Work(Protocol):
    """Does one input into its output folder."""

    def __call__(self, entry: InputSet, folder: Path, wait: bool) -> Path | None:
        """Returns the JSON file of the result.

        Raises ``Skipped``, ``Busy`` (unless ``wait``), ``MapInputError`` or anything else.
        """


def run_batch(
    sets: Sequence[InputSet],
    work: Work,
    folders: Sequence[Path],
    terminal: Terminal,
    debug: bool = False,
) -> list[Outcome]:
    """Works on each input; an interruption ends the batch after noting it.

    Inputs that another process is working on are left for the end, and waited for then.

    Args:
        sets: The inputs.
        work: Does one input.
        folders: One output folder an input.
        terminal: Where to speak.
        debug: Print tracebacks of failures.

    Returns:
        One outcome an input that was begun.
    """
    outcomes: list[Outcome] = []
    left = [(entry, folder, len(sets) == 1) for entry, folder in zip(sets, folders, strict=True)]
    while left:
        entry, folder, wait = left.pop(0)
        outcome, _ = attempt(lambda: work(entry, folder, wait), entry.label, terminal, debug)  # noqa: B023
        if outcome is None:
            terminal.say(f"{entry.label}: another process is working on it; it is checked again at the end")
            left.append((entry, folder, True))
            continue
        outcomes.append(outcome)
        if outcome.status == "interrupted" or interruption() is not None:
            break
    return outcomes


def attempt(
    work: Callable[[], Path | None], label: str, terminal: Terminal, debug: bool
) -> tuple[Outcome | None, BaseException | None]:
    """Does one input whatever happens.

    Returns:
        How it went, None if another process is at it; the error of an input that failed.
    """
    from mrsi_fast.mrsi.mapset import MapInputError
    from mrsi_fast.publication import Busy

    start = time.monotonic()
    status: Status = "done"
    detail, record, failure = "", None, None
    try:
        record = work()
    except Busy:
        return None, None
    except Skipped as reason:
        status, detail, record = "skipped", str(reason), reason.record
        terminal.say(f"{label}: {detail}")
    except MapInputError as error:
        status, detail = "invalid", str(error)
        terminal.error(f"{label}: {detail}")
    except (KeyboardInterrupt, Terminated) as error:
        status, detail = "interrupted", "SIGTERM" if isinstance(error, Terminated) else "Ctrl-C"
    except Exception as error:
        known = isinstance(error, (CommandError, OSError, ValueError, MemoryError))
        failure = error
        status, detail = "failed", sentence(error) if known else f"unexpected {type(error).__name__}: {error}"
        terminal.error(f"{label}: {detail}")
        if debug:
            traceback.print_exc()
    return Outcome(label, status, detail, round(time.monotonic() - start, 2), record), failure


def exit_code(outcomes: Sequence[Outcome]) -> ExitCode:
    """The exit code of a batch: interruption first, then 3 if no input was usable, then 4 if any failed."""
    states = {outcome.status for outcome in outcomes}
    if "interrupted" in states:
        terminated = any(outcome.detail == "SIGTERM" for outcome in outcomes)
        return ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED
    if states == {"invalid"}:
        return ExitCode.NO_VALID_INPUT
    return ExitCode.SOME_FAILED if states & {"invalid", "failed"} else ExitCode.WELL


def failed_by_warnings(outcome: Outcome, terminal: Terminal) -> Outcome:
    """The outcome under ``--strict``: a result with warnings, new or finished before, has failed."""
    from mrsi_fast.publication import read_record

    if outcome.status not in ("done", "skipped") or outcome.record is None:
        return outcome
    warnings = read_record(outcome.record).get("warnings", [])
    if not warnings:
        return outcome
    detail = f"--strict: {len(warnings)} warnings count as failures, the first: {warnings[0]}"
    terminal.error(f"{outcome.label}: {detail}")
    return replace(outcome, status="failed", detail=detail)
