"""The files of one acquisition by what they hold, and what was found beside them and left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mrsi_fast.mrsi.findings import Role

Layout = Literal["fsl_mrsi", "bids", "folder", "lcmodel", "named", "stack"]


@dataclass(frozen=True)
class Unused:
    """A file that was found and is not used.

    Attributes:
        path: The file.
        reason: Why, to be read after a colon.
        problem: It would have been used if it could be: worth a warning.
    """

    path: Path
    reason: str
    problem: bool = False


@dataclass
class MapFiles:
    """The files of one acquisition, by what they hold.

    Discovery puts paths into the tables; what is made of a stack, of tables or of a user's mapping are other sources.

    Attributes:
        layout: Which kind of layout was recognised.
        label: What tells this set from others found with it (``sub-01_ses-01``), empty for a lone one.
        maps, crlb: Canonical metabolite name -> file; :data:`ALL_MAPS` -> a stack of all maps.
        snr, fwhm: The same, or :data:`ALL_MAPS` -> file for every map.
        single: Files that occur once: roles ``mask``, ``lipid``, ``failed``, ``anatomy``.
        tables: LCModel's tables, in place of maps.
        units: Units of the maps, where the layout says so.
        fwhm_unit: ``Hz`` for fsl_mrsi and files that say so, else ``ppm``.
        unused: What was found beside them.
        problem: Why the set cannot be used, if its names tell; reading it raises this.
        remarks: What a reader of the set should know, sentences without a full stop.
    """

    layout: Layout = "folder"
    label: str = ""
    maps: dict[str, Any] = field(default_factory=dict)
    crlb: dict[str, Any] = field(default_factory=dict)
    snr: dict[str, Any] = field(default_factory=dict)
    fwhm: dict[str, Any] = field(default_factory=dict)
    single: dict[str, Any] = field(default_factory=dict)
    tables: list[Path] = field(default_factory=list)
    units: str = "i.u."
    fwhm_unit: Literal["ppm", "Hz"] = "ppm"
    unused: list[Unused] = field(default_factory=list)
    problem: str | None = None
    remarks: tuple[str, ...] = ()

    def table(self, role: Role) -> dict[str, Any]:
        """The files of a role by name (those that occur once: by role)."""
        tables: dict[str, dict[str, Any]] = {"map": self.maps, "crlb": self.crlb, "snr": self.snr, "fwhm": self.fwhm}
        return tables.get(role, self.single)

    def paths(self) -> list[Path]:
        """Every file that is used, in a fixed order."""
        tables = (self.maps, self.crlb, self.snr, self.fwhm, self.single)
        return [path for table in tables for _, path in sorted(table.items())] + self.tables


def listing(unused: Iterable[Unused]) -> Iterator[str]:
    """Lines for people: one a reason, naming up to three files."""
    reasons: dict[str, list[str]] = {}
    for one in unused:
        reasons.setdefault(one.reason, []).append(one.path.name)
    for reason, names in reasons.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        yield f"{', '.join(names[:3])}{more}: {reason}"
