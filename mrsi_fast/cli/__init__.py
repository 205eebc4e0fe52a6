"""The program ``mrsi-fast``: one thin module a command; nothing heavy is imported before a command needs it."""

from __future__ import annotations

import signal
import sys

from mrsi_fast.cli.imports import without_collections


def main() -> None:
    """Runs the command line; the process ends with the exit code of the command."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # until a command handles it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    with without_collections():
        from mrsi_fast.cli.app import app

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file name that the terminal cannot show must not end a run
            stream.reconfigure(errors="backslashreplace")
    app()
