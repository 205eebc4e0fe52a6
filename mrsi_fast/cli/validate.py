"""``mrsi-fast validate``: lists the files that ``sr`` would use, without weights, GPU or computation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mrsi_fast.cli.exits import ExitCode, guarded
from mrsi_fast.cli.groups import grouped
from mrsi_fast.cli.inputs import InputSet
from mrsi_fast.cli.options import Debug, Verbose
from mrsi_fast.cli.reading import ReadOptions, TrustOptions
from mrsi_fast.cli.terminal import Terminal

if TYPE_CHECKING:
    from mrsi_fast.mrsi.mapset import MapSet
    from mrsi_fast.mrsi.quality import Trust, TrustRules

LARGE_VOXEL_MM = 15.0
NO_CRLB = "there is no CRLB map, so sr assumes a noise level"


@guarded
@grouped
def validate(
    read: ReadOptions,
    trust: TrustOptions,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as failures.")] = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Check inputs: grid, names, quality files, and how many voxels can be trusted and why the others cannot.

    The exit code is 3 if no input is usable and 4 if some are not.
    """
    from mrsi_fast.mrsi.mapset import MapInputError

    terminal = Terminal(verbose=verbose)
    sets, rules = read.sets(), trust.rules()
    usable = 0
    for entry in sets:
        try:
            warnings = _report(entry, read, rules, terminal)
        except (MapInputError, OSError) as error:
            terminal.say(f"{entry.label}: FAIL")
            terminal.say(f"  {error}")
            _say_left_out(entry, terminal)
            terminal.say()
            continue
        usable += not (strict and warnings)
    if usable < len(sets):
        raise typer.Exit(int(ExitCode.SOME_FAILED if usable else ExitCode.NO_VALID_INPUT))


def _report(entry: InputSet, read: ReadOptions, rules: TrustRules, terminal: Terminal) -> list[str]:
    from mrsi_fast.mrsi.geometry import describe_grid, voxel_sizes_mm
    from mrsi_fast.mrsi.interpolated import remarks_on_interpolation
    from mrsi_fast.mrsi.planes import AXIS_NAMES, check_matrix
    from mrsi_fast.mrsi.quality import assess

    maps = read.read(entry)
    check_matrix(maps)
    trust = assess(maps, rules)
    warnings = [*maps.warnings, *trust.warnings, *remarks_on_interpolation(maps)]
    largest = max(size for axis, size in enumerate(voxel_sizes_mm(maps.affine)) if axis != maps.slice_axis)
    if largest > LARGE_VOXEL_MM:
        warnings.append(f"The voxels are {largest:.3g} mm wide; above {LARGE_VOXEL_MM:g} mm most detail is inferred.")
    terminal.say(f"{entry.label}: {'WARN' if warnings else 'OK'}")
    terminal.say(f"  {maps.source}; {describe_grid(maps.affine, maps.shape)}; unit {maps.units}")
    if maps.slice_axis != 2:
        terminal.say(f"  slices are stacked along the {AXIS_NAMES[maps.slice_axis]} axis")
    quality = [name for name in ("crlb", "snr", "fwhm", "mask", "lipid") if getattr(maps, name) is not None]
    terminal.say(f"  quality data: {', '.join(quality) or 'none, so noise is assumed and every value is believed'}")
    heads = ("  map", "median", "noise", "trusted", "why not (a voxel can have several reasons)")
    terminal.table(heads, _rows(maps, trust))
    terminal.say(f"  memory of sr: {_memory(maps)}")
    _say_left_out(entry, terminal)
    for warning in warnings:
        terminal.say(f"  warning: {warning}")
    terminal.say()
    return [*warnings, *([] if maps.crlb is not None else [NO_CRLB])]  # sr warns of it with the level it assumes


def _memory(maps: MapSet) -> str:
    """What a run of sr may take at each in-plane factor, and what is there."""
    from mrsi_fast.memory import limit_bytes, needed_bytes

    found = []
    for factor in (2, 4, 8):
        factors = [1 if axis == maps.slice_axis else factor for axis in range(3)]
        found.append(f"{needed_bytes(len(maps.names), maps.shape, factors) / 1e9:.1f} GB at --scale {factor}")
    limit = limit_bytes()
    return f"up to {', '.join(found)}" + ("" if limit is None else f"; {limit / 1e9:.1f} GB are available")


def _say_left_out(entry: InputSet, terminal: Terminal) -> None:
    if (found := entry.t1_found()) is not None:
        terminal.say(f"  anatomy: {found.name}, used by sr with --anatomy auto")
    for line in entry.left_out():
        terminal.say(f"  not used: {line}")


def _rows(maps: MapSet, trust: Trust) -> list[tuple[str, ...]]:
    inside = int(trust.support.sum())
    rows: list[tuple[str, ...]] = []
    for index, name in enumerate(maps.names):
        good = int((trust.trusted[index] & trust.support).sum())
        reasons = [f"{reason} {counts[index]}" for reason, counts in trust.counts.items() if counts[index]]
        noise = f"{trust.noise[index]:.4g}" if trust.noise[index] == trust.noise[index] else "?"
        share = f"{good} of {inside}"
        rows.append((f"  {name}", f"{trust.level[index]:.4g}", noise, share, ", ".join(reasons) or "-"))
    return rows
