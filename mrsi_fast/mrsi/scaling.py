"""The scale of each map: what brings concentrations in any unit to the network's range and back.

One number per map and volume, ``max(p99 |LR| over valid voxels, 5 sigma)``. It comes from the measured map alone, so
multiplying a map by a constant multiplies its result by that constant, and the floor of five noise standard deviations
keeps a map of pure noise small instead of blowing it up to look like signal.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

NOISE_FLOOR_SD = 5.0  # the scale is at least this many noise standard deviations
FALSE_ALARM = 0.01  # share of pure-noise maps that may be taken for signal by either test of ``map_content``
NOISE_CORRELATION = 4.0  # voxels that share one independent noise value at most (elliptic support, Hann window)

Content = Literal["signal", "noise", "constant", "empty"]
Float64 = NDArray[np.float64]


def map_scale(maps: NDArray, valid: NDArray[np.bool_], noise: ArrayLike | None = None) -> Float64:
    """Return the scale of each map, ``max(p99 |map| over valid voxels, 5 sigma)``.

    Args:
        maps: ``[M, ...]`` LR maps of one volume, any unit; NaN is never valid.
        valid: ``[M, ...]`` or ``[...]``, true where a voxel is data (mask and trust).
        noise: ``[M]`` noise standard deviation of a voxel of each map, same unit (``quality.Trust.noise``); NaN or None
            where not known.

    Returns:
        ``[M]`` float64, same unit; 0 for an empty map (no valid voxel, or nothing but zeros in them).
    """
    floors = np.zeros(len(maps)) if noise is None else np.nan_to_num(np.asarray(noise, dtype=np.float64))
    scales = np.zeros(len(maps))
    for index, values in enumerate(_valid_values(maps, valid)):
        if values.size and values.any():
            scales[index] = max(float(np.percentile(np.abs(values), 99)), NOISE_FLOOR_SD * floors[index])
            if scales[index] == 0:  # less than one voxel in a hundred holds anything
                scales[index] = np.abs(values).max()
    return scales


def map_content(maps: NDArray, valid: NDArray[np.bool_], noise_sd: NDArray | None = None) -> tuple[Content, ...]:
    """Say what each map holds: signal, nothing but noise, or nothing at all.

    A map counts as noise if neither its power nor its largest voxel is beyond what Gaussian noise of the stated level
    gives in one map of a hundred. Such a map should be returned as measured, without anything drawn into it; without a
    noise level every map that is not empty counts as signal.

    Args:
        maps: ``[M, ...]`` LR maps of one volume.
        valid: ``[M, ...]`` or ``[...]``, true where a voxel is data.
        noise_sd: ``[M, ...]`` noise standard deviation of each voxel (or ``[M, 1, ...]``), same unit; values that are
            not finite and positive mean "not known".

    Returns:
        One of ``"signal"``, ``"noise"``, ``"constant"`` (one value in every valid voxel: no map of tissue, and nothing
        that could be refined), ``"empty"`` per map.
    """
    contents: list[Content] = []
    for index, values in enumerate(_valid_values(maps, valid)):
        if not values.size or not values.any():
            contents.append("empty")
            continue
        if values.size > 1 and values.min() == values.max():
            contents.append("constant")
            continue
        contents.append("signal")
        if noise_sd is not None:
            sd = np.broadcast_to(noise_sd[index], maps[index].shape)
            use = np.broadcast_to(valid, maps.shape)[index] & np.isfinite(maps[index]) & np.isfinite(sd) & (sd > 0)
            if use.any() and _is_noise(np.asarray(maps[index][use], dtype=np.float64) / sd[use]):
                contents[-1] = "noise"
    return tuple(contents)


def _is_noise(whitened: Float64) -> bool:
    freedom = max(whitened.size / NOISE_CORRELATION, 1.0)
    power = torch.tensor(np.mean(whitened**2), dtype=torch.float64)
    half = torch.tensor(0.5 * freedom, dtype=torch.float64)
    by_chance = torch.special.gammaincc(half, half * power)  # of chi-squared / freedom to be larger
    largest_voxel = -NormalDist().inv_cdf(0.5 * FALSE_ALARM / whitened.size)
    return bool(by_chance >= FALSE_ALARM and np.abs(whitened).max() <= largest_voxel)


def _valid_values(maps: NDArray, valid: NDArray[np.bool_]) -> list[Float64]:
    spread = np.broadcast_to(valid, maps.shape)
    return [np.asarray(m[use & np.isfinite(m)], dtype=np.float64) for m, use in zip(maps, spread, strict=True)]
