"""Maps whose values suggest another file than the user meant: labels, one map twice, units that differ within a set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mrsi_fast.mrsi.mapset import Float32
from mrsi_fast.mrsi.names import ABSENT_IN_HEALTHY_BRAIN, is_known, is_lipid_or_macromolecule

_FEW_VALUES = 5
_ENOUGH_VOXELS = 64
_UNLIKE = 1000.0
"""Ratio of two levels that no two metabolites of healthy brain have: 13 mmol/kg of tNAA, 0.1 of the lowest ones."""


def oddities(maps: Float32, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What a careful reader of a set should know: (map, sentence without full stop).

    Args:
        maps: [M, X, Y, Z], any unit, NaN where there is no value.
        names: Canonical names.
    """
    levels: dict[str, float] = {}
    for index, (name, one) in enumerate(zip(names, maps, strict=True)):
        known = one[np.isfinite(one) & (one != 0)]
        if known.size == 0:
            continue
        levels[name] = float(np.median(np.abs(known)))
        values = np.unique(known)
        whole = bool((np.abs(values - np.round(values)) < 1e-6 * np.abs(values)).all())
        if known.size >= _ENOUGH_VOXELS and len(values) <= _FEW_VALUES and whole and known.size < one.size:
            yield name, f"holds the values 0, {', '.join(f'{v:g}' for v in values)} alone, as a mask or labels do"
        for other, same in zip(names[:index], maps[:index], strict=True):
            if len(values) > _FEW_VALUES and np.array_equal(one, same, equal_nan=True):
                yield name, f"has the same values as {other} in every voxel; check that no file was copied"
    ordinary = {name: level for name, level in levels.items() if _is_ordinary(name)}
    if ordinary:
        low, high = min(ordinary, key=ordinary.__getitem__), max(ordinary, key=ordinary.__getitem__)
        times = ordinary[high] / ordinary[low]
        if times > _UNLIKE:
            told = f"its median is {times:.2g} times that of {low}"
            yield high, f"{told}; bring the maps to one unit, or leave {low} out if no fit found it"


def _is_ordinary(name: str) -> bool:
    return is_known(name) and name not in ABSENT_IN_HEALTHY_BRAIN and not is_lipid_or_macromolecule(name)
