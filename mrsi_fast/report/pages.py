"""The pictures that belong to one result: an overview of all maps and one page a map with its slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mrsi_fast.report.figures import MapPanels, map_figure, save_png
from mrsi_fast.report.summary import figure_notes
from mrsi_fast.result import Result

MOST_SLICES = 8
"""Most slices on one page; of more, evenly spaced ones are shown."""


def panels_of(result: Result) -> list[MapPanels]:
    """The stages of every map of a result."""
    return [
        MapPanels(
            name=name,
            unit=result.units,
            lr=result.lr[index],
            zero_fill=result.zero_fill[index],
            mean=result.mean[index],
            std=result.std[index] if np.isfinite(result.std[index]).any() else None,
            lr_affine=result.lr_affine,
            affine=result.affine,
        )
        for index, name in enumerate(result.names)
    ]


def slices_to_show(panels: list[MapPanels]) -> list[int]:
    """Slices in which any map has a value, thinned evenly to :data:`MOST_SLICES`; all of them if none has."""
    valid = np.logical_or.reduce([np.isfinite(one.mean).any(axis=(0, 1)) for one in panels])
    chosen = np.flatnonzero(valid) if valid.any() else np.arange(valid.size)
    if chosen.size > MOST_SLICES:
        chosen = chosen[np.linspace(0, chosen.size - 1, MOST_SLICES).round().astype(int)]
    return [int(z) for z in chosen]


def write_pages(result: Result, folder: Path, title: str, prefix: str = "") -> list[Path]:
    """Writes the overview (first; only if there are several maps) and one page a map as PNG.

    Args:
        result: What the resolver returned.
        folder: Existing folder.
        title: What to call the input.
        prefix: Leading entities of the file names, as for ``Result.save``.

    Returns:
        The files written.
    """
    panels = panels_of(result)
    shown = slices_to_show(panels)
    factors = "x".join(str(factor) for factor in dict.fromkeys(result.provenance["factors"][:2]))
    heading = f"{title}, super-resolved x{factors}"
    written = []
    if len(panels) > 1:
        written.append(_overview(result, panels, shown, folder / f"{prefix}{result.stem('sr')}.png", heading))
    for one in panels:
        notes = figure_notes(result.provenance, one.name)
        figure = map_figure([(one, z) for z in shown], f"{one.name}: {heading}", notes, with_name=False)
        written.append(save_png(figure, folder / f"{prefix}{result.stem('sr', one.name)}.png"))
    return written


def _overview(result: Result, panels: list[MapPanels], shown: list[int], path: Path, heading: str) -> Path:
    """One row a map, in the slice with most values."""
    middle = max(shown, key=lambda z: sum(int(np.isfinite(one.mean[:, :, z]).sum()) for one in panels))
    return save_png(map_figure([(one, middle) for one in panels], heading, figure_notes(result.provenance)), path)
