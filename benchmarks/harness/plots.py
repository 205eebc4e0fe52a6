"""Plots of recorded benchmarks: speed-up by operation, latency by engine, quality against latency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.readme import ENGINES, OPERATIONS
from harness.records import QUALITY, History
from mrsi_fast.report.figures import save_png

_OURS, _THEIRS = "#1f77b4", "#9a9a9a"


def draw(history: History, folder: Path) -> list[Path]:
    """Draws every plot that the rows allow.

    Args:
        history: Of one machine.
        folder: Where the PNG files go: speed_engines, speed_operations, quality_latency.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "speed_engines": engines(history),
        "speed_operations": operations(history),
        QUALITY: quality_latency(history),
    }
    return [save_png(figure, folder / f"{name}.png") for name, figure in figures.items() if figure is not None]


def engines(history: History) -> Figure | None:
    """Latency of one network evaluation by engine, a panel for each number of threads."""
    panels = {}
    for threads in sorted({contest.threads for contest in history.contests.values()}):
        names = {label: f"bench_unet[{label}-t{threads}]" for label in ENGINES}
        found = {label: name for label, name in names.items() if name in history.rows}
        if found:
            panels[threads] = found
    if not panels:
        return None
    figure = _figure(len(panels), 0.3 * max(map(len, panels.values())) + 1.2)
    for axes, (threads, found) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        values = [1e3 * history.seconds(name) for name in found.values()]
        _bars(axes, list(found), values, ["native" in label or "fused" in label for label in found], "{:.0f}")
        axes.set_xlabel("ms for 8 slices of 8 maps, 64x64")
        axes.set_title(f"{threads} thread{'s' * (threads > 1)}", fontsize=10)
    figure.suptitle(history.machine_name, fontsize=9)
    return figure


def operations(history: History) -> Figure | None:
    """How many times faster each operation is than its peer, with the interval."""
    rows = []
    for beginning, words in OPERATIONS.items():
        for threads in sorted({contest.threads for contest in history.contests.values()}):
            name = f"{beginning}-t{threads}]"
            ratio = history.faster(name) if name in history.rows else None
            if ratio is not None:
                rows.append((f"{words}; {threads} thread{'s' * (threads > 1)}", ratio))
    if not rows:
        return None
    figure = _figure(1, 0.24 * len(rows) + 1.0)
    axes = figure.subplots()
    _bars(axes, [label for label, _ in rows], [ratio.median for _, ratio in rows], [True] * len(rows), None)
    for place, (_, ratio) in enumerate(rows):
        axes.plot([ratio.low, ratio.high], [place, place], color="black", linewidth=1.5)
        axes.annotate(
            f"{ratio.median:.2f}", (ratio.high, place), xytext=(5, -3), textcoords="offset points", fontsize=8
        )
    axes.axvline(1.0, color="black", linewidth=0.8, linestyle=":")
    axes.set_xlabel("times faster than the peer (PyTorch, or oneDNN for a convolution alone)")
    axes.set_title(history.machine_name, fontsize=9)
    return figure


def quality_latency(history: History) -> Figure | None:
    """What each operating point reaches on the validation heads against its latency for one volume."""
    data = history.figures.get(QUALITY)
    points = [point for point in data["points"] if point["row"] in history.rows] if data else []
    if not data or not points:
        return None
    figure = _figure(2, 4.2)
    panels = figure.subplots(1, 2)
    for axes, metric in zip(panels, ("lpips", "psnr"), strict=True):
        _against_latency(axes, history, points, metric)
        axes.axhline(data["zero_fill"][metric], color=_THEIRS, linestyle=":", label="zero-filling")
    panels[0].set_ylabel("LPIPS (lower is better)")
    panels[1].set_ylabel("PSNR (dB)")
    figure.suptitle(f"{history.machine_name}; {data['title']}", fontsize=9)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", fontsize=8, frameon=False)
    return figure


def _against_latency(axes: Axes, history: History, points: list[dict[str, Any]], metric: str) -> None:
    ours = [point for point in points if not point["seed_style"]]
    places = [(history.seconds(point["row"]), point[metric]) for point in ours]
    for point, place in zip(ours, places, strict=True):
        axes.annotate(point["label"], place, xytext=(0, 6), textcoords="offset points", fontsize=8, ha="center")
    if ours:
        words = "mrsi_fast, native engine: number of steps (1: the mean, no sample)"
        axes.plot(*zip(*places, strict=True), "o-", color=_OURS, linewidth=0.8, label=words)
    for point in points:
        if point["seed_style"]:
            axes.plot(history.seconds(point["row"]), point[metric], "s", color="#d62728", label=point["label"])
    axes.set_xscale("log")
    axes.set_xlabel("seconds for one sample of a volume")
    axes.margins(x=0.1, y=0.14)


def _figure(columns: int, height: float) -> Figure:
    figure = Figure(figsize=(9.0 if columns > 1 else 8.0, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _bars(axes: Axes, labels: list[str], values: list[float], ours: list[bool], form: str | None) -> None:
    bars = axes.barh(range(len(labels)), values, color=[_OURS if one else _THEIRS for one in ours], height=0.7)
    if form is not None:
        axes.bar_label(bars, [form.format(value) for value in values], padding=3, fontsize=8)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
