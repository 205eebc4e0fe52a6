"""From rows to what people read: CSV of every number, JSON with facts and statistics, Markdown tables.

No table mixes conventions, presets, grids, data consistency or operating points; published numbers stand apart.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mrsi_fast.evaluation import statistics
from mrsi_fast.evaluation.lesion import Detection, false_at_recall, recall_by_diameter, threshold_at_rate
from mrsi_fast.evaluation.metrics import CONVENTIONS
from mrsi_fast.evaluation.tissue import bland_altman, relative_bias_percent
from mrsi_fast.files import write_text

if TYPE_CHECKING:
    from mrsi_fast.evaluation.run import Evaluation

Row = dict[str, Any]

COLUMNS = (
    "preset",
    "split",
    "head",
    "subject",
    "N",
    "voxel_mm",
    "factor",
    "consistency",
    "convention",
    "method",
    "operating_point",
    "steps",
    "samples",
    "metabolite",
    "metric",
    "value",
    "true",
    "diameter_mm",
    "slices",
)

PUBLISHED = """## Published, other data, conventions unknown

Alsubaie et al. 2025, 10.1007/s10278-025-01652-x, on simulated patients that are not public. It is not comparable with
any table above.

| method | SSIM x2 | PSNR x2 | LPIPS x2 | SSIM x4 | PSNR x4 | LPIPS x4 | SSIM x8 | PSNR x8 | LPIPS x8 |
|---|---|---|---|---|---|---|---|---|---|
| Self-Attention UNet diffusion | 0.956 | 29.73 | 0.025 | 0.939 | 27.84 | 0.036 | 0.893 | 26.39 | 0.045 |
"""

FALSE_PER_SLICE = 0.1
DIAMETERS_MM: tuple[float, ...] = (4.0, 10.0, 15.0, 20.0, 30.0)
APART = "2HG"
"""Scored apart: nearly empty maps lift every mean."""

_IMAGE = (("ssim", "SSIM", "{:.3f}", True), ("psnr", "PSNR", "{:.2f}", True), ("lpips", "LPIPS", "{:.3f}", False))
_GROUP = ("preset", "split", "N", "voxel_mm", "consistency")


def write_results(evaluation: Evaluation) -> None:
    """Writes ``results.csv``, ``results.json`` and ``results.md`` into the evaluation's folder."""
    rows, folder = evaluation.rows, evaluation.folder
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "results.csv", stream.getvalue())
    write_text(folder / "results.json", json.dumps(_plain({"facts": evaluation.facts, "rows": rows}), indent=0) + "\n")
    write_text(folder / "results.md", markdown(evaluation))


def markdown(evaluation: Evaluation) -> str:
    """All tables of an evaluation as one Markdown text."""
    parts = [_introduction(evaluation)]
    for group, rows in _grouped(evaluation.rows, _GROUP):
        facts = dict(zip(_GROUP, group, strict=True))
        title = (
            f"{facts['preset']}, {facts['split']} heads, N = {facts['N']} ({facts['voxel_mm']:.2f} mm voxels), "
            f"data consistency {facts['consistency']}"
        )
        parts.append(f"## {title}")
        for convention in CONVENTIONS:
            parts += [_image_table(rows, convention, apart) for apart in (False, True)]
        parts += [
            _comparisons(rows),
            _consistency_table(rows),
            _tissue_table(rows),
            _tumour_table(rows),
            _hotspot_table(rows),
            _detection_table(rows),
            _calibration_table(rows),
            _nearest_table(rows),
        ]
    return "\n\n".join(part for part in [*parts, PUBLISHED] if part) + "\n"


def head_values(rows: Iterable[Row], metric: str, convention: str, apart: bool = False) -> dict[str, float]:
    """Mean per head of one metric, over subjects and maps (2HG alone, or all but it)."""
    return statistics.head_means(
        [
            (row["head"], row["value"])
            for row in rows
            if row["metric"] == metric and row["convention"] == convention and (row["metabolite"] == APART) == apart
        ]
    )


def methods(rows: Iterable[Row]) -> list[tuple[str, str, int]]:
    """Methods with operating point and steps, in order of appearance."""
    return list(dict.fromkeys((row["method"], row["operating_point"], row["steps"]) for row in rows))


def of_method(rows: Iterable[Row], key: tuple[str, str, int]) -> list[Row]:
    """Rows of one method at one operating point."""
    return [row for row in rows if (row["method"], row["operating_point"], row["steps"]) == key]


def method_label(key: tuple[str, str, int]) -> str:
    """A method, its operating point and steps, as tables name them."""
    name, point, steps = key
    if point == "one-step mean":
        return f"{name}, one-step mean (= the Self-Attention UNet as a regressor)"
    return name if point == "point estimate" else f"{name}, {point}" + (f", {steps} steps" if steps else "")


def detections(rows: Iterable[Row]) -> list[Detection]:
    """Detection records of rows of one method and factor."""
    return [
        Detection(row["diameter_mm"], row["value"], tuple(row["false"]), row["slices"])
        for row in rows
        if row["metric"] == "detection_peak"
    ]


def _introduction(evaluation: Evaluation) -> str:
    settings, heads = evaluation.facts["settings"], sorted({row["head"] for row in evaluation.rows})
    model = evaluation.facts.get("model")
    lines = [
        "# Evaluation",
        "",
        f"Model: {model['name']} (sha256 {model['sha256'][:12]})." if model else "Baselines alone, no model.",
    ]
    if "test" in {row["split"] for row in evaluation.rows}:
        lines.append("**These are the TEST heads.** They are for one final report, not for choosing anything.")
    lines += [
        f"Unit of every statistic: the head, n = {len(heads)} ({', '.join(heads)}); {settings['subjects']} simulated "
        f"subject(s) per head, seed {settings['seed']}. Every method got the same data-consistency option.",
        "Means are over slices, then maps, then heads. 2HG is scored apart.",
        "The Self-Attention UNet trained as a regressor with the same size, data and budget is ours at one step: from "
        "a state of 0 at sigma_max the denoiser returns the posterior mean under the training prior.",
        *(convention.describe() for convention in CONVENTIONS.values()),
        "LPIPS: AlexNet v0.1, both maps on the truth's scale."
        if evaluation.facts["lpips"] is None
        else f"LPIPS: not available ({evaluation.facts['lpips']}).",
    ]
    return "\n".join([lines[0], "", *(f"- {line}" for line in lines[2:])])


def _image_table(rows: Sequence[Row], convention: str, apart: bool) -> str:
    factors = _factors(rows)
    metrics = [m for m in _IMAGE if any(row["metric"] == m[0] for row in rows)]
    lines = []
    for key in methods(rows):
        own = of_method(rows, key)
        cells = [
            _mean_cell(head_values([r for r in own if r["factor"] == f], m[0], convention, apart), m[2])
            for f in factors
            for m in metrics
        ]
        if any(cells):
            lines.append([method_label(key), *cells])
    heads = ["method", *(f"{m[1]} x{f}" for f in factors for m in metrics)]
    what = "2HG alone" if apart else "maps without 2HG"
    return _table(f"### {convention}, {what}", heads, lines)


def _comparisons(rows: Sequence[Row]) -> str:
    """Ours against every baseline: PSNR and SSIM by the means, LPIPS by the samples, head by head."""
    lines, refusals = [], set()
    ours = [key for key in methods(rows) if key[0].startswith("mrsi_fast")]
    others = [key for key in methods(rows) if not key[0].startswith("mrsi_fast")]
    for factor in _factors(rows):
        part = [row for row in rows if row["factor"] == factor]
        for key in ours:
            for metric, name, _, larger in _IMAGE:
                own = head_values(of_method(part, key), metric, "brain")
                if not own or (metric == "lpips") != (key[1] == "sample"):
                    continue
                values = {method_label(o): head_values(of_method(part, o), metric, "brain") for o in others}
                found = statistics.compare(own, {o: v for o, v in values.items() if v}, larger)
                refusals |= {comparison.refusal for comparison in found.values() if comparison.refusal}
                lines.append(
                    [
                        f"x{factor}",
                        method_label(key),
                        name,
                        *(found[o].sentence() if o in found else "" for o in values),
                    ]
                )
    table = _table(
        "### Ours minus each baseline (brain, maps without 2HG): heads on which ours is better, mean "
        "difference and its 95 % bootstrap interval by head, exact Wilcoxon p after Holm",
        ["factor", "ours", "metric", *(method_label(key) for key in others)],
        lines,
    )
    return table + "".join(f"\n\nNo p is given: {reason}." for reason in sorted(refusals)) if table else ""


def _consistency_table(rows: Sequence[Row]) -> str:
    return _by_factor(
        rows,
        "### Residual against the measured maps",
        [
            ("relative", lambda own: _metric(own, "residual_relative"), "{:.2e}"),
            ("over noise", lambda own: _metric(own, "residual_over_noise"), "{:.2f}"),
        ],
    )


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


def _tissue_table(rows: Sequence[Row]) -> str:
    title = "### Tissue levels on the fine grid: bias in percent, Bland-Altman bias [95 % limits] in mM"
    fine = _by_factor(
        rows,
        title,
        [
            ("WM %", _bias("level_WM"), "{}"),
            ("GM %", _bias("level_GM"), "{}"),
            ("WM Bland-Altman", _agreement("level_WM"), "{}"),
            ("GM Bland-Altman", _agreement("level_GM"), "{}"),
        ],
    )
    measured = _by_factor(
        rows,
        "### Tissue levels at the measured resolution (maps and tissue shares in the measured band): bias in percent",
        [("WM %", _bias("band_level_WM"), "{}"), ("GM %", _bias("band_level_GM"), "{}")],
    )
    return "\n\n".join(part for part in (fine, measured) if part)


def _tumour_table(rows: Sequence[Row]) -> str:
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
        ("CNR ratio tCho", lambda own: _metric(own, "cnr_ratio", "tCho"), "{:.2f}"),
    ]
    columns += [(f"recovery tCho {_range(low, high)}", recovery(low, high), "{}") for low, high in bins]
    return _by_factor(rows, "### Lesions: bias in percent per map, contrast recovery by diameter (lesions)", columns)


def _hotspot_table(rows: Sequence[Row]) -> str:
    return _by_factor(
        rows,
        "### tCho/tNAA hotspot (above twice NAWM)",
        [
            ("Dice", lambda own: _metric(own, "hotspot_dice"), "{:.3f}"),
            ("Dice at 0.2 % false voxels", lambda own: _metric(own, "hotspot_dice_equal_false"), "{:.3f}"),
            ("HD95 mm", lambda own: _metric(own, "hotspot_hd95_mm"), "{:.1f}"),
            ("volume error %", lambda own: _metric(own, "hotspot_volume_error_percent"), "{:+.0f}"),
        ],
    )


def _detection_table(rows: Sequence[Row]) -> str:
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
    return _by_factor(
        rows,
        f"### Lesions found by diameter at {FALSE_PER_SLICE} false lesions per slice "
        f"({searched} slices searched, all factors)",
        columns,
    )


def _calibration_table(rows: Sequence[Row]) -> str:
    columns: list[Any] = [
        (f"{label} coverage", lambda own, m=f"coverage_{label}": _metric(own, m), "{:.3f}")
        for label in ("brain", "GM", "WM", "CSF")
    ]
    columns += [
        ("spread / error", lambda own: _metric(own, "spread_over_error"), "{:.2f}"),
        ("CRPS tNAA, mM", lambda own: _metric(own, "crps", "tNAA"), "{:.3f}"),
    ]
    return _by_factor(
        [row for row in rows if row["metric"].startswith(("coverage", "crps", "spread"))],
        "### Calibration: share of voxels inside the 90 % interval (0.90 is right)",
        columns,
    )


def _nearest_table(rows: Sequence[Row]) -> str:
    columns: list[Any] = [
        (name, lambda own, m=f"nearest_train_{name}": _metric(own, m), "{:.3f}")
        for name in ("sample", "truth", "control")
    ]
    return _by_factor(
        [row for row in rows if row["metric"].startswith("nearest")],
        "### Nearest train neighbour of unseen detail: correlation (memorised gyri would bring the "
        "sample above the truth, towards the control)",
        columns,
    )


def _by_factor(rows: Sequence[Row], title: str, columns: Sequence[tuple[str, Callable[..., Any], str]]) -> str:
    lines = []
    for factor in _factors(rows):
        part = [row for row in rows if row["factor"] == factor]
        for key in methods(part):
            own = of_method(part, key)
            cells = [_format(function(own), form) for _, function, form in columns]
            if any(cells):
                lines.append([f"x{factor}", method_label(key), *cells])
    return _table(title, ["factor", "method", *(name for name, _, _ in columns)], lines)


def _metric(rows: Sequence[Row], metric: str, metabolite: str | None = None) -> float:
    """Mean over heads of one metric, 2HG left out unless asked for."""
    chosen = [
        (r["head"], r["value"])
        for r in rows
        if r["metric"] == metric and (r["metabolite"] == metabolite if metabolite else r["metabolite"] != APART)
    ]
    found = statistics.head_means(chosen)
    return float(np.mean(list(found.values()))) if found else math.nan


def _factors(rows: Iterable[Row]) -> list[Any]:
    return list(dict.fromkeys(row["factor"] for row in rows))


def _grouped(rows: Iterable[Row], keys: Sequence[str]) -> list[tuple[tuple[Any, ...], list[Row]]]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return list(groups.items())


def _mean_cell(values: dict[str, float], form: str) -> str:
    return form.format(np.mean(list(values.values()))) if values else ""


def _format(value: Any, form: str) -> str:
    return "" if isinstance(value, float) and math.isnan(value) else form.format(value)


def _range(low: float, high: float) -> str:
    return f"{low:g}-{high:g} mm" if math.isfinite(high) else f"over {low:g} mm"


def _table(title: str, heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    if not lines:
        return ""
    used = [k for k in range(len(heads)) if any(line[k] for line in lines)]
    body = [[heads[k] for k in used], ["---"] * len(used), *([line[k] for k in used] for line in lines)]
    return "\n".join([title, "", *("| " + " | ".join(line) + " |" for line in body)])


def _plain(value: Any) -> Any:
    """Numbers that are not finite become null: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
