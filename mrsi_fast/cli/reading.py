"""Options on the position of maps and the meaning of their numbers, alike for ``sr``, ``check`` and ``validate``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrsi_fast.cli.exits import CommandError
from mrsi_fast.cli.hand import Crlb, Fwhm, Like, Maps, Patterns, Snr, TableAxes, by_hand
from mrsi_fast.cli.inputs import InputSet, collect
from mrsi_fast.cli.options import Inputs, Metabolites, MoreInputs, Names, Units, names_of
from mrsi_fast.cli.stated import (
    ClipNegative,
    CrlbUnitName,
    FormName,
    FwhmUnitName,
    MaskLabels,
    MaxCrlb,
    MaxFwhm,
    Mhz,
    MinSnr,
    SliceAxis,
    limits_of_trust,
    stated_numbers,
    trust_rules,
)

if TYPE_CHECKING:
    from mrsi_fast.mrsi.mapset import MapSet
    from mrsi_fast.mrsi.quality import TrustRules

Mask = Annotated[Path | None, typer.Option(help="Region where the maps are valid; resampled if on another grid.")]


@dataclass(frozen=True)
class ReadOptions:
    """Which maps to read, and what the user states about them."""

    inputs: Inputs = None
    more: MoreInputs = None
    metabolites: Metabolites = None
    names: Names = None
    units: Units = None
    maps: Maps = None
    crlb: Crlb = None
    snr: Snr = None
    fwhm: Fwhm = None
    pattern: Patterns = None
    like: Like = None
    table_axes: TableAxes = None
    mask: Mask = None
    mask_labels: MaskLabels = None
    crlb_unit: CrlbUnitName = None
    fwhm_unit: FwhmUnitName = None
    mhz: Mhz = None
    slice_axis: SliceAxis = None
    form: FormName = "auto"
    clip_negative: ClipNegative = False

    def __post_init__(self) -> None:
        """Refuses what cannot be understood, before anything is looked for or loaded."""
        _ = self.metabolite_list, self.name_list, self.stated

    def sets(self) -> list[InputSet]:
        """Every set of maps behind the inputs.

        Raises:
            CommandError: There is none, an option cannot be understood, or one file is given for several sets.
        """
        hand = by_hand(self.maps, self.crlb, self.snr, self.fwhm, self.pattern, self.like, self.table_axes)
        sets = collect(self.inputs, self.more, hand)
        if self.mask is not None and len(sets) > 1:
            raise CommandError(f"--mask belongs to one set of maps, but {len(sets)} were given. Run them one by one.")
        if self.mask is not None and not self.mask.is_file():
            raise CommandError(f"--mask {self.mask}: there is no such file.")
        return sets

    @cached_property
    def metabolite_list(self) -> list[str] | None:
        """The maps to use."""
        return names_of(self.metabolites)

    @cached_property
    def name_list(self) -> list[str] | None:
        """Names of a stack's maps."""
        return names_of(self.names)

    @cached_property
    def stated(self) -> dict[str, Any]:
        """What is said about the numbers, as keywords of ``read_maps``."""
        units = (self.crlb_unit, self.fwhm_unit, self.mhz)
        return stated_numbers(*units, self.mask_labels, self.slice_axis, self.form, self.clip_negative)

    def read(self, entry: InputSet) -> MapSet:
        """Reads one set.

        Raises:
            MapInputError: It cannot be used.
        """
        return entry.read(self.metabolite_list, self.name_list, self.units, self.mask, self.stated)


@dataclass(frozen=True)
class TrustOptions:
    """Limits beyond which a voxel is not trusted."""

    min_snr: MinSnr = None
    max_fwhm: MaxFwhm = None
    max_crlb: MaxCrlb = None

    @cached_property
    def limits(self) -> dict[str, float]:
        """The limits that were given, by name."""
        return limits_of_trust(self.min_snr, self.max_fwhm, self.max_crlb)

    def rules(self) -> TrustRules:
        """The rules with these limits."""
        return trust_rules(self.limits)
