"""Sets of maps put together by hand, by the options ``--map``, ``--crlb``, ``--snr``, ``--fwhm``, ``--pattern``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrsi_fast.cli.exits import CommandError

if TYPE_CHECKING:
    from mrsi_fast.mrsi.patterns import Pattern

_PANEL = "Files by hand"
_EACH = "NAME=FILE, for one map; FILE alone for all of them."
Maps = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="NAME=FILE", rich_help_panel=_PANEL, help="A map with any file name."),
]
Crlb = Annotated[
    list[str] | None,
    typer.Option(
        "--crlb",
        metavar="[NAME=]FILE",
        rich_help_panel=_PANEL,
        help="CRLB (%SD): NAME=FILE, for one map; FILE alone: a stack with one volume a map, in order.",
    ),
]
Snr = Annotated[
    list[str] | None,
    typer.Option("--snr", metavar="[NAME=]FILE", rich_help_panel=_PANEL, help=f"Signal-to-noise ratio: {_EACH}"),
]
Fwhm = Annotated[
    list[str] | None, typer.Option("--fwhm", metavar="[NAME=]FILE", rich_help_panel=_PANEL, help=f"Linewidth: {_EACH}")
]
Patterns = Annotated[
    list[str] | None,
    typer.Option(
        "--pattern",
        metavar="[ROLE=]PATTERN",
        rich_help_panel=_PANEL,
        help="How files are named, e.g. '{id}_{met}.nii.gz' or 'crlb={id}_{met}_sd.nii'; precedes the known names.",
    ),
]
Like = Annotated[
    Path | None,
    typer.Option(rich_help_panel=_PANEL, help="Image on the grid of the spectra, for LCModel tables."),
]
TableAxes = Annotated[
    str | None,
    typer.Option(
        metavar="XYZ",
        rich_help_panel=_PANEL,
        help="Directions in which rows, columns and slices of LCModel tables count. Default: PLS in axial slices.",
    ),
]


@dataclass(frozen=True)
class ByHand:
    """The user's statements on the files.

    Attributes:
        maps: Canonical name -> file.
        quality: ``crlb``, ``snr``, ``fwhm`` -> a file for all maps, or canonical name -> file.
        patterns: The user's naming schemes.
        like, table_axes: Grid and directions of LCModel's tables.
    """

    maps: dict[str, Path] = field(default_factory=dict)
    quality: dict[str, Any] = field(default_factory=dict)
    patterns: tuple[Pattern, ...] = ()
    like: Path | None = None
    table_axes: str | None = None


def by_hand(
    maps: Sequence[str] | None = None,
    crlb: Sequence[str] | None = None,
    snr: Sequence[str] | None = None,
    fwhm: Sequence[str] | None = None,
    patterns: Sequence[str] | None = None,
    like: Path | None = None,
    table_axes: str | None = None,
) -> ByHand:
    """Reads the options, as they were given.

    Raises:
        CommandError: One cannot be understood, names nothing, or names the same twice.
    """
    from mrsi_fast.mrsi.lcmodel import directions_of
    from mrsi_fast.mrsi.mapset import MapInputError
    from mrsi_fast.mrsi.patterns import Pattern

    if like is not None and not like.is_file():
        raise CommandError(f"--like {like}: there is no such file.")
    try:
        parsed = tuple(Pattern.parse(text) for text in patterns or ())
        if table_axes is not None:
            directions_of(table_axes)
    except MapInputError as error:
        raise CommandError(str(error)) from error
    named = {}
    for text in maps or ():
        name, path = _pair("--map", text)
        if name is None:
            raise CommandError(f"--map {text}: give NAME=FILE, e.g. tNAA={text}.")
        if name in named:
            raise CommandError(f"--map {text}: a second map of {name}. Give each its own name.")
        named[name] = path
    quality = {}
    for role, texts in (("crlb", crlb), ("snr", snr), ("fwhm", fwhm)):
        if texts:
            quality[role] = _quality(role, [_pair(f"--{role}", text) for text in texts])
    return ByHand(named, quality, parsed, like, table_axes)


def _quality(role: str, pairs: Sequence[tuple[str | None, Path]]) -> Any:
    """One file for all maps, or a table by name."""
    if any(name is None for name, _ in pairs):
        if len(pairs) > 1:
            raise CommandError(f"--{role}: give one FILE for all maps, or NAME=FILE for each of them.")
        return pairs[0][1]
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise CommandError(f"--{role}: a name is given twice ({', '.join(str(name) for name in names)}).")
    return {str(name): path for name, path in pairs}


def _pair(option: str, text: str) -> tuple[str | None, Path]:
    from mrsi_fast.mrsi.names import canonical_name

    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        name, path = "", text
    if not Path(path).is_file() and not Path(path).is_symlink():
        raise CommandError(f"{option} {text}: there is no such file.")
    try:
        return (canonical_name(name) if name else None), Path(path)
    except ValueError as error:
        raise CommandError(f"{option} {text}: {error}") from error
