"""Options that several commands share, so that they are spelled and explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mrsi_fast.cli.exits import CommandError

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="More detail.")]
Debug = Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")]
Inputs = Annotated[
    list[Path] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="PATH",
        help="A folder of maps, an fsl_mrsi, Vienna or BIDS-like tree, a cohort of these, LCModel tables, or map "
        "files. Give it several times, or a pattern such as 'sub-*', for a batch.",
    ),
]
MoreInputs = Annotated[list[Path] | None, typer.Argument(metavar="[PATH]...", help="More inputs, as for -i.")]
Metabolites = Annotated[
    str | None,
    typer.Option(help="Maps to use, e.g. tNAA,tCr,tCho, or all. Default: those the network has a channel for."),
]
Names = Annotated[
    str | None,
    typer.Option(help="Names of the maps of a 4D stack, in order, or of a map without a metabolite in its file name."),
]

Units = Annotated[str | None, typer.Option(help="Unit of the maps, for labels, e.g. mM. Default: that of the layout.")]


def names_of(listed: str | None) -> list[str] | None:
    """Splits a list of metabolites at its commas; None stays None.

    Raises:
        CommandError: A name is empty.
    """
    if listed is None:
        return None
    names = [name.strip() for name in listed.split(",")]
    if not all(names):
        raise CommandError(f"'{listed}' is not a list of metabolites; separate names by commas, e.g. tNAA,tCr,tCho.")
    return names
