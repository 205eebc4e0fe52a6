"""From what stands after ``-i`` to the sets of maps to work on, and the folder that each one's results go to."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mrsi_fast.cli.exits import CommandError, ExitCode

if TYPE_CHECKING:
    from mrsi_fast.mrsi.discovery import MapFiles
    from mrsi_fast.mrsi.mapset import MapSet


@dataclass(frozen=True)
class InputSet:
    """One set of maps: a file, a folder, or one of several sets that a BIDS-like folder holds.

    Attributes:
        path: What the user gave.
        label: What to call it in messages and, where there are several, in the output folder.
        files: Files of the set, if the path holds several sets.
        problem: Why it cannot be used, if that is known before reading.
    """

    path: Path
    label: str
    files: MapFiles | None = field(default=None, repr=False)
    problem: str | None = None

    def read(
        self,
        metabolites: Sequence[str] | None,
        names: Sequence[str] | None = None,
        units: str | None = None,
        mask: Path | None = None,
    ) -> MapSet:
        """Reads the maps and their quality files.

        Raises:
            MapInputError: The input cannot be used.
        """
        from mrsi_fast.mrsi.io import read_maps
        from mrsi_fast.mrsi.mapset import MapInputError

        if self.problem is not None:
            raise MapInputError(self.problem)
        if self.files is None:
            return read_maps(self.path, metabolites=metabolites, names=names, units=units, mask=mask)
        files = self.files
        return read_maps(
            files.maps,
            metabolites=metabolites,
            crlb=files.crlb or None,
            snr=files.snr or None,
            fwhm=files.fwhm or None,
            mask=mask or files.single.get("mask"),
            lipid=files.single.get("lipid"),
            units=units or files.units,
            fwhm_unit=files.fwhm_unit,
        )


def collect(paths: Sequence[Path] | None) -> list[InputSet]:
    """Finds every set of maps behind the inputs; what cannot be used stays in the list with its problem.

    Raises:
        CommandError: There is no input, or two inputs would write into the same output folder.
    """
    if not paths:
        raise CommandError("Give at least one input: -i FOLDER or -i MAP.nii.gz.")
    sets = [entry for path in paths for entry in _sets_of(path)]
    labels = [entry.label for entry in sets]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise CommandError(
            f"Several inputs are called {', '.join(twice)}, so their results would overwrite each other. "
            "Run them into different output folders."
        )
    return sets


def output_folders(sets: Sequence[InputSet], output: Path) -> list[Path]:
    """The output folder itself for a single set, else one folder a set below it."""
    return [output] if len(sets) == 1 else [output / entry.label for entry in sets]


def check_output(output: Path, sets: Sequence[InputSet]) -> None:
    """Makes the output folder and tries to write there, before any time is spent.

    Raises:
        CommandError: It lies where the inputs lie, or cannot be written.
    """
    for entry in sets:
        home = entry.path if entry.path.is_dir() else entry.path.parent
        if home.resolve() == output.resolve():
            raise CommandError(
                f"{output}: the output folder is where {entry.path.name} lies, and inputs are never overwritten. "
                "Choose another folder for -o."
            )
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CommandError(f"{output}: the output folder cannot be written ({reason}).", ExitCode.USAGE) from error


def _sets_of(path: Path) -> list[InputSet]:
    from mrsi_fast.mrsi.discovery import discover
    from mrsi_fast.mrsi.mapset import MapInputError

    label = _safe(re.sub(r"\.nii(\.gz)?$", "", path.resolve().name, flags=re.IGNORECASE))
    if not path.exists():
        return [InputSet(path, label, problem=f"{path}: there is no such file or folder.")]
    if not path.is_dir():
        return [InputSet(path, label)]
    try:
        found = discover(path)
    except (MapInputError, OSError) as error:
        return [InputSet(path, label, problem=str(error))]
    if len(found) == 1:
        return [InputSet(path, _safe(found[0].label) or label)]
    return [InputSet(path, _safe(files.label), files) for files in found]


def _safe(label: str) -> str:
    """A label that is one plain component of a path and text in any encoding (no bytes that were not decoded)."""
    return re.sub(r"[/\\\0\ud800-\udfff]", "_", label).lstrip(".")
