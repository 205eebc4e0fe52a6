"""From rows to what people read: CSV of every number, JSON with facts and statistics, Markdown tables.

No table mixes conventions, presets, grids, data consistency or operating points; published numbers
have tables of their own.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from mrsi_fast.evaluation import clinical_tables as clinical
from mrsi_fast.evaluation import statistics
from mrsi_fast.evaluation.metrics import CONVENTIONS
from mrsi_fast.evaluation.rows import (
    Evaluation,
    Row,
    by_factor,
    factors_of,
    grouped,
    head_values,
    markdown_table,
    mean_cell,
    mean_over_heads,
    method_label,
    methods,
    of_method,
)
from mrsi_fast.files import write_text

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
    write_text(folder / "results.json", json.dumps(plain({"facts": evaluation.facts, "rows": rows}), indent=0) + "\n")
    write_text(folder / "results.md", markdown(evaluation))


def markdown(evaluation: Evaluation) -> str:
    """All tables of an evaluation as one Markdown text."""
    parts = [_introduction(evaluation)]
    for group, rows in grouped(evaluation.rows, _GROUP):
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
            clinical.tissue_table(rows),
            clinical.tumour_table(rows),
            clinical.hotspot_table(rows),
            clinical.detection_table(rows),
            clinical.calibration_table(rows),
            clinical.nearest_table(rows),
        ]
    return "\n\n".join(part for part in [*parts, PUBLISHED] if part) + "\n"


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
    factors = factors_of(rows)
    metrics = [m for m in _IMAGE if any(row["metric"] == m[0] for row in rows)]
    lines = []
    for key in methods(rows):
        own = of_method(rows, key)
        cells = [
            mean_cell(head_values([r for r in own if r["factor"] == f], m[0], convention, apart), m[2])
            for f in factors
            for m in metrics
        ]
        if any(cells):
            lines.append([method_label(key), *cells])
    heads = ["method", *(f"{m[1]} x{f}" for f in factors for m in metrics)]
    what = "2HG alone" if apart else "maps without 2HG"
    return markdown_table(f"### {convention}, {what}", heads, lines)


def _comparisons(rows: Sequence[Row]) -> str:
    """Ours against every baseline: PSNR and SSIM by the means, LPIPS by the samples, head by head."""
    lines, refusals = [], set()
    ours = [key for key in methods(rows) if key[0].startswith("mrsi_fast")]
    others = [key for key in methods(rows) if not key[0].startswith("mrsi_fast")]
    for factor in factors_of(rows):
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
    table = markdown_table(
        "### Ours minus each baseline (brain, maps without 2HG): heads on which ours is better, mean "
        "difference and its 95 % bootstrap interval by head, exact Wilcoxon p after Holm",
        ["factor", "ours", "metric", *(method_label(key) for key in others)],
        lines,
    )
    return table + "".join(f"\n\nNo p is given: {reason}." for reason in sorted(refusals)) if table else ""


def _consistency_table(rows: Sequence[Row]) -> str:
    return by_factor(
        rows,
        "### Residual against the measured maps",
        [
            ("relative", partial(mean_over_heads, metric="residual_relative"), "{:.2e}"),
            ("over noise", partial(mean_over_heads, metric="residual_over_noise"), "{:.2f}"),
        ],
    )


def plain(value: Any) -> Any:
    """A value for JSON, which has no NaN: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
