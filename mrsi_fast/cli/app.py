"""The commands of ``mrsi-fast`` and their ``--help``."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mrsi_fast._version import __version__
from mrsi_fast.cli.check import check
from mrsi_fast.cli.doctor import doctor
from mrsi_fast.cli.evaluate import evaluate
from mrsi_fast.cli.ratio import ratio
from mrsi_fast.cli.report import report
from mrsi_fast.cli.simulate import simulate
from mrsi_fast.cli.sr import sr
from mrsi_fast.cli.train import train
from mrsi_fast.cli.validate import validate


class _Commands(TyperGroup):
    """The group of commands; refuses empty arguments, which would stand for the folder that one is in."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for number, one in enumerate(args):
            if not one.strip() or re.fullmatch(r"--[a-z-]+=\s*", one):
                before = one.strip() or " ".join(args[max(number - 1, 0) : number])
                raise typer.BadParameter(
                    f"The value after {before or 'mrsi-fast'} is empty, as that of a shell variable that is not set."
                )
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Commands,
    name="mrsi-fast",
    help="Super-resolution of MR spectroscopic imaging maps. Research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"mrsi-fast {__version__}")
        raise typer.Exit()


_Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]


@app.callback()
def _options(version: _Version = False) -> None:
    """Super-resolution of MR spectroscopic imaging maps. Research use only."""


for _command in (sr, check, validate, ratio, report, simulate, train, evaluate, doctor):
    app.command()(_command)
