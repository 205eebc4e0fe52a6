"""Added detail against measured detail, map by map: how far off it is, which amplitude it deserves, what noise forbids.

Let t be the measured detail and d what was added, both outside the band of the coarse maps, over the counted voxels:

- error ``|d - t| / |t|``: zero-filling adds nothing and has 1; below 1 the added detail is worth having;
- amplitude ``a = <t, d> / <d, d>``, the regression slope of t on d: 1 is right, below 1 too much was added, below 0 it
  points the wrong way. Its interval is a bootstrap over blocks of voxels, because neighbours share errors;
- noise floor ``sqrt(E |noise|^2) / |t|`` with the stated noise: the error of the true detail itself, because t holds
  noise. The Cramér-Rao bound states the smallest possible noise, so the floor is a lower bound too.

Inside the band both images share their noise, which would flatter whatever keeps to the data; it is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.evidence.halving import Halved

Float64 = NDArray[np.float64]

BLOCK_VOXELS = 4
"""Side of the bootstrap's blocks in the plane: two coarse voxels."""

DRAWS = 400
INTERVAL_PERCENT = (5.0, 95.0)
ENOUGH_VOXELS = 32
_SEED = 20_261_128
_DRAWN_AT_ONCE = 2**16


@dataclass(frozen=True)
class Detail:
    """What became of the detail of one map; NaN where too few voxels count.

    Attributes:
        error: Error of the added detail over zero-filling's.
        error_interval: Its 90 % bootstrap interval.
        amplitude: Slope of the measured detail on the added one.
        amplitude_interval: Its 90 % bootstrap interval.
        noise_floor: Error that the stated noise alone would leave; NaN without a stated noise.
        voxels: How many count.
    """

    error: float
    error_interval: tuple[float, float]
    amplitude: float
    amplitude_interval: tuple[float, float]
    noise_floor: float
    voxels: int


_NOTHING = Detail(np.nan, (np.nan, np.nan), np.nan, (np.nan, np.nan), np.nan, 0)


def compare(halved: Halved, estimate: NDArray) -> tuple[Detail, ...]:
    """Compares what was brought back with what was measured.

    Args:
        halved: The coarse maps and the measured ones.
        estimate: [M, X, Y, Z] on the grid of ``halved.reference``, finite.

    Returns:
        One record per map.
    """
    true = halved.detail(halved.reference, measured=True)
    added = halved.detail(estimate, measured=False)
    share = halved.noise_share_outside
    return tuple(
        _one(t, d, where, sd, share)
        for t, d, where, sd in zip(true, added, halved.counted, halved.noise_sd, strict=True)
    )


def _one(true: Float64, added: Float64, where: NDArray[np.bool_], noise_sd: Float64, outside: float) -> Detail:
    if where.sum() < ENOUGH_VOXELS or not (true[where] ** 2).sum() > 0:
        return _NOTHING
    power, product, size, wrong = (
        _block_sums(np.where(where, image, 0.0)) for image in (true**2, true * added, added**2, (added - true) ** 2)
    )
    drawn = _resampled(np.flatnonzero(_block_sums(where.astype(np.float64))), np.stack((wrong, power, product, size)))
    with np.errstate(divide="ignore", invalid="ignore"):
        errors, slopes = np.sqrt(drawn[0] / drawn[1]), drawn[2] / drawn[3]
        amplitude = float(product.sum() / size.sum()) if size.sum() > 1e-12 * power.sum() else np.nan
    known = where & np.isfinite(noise_sd)
    floor = np.nan
    if known.sum() >= 0.5 * where.sum():
        mean_variance = float((noise_sd[known] ** 2).mean()) * outside
        floor = float(np.sqrt(mean_variance * where.sum() / power.sum()))
    return Detail(
        error=float(np.sqrt(wrong.sum() / power.sum())),
        error_interval=_interval(errors),
        amplitude=amplitude,
        amplitude_interval=_interval(slopes) if np.isfinite(amplitude) else (np.nan, np.nan),
        noise_floor=floor,
        voxels=int(where.sum()),
    )


def _block_sums(image: Float64) -> Float64:
    """Sums of [X, Y, Z] over blocks in the plane, one slice thick, as one row."""
    for axis in (0, 1):
        image = np.add.reduceat(image, np.arange(0, image.shape[axis], BLOCK_VOXELS), axis=axis)
    return image.ravel()


def _resampled(blocks: NDArray[np.intp], sums: Float64) -> Float64:
    """[4, draws] of [4, blocks]: totals over as many blocks, drawn with replacement."""
    generator = np.random.default_rng(_SEED)
    rows = max(1, _DRAWN_AT_ONCE // len(blocks))
    counts = [min(rows, DRAWS - start) for start in range(0, DRAWS, rows)]
    drawn = (generator.choice(blocks, (count, len(blocks))) for count in counts)
    return np.concatenate([np.stack([one[draws].sum(axis=1) for one in sums]) for draws in drawn], axis=1)


def _interval(values: Float64) -> tuple[float, float]:
    low, high = np.nanpercentile(values, INTERVAL_PERCENT)
    return float(low), float(high)
