"""The noise of measured maps: given by the user, taken from CRLB maps, or assumed.

What is assumed are typical levels of short-TE MRSI at 3 T; see ``TYPICAL_NOISE``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.mapset import Float32, MapInputError, MapSet
from mrsi_fast.mrsi.names import canonical_name
from mrsi_fast.mrsi.quality import Trust

NoiseLevel = float | Mapping[str, float] | None

TYPICAL_NOISE: dict[str, float] = {"tNAA": 0.05, "tCr": 0.06, "tCho": 0.06, "Ins": 0.10, "Glx": 0.10}
"""Noise of a voxel relative to the map's median where nothing is known: between-scan coefficients of variation of
short-TE MRSI at 3 T (5-7 % for tNAA, tCr and tCho, 10-13 % for Ins and Glx over all voxels)."""

OTHER_TYPICAL_NOISE = 0.15


@dataclass(frozen=True, eq=False)
class Noise:
    """Noise of every voxel and of every map, in the maps' units.

    Attributes:
        sd: Standard deviation per voxel, [M, X, Y, Z] float32; NaN where it is only assumed.
        level: Standard deviation of a typical voxel of each map, [M]; 0 for a map declared noise-free, never NaN.
        source: Per map "given", "declared noise-free", "crlb" or "assumed".
    """

    sd: Float32
    level: NDArray[np.float64]
    source: tuple[str, ...]


def noise_of(maps: MapSet, trust: Trust, noise: NoiseLevel = None) -> Noise:
    """Find the noise of each map and voxel.

    Args:
        maps: The measured maps.
        trust: Their assessment.
        noise: What the user gave: one standard deviation for all maps, or by name, in the maps' units; 0 declares a map
            noise-free. Without it CRLB x concentration where there is a CRLB, else an assumed typical level.

    Raises:
        MapInputError: A level is negative, not finite, or names no map.
    """
    given = dict.fromkeys(maps.names, float(noise)) if isinstance(noise, int | float) else dict(noise or {})
    given = {canonical_name(name): float(value) for name, value in given.items()}
    if unknown := sorted(set(given) - set(maps.names)):
        raise MapInputError(f"A noise level was given for {', '.join(unknown)}; the maps are {', '.join(maps.names)}.")
    if bad := sorted(name for name, value in given.items() if not 0 <= value < np.inf):
        raise MapInputError(f"The noise level of {', '.join(bad)} must be a number of at least 0 in the maps' units.")
    sd = np.full(maps.maps.shape, np.nan, dtype=np.float32)
    level, source = np.zeros(len(maps.names)), []
    for index, name in enumerate(maps.names):
        if name in given:
            level[index] = given[name]
            sd[index] = given[name] or np.nan  # 0 is not a weight: noise-free maps have no soft correction
            source.append("given" if given[name] else "declared noise-free")
        elif trust.sigma is not None and np.isfinite(trust.noise[index]):
            level[index], sd[index] = trust.noise[index], trust.sigma[index]
            source.append("crlb")
        else:
            typical = TYPICAL_NOISE.get(name, OTHER_TYPICAL_NOISE)
            level[index] = typical * max(float(np.nan_to_num(trust.level[index])), 0.0)
            source.append("assumed")
    sd[~np.isfinite(sd)] = np.nan
    return Noise(sd, level, tuple(source))
