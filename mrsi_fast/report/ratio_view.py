"""Ratio maps as a report shows them: of the measured maps, their interpolation and the result, with the hotspot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.ratios import Hotspot, RatioMaps, hotspot, ratio_maps
from mrsi_fast.report.view import MapView, ResultView

DEFAULT_RATIO = ("tCho", "tNAA")
TIMES_REFERENCE = 2.0
"""A voxel counts as hot above this multiple of the reference ratio; a convention of the report, not a finding."""

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class RatioView:
    """One ratio in its stages.

    Attributes:
        name: ``tCho/tNAA``.
        maps: Of the result: median, SD, probability, reference, threshold.
        hotspot: Voxels above the threshold.
        measured: [x, y, z] ratio of the measured maps, or None.
        zero_filled: [X, Y, Z] ratio of the zero-filled maps, or None.
    """

    name: str
    maps: RatioMaps
    hotspot: Hotspot
    measured: Float32 | None
    zero_filled: Float32 | None


def ratio_views(view: ResultView, pairs: tuple[tuple[str, str], ...] = (DEFAULT_RATIO,)) -> list[RatioView]:
    """The ratios whose two maps a result has; one without a positive denominator is left out."""
    found = []
    for above, below in pairs:
        first, second = view.get(above), view.get(below)
        if first is None or second is None:
            continue
        try:
            found.append(_ratio_view(view, first, second))
        except ValueError:  # an empty denominator: the maps themselves show it
            continue
    return found


def _ratio_view(view: ResultView, first: MapView, second: MapView) -> RatioView:
    above, below = (one.mean[None] if one.samples is None else one.samples for one in (first, second))
    if len(above) != len(below):
        above, below = first.mean[None], second.mean[None]
    deviations = None if first.std is None or second.std is None else (first.std, second.std)
    maps = ratio_maps(above, below, None, "mirror", None, TIMES_REFERENCE, view.affine, deviations)
    valid = np.isfinite(maps.median)
    return RatioView(
        name=f"{first.name}/{second.name}",
        maps=maps,
        hotspot=hotspot(maps, view.affine),
        measured=_divided(first.measured, second.measured, maps.floor, _any_of(valid, first.measured)),
        zero_filled=_divided(first.zero_filled, second.zero_filled, maps.floor, valid),
    )


def _divided(
    above: Float32 | None, below: Float32 | None, floor: float, valid: NDArray[np.bool_] | None
) -> Float32 | None:
    """Ratio with the result's floor, so that the stages differ by their maps alone; NaN where the result has none."""
    if above is None or below is None:
        return None
    ratio = above / np.maximum(below, floor)
    return ratio.astype(np.float32) if valid is None else np.where(valid, ratio, np.nan).astype(np.float32)


def _any_of(valid: NDArray[np.bool_], measured: Float32 | None) -> NDArray[np.bool_] | None:
    """Measured voxels in which any finer voxel has a value."""
    if measured is None or any(fine % coarse for fine, coarse in zip(valid.shape, measured.shape, strict=True)):
        return None
    x, y, z = measured.shape
    blocks = valid.reshape(x, valid.shape[0] // x, y, valid.shape[1] // y, z, valid.shape[2] // z)
    return np.asarray(blocks.any(axis=(1, 3, 5)))


def hotspot_lines(ratio: RatioView) -> list[tuple[str, str]]:
    """A ratio's hotspot for a report, as (label, text)."""
    maps, spot = ratio.maps, ratio.hotspot
    threshold = float("nan") if maps.threshold is None else maps.threshold
    interval = ""
    if spot.interval_ml is not None:
        interval = f", 90 % interval {spot.interval_ml[0]:.2f} to {spot.interval_ml[1]:.2f} mL over samples"
    lines = [
        ("ratio", f"{ratio.name}: {_origin(maps)}"),
        ("reference", f"{maps.reference:.3g}, median over: {maps.reference_source}"),
        ("threshold", f"{threshold:.3g} = {TIMES_REFERENCE:g} × reference (a convention, not a diagnosis)"),
        ("volume above the threshold", f"{spot.volume_ml:.2f} mL{interval}"),
        ("inside the contour", f"{spot.likely_ml:.2f} mL, the largest part {spot.largest_ml:.2f} mL"),
    ]
    if spot.certain_ml is not None:
        lines.append(("with a probability of 95 % or more", f"{spot.certain_ml:.2f} mL"))
    if spot.peak_mm is not None:
        spread = "" if spot.peak_sd is None else f" ± {spot.peak_sd:.2g}"
        where = ", ".join(f"{value:.1f}" for value in spot.peak_mm)
        lines.append(("highest ratio there", f"{spot.peak:.3g}{spread} at x, y, z = {where} mm (RAS)"))
    floored = float((np.nan_to_num(maps.floored) > 0).sum() / max(1, np.isfinite(maps.floored).sum()))
    lines.append(
        ("denominator raised to floor", f"in {100 * floored:.1f} % of the voxels; the ratio is a lower bound there")
    )
    return lines


def _origin(maps: RatioMaps) -> str:
    if maps.samples > 1:
        return f"median of {maps.samples} samples, divided sample by sample"
    if np.isfinite(maps.sd).any():
        return "of the mean maps; standard deviation to first order, as if the errors of both were independent"
    return "of the mean maps; without samples it has neither a standard deviation nor an interval"
