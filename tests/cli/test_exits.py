"""Every way a command can end: the exit code, one sentence on stderr, a traceback only when asked for."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from mrsi_fast.cli.exits import CommandError, ExitCode, Terminated, guarded, signals_raise


def ending(action: Callable[[], None], **options: bool) -> int:
    @guarded
    def command(debug: bool = False) -> None:
        action()

    with pytest.raises(typer.Exit) as caught:
        command(**options)
    return caught.value.exit_code


def raises(error: BaseException) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (CommandError("scale 3 is not offered."), ExitCode.USAGE, "scale 3 is not offered."),
        (CommandError("weights damaged.", ExitCode.MODEL), ExitCode.MODEL, "weights damaged."),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "Interrupted."),
        (Terminated(), ExitCode.TERMINATED, "Ended by SIGTERM."),
        (
            OSError(errno.ENOSPC, "No space left on device", "out/a.nii.gz"),
            ExitCode.UNEXPECTED,
            "out/a.nii.gz: No space left on device.",
        ),
        (MemoryError(), ExitCode.UNEXPECTED, "Not enough memory."),
        (RuntimeError("MRSI_FAST_ISA=x: 'x' is not usable here."), ExitCode.USAGE, "MRSI_FAST_ISA=x: 'x' is not"),
        (ZeroDivisionError("division by zero"), ExitCode.UNEXPECTED, "defect of mrsi-fast"),
    ],
)
def test_errors_are_sentences(
    error: BaseException, code: ExitCode, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(raises(error)) == code
    printed = capsys.readouterr()
    assert text in printed.err and "Traceback" not in printed.err
    assert printed.out == ""
    assert ending(raises(error), debug=True) == code
    assert "Traceback" in capsys.readouterr().err


def test_a_folder_that_was_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert ending(lambda: None) == ExitCode.USAGE
    assert "was started in does not exist any more" in capsys.readouterr().err


def test_a_closed_pipe_is_left_to_the_command_line_library() -> None:
    @guarded
    def command() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        command()


def test_sigterm_unwinds_and_the_former_handler_returns() -> None:
    before = signal.getsignal(signal.SIGTERM)
    cleaned = []
    with pytest.raises(Terminated), signals_raise():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            cleaned.append(True)
    assert cleaned and signal.getsignal(signal.SIGTERM) is before
