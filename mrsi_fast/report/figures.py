"""Pictures of a result: measured, zero-filled, mean and standard deviation side by side on one window per map.

Drawn on matplotlib's Agg canvas directly (no pyplot, no display, no global state). Voxels without a value are grey.
"""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mrsi_fast.files import atomic_path
from mrsi_fast.mrsi.geometry import voxel_sizes_mm
from mrsi_fast.report.orientation import SliceView, slice_view
from mrsi_fast.report.window import display_window

MISSING = "0.62"
"""Grey level of voxels without a value."""

_PANEL_INCHES = 2.35
_LEFT_INCHES, _BAR_INCHES, _BAR_SPACE_INCHES, _GAP_INCHES = 0.55, 0.09, 0.72, 0.07
_CHARACTERS_PER_INCH = 17
_TITLE_INCHES, _HEAD_INCHES, _LINE_INCHES = 0.36, 0.24, 0.155


@dataclass(frozen=True)
class MapPanels:
    """One metabolite or ratio map in the stages that a figure shows.

    Attributes:
        name: Name of the map, e.g. ``tNAA`` or ``tCho/tNAA``.
        unit: Its unit, for the colour bar.
        lr: What was measured, [x, y, z].
        zero_fill: Plain interpolation of it, [X, Y, Z].
        mean: Super-resolved map, [X, Y, Z].
        std: Standard deviation over samples, [X, Y, Z], or None.
        lr_affine: Grid of ``lr``.
        affine: Grid of the others.
        truth: The true map where it is known (simulation), [X, Y, Z].
    """

    name: str
    unit: str
    lr: NDArray
    zero_fill: NDArray
    mean: NDArray
    std: NDArray | None
    lr_affine: NDArray
    affine: NDArray
    truth: NDArray | None = None


def map_figure(
    rows: Sequence[tuple[MapPanels, int]], title: str, notes: Sequence[str] = (), with_name: bool = True
) -> Figure:
    """Draws rows of measured, zero-filled and mean map and (if any row has them) truth and standard deviation.

    Args:
        rows: A map and a slice index for each row; rows of one map share their window.
        title: Heading.
        notes: Lines of small print below the panels.
        with_name: Label rows with map and slice; False labels them with the slice alone.

    Returns:
        The figure; write it with :func:`save_png`.

    Raises:
        ValueError: There is no row.
    """
    if not rows:
        raise ValueError("A figure needs at least one row: give a map and a slice index.")
    with_std = any(panels.std is not None for panels, _ in rows)
    layout = _Layout.of(rows, with_std, notes)
    figure = Figure(figsize=(layout.width, layout.height), facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(
        _LEFT_INCHES / layout.width, 1 - 0.2 / layout.height, _plain(title), fontsize=10.5, weight="bold", va="center"
    )
    for number, row in enumerate(rows):
        _draw_row(figure, layout, number, row, with_std, with_name)
    for number, line in enumerate(reversed(layout.lines)):
        y = (0.14 + number * _LINE_INCHES) / layout.height
        figure.text(_LEFT_INCHES / layout.width, y, _plain(line), fontsize=7, color="0.25", va="center")
    return figure


def save_png(figure: Figure, path: Path, dpi: int = 110) -> Path:
    """Writes a figure as PNG, whole or not at all; the same figure gives the same bytes."""
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name may have letters that no font here has
        figure.savefig(temporary, format="png", dpi=dpi, metadata={"Software": None})
    return path


@dataclass(frozen=True)
class _Layout:
    """Sizes in inches: every row is as high as the tallest slice needs; ``lines`` are the notes, wrapped."""

    width: float
    height: float
    panel_width: float
    panel_height: float
    lines: tuple[str, ...]

    @classmethod
    def of(cls, rows: Sequence[tuple[MapPanels, int]], with_std: bool, notes: Sequence[str]) -> _Layout:
        aspect = max(_aspect(panels) for panels, _ in rows)
        panel_height = _PANEL_INCHES * min(max(aspect, 0.4), 1.6)
        panels = 3 + with_std + any(panels.truth is not None for panels, _ in rows)
        bars = (2 if with_std else 1) * (_BAR_INCHES + _BAR_SPACE_INCHES)
        width = _LEFT_INCHES + panels * (_PANEL_INCHES + _GAP_INCHES) + bars + 0.1
        lines = tuple(line for note in notes for line in textwrap.wrap(note, int(width * _CHARACTERS_PER_INCH)))
        below = 0.12 + len(lines) * _LINE_INCHES
        height = _TITLE_INCHES + _HEAD_INCHES + len(rows) * (panel_height + _GAP_INCHES) + below
        return cls(width, height, _PANEL_INCHES, panel_height, lines)

    def axes(self, figure: Figure, left: float, row: int, width: float) -> Axes:
        top = self.height - _TITLE_INCHES - _HEAD_INCHES - row * (self.panel_height + _GAP_INCHES)
        box = (
            left / self.width,
            (top - self.panel_height) / self.height,
            width / self.width,
            self.panel_height / self.height,
        )
        return figure.add_axes(box)


def _draw_row(
    figure: Figure, layout: _Layout, number: int, row: tuple[MapPanels, int], with_std: bool, with_name: bool
) -> None:
    panels, z = row
    valid = panels.zero_fill[np.isfinite(panels.mean)]  # what is not trusted must not set the window
    values = _colours("viridis"), Normalize(*display_window(panels.mean, valid))
    unused = _unused(panels)
    stages = [
        (f"measured, {_voxel(panels.lr_affine)}", panels.lr, panels.lr_affine),
        ("zero-filled", panels.zero_fill, panels.affine),
        (f"super-resolved (mean), {_voxel(panels.affine)}", panels.mean, panels.affine),
    ]
    if panels.truth is not None:
        stages.append(("truth (simulation)", panels.truth, panels.affine))
    left = _LEFT_INCHES
    for column, (heading, volume, affine) in enumerate(stages):
        axes = layout.axes(figure, left, number, layout.panel_width)
        _draw_slice(axes, volume[:, :, z], affine, values)
        if volume is panels.lr:
            _cross_out(axes, unused[:, :, z], affine)
        if number == 0:
            axes.set_title(heading, fontsize=8, pad=4)
        if column == 0:
            label = f"{panels.name}, " * with_name + f"slice {z + 1} of {panels.mean.shape[2]}"
            axes.text(-0.06, 0.5, _plain(label), transform=axes.transAxes, fontsize=8.5, rotation=90, ha="center",
                      va="center")  # fmt: skip
        left += layout.panel_width + _GAP_INCHES
    _draw_bar(layout.axes(figure, left, number, _BAR_INCHES), values, panels.unit, "both")
    left += _BAR_INCHES + _BAR_SPACE_INCHES
    if not with_std or panels.std is None:
        return
    spread = _colours("magma"), Normalize(*display_window(panels.std))
    axes = layout.axes(figure, left, number, layout.panel_width)
    _draw_slice(axes, panels.std[:, :, z], panels.affine, spread)
    if number == 0:
        axes.set_title("standard deviation", fontsize=8, pad=4)
    bar = layout.axes(figure, left + layout.panel_width + _GAP_INCHES, number, _BAR_INCHES)
    _draw_bar(bar, spread, panels.unit, "max")


def _draw_slice(axes: Axes, values: NDArray, affine: NDArray, style: tuple[Colormap, Normalize]) -> None:
    view = slice_view(affine)
    dx, dy, _ = voxel_sizes_mm(affine)
    width, height = view.size_mm((values.shape[0], values.shape[1]), (dx, dy))
    image = np.ma.masked_invalid(view.turn(values))
    axes.imshow(
        image,
        cmap=style[0],
        norm=style[1],
        origin="lower",
        extent=(0, width, 0, height),
        interpolation="nearest",
        aspect="equal",
    )
    axes.set_axis_off()
    _mark_edges(axes, view)


def _unused(panels: MapPanels) -> NDArray[np.bool_]:
    """LR voxels [x, y, z] that hold a value which was not trusted: nothing came of them."""
    fx, fy = (fine // coarse for fine, coarse in zip(panels.mean.shape[:2], panels.lr.shape[:2], strict=True))
    return np.isfinite(panels.lr) & ~np.isfinite(panels.mean[fx // 2 :: fx, fy // 2 :: fy])


def _cross_out(axes: Axes, marked: NDArray[np.bool_], affine: NDArray) -> None:
    rows, columns = np.nonzero(slice_view(affine).turn(marked))
    count = slice_view(affine).turn(marked).shape
    left, right, bottom, top = axes.images[0].get_extent()
    x, y = left + (columns + 0.5) * (right - left) / count[1], bottom + (rows + 0.5) * (top - bottom) / count[0]
    axes.plot(x, y, "x", color="white", markersize=2.5, markeredgewidth=0.6, alpha=0.7)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def _mark_edges(axes: Axes, view: SliceView) -> None:
    places = ((0.03, 0.5), (0.97, 0.5), (0.5, 0.035), (0.5, 0.965))
    for letter, (x, y) in zip(view.edges, places, strict=True):
        mark = axes.text(x, y, letter, transform=axes.transAxes, fontsize=7, color="white", ha="center", va="center")
        mark.set_bbox({"facecolor": "black", "alpha": 0.45, "pad": 1.0, "linewidth": 0})


def _draw_bar(axes: Axes, style: tuple[Colormap, Normalize], unit: str, extend: str) -> None:
    bar = axes.figure.colorbar(ScalarMappable(norm=style[1], cmap=style[0]), cax=axes, extend=extend, extendfrac=0.03)
    bar.set_label(_plain(unit), fontsize=7.5, labelpad=3)
    bar.outline.set_visible(False)
    axes.tick_params(labelsize=6.5, length=2, pad=1.5)
    bar.locator = mpl.ticker.MaxNLocator(5)
    bar.update_ticks()


def _colours(name: str) -> Colormap:
    return mpl.colormaps[name].with_extremes(bad=MISSING)


def _voxel(affine: NDArray) -> str:
    return " x ".join(f"{mm:.3g}" for mm in voxel_sizes_mm(affine)) + " mm"


def _aspect(panels: MapPanels) -> float:
    dx, dy, _ = voxel_sizes_mm(panels.affine)
    width, height = slice_view(panels.affine).size_mm((panels.mean.shape[0], panels.mean.shape[1]), (dx, dy))
    return height / width if math.isfinite(height / width) else 1.0


def _plain(text: str) -> str:
    """Text as it is: a dollar sign in a file's name must not start a formula."""
    return text.replace("$", r"\$")
