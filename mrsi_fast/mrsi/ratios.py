"""Ratio maps such as tCho/tNAA: divided sample by sample, then summarised.

The maps of one sample are one draw, so their ratio is a draw of the ratio; that of mean maps, or of maps drawn apart,
is not. The denominator is floored at 30 % of its median in a reference region (normal-appearing white matter, NAWM):
where tNAA nearly vanishes the ratio would be noise over noise, and with the floor it is a lower bound, marked as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from mrsi_fast.mrsi.connected import largest_part
from mrsi_fast.mrsi.geometry import voxel_sizes_mm
from mrsi_fast.mrsi.regions import ReferenceRegion, contralateral_reference
from mrsi_fast.sample_store import forget_pages

FIRST_ORDER = "first order in the deviations of both maps, errors independent (JCGM 100:2008, equation 10)"
DENOMINATOR_FLOOR = 0.3  # of the reference median
SD_SAMPLES = 8  # a standard deviation of fewer samples is not shown, as for the maps themselves
INTERVAL_PERCENT = (5.0, 95.0)
VALUES_AT_ONCE = 2**20
"""Values of samples that are divided together."""
CNI_OUTLIER_SD, CNI_ROUNDS, CNI_LEAST_VOXELS = 2.0, 50, 20
CNI_CLIPPED_SD = 0.7257  # SD that repeated clipping at 2 SD leaves of a normal distribution: s^2 = var(N | |x| < 2 s)
EVERYWHERE = "all valid voxels"

Float32 = NDArray[np.float32]
Reference = ReferenceRegion | NDArray[np.bool_] | Literal["mirror"] | None


@dataclass(frozen=True, eq=False)
class RatioMaps:
    """A ratio over posterior samples, without unit. Maps are ``[X, Y, Z]`` float32, NaN outside the valid region.

    Attributes:
        median: median over samples.
        mean: mean over samples.
        sd: standard deviation over samples, or to first order from those of the two maps; NaN where there is neither.
        probability: share of samples above ``threshold``, or that of a normal distribution; None without a threshold.
        floored: share of samples in which the denominator was raised to ``floor``: the ratio is a lower bound there.
        floor: the smallest denominator used, in the denominator's unit.
        reference: median of ``median`` over the reference region.
        threshold: the ratio that ``probability`` is about, or None.
        samples: number of samples; 1 for the ratio of mean maps.
        exceeding: ``[S]`` voxels above ``threshold`` in each sample, or None without a threshold.
        reference_source: what the reference region is, in a phrase.
    """

    median: Float32
    mean: Float32
    sd: Float32
    probability: Float32 | None
    floored: Float32
    floor: float
    reference: float
    threshold: float | None
    samples: int = 1
    exceeding: NDArray[np.int64] | None = None
    reference_source: str = EVERYWHERE


@dataclass(frozen=True)
class Hotspot:
    """Voxels above a ratio map's threshold.

    Attributes:
        volume_ml: median over samples of the volume above the threshold.
        interval_ml: its 5th and 95th percentile over samples (a 90 % interval), or None below 8 samples.
        likely_ml: volume in which the probability of exceeding the threshold is a half or more: inside the contour.
        certain_ml: volume in which the probability of exceeding it is 95 % or more; None without a deviation.
        largest_ml: volume of the largest connected part of the likely region.
        peak: largest median ratio inside the largest part.
        peak_sd: its standard deviation, or None where there is none.
        peak_mm: where the peak is, RAS+ mm.
    """

    volume_ml: float
    interval_ml: tuple[float, float] | None
    likely_ml: float
    certain_ml: float | None
    largest_ml: float
    peak: float
    peak_sd: float | None
    peak_mm: tuple[float, float, float] | None


def ratio_maps(
    numerator: NDArray,
    denominator: NDArray,
    valid: NDArray[np.bool_] | None = None,
    reference: Reference = None,
    threshold: float | None = None,
    times_reference: float | None = None,
    affine: ArrayLike | None = None,
    deviations: tuple[NDArray, NDArray] | None = None,
) -> RatioMaps:
    """Divide two maps sample by sample and summarise the ratio over the samples.

    Args:
        numerator: ``[S, X, Y, Z]`` samples of one map; one sample (``S`` = 1) is allowed.
        denominator: ``[S, X, Y, Z]`` the same samples of the other map.
        valid: ``[X, Y, Z]`` where a ratio is wanted (brain, trusted in both maps); everywhere finite without it.
        reference: region whose median sets the denominator's floor and the reference ratio, best NAWM: ``[X, Y, Z]``
            bool, a :class:`ReferenceRegion`, or ``"mirror"`` for the mirror image of the hotspot (all valid voxels
            where that cannot be had); all valid voxels without it.
        threshold: ratio whose exceedance probability is wanted.
        times_reference: the same as a multiple of the reference ratio (2.0: twice NAWM).
        affine: ``[4, 4]`` of the grid, mm; needed for ``"mirror"``.
        deviations: ``[X, Y, Z]`` standard deviations of numerator and denominator, for one sample (their means): the
            ratio's is then to first order that of two independent errors, and a probability that of a normal
            distribution.

    Returns:
        The summary maps.

    Raises:
        ValueError: for shapes that differ, no samples, two thresholds, a mirrored reference without a multiple or an
            affine, or a reference region without a positive denominator.
    """
    _check(numerator, denominator, threshold, times_reference)
    pairs = _Pairs.of(numerator, denominator, valid)
    average = pairs.image(lambda above, below: below.mean(axis=0), kind=np.float64)
    if isinstance(reference, str):
        reference = _opposite(pairs, _floor(average, pairs.use), affine, times_reference)
    region, source = _region(reference, pairs.use)
    floor = _floor(average, region)
    median = pairs.median(floor)
    level = _median(median, region)
    threshold = threshold if times_reference is None else times_reference * level

    mean, spread, exceeds, floored = pairs.summary(floor, threshold, deviations)
    return RatioMaps(
        median=median,
        mean=mean,
        sd=spread,
        probability=None if threshold is None else exceeds,
        floored=floored,
        floor=floor,
        reference=level,
        threshold=threshold,
        samples=len(numerator),
        exceeding=None if threshold is None else pairs.above(threshold, floor),
        reference_source=source,
    )


class _Pairs:
    """The samples of both maps, a few planes of voxels at a time: all at once they would take many times the memory.

    Attributes:
        use: [X, Y, Z] voxels that have a ratio.
    """

    def __init__(self, numerator: NDArray, denominator: NDArray, use: NDArray[np.bool_]) -> None:
        self._both, self.use = (numerator, denominator), use

    @classmethod
    def of(cls, numerator: NDArray, denominator: NDArray, valid: NDArray[np.bool_] | None) -> _Pairs:
        """Of the voxels that are finite in every sample of both maps, and valid."""
        use = np.ones(numerator.shape[1:], dtype=bool) if valid is None else np.array(valid)
        for above, below in zip(numerator, denominator, strict=True):
            use &= np.isfinite(above) & np.isfinite(below)
        return cls(numerator, denominator, use)

    def _planes(self) -> Iterator[slice]:
        """Planes across X."""
        values = len(self._both[0]) * self.use[0].size
        step = max(1, VALUES_AT_ONCE // max(values, 1))
        return (slice(start, start + step) for start in range(0, len(self.use), step))

    def _values(self, planes: slice) -> tuple[NDArray, NDArray]:
        """[S, V] samples of the voxels in use."""
        use = self.use[planes]
        above, below = (one[:, planes][:, use].astype(np.float64) for one in self._both)
        for one in self._both:
            forget_pages(one)
        return above, below

    def image(
        self, function: Callable[..., NDArray], *others: NDArray, parts: int = 0, kind: Any = np.float32
    ) -> NDArray:
        """[X, Y, Z] of what a function of samples [S, V] gives, NaN elsewhere; [parts, X, Y, Z] of several results.

        ``others``, [X, Y, Z], follow the samples as [V].
        """
        found = np.full((*([parts] if parts else []), *self.use.shape), np.nan, dtype=kind)
        for planes in self._planes():
            use = self.use[planes]
            found[..., planes, :, :][..., use] = function(*self._values(planes), *(one[planes][use] for one in others))
        return found

    def median(self, floor: float) -> Float32:
        """[X, Y, Z] median of the ratio over samples."""
        return self.image(lambda above, below: np.median(above / np.maximum(below, floor), axis=0))

    def summary(self, floor: float, threshold: float | None, deviations: tuple[NDArray, NDArray] | None) -> Float32:
        """[4, X, Y, Z]: mean, standard deviation, probability of exceeding the threshold, share of floored samples."""

        def summarised(above: NDArray, below: NDArray, *deviation: NDArray) -> NDArray:
            ratio = above / np.maximum(below, floor)
            sd = _first_order(above[0], below[0], floor, *deviation) if deviation else None
            return np.stack([ratio.mean(axis=0), *_spread(ratio, sd, threshold), (below < floor).mean(axis=0)])

        others = deviations if deviations is not None and len(self._both[0]) == 1 else ()
        return self.image(summarised, *others, parts=4)

    def above(self, threshold: float, floor: float) -> NDArray[np.int64]:
        """[S] voxels whose ratio is above the threshold."""
        values = (self._values(planes) for planes in self._planes())
        return np.sum([(one / np.maximum(below, floor) > threshold).sum(axis=1) for one, below in values], axis=0)


def _check(numerator: NDArray, denominator: NDArray, threshold: float | None, times_reference: float | None) -> None:
    if numerator.shape != denominator.shape or numerator.ndim != 4 or not len(numerator):
        raise ValueError(
            f"A ratio needs the same samples [S, X, Y, Z] of both maps, got {numerator.shape} and {denominator.shape}."
        )
    if threshold is not None and times_reference is not None:
        raise ValueError("Give the ratio's threshold either as a number or as a multiple of the reference, not both.")


def _region(
    reference: ReferenceRegion | NDArray[np.bool_] | None, use: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], str]:
    """The reference region inside the voxels in use, and what it is."""
    if reference is None:
        return use, EVERYWHERE
    if isinstance(reference, ReferenceRegion):
        return use & reference.mask, reference.source
    return use & reference, "the given region"


def _spread(ratio: NDArray, sd: NDArray | None, threshold: float | None) -> tuple[NDArray, NDArray]:
    """Standard deviation [V] and probability [V] of exceeding the threshold, over samples [S, V] or from ``sd`` [V]."""
    exceeds = np.full(ratio.shape[1], np.nan) if threshold is None else (ratio > threshold).mean(axis=0)
    if sd is None:
        enough = len(ratio) >= SD_SAMPLES
        return ratio.std(axis=0, ddof=1) if enough else np.full(ratio.shape[1], np.nan), exceeds
    if threshold is not None:
        known = np.isfinite(sd) & (sd > 0)
        normal = torch.special.ndtr(torch.from_numpy((ratio[0] - threshold) / np.where(known, sd, 1.0))).numpy()
        exceeds = np.where(known, normal, exceeds)
    return sd, exceeds


def _first_order(above: NDArray, below: NDArray, floor: float, sd_above: NDArray, sd_below: NDArray) -> NDArray:
    """Standard deviation of ``above/max(below, floor)`` for independent errors; a floored denominator has none.

    The delta method, ``s_r^2 = (s_a / b)^2 + (a s_b / b^2)^2`` (JCGM 100:2008, Guide to the expression of uncertainty
    in measurement, 5.1.2, equation 10). Errors that both maps share, as those of the same voxel's shim and coil do,
    cancel in a ratio: with a correlation above 0 the deviation is smaller than this one.
    """
    divisor = np.maximum(below, floor)
    return np.hypot(sd_above / divisor, np.where(below > floor, above * sd_below / divisor**2, 0.0))


def hotspot(maps: RatioMaps, affine: ArrayLike) -> Hotspot:
    """Volume of the region above a ratio map's threshold, its interval over samples, and its peak.

    Noise in a sample lifts single voxels over the threshold, so the volume over samples can be above the volume inside
    the contour of the median map; both are given.

    Args:
        maps: Ratio maps with a threshold.
        affine: ``[4, 4]`` of their grid, mm.

    Raises:
        ValueError: The maps have no threshold.
    """
    if maps.probability is None or maps.exceeding is None:
        raise ValueError("A hotspot needs a threshold: give one as a number or as a multiple of the reference.")
    voxel_ml = float(np.prod(voxel_sizes_mm(np.asarray(affine)))) / 1000
    probability = np.nan_to_num(maps.probability)
    likely, enough = probability >= 0.5, maps.samples >= SD_SAMPLES
    largest = largest_part(likely)
    peak, peak_sd, peak_mm = float("nan"), None, None
    if largest.any():
        index = np.unravel_index(np.argmax(np.where(largest, maps.median, -np.inf)), largest.shape)
        peak = float(maps.median[index])
        peak_sd = float(maps.sd[index]) if np.isfinite(maps.sd[index]) else None
        place = np.asarray(affine, dtype=np.float64) @ [*index, 1.0]
        peak_mm = (float(place[0]), float(place[1]), float(place[2]))
    low, high = np.percentile(maps.exceeding * voxel_ml, INTERVAL_PERCENT)
    return Hotspot(
        volume_ml=float(np.median(maps.exceeding)) * voxel_ml,
        interval_ml=(float(low), float(high)) if enough else None,
        likely_ml=float(likely.sum()) * voxel_ml,
        certain_ml=float((probability >= 0.95).sum()) * voxel_ml if enough or np.isfinite(maps.sd).any() else None,
        largest_ml=float(largest.sum()) * voxel_ml,
        peak=peak,
        peak_sd=peak_sd,
        peak_mm=peak_mm,
    )


def cni_map(cho: NDArray, naa: NDArray, reference: NDArray[np.bool_] | None = None) -> Float32:
    """Z-score of tCho above its regression on tNAA in normal tissue: an index like the Cho-to-NAA index (CNI).

    After McKnight et al. 2001 (J Magn Reson Imaging 13:167-177): a line is fitted to tCho over tNAA, voxels further
    than 2 SD from it are left out, and both steps are repeated until the set stays; a voxel's index is its distance
    from the line in SDs of the voxels that remained. Here the line is an ordinary least-squares one, and the SD is
    corrected for the clipping, so that normal tissue has an SD of 1. The distance perpendicular to a line is
    proportional to the vertical one, so both give the same index for the same line.

    Args:
        cho: ``[X, Y, Z]`` tCho, NaN where it is not valid.
        naa: ``[X, Y, Z]`` tNAA.
        reference: ``[X, Y, Z]`` normal tissue to fit in; all valid voxels without it.

    Returns:
        ``[X, Y, Z]`` index, NaN where either map has no value.

    Raises:
        ValueError: Fewer than 20 voxels are there to fit, or tNAA does not vary over them.
    """
    use = np.isfinite(cho) & np.isfinite(naa)
    normal = use if reference is None else use & reference
    x, y = naa[normal].astype(np.float64), cho[normal].astype(np.float64)
    kept = np.ones(x.size, dtype=bool)
    slope = offset = sd = 0.0
    for _ in range(CNI_ROUNDS):
        if kept.sum() < CNI_LEAST_VOXELS or np.ptp(x[kept]) == 0:
            raise ValueError(
                f"The regression of tCho on tNAA needs at least {CNI_LEAST_VOXELS} voxels in which tNAA varies; "
                "check the maps and the reference region."
            )
        slope, offset = np.polyfit(x[kept], y[kept], 1)
        rest = y - (slope * x + offset)
        sd = float(rest[kept].std(ddof=2))
        closer = np.abs(rest) <= CNI_OUTLIER_SD * sd
        if (closer == kept).all():
            break
        kept = closer
    with np.errstate(divide="ignore", invalid="ignore"):
        index = (cho[use] - (slope * naa[use].astype(np.float64) + offset)) * CNI_CLIPPED_SD / sd
    return _image(index, use)


def _opposite(pairs: _Pairs, floor: float, affine: ArrayLike | None, times: float | None) -> ReferenceRegion | None:
    """The mirrored reference region, found on the ratio whose floor comes from all valid voxels.

    Raises:
        ValueError: The grid's affine or the multiple of the reference is missing.
    """
    if affine is None or times is None:
        raise ValueError("A mirrored reference needs the grid's affine and a multiple of the reference ratio.")
    return contralateral_reference(pairs.median(floor), affine, times)


def _floor(average: NDArray, region: NDArray[np.bool_]) -> float:
    """The denominator's floor from its mean over samples [X, Y, Z] and the reference region.

    Raises:
        ValueError: Its median there is not positive.
    """
    floor = DENOMINATOR_FLOOR * _median(average, region)
    if not floor > 0:
        raise ValueError(
            "The denominator of the ratio has no positive median in the reference region: check the map and the region."
        )
    return floor


def _image(values: NDArray, use: NDArray[np.bool_]) -> Float32:
    image = np.full(use.shape, np.nan, dtype=np.float32)
    image[use] = values
    return image


def _median(image: NDArray, region: NDArray[np.bool_]) -> float:
    return float(np.median(image[region])) if region.any() else float("nan")
