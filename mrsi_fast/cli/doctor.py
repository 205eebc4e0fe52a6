"""``mrsi-fast doctor``: what works on this machine, what does not, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mrsi_fast.cli.exits import ExitCode, guarded
from mrsi_fast.cli.options import Debug
from mrsi_fast.cli.terminal import Terminal


@guarded
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    model: Annotated[Path | None, typer.Option(help="Model folder; default the shipped weights.")] = None,
    self_test: Annotated[bool, typer.Option(help="Super-resolve a small map, about two seconds.")] = True,
    debug: Debug = False,
) -> None:
    """Tell what is compiled, loaded and missing on this machine, with reasons.

    The exit code is 1 only if `mrsi-fast sr` cannot run.
    """
    from mrsi_fast.cli.diagnosis import diagnose, environment

    found = diagnose(model, self_test)
    if as_json:
        print(json.dumps(found.as_dict(), indent=2))
    else:
        terminal = Terminal()
        versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
        terminal.block(f"{environment()}\n{versions}\n")
        terminal.table(("status", "what", "detail"), [(one.status, one.name, one.detail) for one in found.checks])
        terminal.block("\nkernels (PyTorch runs where none is usable; the numbers are the same)")
        rows = [
            (row["op"], row["backend"], "usable" if row["usable"] else f"not here: {row['reason']}")
            for row in found.kernels
        ]
        terminal.table(("operation", "backend", "state"), rows)
        terminal.block(f"\n{found.engine}" if found.engine else "")
        terminal.say(f"mrsi-fast sr {'can' if found.can_run else 'CANNOT'} run here.")
    if not found.can_run:
        raise typer.Exit(int(ExitCode.UNEXPECTED))
