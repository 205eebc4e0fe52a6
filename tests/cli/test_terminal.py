"""Progress is a bar on a terminal and lines elsewhere; quiet keeps warnings and errors."""

from __future__ import annotations

import io
import sys

import pytest

from mrsi_fast.cli import terminal as module
from mrsi_fast.cli.terminal import Terminal, _Lines
from mrsi_fast.report.plain_text import visible


def test_quiet_keeps_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(quiet=True, verbose=True)
    terminal.say("result")
    terminal.detail("detail")
    terminal.warn("LR voxels of 20 mm.")
    with terminal.progress("maps") as report:
        report(1, 2, "half")
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err == "warning: LR voxels of 20 mm.\n"


def test_details_need_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().detail("detail")
    assert capsys.readouterr().out == ""
    Terminal(verbose=True).detail("detail")
    assert capsys.readouterr().out == "detail\n"


def test_log_files_get_lines_and_no_control_characters(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 5.0, 20.0, 21.0, 60.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with Terminal().progress("K_01") as report:
        report(1, 64)  # too early for a line
        report(16, 64)
        report(17, 64, "loss 0.5")
        report(64, 64)  # the end is said by the command itself
    assert capsys.readouterr().err == (
        "K_01: 16 of 64 after 20 s, about 60 s left\nK_01: 17 of 64 after 21 s, about 58 s left: loss 0.5\n"
    )


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Tty()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with Terminal().progress("K_01 [bold]") as report:
        report(3, 7)
    assert "3/7" in screen.getvalue() and "[bold]" in screen.getvalue()


def test_tables_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().table(("input", "grid"), [("a", "14x14x3"), ("long name", "8x8x1")])
    assert capsys.readouterr().out == "input      grid\na          14x14x3\nlong name  8x8x1\n"


def test_no_character_of_a_name_acts_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b[31m\x9b1m\x07\r\u202eb\udcff\x7f"
    shown = r"a\x1b[31m\x9b1m\x07\r\u202eb\udcff\x7f"
    terminal = Terminal()
    terminal.say(f"{name}\nsub-02: OK")
    terminal.block(f"{name}\nlast")
    terminal.table(["map"], [[name]])
    terminal.warn(f"{name}\nerror: forged")
    terminal.error(name)
    terminal_lines = _Lines(name)
    terminal_lines(1, 2, name)
    out, err = capsys.readouterr()
    assert out == f"{shown}\\nsub-02: OK\n{shown}\nlast\nmap\n{shown}\n"
    assert (
        err.startswith(f"warning: {shown}\\nerror: forged\nerror: {shown}\n{shown}: 1 of 2") and err.count(shown) == 4
    )
    assert visible("µ, 乳酸, é, \tb") == "µ, 乳酸, é, \tb"
