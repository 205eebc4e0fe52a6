"""Ratio maps such as tCho/tNAA: divided sample by sample, then summarised.

The maps of one sample are one draw, so their ratio is a draw of the ratio; that of mean maps, or of maps drawn apart,
is not. The denominator is floored at 30 % of its median in a reference region (normal-appearing white matter, NAWM):
where tNAA nearly vanishes the ratio would be noise over noise, and with the floor it is a lower bound, marked as such.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

DENOMINATOR_FLOOR = 0.3  # of the reference median
SD_SAMPLES = 8  # a standard deviation of fewer samples is not shown, as for the maps themselves

Float32 = NDArray[np.float32]


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
    """

    median: Float32
    mean: Float32
    sd: Float32
    probability: Float32 | None
    floored: Float32
    floor: float
    reference: float
    threshold: float | None


def ratio_maps(
    numerator: NDArray,
    denominator: NDArray,
    valid: NDArray[np.bool_] | None = None,
    reference: NDArray[np.bool_] | None = None,
    threshold: float | None = None,
    times_reference: float | None = None,
    deviations: tuple[NDArray, NDArray] | None = None,
) -> RatioMaps:
    """Divide two maps sample by sample and summarise the ratio over the samples.

    Args:
        numerator: ``[S, X, Y, Z]`` samples of one map; one sample (``S`` = 1) is allowed.
        denominator: ``[S, X, Y, Z]`` the same samples of the other map.
        valid: ``[X, Y, Z]`` where a ratio is wanted (brain, trusted in both maps); everywhere finite without it.
        reference: ``[X, Y, Z]`` region whose median sets the denominator's floor and the reference ratio, best NAWM;
            all valid voxels without it.
        threshold: ratio whose exceedance probability is wanted.
        times_reference: the same as a multiple of the reference ratio (2.0: twice NAWM).
        deviations: ``[X, Y, Z]`` standard deviations of numerator and denominator, for one sample (their means): the
            ratio's is then to first order that of two independent errors, and a probability that of a normal
            distribution.

    Returns:
        The summary maps.

    Raises:
        ValueError: for shapes that differ, no samples, two thresholds, or a reference region without a positive
            denominator.
    """
    if numerator.shape != denominator.shape or numerator.ndim != 4 or not len(numerator):
        raise ValueError(
            f"A ratio needs the same samples [S, X, Y, Z] of both maps, got {numerator.shape} and {denominator.shape}."
        )
    if threshold is not None and times_reference is not None:
        raise ValueError("Give the ratio's threshold either as a number or as a multiple of the reference, not both.")
    use = np.isfinite(numerator).all(axis=0) & np.isfinite(denominator).all(axis=0)
    if valid is not None:
        use &= valid
    region = use if reference is None else use & reference
    floor = DENOMINATOR_FLOOR * _median(denominator.mean(axis=0, dtype=np.float64), region)
    if not floor > 0:
        raise ValueError(
            "The denominator of the ratio has no positive median in the reference region: check the map and the region."
        )
    above, below = numerator[:, use].astype(np.float64), denominator[:, use].astype(np.float64)
    ratio = above / np.maximum(below, floor)
    median = _image(np.median(ratio, axis=0), use)
    level = _median(median, region)
    if times_reference is not None:
        threshold = times_reference * level
    spread = ratio.std(axis=0, ddof=1) if len(ratio) >= SD_SAMPLES else np.full(ratio.shape[1], np.nan)
    exceeds = None if threshold is None else (ratio > threshold).mean(axis=0)
    if deviations is not None and len(ratio) == 1:
        spread = _first_order(above[0], below[0], floor, *(one[use].astype(np.float64) for one in deviations))
        if threshold is not None:
            known = np.isfinite(spread) & (spread > 0)
            exceeds = np.where(known, ndtr((ratio[0] - threshold) / np.where(known, spread, 1.0)), exceeds)
    return RatioMaps(
        median=median,
        mean=_image(ratio.mean(axis=0), use),
        sd=_image(spread, use),
        probability=None if exceeds is None else _image(exceeds, use),
        floored=_image((below < floor).mean(axis=0), use),
        floor=floor,
        reference=level,
        threshold=threshold,
    )


def _first_order(above: NDArray, below: NDArray, floor: float, sd_above: NDArray, sd_below: NDArray) -> NDArray:
    """Standard deviation of ``above/max(below, floor)`` for independent errors; a floored denominator has none."""
    divisor = np.maximum(below, floor)
    return np.hypot(sd_above / divisor, np.where(below > floor, above * sd_below / divisor**2, 0.0))


def _image(values: NDArray, use: NDArray[np.bool_]) -> Float32:
    image = np.full(use.shape, np.nan, dtype=np.float32)
    image[use] = values
    return image


def _median(image: NDArray, region: NDArray[np.bool_]) -> float:
    return float(np.median(image[region])) if region.any() else float("nan")
