"""How commands end: the exit codes, errors as one sentence on stderr, and interruptions."""

from __future__ import annotations

import errno
import functools
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from mrsi_fast.report.plain_text import visible


class ExitCode(IntEnum):
    """What the shell gets."""

    WELL = 0
    UNEXPECTED = 1
    USAGE = 2
    NO_VALID_INPUT = 3
    SOME_FAILED = 4
    MODEL = 5
    INTERRUPTED = 130
    TERMINATED = 143


class CommandError(Exception):
    """Ends a command with a sentence for the user and an exit code."""

    def __init__(self, message: str, code: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(message)
        self.code = code


class Terminated(BaseException):
    """SIGTERM arrived; like KeyboardInterrupt it passes through ``except Exception``."""


_arrived: list[int] = []


@contextmanager
def signals_raise() -> Iterator[None]:
    """Turns SIGTERM into :class:`Terminated` and SIGINT into KeyboardInterrupt, so that half-written files are removed.

    A signal that arrives within an import ends the process at once: an exception there can abort it (compiled modules
    that are being loaded), and only staged files are left, which the next run sweeps. One whose exception was swallowed
    (in a callback or a destructor) is told by :func:`interruption`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number: int, frame: FrameType | None) -> None:
        _arrived.append(number)
        if _importing(frame):
            os.write(2, b"mrsi-fast: ended by a signal.\n")
            os._exit(128 + number)
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    _arrived.clear()
    previous = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, former in previous.items():
            signal.signal(number, former)
        _arrived.clear()


@contextmanager
def _environment_kept() -> Iterator[None]:
    """What a command sets in the environment, for the processes that it starts, ends with it."""
    former = dict(os.environ)
    try:
        yield
    finally:
        for name in [name for name in os.environ if name not in former]:
            del os.environ[name]
        os.environ.update(former)


def interruption() -> ExitCode | None:
    """The exit code of a signal that has arrived since the command began, whatever became of its exception."""
    if not _arrived:
        return None
    return ExitCode.TERMINATED if signal.SIGTERM in _arrived else ExitCode.INTERRUPTED


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


_SPACE = {
    errno.ENOSPC: "Free some space, or choose another folder for the output.",
    errno.EDQUOT: "Free some of your quota, or choose another folder for the output.",
    errno.EFBIG: "Raise the limit of file sizes (ulimit -f), or choose another file system for the output.",
}


def sentence(error: BaseException) -> str:
    """The message of an error that a user can act on, without Python's own wrapping."""
    if isinstance(error, OSError) and error.strerror:
        if error.errno in _SPACE:
            where = f"{error.filename}: " if error.filename else ""
            return f"{where}{error.strerror}. {_SPACE[error.errno]}"
        return f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
    text = str(error).strip()
    return text or type(error).__name__


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Wraps a command: every way it can end becomes a sentence on stderr and one of the exit codes.

    A traceback is printed only if the command was given ``--debug`` (its keyword ``debug``).
    """

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            with signals_raise(), _environment_kept():
                _check_current_folder()
                command(*args, **options)
        except CommandError as error:
            raise _end(error, error.code, options) from None
        except KeyboardInterrupt as error:
            raise _end(error, ExitCode.INTERRUPTED, options, "Interrupted.") from None
        except Terminated as error:
            raise _end(error, ExitCode.TERMINATED, options, "Ended by SIGTERM.") from None
        except MemoryError as error:
            text = "Not enough memory. Give fewer slices, samples or a smaller scale at a time."
            raise _end(error, ExitCode.UNEXPECTED, options, text) from None
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output has gone, e.g. `| head`
                raise
            raise _end(error, ExitCode.UNEXPECTED, options) from None
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as error:
            if "MRSI_FAST_" in str(error):  # a variable of the environment that cannot be used
                raise _end(error, ExitCode.USAGE, options) from None
            text = f"Unexpected {type(error).__name__}: {error}. This is a defect of mrsi-fast; --debug shows where."
            raise _end(error, ExitCode.UNEXPECTED, options, text) from None

    return run


def _check_current_folder() -> None:
    """Refuses to run in a folder that was deleted: no path can be resolved there, and libraries fail to load.

    Raises:
        CommandError: It was.
    """
    try:
        Path.cwd()
    except OSError:
        raise CommandError("The folder that this command was started in does not exist any more. Use cd.") from None


def _end(error: BaseException, code: ExitCode, options: dict[str, Any], text: str | None = None) -> typer.Exit:
    if options.get("debug"):
        traceback.print_exception(error)
    print(f"mrsi-fast: {visible(text or sentence(error))}", file=sys.stderr)
    return typer.Exit(int(code))
