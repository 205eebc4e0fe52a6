"""The noise of measured maps: given by the user, taken from CRLB maps, or assumed; and how far the data may correct it.

A Cramér-Rao bound is reported as a percentage of the concentration, so the noise level that it gives vanishes with the
concentration: 1e-13 with 16 %SD would be the most certain voxel of the brain. The noise of a spectrum does not depend
on what it holds; therefore no voxel is taken to be better than ``SMALLEST_SHARE`` of its map's median noise. And the
bound is a lower one: measured scatter lies at several times it. ``LARGEST_FACTOR`` says how far the residual may raise
it (``consistency.DataConsistency.supported_by``). Derivation: docs/decisions/noise_of_measured_maps.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mrsi_fast.mrsi.mapset import Float32, MapInputError, MapSet
from mrsi_fast.mrsi.names import canonical_name
from mrsi_fast.mrsi.noise_shape import noise_shape
from mrsi_fast.mrsi.quality import Trust
from mrsi_fast.mrsi.residuals import room_for_noise
from mrsi_fast.mrsi.volume_operator import Operator, VolumeAcquisition

NoiseLevel = float | Mapping[str, float] | None

TYPICAL_NOISE: dict[str, float] = {"tNAA": 0.05, "tCr": 0.06, "tCho": 0.06, "Ins": 0.10, "Glx": 0.10}
"""Noise of a voxel relative to the map's median where nothing is known: between-scan coefficients of variation of
short-TE MRSI at 3 T (5-7 % for tNAA, tCr and tCho, 10-13 % for Ins and Glx over all voxels)."""

OTHER_TYPICAL_NOISE = 0.15

SMALLEST_ASSUMED_SHARE = 0.05
"""Noise that is assumed is not below this share of the typical one, however smooth the map: 0.25 % of it for tNAA."""

SMALLEST_SHARE = 0.5
"""Noise of a voxel, at least this share of its map's median noise. On a PRESS scan at 3 T (14x14x3, five maps) 95 % of
the bounds of trusted voxels lie above 0.53 of the map's median, and the smallest of all at 0.38."""

Source = Literal["given", "declared noise-free", "crlb", "assumed"]

LARGEST_FACTOR: dict[Source, float] = {"given": 1.0, "declared noise-free": 1.0, "crlb": 10.0, "assumed": 2.0}
"""How far the residual may raise the noise. What the user states stands. CRLB: scatter beyond tissue and smooth fields
was 4 to 9 times it on two scans at 3 T. Assumed: the range of published coefficients of variation."""


@dataclass(frozen=True, eq=False)
class Noise:
    """Noise of every voxel and of every map, in the maps' units.

    Attributes:
        sd: Standard deviation per voxel, [M, X, Y, Z] float32; NaN where nothing is known: voxels without a bound, maps
            declared noise-free, maps without a level to take a share of.
        level: Standard deviation of a typical voxel of each map, [M]; 0 for a map declared noise-free, never NaN.
        source: Per map where both come from.
    """

    sd: Float32
    level: NDArray[np.float64]
    source: tuple[Source, ...]

    @property
    def stated(self) -> Float32:
        """``sd`` without what is only assumed."""
        assumed = np.array([origin == "assumed" for origin in self.source])
        return np.where(assumed[:, None, None, None], np.float32(np.nan), self.sd)

    @property
    def largest_factor(self) -> NDArray[np.float64]:
        """[M] how far the residual may raise each map's noise."""
        return np.array([LARGEST_FACTOR[origin] for origin in self.source])


def noise_of(maps: MapSet, trust: Trust, noise: NoiseLevel = None, operator: Operator | None = None) -> Noise:
    """Find the noise of each map and voxel.

    Args:
        maps: The measured maps.
        trust: Their assessment.
        noise: What the user gave: one standard deviation for all maps, or by name, in the maps' units; 0 declares a map
            noise-free. Without it CRLB x concentration where there is a CRLB, else an assumed typical level.
        operator: The acquisition. With it an assumed level is not above what the map can hold
            (``residuals.room_for_noise``): maps that are smooth from voxel to voxel were filtered or simulated.

    Raises:
        MapInputError: A level is negative, not finite, or names no map.
    """
    given = _levels(noise, maps.names)
    if unknown := sorted(set(given) - set(maps.names)):
        raise MapInputError(f"A noise level was given for {', '.join(unknown)}; the maps are {', '.join(maps.names)}.")
    if bad := sorted(name for name, value in given.items() if not 0 <= value < np.inf):
        raise MapInputError(f"The noise level of {', '.join(bad)} must be a number of at least 0 in the maps' units.")
    sd = np.full(maps.maps.shape, np.nan, dtype=np.float32)
    level = np.zeros(len(maps.names))
    source: list[Source] = []
    room = None if operator is None else _room(maps, trust, operator)
    for index, name in enumerate(maps.names):
        if name in given:
            level[index] = given[name]
            sd[index] = given[name] or np.nan  # 0 is not a weight: noise-free maps have no soft correction
            source.append("given" if given[name] else "declared noise-free")
        elif trust.sigma is not None and np.isfinite(trust.noise[index]):
            level[index] = trust.noise[index]
            sd[index] = np.maximum(trust.sigma[index], np.float32(SMALLEST_SHARE * level[index]))  # NaN stays NaN
            source.append("crlb")
        else:
            typical = TYPICAL_NOISE.get(name, OTHER_TYPICAL_NOISE)
            level[index] = typical * max(float(np.nan_to_num(trust.level[index])), 0.0)
            if room is not None and room[index] < level[index]:
                level[index] = max(room[index], SMALLEST_ASSUMED_SHARE * level[index])
            sd[index] = level[index] or np.nan
            source.append("assumed")
    sd[~np.isfinite(sd)] = np.nan
    return Noise(sd, level, tuple(source))


def _room(maps: MapSet, trust: Trust, operator: Operator) -> NDArray[np.float64]:
    """[M] the most noise that each map can hold; where no window was declared, as if it were as smooth as Hamming's."""
    plane = operator.plane if isinstance(operator, VolumeAcquisition) else operator
    shape = noise_shape(replace(plane, window="hamming") if plane.assumed and plane.window == "none" else plane)
    valid = np.moveaxis(trust.trusted & trust.support & np.isfinite(maps.maps), -1, 0)
    data = torch.from_numpy(np.where(valid, np.moveaxis(maps.maps, -1, 0), np.float32(0)))
    known = torch.from_numpy(valid.astype(np.float32))
    return room_for_noise(data, known, shape).numpy()


def _levels(noise: Any, names: Sequence[str]) -> dict[str, float]:
    """What the user gave as one number a canonical name."""
    if noise is None:
        return {}
    try:
        if isinstance(noise, Mapping):
            return {canonical_name(name): _number(value) for name, value in noise.items()}
        return dict.fromkeys(names, _number(noise))
    except (TypeError, ValueError) as error:
        raise MapInputError(
            f"The noise level is {noise!r}; give one number, or a mapping from names of maps to numbers, in the maps' "
            "units."
        ) from error


def _number(value: Any) -> float:
    if isinstance(value, bool | str | bytes):
        raise TypeError("not a number")
    return float(value)


def remarks_on_noise(maps: MapSet, content: Sequence[str], source: Sequence[str], exact: bool) -> list[str]:
    """Sentences for the user about what is not known of the noise, or stands against what was declared.

    Args:
        maps: The measured maps.
        content: Per map "signal", "noise" or "empty".
        source: Per map where its noise level comes from.
        exact: Whether the maps are held to exactly, as free of noise.
    """
    sentences = []
    assumed = [name for name, origin in zip(maps.names, source, strict=True) if origin == "assumed"]
    if assumed:
        sentences.append(
            f"The noise level of {', '.join(assumed)} is unknown (no CRLB map): a typical level is assumed for the "
            "network and for data consistency. Give CRLB maps or a noise level."
        )
    if exact and maps.crlb is not None:
        sentences.append(
            "Hard data consistency declares the maps noise-free, but they come with CRLB maps: their noise will be "
            "reproduced as signal. Use auto or soft for measured data."
        )
    for name, kind in zip(maps.names, content, strict=True):
        if kind == "noise":
            sentences.append(
                f"{name}: has no signal above its noise; it is returned as measured, without inferred detail."
            )
        elif kind == "constant":
            sentences.append(f"{name}: has the same value in every valid voxel; it is returned as measured.")
        elif kind == "empty":
            sentences.append(f"{name}: is empty, and so is its result.")
    return sentences
