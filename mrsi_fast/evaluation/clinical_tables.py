"""Tables of clinical interest: tissue levels, lesions, hotspots, detection, calibration, memorised anatomy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from mrsi_fast.evaluation import statistics
from mrsi_fast.evaluation.lesion import false_at_recall, recall_by_diameter, threshold_at_rate
from mrsi_fast.evaluation.rows import Row, by_factor, detections, mean_over_heads, methods, of_method
from mrsi_fast.evaluation.tissue import bland_altman, relative_bias_percent

FALSE_PER_SLICE = 0.1
DIAMETERS_MM: tuple[float, ...] = (4.0, 10.0, 15.0, 20.0, 30.0)


def tissue_bias(rows: Sequence[Row], label: str) -> dict[str, float]:
    """Mean bias of a tissue's or tumour part's level in percent, per map, over heads."""
    result: dict[str, float] = {}
    for name in dict.fromkeys(row["metabolite"] for row in rows if row["metric"] == label):
        values = [
            (row["head"], relative_bias_percent(row["value"], row["true"]))
            for row in rows
            if row["metric"] == label and row["metabolite"] == name and row["true"] > 0.3
        ]
        found = statistics.head_means(values)
        if found:
            result[name] = float(np.mean(list(found.values())))
    return result


def _bias(label: str) -> Callable[[Sequence[Row]], str]:
    return lambda own: " ".join(f"{name} {value:+.1f}" for name, value in tissue_bias(own, label).items())


def _agreement(label: str) -> Callable[[Sequence[Row]], str]:
    def cell(own: Sequence[Row]) -> str:
        texts = []
        for name in dict.fromkeys(row["metabolite"] for row in own if row["metric"] == label):
            chosen = [row for row in own if row["metric"] == label and row["metabolite"] == name]
            found = statistics.head_means([(row["head"], row["value"]) for row in chosen])
            true = statistics.head_means([(row["head"], row["true"]) for row in chosen])
            both = sorted(set(found) & set(true))
            result = bland_altman([found[h] for h in both], [true[h] for h in both])
            if result.count and any(true[h] > 0.3 for h in both):
                limits = f" [{result.lower:+.2f}, {result.upper:+.2f}]" if math.isfinite(result.lower) else ""
                texts.append(f"{name} {result.bias:+.2f}{limits}")
        return "; ".join(texts)

    return cell


def tissue_table(rows: Sequence[Row]) -> str:
    """Levels of white and grey matter, on the fine grid and at the measured resolution."""
    title = "### Tissue levels on the fine grid: bias in percent, Bland-Altman bias [95 % limits] in mM"
    fine = by_factor(
        rows,
        title,
        [
            ("WM %", _bias("level_WM"), "{}"),
            ("GM %", _bias("level_GM"), "{}"),
            ("WM Bland-Altman", _agreement("level_WM"), "{}"),
            ("GM Bland-Altman", _agreement("level_GM"), "{}"),
        ],
    )
    measured = by_factor(
        rows,
        "### Tissue levels at the measured resolution (maps and tissue shares in the measured band): bias in percent",
        [("WM %", _bias("band_level_WM"), "{}"), ("GM %", _bias("band_level_GM"), "{}")],
    )
    return "\n\n".join(part for part in (fine, measured) if part)


def tumour_table(rows: Sequence[Row]) -> str:
    """Bias of tumour parts and contrast recovery by diameter."""

    def recovery(low: float, high: float) -> Callable[[Sequence[Row]], str]:
        def cell(own: Sequence[Row]) -> str:
            values = [
                row["value"]
                for row in own
                if row["metric"] == "recovery"
                and row["metabolite"] == "tCho"
                and low <= row["diameter_mm"] < high
                and math.isfinite(row["value"])
            ]
            return f"{np.mean(values):.2f} ({len(values)})" if values else ""

        return cell

    bins = list(zip(DIAMETERS_MM, [*DIAMETERS_MM[1:], math.inf], strict=True))
    columns: list[Any] = [
        ("core %", _bias("mean_core"), "{}"),
        ("rim %", _bias("mean_rim"), "{}"),
        ("NAWM %", _bias("mean_NAWM"), "{}"),
        ("CNR ratio tCho", partial(mean_over_heads, metric="cnr_ratio", metabolite="tCho"), "{:.2f}"),
    ]
    columns += [(f"recovery tCho {_range(low, high)}", recovery(low, high), "{}") for low, high in bins]
    return by_factor(rows, "### Lesions: bias in percent per map, contrast recovery by diameter (lesions)", columns)


def hotspot_table(rows: Sequence[Row]) -> str:
    """How well the tCho/tNAA hotspot is met."""
    return by_factor(
        rows,
        "### tCho/tNAA hotspot (above twice NAWM)",
        [
            ("Dice", partial(mean_over_heads, metric="hotspot_dice"), "{:.3f}"),
            ("Dice at 0.2 % false voxels", partial(mean_over_heads, metric="hotspot_dice_equal_false"), "{:.3f}"),
            ("HD95 mm", partial(mean_over_heads, metric="hotspot_hd95_mm"), "{:.1f}"),
            ("volume error %", partial(mean_over_heads, metric="hotspot_volume_error_percent"), "{:+.0f}"),
        ],
    )


def detection_table(rows: Sequence[Row]) -> str:
    """Lesions found at a fixed rate of false ones."""

    def recall(low: float) -> Callable[[Sequence[Row]], str]:
        def cell(own: Sequence[Row]) -> str:
            found = {r[0]: r for r in recall_by_diameter(detections(own), FALSE_PER_SLICE, DIAMETERS_MM)}[low]
            return f"{found[2]} of {found[3]}" if found[3] else ""

        return cell

    bins = list(zip(DIAMETERS_MM, [*DIAMETERS_MM[1:], math.inf], strict=True))
    columns: list[Any] = [("threshold", lambda own: threshold_at_rate(detections(own), FALSE_PER_SLICE), "{:.2f}")]
    columns += [(_range(low, high), recall(low), "{}") for low, high in bins]
    columns.append(("false per slice at recall 0.8", lambda own: false_at_recall(detections(own), 0.8), "{:.2f}"))
    if not any(row["metric"] == "detection_peak" for row in rows):
        return ""
    searched = sum(d.slices for d in detections(of_method(rows, methods(rows)[0])))
    return by_factor(
        rows,
        f"### Lesions found by diameter at {FALSE_PER_SLICE} false lesions per slice "
        f"({searched} slices searched, all factors)",
        columns,
    )


def calibration_table(rows: Sequence[Row]) -> str:
    """Coverage of the intervals from samples."""
    columns: list[Any] = [
        (f"{label} coverage", partial(mean_over_heads, metric=f"coverage_{label}"), "{:.3f}")
        for label in ("brain", "GM", "WM", "CSF")
    ]
    columns += [
        ("spread / error", partial(mean_over_heads, metric="spread_over_error"), "{:.2f}"),
        ("CRPS tNAA, mM", partial(mean_over_heads, metric="crps", metabolite="tNAA"), "{:.3f}"),
    ]
    return by_factor(
        [row for row in rows if row["metric"].startswith(("coverage", "crps", "spread"))],
        "### Calibration: share of voxels inside the 90 % interval (0.90 is right)",
        columns,
    )


def nearest_table(rows: Sequence[Row]) -> str:
    """Whether samples repeat train heads."""
    columns: list[Any] = [
        (name, partial(mean_over_heads, metric=f"nearest_train_{name}"), "{:.3f}")
        for name in ("sample", "truth", "control")
    ]
    return by_factor(
        [row for row in rows if row["metric"].startswith("nearest")],
        "### Nearest train neighbour of unseen detail: correlation (memorised gyri would bring the "
        "sample above the truth, towards the control)",
        columns,
    )


def _range(low: float, high: float) -> str:
    return f"{low:g}-{high:g} mm" if math.isfinite(high) else f"over {low:g} mm"
