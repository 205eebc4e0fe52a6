"""Options that several commands share, so that they are spelled and explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="More detail.")]
Debug = Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")]
Inputs = Annotated[
    list[Path] | None,
    typer.Option(
        "--input",
        "-i",
        help="A folder of maps, an fsl_mrsi or BIDS-like tree, or one NIfTI map. Give it several times for a batch.",
    ),
]
Metabolites = Annotated[
    str | None,
    typer.Option(help="Maps to use, e.g. tNAA,tCr,tCho, or all. Default: those the network has a channel for."),
]


def names_of(metabolites: str | None) -> list[str] | None:
    """Splits ``--metabolites``; None stands for all.

    Raises:
        typer.BadParameter: The list is empty or a name in it is.
    """
    if metabolites is None:
        return None
    names = [name.strip() for name in metabolites.split(",")]
    if not all(names):
        raise typer.BadParameter("give names separated by commas, e.g. tNAA,tCr,tCho", param_hint="--metabolites")
    return names
