"""The volumes of a page: every map and ratio in its stages, packed so that the page keeps below its size limit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.geometry import voxel_sizes_mm
from mrsi_fast.report.embed import PRECISIONS, Precision, pack
from mrsi_fast.report.plain_text import visible
from mrsi_fast.report.ratio_view import RatioView
from mrsi_fast.report.stills import Still, still
from mrsi_fast.report.view import MapView, ResultView
from mrsi_fast.report.window import display_window

PACKED_LIMIT = 3_600_000
"""Characters that packed maps may take: with the viewer and the anatomical image a page stays below 5 MB."""

Stage = tuple[str, NDArray[np.float32], NDArray[np.float64], str]
"""Key, values, affine, and the field of :class:`Precision` that fits it."""


def stages(view: ResultView, entry: MapView | RatioView) -> Iterator[Stage]:
    """What there is of a map or ratio, from the measured one to its uncertainty."""
    if isinstance(entry, MapView):
        known = [("measured", entry.measured, view.lr_affine, "map"), ("zerofilled", entry.zero_filled, None, "beside"),
                 ("mean", entry.mean, None, "map"), ("sd", entry.std, None, "spread")]  # fmt: skip
    else:
        maps = entry.maps
        sd = maps.sd if np.isfinite(maps.sd).any() else None
        enough = maps.samples > 1 or sd is not None
        known = [("measured", entry.measured, view.lr_affine, "map"), ("zerofilled", entry.zero_filled, None, "beside"),
                 ("mean", maps.median, None, "map"), ("sd", sd, None, "spread"),
                 ("probability", maps.probability if enough else None, None, "spread")]  # fmt: skip
    for key, values, affine, precision in known:
        if values is not None:
            yield key, values, view.affine if affine is None else affine, precision


def window_of(view: ResultView, entry: MapView | RatioView) -> tuple[float, float]:
    """Display window of a map or ratio: one for all its stages but the uncertainty."""
    if isinstance(entry, RatioView):
        high = 1.5 * (entry.maps.threshold or 0.0)
        return display_window(entry.maps.median) if not high > 0 else (0.0, high)
    shown = [entry.mean]
    if entry.zero_filled is not None:  # what is not trusted must not set the window
        shown.append(entry.zero_filled[np.isfinite(entry.mean)])
    return display_window(*shown)


def all_entries(view: ResultView, ratios: list[RatioView]) -> list[MapView | RatioView]:
    """Maps and ratios in the order of the page."""
    return [*view.maps, *ratios]


def packed_entries(view: ResultView, ratios: list[RatioView], limit: int = PACKED_LIMIT) -> list[dict[str, Any]]:
    """Every map and ratio with its packed stages, in the finest precision that keeps within the limit.

    A scan too large for the limit at the coarsest precision is packed at that one, and the page is larger.
    """
    entries: list[dict[str, Any]] = []
    for precision in PRECISIONS:
        entries = []  # the former ones need not be there any more
        entries = [_packed(view, entry, precision) for entry in all_entries(view, ratios)]
        if sum(len(stage["nifti"]) for entry in entries for stage in entry["stages"].values()) <= limit:
            break
    return entries


def _packed(view: ResultView, entry: MapView | RatioView, precision: Precision) -> dict[str, Any]:
    low, high = window_of(view, entry)
    found = {}
    for key, values, affine, kind in stages(view, entry):
        own = (low, high)
        if key in ("sd", "probability"):
            own = (0.0, 1.0) if key == "probability" else display_window(values)
        found[key] = {"nifti": pack(values, affine, getattr(precision, kind)), "low": own[0], "high": own[1]}
    return {
        "name": visible(entry.name),
        "unit": visible(str(view.record.get("units", ""))) if isinstance(entry, MapView) else "",
        "ratio": isinstance(entry, RatioView),
        "threshold": entry.maps.threshold if isinstance(entry, RatioView) else None,
        "reference": entry.maps.reference if isinstance(entry, RatioView) else None,
        "stages": found,
        "steps": precision.map,
    }


def start_voxel(view: ResultView, ratios: list[RatioView]) -> tuple[int, int, int]:
    """Where a reader looks first: the peak of a hotspot, else the middle of the slice with most values."""
    for ratio in ratios:
        if ratio.hotspot.peak_mm is not None:
            place = np.linalg.inv(view.affine) @ [*ratio.hotspot.peak_mm, 1.0]
            x, y, z = (int(round(value)) for value in place[:3])
            return x, y, z
    slices = np.sum([np.isfinite(one.mean).sum(axis=(0, 1)) for one in view.maps], axis=0)
    middle = view.shape[2] // 2
    best = max(range(view.shape[2]), key=lambda z: (int(slices[z]), -abs(z - middle)))
    return view.shape[0] // 2, view.shape[1] // 2, best


def stills_of(view: ResultView, entry: MapView | RatioView, z: int) -> list[tuple[str, Still, tuple[float, float]]]:
    """Still pictures of a map's stages in one slice, each with its key and window."""
    window = window_of(view, entry)
    pictures = []
    for key, values, affine, _ in stages(view, entry):
        own = window if key not in ("sd", "probability") else (0.0, 1.0)
        if key == "sd":
            own = display_window(values)
        colours = "magma" if key in ("sd", "probability") else "viridis"
        own_z = min(int((z + 0.5) * values.shape[2] / view.shape[2]), values.shape[2] - 1)
        pictures.append((key, still(values, own_z, affine, own, colours), own))
    return pictures


def grid_facts(view: ResultView) -> dict[str, Any]:
    """Geometry that the viewer needs."""
    return {
        "affine": view.affine.tolist(),
        "shape": list(view.shape),
        "voxel_mm": list(voxel_sizes_mm(view.affine)),
        "lr_voxel_mm": list(voxel_sizes_mm(view.lr_affine)),
    }
