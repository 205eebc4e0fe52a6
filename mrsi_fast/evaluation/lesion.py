"""What becomes of a lesion: bias, contrast recovery, contrast-to-noise, the tCho/tNAA hotspot, detection.

The decision value follows radiotherapy planning: tCho/tNAA above twice that of normal-appearing white matter (NAWM).
Every estimate is referred to its own NAWM, as it would be in a patient; the denominator is floored at 30 % of the NAWM
level (``mrsi.ratios``). Lesions are described by the in-plane diameter of a disc with the area of their largest slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mrsi_fast.mrsi.ratios import ratio_maps

Mask = NDArray[np.bool_]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

HOTSPOT = 2.0
"""tCho/tNAA relative to NAWM above which a voxel belongs to the hotspot."""

FALSE_POSITIVE_SHARE = 0.002
"""Share of brain voxels outside the true hotspot at which hotspots are compared on equal terms; about ten voxels of a
head at 3.4 mm, less than a small lesion has."""

THRESHOLDS: tuple[float, ...] = tuple(float(t) for t in np.geomspace(1.05, 8.0, 60).round(4))
"""Thresholds of the ratio, relative to NAWM, over which detections and false lesions are counted."""

_ENOUGH_NAWM = 16


@dataclass(frozen=True, eq=False)
class LesionRegions:
    """Where to measure a lesion, all ``[X, Y, Z]``.

    Attributes:
        core: Core membership above one half.
        rim: Affected (membership above 0.1) but not core.
        nawm: Normal-appearing white matter, on the other side of the lesion where there is enough of it.
        away: Brain at least one LR voxel away from anything affected.
        diameter_mm: Of a disc with the area of the core's largest slice.
    """

    core: Mask
    rim: Mask
    nawm: Mask
    away: Mask
    diameter_mm: float


def lesion_regions(
    lesion: NDArray, core: NDArray, white: NDArray, brain: Mask, voxel_mm: tuple[float, float, float], margin_mm: float
) -> LesionRegions:
    """Derives the regions from the simulation's memberships.

    Args:
        lesion: [X, Y, Z] membership of core and infiltration, 0 to 1; all 0 without a lesion.
        core: [X, Y, Z] membership of the core.
        white: [X, Y, Z] share of white matter.
        brain: [X, Y, Z].
        voxel_mm: Size of a voxel.
        margin_mm: Distance from the lesion within which nothing counts as a false detection: one LR voxel.
    """
    affected = lesion > 0.01
    inside = (core > 0.5) & brain
    normal = brain & ~affected
    nawm = _purest(white, normal)
    if inside.any():
        middle = (np.arange(len(brain)) * brain.sum(axis=(1, 2))).sum() / brain.sum()
        centre = np.argwhere(inside)[:, 0].mean()
        side = np.arange(len(brain)) > middle if centre < middle else np.arange(len(brain)) < middle
        opposite = nawm & side[:, None, None]
        nawm = opposite if opposite.sum() >= _ENOUGH_NAWM else nawm
    distance = np.full(brain.shape, np.inf)
    if affected.any():
        distance = ndimage.distance_transform_edt(~affected, sampling=voxel_mm)
    area = float(inside.sum(axis=(0, 1)).max()) * voxel_mm[0] * voxel_mm[1]
    return LesionRegions(
        inside, (lesion > 0.1) & brain & ~inside, nawm, brain & (distance > margin_mm), float(2 * np.sqrt(area / np.pi))
    )


def _purest(white: NDArray, allowed: Mask) -> Mask:
    """Voxels of nearly pure white matter; on coarse grids, where there are none, the purest there are."""
    for share in (0.9, 0.8, 0.7, 0.6, 0.5):
        chosen = allowed & (white > share)
        if chosen.sum() >= _ENOUGH_NAWM:
            return chosen
    return chosen


def contrast_recovery(truth: NDArray, estimate: NDArray, regions: LesionRegions) -> float:
    """Share of the true contrast between core and NAWM that the estimate shows; 1 is right, NaN without contrast."""
    if not regions.core.any() or not regions.nawm.any():
        return float("nan")
    true = float(truth[regions.core].mean(dtype=np.float64) - truth[regions.nawm].mean(dtype=np.float64))
    found = float(estimate[regions.core].mean(dtype=np.float64) - estimate[regions.nawm].mean(dtype=np.float64))
    scale = float(np.abs(truth[regions.nawm]).mean(dtype=np.float64))
    return found / true if abs(true) > 0.05 * scale else float("nan")


def contrast_to_noise(image: NDArray, regions: LesionRegions) -> float:
    """``(mean core - mean NAWM) / sqrt(var core + var NAWM)``; NaN where a region has fewer than two voxels."""
    if regions.core.sum() < 2 or regions.nawm.sum() < 2:
        return float("nan")
    core, normal = (image[mask].astype(np.float64) for mask in (regions.core, regions.nawm))
    spread = core.var(ddof=1) + normal.var(ddof=1)
    return float((core.mean() - normal.mean()) / np.sqrt(spread)) if spread > 0 else float("nan")


def relative_ratio(numerator: NDArray, denominator: NDArray, nawm: Mask, valid: Mask) -> Float32:
    """tCho/tNAA relative to its median in NAWM, median over samples.

    Args:
        numerator: [S, X, Y, Z] samples (S = 1 for one estimate).
        denominator: [S, X, Y, Z] the same samples of the other map.
        nawm: [X, Y, Z] reference region.
        valid: [X, Y, Z] brain.

    Returns:
        [X, Y, Z], 1 in typical white matter, NaN outside ``valid``.

    Raises:
        ValueError: The reference region holds no positive denominator or ratio.
    """
    maps = ratio_maps(numerator, denominator, valid, nawm)
    if not maps.reference > 0:
        raise ValueError("The ratio has no positive median in normal-appearing white matter: check the maps.")
    return (maps.median / np.float32(maps.reference)).astype(np.float32)


@dataclass(frozen=True)
class Hotspot:
    """How well a hotspot is found.

    Attributes:
        dice: Overlap with the true hotspot at the same threshold, twice NAWM.
        dice_equal_false: Overlap at the threshold where 0.2 % of the other brain voxels would be called hot.
        hd95_mm: 95th percentile of the surface distances, the larger of both directions; NaN if either is empty.
        volume_error_percent: Of the hotspot's volume.
    """

    dice: float
    dice_equal_false: float
    hd95_mm: float
    volume_error_percent: float


def hotspot(truth: NDArray, estimate: NDArray, brain: Mask, voxel_mm: tuple[float, float, float]) -> Hotspot | None:
    """Compares the hotspots of two relative ratio maps.

    Args:
        truth: [X, Y, Z] from :func:`relative_ratio`.
        estimate: [X, Y, Z].
        brain: [X, Y, Z] voxels that count.
        voxel_mm: Size of a voxel.

    Returns:
        The comparison, or None if the truth has no hotspot.
    """
    hot = brain & (truth > HOTSPOT)
    if not hot.any():
        return None
    found = brain & (estimate > HOTSPOT)
    others = estimate[brain & ~hot]
    limit = float(np.quantile(others, 1 - FALSE_POSITIVE_SHARE)) if others.size else HOTSPOT
    return Hotspot(
        dice(hot, found),
        dice(hot, brain & (estimate > limit)),
        hausdorff95(hot, found, voxel_mm),
        100 * (float(found.sum()) / float(hot.sum()) - 1),
    )


def dice(first: Mask, second: Mask) -> float:
    """Twice the overlap over the sum of both; 1 for two empty masks."""
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else 1.0


def hausdorff95(first: Mask, second: Mask, voxel_mm: Sequence[float]) -> float:
    """The larger 95th percentile of the distances from one surface to the other, mm; NaN if a mask is empty."""
    if not first.any() or not second.any():
        return float("nan")
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (first, second)]
    away = [ndimage.distance_transform_edt(~surface, sampling=voxel_mm) for surface in surfaces]
    return float(max(np.percentile(away[1][surfaces[0]], 95), np.percentile(away[0][surfaces[1]], 95)))


@dataclass(frozen=True)
class Detection:
    """What one case adds to the detection curve.

    Attributes:
        diameter_mm: Of the lesion; 0 without a hotspot in the truth.
        peak: Highest relative ratio inside the lesion's core; NaN without one.
        false: Connected bodies above each of :data:`THRESHOLDS` away from the lesion.
        slices: Slices searched for false bodies.
    """

    diameter_mm: float
    peak: float
    false: tuple[int, ...]
    slices: int


def detect(truth: NDArray, estimate: NDArray, regions: LesionRegions) -> Detection:
    """Searches one relative ratio map for lesions, true and false, slice by slice.

    Args:
        truth: [X, Y, Z] true relative ratio: a lesion that does not raise it above twice NAWM cannot be detected by it.
        estimate: [X, Y, Z].
        regions: Of the case.
    """
    lesion = regions.core & (np.nan_to_num(truth) > HOTSPOT)
    values = np.where(regions.away, np.nan_to_num(estimate), 0.0)
    bodies = [sum(ndimage.label(values[..., z] > limit)[1] for z in range(values.shape[2])) for limit in THRESHOLDS]
    found = lesion.any()
    return Detection(
        regions.diameter_mm if found else 0.0,
        float(estimate[lesion].max()) if found else float("nan"),
        tuple(int(count) for count in bodies),
        int(regions.away.any(axis=(0, 1)).sum()),
    )


def threshold_at_rate(cases: Sequence[Detection], false_per_slice: float) -> float:
    """Lowest threshold with at most that many false lesions per slice, over all cases together."""
    slices = max(sum(case.slices for case in cases), 1)
    false = np.sum([case.false for case in cases], axis=0) if cases else np.zeros(len(THRESHOLDS))
    allowed = np.flatnonzero(false / slices <= false_per_slice)
    # Beyond a threshold with few bodies there may be one with more (a body that splits): take the last crossing.
    above = np.flatnonzero(false / slices > false_per_slice)
    if not above.size:
        return THRESHOLDS[0]
    return THRESHOLDS[int(above[-1]) + 1] if above[-1] + 1 < len(THRESHOLDS) and allowed.size else float("inf")


def recall_by_diameter(
    cases: Sequence[Detection], false_per_slice: float, edges_mm: Sequence[float]
) -> list[tuple[float, float, int, int]]:
    """Share of lesions found, by diameter, at a stated rate of false lesions.

    Returns:
        ``(low_mm, high_mm, found, lesions)`` per bin; the last bin is open.
    """
    limit = threshold_at_rate(cases, false_per_slice)
    rows = []
    for low, high in zip(edges_mm, [*edges_mm[1:], np.inf], strict=True):
        inside = [case for case in cases if case.diameter_mm > 0 and low <= case.diameter_mm < high]
        rows.append((float(low), float(high), sum(case.peak > limit for case in inside), len(inside)))
    return rows


def false_at_recall(cases: Sequence[Detection], recall: float) -> float:
    """False lesions per slice at the highest threshold that finds that share of the lesions; NaN without lesions."""
    peaks = np.array([case.peak for case in cases if case.diameter_mm > 0])
    if not len(peaks):
        return float("nan")
    reached = [limit for limit in THRESHOLDS if (peaks > limit).mean() >= recall]
    if not reached:
        return float("inf")
    index = THRESHOLDS.index(max(reached))
    return float(sum(case.false[index] for case in cases)) / max(sum(case.slices for case in cases), 1)
