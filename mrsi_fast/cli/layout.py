"""Where results go: one folder an input, or a BIDS derivative dataset below the dataset that the maps come from."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mrsi_fast._version import __version__
from mrsi_fast.cli.exits import CommandError
from mrsi_fast.cli.inputs import InputSet
from mrsi_fast.files import read_json, write_text

Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Folder for the results; one folder an input if several. Default for a BIDS dataset: its "
        "derivatives/mrsi_fast.",
    ),
]
LayoutName = Annotated[
    Literal["auto", "bids", "flat"],
    typer.Option(
        help="Below -o: sub-*/ses-*/mrs (bids), or a folder an input (flat). auto: bids in a folder derivatives."
    ),
]
DESCRIPTION, IGNORED = "dataset_description.json", ".bidsignore"
BIDS_VERSION = "1.10.0"
_OURS = "mrsi_fast"
_IGNORE = "*_mrsi.nii.gz\n*_mrsi.json\n*_mrsi.png\n*.html\nsummary.csv\nrun.json\n**/earlier/\n"
"""BIDS has no names for metabolite maps yet: the validator is told to leave ours alone."""


@dataclass(frozen=True)
class Home:
    """The output folder of a run.

    Attributes:
        folder: It.
        bids: Whether it is a BIDS derivative dataset.
        sources: The BIDS datasets that the inputs come from.
    """

    folder: Path
    bids: bool
    sources: tuple[Path, ...] = ()

    def folders(self, sets: Sequence[InputSet]) -> list[Path]:
        """The folder of each input's results: the output folder itself for a lone one, unless it is a dataset."""
        if self.bids:
            return [self.folder / _subject_folder(entry.label) for entry in sets]
        return [self.folder] if len(sets) == 1 else [self.folder / entry.label for entry in sets]

    def describe(self) -> None:
        """Writes what makes a folder a BIDS derivative dataset; call it once the folder is there.

        Raises:
            CommandError: The folder is another dataset.
            OSError: It cannot be written.
        """
        if not self.bids:
            return
        former = _description(self.folder)
        if former and not _is_ours(former):
            raise CommandError(
                f"{self.folder}: is the BIDS dataset '{former.get('Name', '')}', which mrsi-fast has not made. Choose "
                "another folder for -o, or --layout flat."
            )
        facts = _facts(self.folder, self.sources)
        if facts != former:
            write_text(self.folder / DESCRIPTION, json.dumps(facts, indent=2) + "\n")
        if not (self.folder / IGNORED).exists():
            write_text(self.folder / IGNORED, _IGNORE)


def home_of(output: Path | None, layout: str, sets: Sequence[InputSet]) -> Home:
    """Where the results go.

    Args:
        output: What stands after ``-o``.
        layout: ``auto``, ``bids`` or ``flat``.
        sets: The inputs.

    Raises:
        CommandError: No folder was given, and the inputs do not come from one BIDS dataset.
    """
    roots = [dataset_of(entry.path) for entry in sets]
    sources = tuple(dict.fromkeys(root for root in roots if root is not None))
    if output is None:
        if len(sources) != 1 or None in roots:
            raise CommandError(
                "Give a folder for the results: -o FOLDER. It can be left out where all inputs come from one BIDS "
                "dataset (a folder with dataset_description.json or sub-*)."
            )
        source = sources[0]
        beside = source.parent if source.parent.name == "derivatives" else source / "derivatives"
        return Home(beside / _OURS, layout != "flat", sources)
    below = Path.absolute(output).parent.name == "derivatives"
    return Home(output, layout == "bids" or (layout == "auto" and below), sources)


def dataset_of(path: Path) -> Path | None:
    """The BIDS dataset that a path lies in, or is; None if it is none by its looks."""
    start = path.absolute() if path.is_dir() else path.absolute().parent
    for folder in (start, *start.parents):
        if (folder / DESCRIPTION).is_file():
            return folder
        if not re.match(r"(?:sub|ses)-|(?:mrs|mrsi|anat)$", folder.name):
            break
    try:
        has_subjects = folder.is_dir() and any(one.is_dir() for one in folder.glob("sub-*"))
    except OSError:
        has_subjects = False
    return folder if has_subjects else None


def _subject_folder(label: str) -> Path:
    """``sub-01/ses-02/mrs`` for a label that begins with these; else the label."""
    match = re.match(r"(sub-[0-9A-Za-z]+)(?:_(ses-[0-9A-Za-z]+))?(?=_|$)", label)
    return Path(*(part for part in match.groups() if part), "mrs") if match else Path(label)


def _description(folder: Path) -> dict[str, Any]:
    try:
        facts = read_json(folder / DESCRIPTION)
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _is_ours(facts: dict[str, Any]) -> bool:
    made = facts.get("GeneratedBy")
    return isinstance(made, list) and any(isinstance(one, dict) and one.get("Name") == _OURS for one in made)


def _facts(folder: Path, sources: Sequence[Path]) -> dict[str, Any]:
    """``dataset_description.json`` of a derivative dataset (BIDS specification, "Derived dataset and pipeline")."""
    listed = [facts for source in sources if (facts := _source(folder, source))]
    return {
        "Name": "Super-resolved metabolite maps",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {"Name": _OURS, "Version": __version__, "Description": "Super-resolution of MRSI maps. Research use only."}
        ],
        **({"SourceDatasets": listed} if listed else {}),
    }


def _source(folder: Path, source: Path) -> dict[str, str]:
    """One entry of ``SourceDatasets``: DOI and version as the source states them; its place only if we lie in it.

    A path between two unrelated places would name folders of this machine.
    """
    stated = _description(source)
    facts = {"DOI": stated.get("DatasetDOI"), "Version": stated.get("DatasetVersion")}
    here = folder.absolute()
    if source in here.parents:
        facts["URL"] = "/".join([".."] * len(here.relative_to(source).parts))
    elif source.parent == here.parent:
        facts["URL"] = f"../{source.name}"
    return {key: value for key, value in facts.items() if isinstance(value, str) and value}
