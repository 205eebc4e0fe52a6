"""A result in a few lines for people: grids, operator, what ran, and how well the maps agree with what was measured."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

HEADS = ("map", "trusted voxels", "noise", "residual", "expected from noise", "relative", "outside the measured band")
"""Heads of :func:`agreement_rows`."""


_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w])")
_FEW = 2
"""More warnings than this that differ in map and one number alone become one sentence."""


def grouped_warnings(warnings: Sequence[str], names: Sequence[str]) -> list[str]:
    """Warnings for reading: those that differ in the map and in one number alone become one sentence.

    ``tNAA: 2 voxels are dark``, ``tCr: 3 voxels are dark``, ``Ins: 2 ...`` become ``tNAA, tCr, Ins: 2, 3, 2 voxels are
    dark``; every number stays, in the order of the maps.

    Args:
        warnings: Sentences, of which some start with the name of a map and a colon.
        names: The maps.
    """
    kinds: dict[str, list[tuple[str, str]]] = {}
    for text in warnings:
        name, colon, rest = text.partition(": ")
        mapped = bool(colon) and name in names
        kinds.setdefault(_NUMBER.sub("#", rest) if mapped else text, []).append((name, rest) if mapped else ("", text))
    found = []
    for members in kinds.values():
        if members[0][0] == "" or len(members) <= _FEW or _differing([rest for _, rest in members]) > 1:
            found += [f"{name}: {rest}" if name else rest for name, rest in members]
        else:
            found.append(f"{', '.join(name for name, _ in members)}: {_merged([rest for _, rest in members])}")
    return found


def _differing(texts: Sequence[str]) -> int:
    """How many of the numbers in texts of one kind are not the same in all of them."""
    return sum(len(set(column)) > 1 for column in zip(*(_NUMBER.findall(text) for text in texts), strict=True))


def _merged(texts: Sequence[str]) -> str:
    """Texts that differ in their numbers alone as one, with the numbers listed where they differ."""
    columns = iter(zip(*(_NUMBER.findall(text) for text in texts), strict=True))

    def listed(_: re.Match[str]) -> str:
        values = next(columns)
        return values[0] if len(set(values)) == 1 else ", ".join(values)

    return _NUMBER.sub(listed, texts[0])


def headline(provenance: Mapping[str, Any]) -> str:
    """Voxel sizes, operating point and whether the operator was declared, in one line."""
    before, after = (
        " x ".join(f"{size:.3g}" for size in provenance[grid]["voxel_mm"]) for grid in ("input_grid", "output_grid")
    )
    operator = "assumed" if provenance["operator_assumed"] else "declared"
    return (
        f"Measured at {before} mm, super-resolved to {after} mm: {provenance['operating_point']}. "
        f"Acquisition operator {operator}."
    ).replace(" x ", " \u00d7 ")


def _grid(grid: Mapping[str, Any]) -> str:
    voxel = " x ".join(f"{size:.4g}" for size in grid["voxel_mm"])
    return f"{'x'.join(str(count) for count in grid['shape'])} voxels of {voxel} mm"


def _draw(facts: Mapping[str, Any]) -> str:
    """How the samples were drawn; below 8 of them they are not what the mean is made of."""
    if not facts["samples"]:
        return ""
    beside = "" if facts["operating_point"].startswith("mean") else f" beside {facts['samples']} samples"
    return f"{beside}, {facts['steps']} steps of {facts['solver']}, seed {facts['seed']}"


def summary_lines(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What went in, what came out, and how, as (label, text).

    Args:
        provenance: ``Result.provenance`` or the JSON file beside a result.
    """
    facts, consistency = provenance, provenance["data_consistency"]["description"]
    return [
        ("input grid", _grid(facts["input_grid"])),
        ("output grid", _grid(facts["output_grid"])),
        ("FOV corners", f"moved {facts['fov_corner_difference_mm']:.3f} mm"),
        ("device", f"{facts['device']} ({facts['device_reason']}), {facts['threads']} threads"),
        ("engine", f"{facts['engine']} ({facts['engine_reason']})"),
        ("operator", facts["operator"]),
        ("consistency", consistency.removeprefix("Data consistency: ").split(" Operator:")[0]),
        ("model", f"{facts['model']['name']}, sha256 {facts['model']['sha256'][:12]}"),
        ("result", f"{facts['operating_point']}{_draw(facts)}, {facts['seconds']:.1f} s"),
    ]


def agreement_rows(provenance: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row a map under :data:`HEADS`: the whitened residual and its expectation from noise."""
    rows: list[tuple[str, ...]] = []
    for name, facts in provenance["maps"].items():
        if facts["content"] != "signal":
            rows.append((name, str(facts["trusted_voxels"]), f"only {facts['content']}", "-", "-", "-", "-"))
            continue
        rows.append(
            (
                name,
                str(facts["trusted_voxels"]),
                f"{facts['noise_sd']:.4g} ({facts['noise_source']})",
                _number(facts["residual_whitened"], ".2f"),
                _number(facts["residual_expected"], ".2f"),
                _number(facts["residual_relative"], ".2%"),
                _number(facts["energy_outside_band"], ".2%"),
            )
        )
    return rows


def figure_notes(provenance: Mapping[str, Any], name: str | None = None) -> list[str]:
    """Small print of a figure: grids, operating point and, for one map, its agreement with the measurement."""
    facts = provenance
    assumed = " (assumed)" if facts["operator_assumed"] else ""
    notes = [
        f"{_grid(facts['input_grid'])} to {_grid(facts['output_grid'])}, FOV corners moved "
        f"{facts['fov_corner_difference_mm']:.3f} mm; {facts['operating_point']}{_draw(facts)}.",
        f"Model {facts['model']['name']} {facts['model']['sha256'][:8]}; operator{assumed}: "
        f"{facts['operator'].split(' (assumed')[0].rstrip('.')}.",
    ]
    if name is not None and facts["maps"][name]["content"] == "signal":
        one = facts["maps"][name]
        notes.append(
            f"{name}: residual {_number(one['residual_whitened'], '.1f')}, expected from noise "
            f"{_number(one['residual_expected'], '.1f')} "
            f"({_number(one['residual_relative'], '.1%')} of the measured map); "
            f"{_number(one['energy_outside_band'], '.1%')} of the energy is outside the measured band; "
            f"{one['trusted_voxels']} LR voxels trusted."
        )
    return [*notes, f"Crosses and grey: no trusted measurement. {facts['note']}"]


def short_number(value: float) -> str:
    """Three digits that mean something, without an exponent from 0.001 to a million."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def _number(value: float | None, form: str) -> str:
    """A number, or "?" where it is not known (NaN in memory, null in JSON)."""
    return "?" if value is None or not math.isfinite(value) else format(value, form)
