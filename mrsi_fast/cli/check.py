"""``mrsi-fast check``: the self-test of a scan: its k-space is cut by 2, restored and compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mrsi_fast.cli.evidence_options import Align, tell_evidence
from mrsi_fast.cli.exits import CommandError, ExitCode, guarded
from mrsi_fast.cli.groups import grouped
from mrsi_fast.cli.inputs import with_anatomy
from mrsi_fast.cli.options import Debug, Quiet, Verbose
from mrsi_fast.cli.reading import ReadOptions, TrustOptions
from mrsi_fast.cli.running import AcquisitionOptions, Anatomy, ModelOptions, Scale
from mrsi_fast.cli.terminal import Terminal


@guarded
@grouped
def check(
    *,
    read: ReadOptions,
    scale: Scale = "2",
    anatomy: Anatomy = None,
    align: Align = "auto",
    acquisition: AcquisitionOptions,
    trust: TrustOptions,
    machine: ModelOptions,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON file for the numbers.")] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Self-test of a scan: how well the model restores a part of its own k-space.

    The outer half of the measured k-space is removed, restored at x2 and compared with the measurement. The output
    gives for every map the error relative to zero-filling and the amplitude of the added detail, and whether an
    anatomical image lowers the error. The exit code is 3 if no input could be tested and 4 if some could not.
    """
    from mrsi_fast.mrsi.mapset import MapInputError

    terminal, sets = Terminal(quiet, verbose), with_anatomy(read.sets(), anatomy)
    settings: dict[str, Any] = {"acquisition": acquisition.settings(), "rules": trust.rules()}
    settings["data_consistency"] = acquisition.data_consistency
    resolver = machine.load()
    found: dict[str, Any] = {}
    for entry in sets:
        try:
            evidence = resolver.check(read.read(entry), scale, entry.anatomy, align=align, **settings)
        except (MapInputError, OSError) as error:
            terminal.warn(f"{entry.label}: {error}")
            continue
        except ValueError as error:
            raise CommandError(str(error)) from error
        found[entry.label] = evidence.as_dict()
        terminal.say(f"{entry.label}:")
        tell_evidence(evidence, terminal)
        terminal.say()
    if output is not None:
        _write(output, {"model": resolver.pretrained.sha256, "scans": found})
    tested = sum(scan["tested"] for scan in found.values())
    if tested < len(sets):
        raise typer.Exit(int(ExitCode.SOME_FAILED if tested else ExitCode.NO_VALID_INPUT))


def _write(path: Path, facts: dict[str, Any]) -> None:
    from mrsi_fast.files import write_text

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(facts, indent=1) + "\n")
    except OSError as error:
        raise CommandError(f"{path}: cannot be written ({(error.strerror or str(error)).lower()}).") from error
