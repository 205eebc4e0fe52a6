"""Figures of an evaluation: scores against steps, spectra, calibration, recall, and maps beside their errors.

Drawn on matplotlib's Agg canvas, one PNG each; the same results give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mrsi_fast.evaluation.clinical_tables import DIAMETERS_MM, FALSE_PER_SLICE
from mrsi_fast.evaluation.lesion import recall_by_diameter
from mrsi_fast.evaluation.rows import Evaluation, Row, detections, head_values, method_label, methods, of_method
from mrsi_fast.evaluation.run import example
from mrsi_fast.report.figures import MISSING, save_png
from mrsi_fast.report.orientation import slice_view
from mrsi_fast.report.window import display_window

_EXAMPLE_METHODS = ("zero-fill", "TV", "ridge")

_COLOURS = {
    "zero-fill": "#7f7f7f",
    "bicubic": "#bcbd22",
    "lanczos": "#8c564b",
    "TV": "#2ca02c",
    "ridge": "#9467bd",
    "zero-fill + texture": "#e377c2",
    "mrsi_fast": "#1f77b4",
    "mrsi_fast + T1": "#d62728",
}
"""A method has one colour on every figure; the marker gives the operating point."""


def draw_figures(evaluation: Evaluation) -> list[Path]:
    """Draws every figure that the results allow into the evaluation's folder.

    Returns:
        The files, in the order of drawing.
    """
    files = []
    for factor in dict.fromkeys(row["factor"] for row in evaluation.rows):
        rows = [row for row in evaluation.rows if row["factor"] == factor]
        for name, figure in (
            ("perception", perception_distortion(rows)),
            ("spectrum", error_spectrum(rows)),
            ("calibration", calibration(rows)),
            ("recall", lesion_recall(rows)),
            ("recovery", recovery(rows)),
            ("maps", map_page(evaluation, rows)),
        ):
            if figure is not None:
                files.append(save_png(figure, evaluation.folder / f"{name}_x{factor}.png"))
    return files


def perception_distortion(rows: Sequence[Row]) -> Figure | None:
    """LPIPS against PSNR inside the brain, one point per method and operating point, ours joined over the steps."""
    points: dict[tuple[str, str, int], tuple[float, float]] = {}
    for key in methods(rows):
        own = of_method(rows, key)
        distortion, distance = head_values(own, "psnr", "brain"), head_values(own, "lpips", "brain")
        if distortion and distance:
            points[key] = float(np.mean(list(distortion.values()))), float(np.mean(list(distance.values())))
    if not points:
        return None
    figure, axes = _figure(6.4, 4.2)
    for key, (x, y) in points.items():
        axes.plot(x, y, _marker(key), color=_colour(key), markersize=6, label=_short(key))
    for method in {key[0] for key in points if key[0].startswith("mrsi_fast")}:
        for point in {key[1] for key in points if key[0] == method}:
            line = sorted((key[2], xy) for key, xy in points.items() if key[:2] == (method, point))
            axes.plot([xy[0] for _, xy in line], [xy[1] for _, xy in line], "-", color="0.6", linewidth=0.8, zorder=0)
    axes.set_xlabel("PSNR inside the brain, dB (higher is better)")
    axes.set_ylabel("LPIPS (lower is better)")
    axes.legend(fontsize=6.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _titled(figure, rows, "distortion and perception")


def error_spectrum(rows: Sequence[Row]) -> Figure | None:
    """Power of the error relative to the truth's, by spatial frequency, mean over maps and heads."""
    curves = {key: [row for row in of_method(rows, key) if row["metric"] == "spectrum"] for key in methods(rows)}
    if not any(curves.values()):
        return None
    figure, axes = _figure(7.0, 4.0)
    for key, own in ((k, v) for k, v in curves.items() if v):
        frequency = np.array(own[0]["frequency"], float)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.mean([np.array(r["error"], float) / np.array(r["truth"], float) for r in own], axis=0)
        axes.plot(frequency, ratio, _line(key), color=_colour(key), label=_short(key), linewidth=1.2)
    axes.axhline(1.0, color="0.7", linewidth=0.8)
    axes.set_ylim(0, 2.6)
    axes.set_xlabel("spatial frequency, cycles/mm")
    axes.set_ylabel("power of the error / power of the truth")
    axes.legend(fontsize=6.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _titled(figure, rows, "error by spatial frequency (2: independent sample, 1: empty estimate)")


def calibration(rows: Sequence[Row]) -> Figure | None:
    """Share of voxels inside the 90 % interval, by tissue, one dot per map and head."""
    labels = ["brain", "GM", "WM", "CSF"]
    keys = [key for key in methods(rows) if any(r["metric"] == "coverage_brain" for r in of_method(rows, key))]
    if not keys:
        return None
    figure, axes = _figure(5.6, 3.6)
    for number, key in enumerate(keys):
        for place, label in enumerate(labels):
            values = [row["value"] for row in of_method(rows, key) if row["metric"] == f"coverage_{label}"]
            shift = place + 0.18 * (number - (len(keys) - 1) / 2)
            axes.plot(
                [shift] * len(values),
                values,
                _marker(key),
                color=_colour(key),
                alpha=0.6,
                markersize=4,
                label=_short(key) if place == 0 else None,
            )
    axes.axhspan(0.85, 0.95, color="0.9")
    axes.axhline(0.9, color="0.5", linewidth=0.8)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_ylim(0, 1)
    axes.set_ylabel("voxels inside the 90 % interval")
    axes.legend(fontsize=7, frameon=False)
    return _titled(figure, rows, "calibration")


def lesion_recall(rows: Sequence[Row]) -> Figure | None:
    """Lesions found at the stated rate of false ones, by diameter."""
    curves = {
        key: recall_by_diameter(detections(of_method(rows, key)), FALSE_PER_SLICE, DIAMETERS_MM)
        for key in methods(rows)
    }
    if not any(count for curve in curves.values() for *_, count in curve):
        return None
    figure, axes = _figure(5.6, 3.6)
    for number, (key, curve) in enumerate(curves.items()):
        used = [(place, found / count) for place, (_, _, found, count) in enumerate(curve) if count]
        axes.plot(
            [x + 0.03 * number for x, _ in used],
            [y for _, y in used],
            _marker(key) + _line(key),
            color=_colour(key),
            label=_short(key),
            linewidth=1,
            markersize=4,
        )
    counts = [count for *_, count in next(iter(curves.values()))]
    names = [
        f"{low:g}-{high:g}" if math.isfinite(high) else f">{low:g}" for low, high, *_ in next(iter(curves.values()))
    ]
    axes.set_xticks(range(len(names)), [f"{n}\n(n = {c})" for n, c in zip(names, counts, strict=True)])
    axes.set_xlabel("diameter of the lesion, mm")
    axes.set_ylabel(f"found at {FALSE_PER_SLICE} false lesions per slice")
    axes.set_ylim(-0.05, 1.05)
    axes.legend(fontsize=6.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _titled(figure, rows, "lesion recall")


def recovery(rows: Sequence[Row]) -> Figure | None:
    """Contrast recovery of tCho against the diameter of the lesion, one dot per lesion."""
    chosen = [
        row
        for row in rows
        if row["metric"] == "recovery" and row["metabolite"] == "tCho" and math.isfinite(row["value"])
    ]
    if not chosen:
        return None
    figure, axes = _figure(5.6, 3.6)
    for key in methods(chosen):
        own = of_method(chosen, key)
        axes.plot(
            [row["diameter_mm"] for row in own],
            [row["value"] for row in own],
            _marker(key),
            color=_colour(key),
            label=_short(key),
            markersize=4,
            alpha=0.7,
        )
    axes.axhline(1.0, color="0.5", linewidth=0.8)
    axes.set_xlabel("diameter of the lesion, mm")
    axes.set_ylabel("contrast recovery of tCho (1 is right)")
    axes.legend(fontsize=6.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _titled(figure, rows, "contrast recovery")


def map_page(evaluation: Evaluation, rows: Sequence[Row]) -> Figure | None:
    """Truth, measured map, baselines and ours for tNAA, tCho and tCho/tNAA of the first subject, with errors below."""
    stored = example(evaluation, rows[0]["factor"])
    if stored is None:
        return None
    names, affine = list(stored["names"]), stored["affine"]
    view = slice_view(affine)
    columns = [name for name in stored["order"] if name in ("truth", *_EXAMPLE_METHODS) or name.startswith("mrsi_fast")]
    wanted = [name for name in ("tNAA", "tCho") if name in names]
    if not wanted:
        return None
    lines: list[tuple[str, dict[str, Any]]] = [
        (name, {c: stored[c][names.index(name)] for c in columns}) for name in wanted
    ]
    if len(wanted) == 2:
        lines.append(("tCho/tNAA", {c: _ratio(stored[c], names) for c in columns}))
    crop = _around(stored["brain"])
    brain = stored["brain"][crop]
    width, height = view.turn(brain).shape[::-1]
    figure = Figure(
        figsize=(1.6 * len(columns) + 1.0, 3.2 * len(lines) * height / width + 0.9),
        facecolor="white",
        layout="compressed",
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(2 * len(lines), len(columns), squeeze=False)
    for row, (name, images) in enumerate(lines):
        truth = images["truth"][crop]
        low, high = display_window(np.where(brain, truth, 0))
        unit = "" if "/" in name else str(stored["unit"])
        for column, key in enumerate(columns):
            image = images[key][crop]
            error = np.where(brain, image - truth, np.nan)
            shown = _panel(grid[2 * row][column], view.turn(image), "viridis", (low, high))
            wrong = _panel(grid[2 * row + 1][column], view.turn(error), "RdBu_r", (-high / 2, high / 2))
            if row == 0:
                grid[0][column].set_title(key.replace(" ", "\n", 1) if " " in key else key, fontsize=7)
        for line, mappable, label in ((2 * row, shown, name), (2 * row + 1, wrong, f"{name} error")):
            grid[line][0].set_ylabel(label, fontsize=8)
            bar = figure.colorbar(mappable, ax=list(grid[line]), pad=0.005, aspect=14)
            bar.set_label(unit, fontsize=7)
            bar.ax.tick_params(labelsize=6)
    return _titled(figure, rows, f"maps and errors, head {stored['head']}")


def _around(brain: np.ndarray, margin: int = 3) -> tuple[slice, slice]:
    """The bounding box of the brain with a margin in voxels; everything where the brain is empty."""
    box = []
    for axis in (1, 0):
        used = np.flatnonzero(brain.any(axis=axis))
        box.append(slice(max(used[0] - margin, 0), used[-1] + margin + 1) if len(used) else slice(None))
    return box[0], box[1]


def _ratio(maps: np.ndarray, names: Sequence[str]) -> np.ndarray:
    below = maps[names.index("tNAA")]
    floor = 0.3 * float(np.median(below[below > 0.3 * below.max()]))
    return maps[names.index("tCho")] / np.maximum(below, floor)


def _panel(axes: Any, image: np.ndarray, colours: str, window: tuple[float, float]) -> Any:
    cmap = mpl.colormaps[colours].with_extremes(bad=MISSING)
    shown = axes.imshow(
        np.ma.masked_invalid(image), cmap=cmap, vmin=window[0], vmax=window[1], origin="lower", interpolation="nearest"
    )
    axes.set_xticks([])
    axes.set_yticks([])
    return shown


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _titled(figure: Figure, rows: Iterable[Row], what: str) -> Figure:
    """Says on every figure what its numbers depend on."""
    first = next(iter(rows))
    figure.suptitle(
        f"{what}\n{first['preset']}, {first['split']} heads, N = {first['N']}, x{first['factor']}, data "
        f"consistency {first['consistency']}",
        fontsize=8,
    )
    return figure


def _colour(key: tuple[str, str, int]) -> str:
    return _COLOURS.get(key[0], "black")


def _marker(key: tuple[str, str, int]) -> str:
    return {"one-step mean": "o", "sample": "^", "point estimate": "s", "random draw": "v"}.get(key[1], "D")


def _line(key: tuple[str, str, int]) -> str:
    return {"one-step mean": "-", "sample": ":", "point estimate": "--", "random draw": ":"}.get(key[1], "-.")


def _short(key: tuple[str, str, int]) -> str:
    name, point, steps = key
    if point == "one-step mean":
        return f"{name}, one step"
    return name if point in ("point estimate", "random draw") else method_label(key)
