"""Inputs of ``mrsi-fast sr`` on workers: one task an input, told and summed up here as if it had been done here."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrsi_fast.cli.batch import Outcome, attempt
from mrsi_fast.cli.exits import CommandError, ExitCode, Terminated, sentence
from mrsi_fast.cli.inputs import InputSet
from mrsi_fast.cli.terminal import Progress, Terminal
from mrsi_fast.cli.work import Request, Worker

if TYPE_CHECKING:
    from mrsi_fast.cli.running import ModelOptions
    from mrsi_fast.pool import Finished, Pool, Workers
    from mrsi_fast.resolver import SuperResolver

Line = tuple[str, str]
"""Name of the method of :class:`Terminal` that says a text, and the text."""


class Recorder(Terminal):
    """Keeps what is said about one input, so that it can be said in one piece elsewhere."""

    def __init__(self, quiet: bool, verbose: bool) -> None:
        super().__init__(quiet, verbose)
        self.lines: list[Line] = []

    def say(self, text: str = "") -> None:
        """Keeps a line of the result."""
        self.lines.append(("say", text))

    def detail(self, text: str) -> None:
        """Keeps a line for ``--verbose``."""
        self.lines.append(("detail", text))

    def warn(self, text: str) -> None:
        """Keeps a remark."""
        self.lines.append(("warn", text))

    def error(self, text: str) -> None:
        """Keeps a failure."""
        self.lines.append(("error", text))

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """Says nothing: the progress of a cohort is counted in inputs."""
        yield lambda done, total, message="": None


@dataclass(frozen=True)
class Job:
    """What is the same for every input of a run.

    Attributes:
        request: What the user asked for.
        output: The output folder.
        overwrite: Redo what is finished.
        model: Model folder, or None for the weights shipped with the package.
        sha256: Of the weights.
        options: Keywords of ``SuperResolver``.
        voice: Arguments of :class:`Terminal`.
        debug: Print tracebacks of failures.
    """

    request: Request
    output: Path
    overwrite: bool
    model: Path | None
    sha256: str
    options: tuple[tuple[str, Any], ...]
    voice: tuple[bool, bool]
    debug: bool

    @classmethod
    def of(cls, machine: ModelOptions, solver: str, where: Workers, **facts: Any) -> Job:
        """The job, after a look at the model: an error of it must come once, and before any worker starts.

        Raises:
            CommandError: The model cannot be loaded, or cannot run on this machine if workers are to start here.
        """
        options = {"device": machine.device, "engine": machine.engine, "solver": solver, "threads": where.threads}
        here = where.scheduler is None
        pretrained = machine.load(solver=solver, threads=where.threads).pretrained if here else machine.weights()
        return cls(model=machine.model, sha256=pretrained.sha256, options=tuple(options.items()), **facts)


Task = tuple[Job, InputSet, Path, bool]
"""A job, an input, its output folder, and whether to wait for another process that works on it."""


class Transient(Exception):
    """A failure that may not happen again: files that could not be read or written, or too little memory."""


_loading = threading.Lock()


@lru_cache(maxsize=1)
def _load(model: Path | None, options: tuple[tuple[str, Any], ...]) -> SuperResolver:
    from mrsi_fast.resolver import SuperResolver

    return SuperResolver.from_pretrained(model, **dict(options))


def _resolver(job: Job) -> SuperResolver:
    """The model, loaded once a worker.

    Raises:
        CommandError: This worker has other weights.
    """
    with _loading:
        resolver = _load(job.model, _own_device(job.options))
    if resolver.pretrained.sha256 != job.sha256:
        raise CommandError(f"{os.uname().nodename}: holds other weights; install the same version on every machine.")
    return resolver


def _own_device(options: tuple[tuple[str, Any], ...]) -> tuple[tuple[str, Any], ...]:
    """On a worker of this machine: the graphics card of its number, unless one was named or there is none."""
    from mrsi_fast.pool import worker_number

    if dict(options)["device"] not in ("auto", "cuda", "gpu") or (number := worker_number()) is None:
        return options
    import torch

    count = torch.cuda.device_count()
    return tuple({**dict(options), "device": f"cuda:{number % count}"}.items()) if count else options


def work_on(task: Task) -> tuple[Outcome | None, list[Line]]:
    """Does one input, on a worker.

    Returns:
        How it went, None if another process is at it; what is to be said about it.

    Raises:
        Transient: As it says; its argument is what would have been returned.
        Exception: The model cannot be loaded here.
    """
    job, entry, folder, wait = task
    recorder = Recorder(*job.voice)
    worker = Worker(_resolver(job), job.request, job.output, job.overwrite, recorder)
    outcome, error = attempt(lambda: worker(entry, folder, wait), entry.label, recorder, job.debug)
    if isinstance(error, (OSError, MemoryError)):
        raise Transient((outcome, recorder.lines))
    return outcome, recorder.lines


def run_on_workers(
    sets: Sequence[InputSet], folders: Sequence[Path], job: Job, workers: Workers, terminal: Terminal
) -> list[Outcome]:
    """Works on each input on a worker; inputs that another process is at are waited for in the end.

    Args:
        sets: The inputs.
        folders: One output folder an input.
        job: What is the same for all.
        workers: Where to work.
        terminal: Where to speak.

    Returns:
        One outcome an input that was begun.

    Raises:
        CommandError: The workers cannot be had, or are lost.
    """
    from mrsi_fast.pool import PoolError, open_pool
    from mrsi_fast.publication import clear

    job = absolute(job)
    left = [(absolute(entry), Path(os.path.abspath(folder))) for entry, folder in zip(sets, folders, strict=True)]
    outcomes: list[Outcome] = []
    try:
        with (
            open_pool(workers, terminal.warn) as pool,
            terminal.progress("inputs") as report,
        ):
            for wait in (len(left) == 1, True):
                tasks = [(job, *one, wait) for one in left]
                try:
                    left = _round(pool, tasks, outcomes, terminal, report, len(sets))
                except (KeyboardInterrupt, Terminated) as error:
                    detail = "SIGTERM" if isinstance(error, Terminated) else "Ctrl-C"
                    left = [tasks[index][1:3] for index in sorted(pool.under_way)]
                    outcomes += [Outcome(entry.label, "interrupted", detail) for entry, _ in left]
                    break
    except PoolError as error:
        raise CommandError(str(error), ExitCode.UNEXPECTED if outcomes else ExitCode.USAGE) from error
    if any(outcome.status == "interrupted" for outcome in outcomes):
        for _, folder in left:
            clear(folder)
    return outcomes


def _round(
    pool: Pool, tasks: list[Task], outcomes: list[Outcome], terminal: Terminal, report: Progress, total: int
) -> list[tuple[InputSet, Path]]:
    """Has every task done once; returns the inputs that another process is at."""
    busy = []
    for finished in pool.each(work_on, tasks, [entry.label for _, entry, _, _ in tasks]):
        _, entry, folder, _ = tasks[finished.index]
        outcome, lines = _what_came(finished, entry)
        for kind, text in lines:
            getattr(terminal, kind)(text)
        if outcome is None:
            terminal.say(f"{entry.label}: another process is working on it; looked at again in the end")
            busy.append((entry, folder))
            continue
        outcomes.append(replace(outcome, runs=finished.runs))
        report(len(outcomes), total)
    return busy


def _what_came(finished: Finished, entry: InputSet) -> tuple[Outcome | None, list[Line]]:
    if isinstance(finished.error, Transient):
        return finished.error.args[0]
    if finished.error is not None:
        text = sentence(finished.error)
        return Outcome(entry.label, "failed", text), [("error", f"{entry.label}: {text}")]
    return finished.value


def absolute(value: Any) -> Any:
    """A copy in which every path is absolute: workers run in folders of their own."""
    if isinstance(value, Path):
        return Path(os.path.abspath(value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{one.name: absolute(getattr(value, one.name)) for one in fields(value)})
    if isinstance(value, dict):
        return {key: absolute(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(absolute(one) for one in value)
    return value
