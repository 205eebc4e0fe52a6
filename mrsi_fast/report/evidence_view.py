"""The self-test and the alignment of a scan as a page shows them: a table, and pictures to look at.

The pictures are stills. Those of the self-test are on the measured grid, because that is where both the kept and the
dropped half of k-space are known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.report.stills import MISSING_RGB, Still, still
from mrsi_fast.report.view import MapView, ResultView
from mrsi_fast.report.window import display_window

HEADS: tuple[str, ...] = (
    "map",
    "error / zero-filling's",
    "total variation's",
    "amplitude of the detail",
    "noise floor",
    "verdict",
)
_TOTAL_VARIATION = HEADS.index("total variation's")

Picture = tuple[str, Still, tuple[float, float], str]
"""Label, still, window, colour map."""


def evidence_table(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The self-test of a scan from the record: heads, a row a map, and its sentences; None if there was none.

    The column for total variation appears only where total variation was tried.
    """
    evidence = record.get("evidence")
    if not isinstance(evidence, Mapping):
        return None
    maps = evidence.get("maps") or {}
    rows: list[tuple[str, ...]] = [
        (
            str(name),
            known(facts.get("error"), facts.get("error_interval")),
            known(facts.get("total_variation")),
            known(facts.get("amplitude"), facts.get("amplitude_interval"), 2),
            known(facts.get("noise_floor"), digits=2),
            str(facts.get("verdict", "")),
        )
        for name, facts in maps.items()
    ]
    heads = HEADS
    if all(facts.get("total_variation") is None for facts in maps.values()):
        heads, *rows = (_without(row, _TOTAL_VARIATION) for row in (heads, *rows))
    guidance = evidence.get("guidance") or {}
    lines = [str(line) for line in (evidence.get("reason"), guidance.get("reason")) if line]
    return {"heads": heads, "rows": rows, "lines": lines} if rows or lines else None


def _without(row: tuple[str, ...], index: int) -> tuple[str, ...]:
    return (*row[:index], *row[index + 1 :])


def known(value: float | None, interval: Sequence[float | None] | None = None, digits: int = 3) -> str:
    """A number with its interval; "?" where it is not known."""
    if value is None or not math.isfinite(value):
        return "?"
    if interval is None or any(end is None or not math.isfinite(end) for end in interval):
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} [{', '.join(f'{end:.{digits}f}' for end in interval if end is not None)}]"


def alignment_of(record: Mapping[str, Any], used_only: bool = True) -> NDArray[np.float64] | None:
    """How the anatomical image was moved to fit the maps, [4, 4] in world mm; None if it was not.

    Args:
        record: The record of the result.
        used_only: None also where an alignment was found but the image was refused.
    """
    guidance = (record.get("evidence") or {}).get("guidance") or {}
    matrix = (guidance.get("alignment") or {}).get("matrix")
    if not matrix or (used_only and not guidance.get("used")):
        return None
    return np.asarray(matrix, dtype=np.float64)


def selftest_pictures(view: ResultView, entry: MapView, z: int) -> list[Picture]:
    """Measured map, what came back, its zero-filling, and the two differences, in one slice of the measured grid.

    Args:
        view: The result.
        entry: One of its maps.
        z: Slice of the finer grid.

    Returns:
        Nothing where the files of the result hold no self-test.
    """
    if entry.measured is None or entry.brought_back is None or entry.cut_zero_filled is None:
        return []
    measured = np.where(_trusted(view, entry), entry.measured, np.nan)
    own_z = min(int((z + 0.5) * measured.shape[2] / view.shape[2]), measured.shape[2] - 1)
    window = display_window(measured, np.where(np.isfinite(measured), entry.cut_zero_filled, np.nan))
    found = [("measured", measured), ("brought back", entry.brought_back), ("zero-filled", entry.cut_zero_filled)]
    pictures: list[Picture] = []
    for label, values in found:
        shown = np.where(np.isfinite(measured), values, np.nan)
        pictures.append((label, still(shown, own_z, view.lr_affine, window, "viridis"), window, "viridis"))
    differences = [(f"error, {label}", values - measured) for label, values in found[1:]]
    errors = np.concatenate([np.abs(values[np.isfinite(values)]) for _, values in differences])
    high = float(np.percentile(errors, 99)) if errors.size and errors.any() else 1.0
    pictures += [
        (label, still(values, own_z, view.lr_affine, (-high, high), "difference"), (-high, high), "difference")
        for label, values in differences
    ]
    return pictures


def _trusted(view: ResultView, entry: MapView) -> NDArray[np.bool_]:
    """Measured voxels that the result has a value in: the others were not trusted and are not judged."""
    assert entry.measured is not None
    x, y, z = entry.measured.shape
    steps = [fine // coarse for fine, coarse in zip(view.shape, entry.measured.shape, strict=True)]
    blocks = np.isfinite(entry.mean).reshape(x, steps[0], y, steps[1], z, steps[2])
    return np.asarray(blocks.any(axis=(1, 3, 5)))


def missing_colour() -> str:
    """The colour of voxels without a value, for a legend."""
    return "#" + bytes(MISSING_RGB).hex()
