"""From measured maps to what the sampler needs: trust, fill, scale, noise, operator, anatomy. Nothing is drawn here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrsi_fast.config import Settings
from mrsi_fast.mrsi.anatomy import resample_anatomy
from mrsi_fast.mrsi.conditioning import estimate, standardise_anatomy
from mrsi_fast.mrsi.consistency import DataConsistency, Mode
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.geometry import hr_affine, parse_factors, voxel_sizes_mm
from mrsi_fast.mrsi.kspace import Support, Window
from mrsi_fast.mrsi.mapset import MapInputError, MapSet
from mrsi_fast.mrsi.names import canonical_name
from mrsi_fast.mrsi.quality import Trust, TrustRules, assess, fill_volume, upsample_nearest
from mrsi_fast.mrsi.scaling import map_content, map_scale
from mrsi_fast.sampling import Volume

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
NoiseLevel = float | Mapping[str, float] | None

TYPICAL_NOISE: dict[str, float] = {"tNAA": 0.05, "tCr": 0.06, "tCho": 0.06, "Ins": 0.10, "Glx": 0.10}
"""Noise of a voxel relative to the map's median where nothing is known: between-scan coefficients of variation of
short-TE MRSI at 3 T (5-7 % for tNAA, tCr and tCho, 10-13 % for Ins and Glx over all voxels)."""

OTHER_TYPICAL_NOISE = 0.15


class AcquisitionSettings(Settings):
    """What is known about how the maps were acquired and reconstructed; None means not declared, hence assumed.

    Attributes:
        support: k-space support, "square" or "ellipse"; assumed square.
        window: k-space window that was applied, "none", "hamming" or "hann"; assumed none.
        box: Whether the high-resolution maps shall be box means of the object (1/sinc in the band).
    """

    support: Support | None = None
    window: Window | None = None
    box: bool = False


@dataclass(frozen=True, eq=False)
class Prepared:
    """Measured maps ready for sampling, and what brings the samples back to the user.

    Attributes:
        maps: The input.
        factors: Super-resolution factor per axis; through-plane 1.
        affine: Voxel to RAS+ mm of the high-resolution grid.
        trust: Which voxels are data, and why the others are not.
        content: Per map "signal", "noise" or "empty"; only signal goes through the network.
        noise_source: Per map "crlb", "given", "assumed" or "declared noise-free".
        acquisition: The operator.
        volume: What the sampler needs.
        consistency: Data consistency of all slices, [Z, M, X, Y].
        zero_fill: [M, X, Y, Z] zero-filled interpolation, in the maps' units.
        warnings: Sentences for the user.
    """

    maps: MapSet
    factors: tuple[int, int, int]
    affine: Float64
    trust: Trust
    content: tuple[str, ...]
    noise_source: tuple[str, ...]
    acquisition: Acquisition
    volume: Volume
    consistency: DataConsistency
    zero_fill: Float32
    warnings: tuple[str, ...]


def to_slices(volume: NDArray) -> Tensor:
    """[..., X, Y, Z] array -> [Z, ..., X, Y] tensor."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(volume, -1, 0)))


def to_volume(slices: Tensor) -> NDArray:
    """[Z, ..., X, Y] tensor -> [..., X, Y, Z] array."""
    return np.ascontiguousarray(np.moveaxis(slices.numpy(), 0, -1))


def prepare(
    maps: MapSet,
    scale: int | str | Sequence[int],
    data_consistency: Mode = "auto",
    acquisition: AcquisitionSettings | None = None,
    noise: NoiseLevel = None,
    anatomy: Any = None,
    rules: TrustRules | None = None,
) -> Prepared:
    """Prepares one set of maps.

    Args:
        maps: The measured maps.
        scale: Super-resolution factor, see ``geometry.parse_factors``.
        data_consistency: "auto", "soft", "hard" or "off"; "hard" declares the maps noise-free.
        acquisition: What is known about the acquisition.
        noise: Noise standard deviation of a voxel in the maps' units: one number for all maps, or by name; 0 declares a
            map noise-free. Without it CRLB x concentration where there is a CRLB, else an assumed typical level.
        anatomy: Coregistered anatomical image (path, NIfTI image or (array, affine)), or None.
        rules: Limits of trust.

    Raises:
        MapInputError: Nothing can be super-resolved, a noise level is negative or names no map, or the anatomical image
            cannot be used.
        ValueError: The scale is not offered.
    """
    factors = parse_factors(scale)
    trust = assess(maps, rules)
    if not trust.trusted.any():
        raise MapInputError(
            f"{maps.source}: no voxel of any map is trusted, so there is nothing to super-resolve. "
            "`mrsi-fast validate` lists the reasons."
        )
    settings = acquisition or AcquisitionSettings()
    operator = Acquisition.assume(maps.shape[:2], factors[:2], settings.support, settings.window, settings.box)
    filled = fill_volume(maps.maps, trust.trusted, trust.support)
    sd, level, source = noise_levels(maps, trust, 0.0 if data_consistency == "hard" and noise is None else noise)
    sd_map = np.where(np.isfinite(sd), sd, np.float32(np.nan)).astype(np.float32)
    content = map_content(maps.maps, trust.trusted & trust.support, sd_map)
    scales = map_scale(maps.maps, trust.trusted & trust.support, level)
    scales[[kind != "signal" for kind in content]] = 0.0
    affine = hr_affine(maps.affine, factors)
    low = to_slices(filled)
    known = sd_map if np.isfinite(sd_map).any() else None
    consistency = DataConsistency(
        data_consistency,
        operator,
        low,
        None if known is None else to_slices(known),
        to_slices(trust.trusted),
    )
    # One call per map: a map declared noise-free is inverted exactly, whatever its neighbours are.
    z = np.stack(
        [
            to_volume(torch.from_numpy(estimate(operator, low[:, index].numpy(), noisy=bool(level[index] > 0))))
            for index in range(len(maps.names))
        ]
    )
    image, warnings = None, list(maps.warnings) + list(trust.warnings)
    if anatomy is not None:
        region = upsample_nearest(trust.support, factors)
        resampled = resample_anatomy(anatomy, affine, z.shape[1:], region)
        image = np.stack([standardise_anatomy(one) for one in np.moveaxis(resampled.image, -1, 0)], axis=-1)
        warnings += resampled.warnings
    warnings += _noise_warnings(maps, content, source, data_consistency)
    measured = (trust.trusted & trust.support).any(axis=(0, 1, 2))
    return Prepared(
        maps=maps,
        factors=factors,
        affine=affine,
        trust=trust,
        content=content,
        noise_source=source,
        acquisition=operator,
        volume=Volume(
            names=maps.names,
            z=z.astype(np.float32, copy=False),
            trusted=upsample_nearest(trust.trusted, factors),
            scale=scales,
            noise=level,
            factors=factors[:2],
            voxel_mm=voxel_sizes_mm(affine)[:2],
            anatomy=image,
            slices=tuple(int(index) for index in np.flatnonzero(measured)),
        ),
        consistency=consistency,
        zero_fill=to_volume(operator.zero_fill(low)),
        warnings=tuple(warnings),
    )


def noise_levels(maps: MapSet, trust: Trust, noise: NoiseLevel) -> tuple[Float32, Float64, tuple[str, ...]]:
    """Noise of every voxel and of every map, and where the knowledge comes from.

    Args:
        maps: The measured maps.
        trust: Their assessment.
        noise: What the user gave, see ``prepare``.

    Returns:
        Standard deviation per voxel [M, X, Y, Z] (NaN where only assumed), per map [M] (never NaN), source per map.

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
    return sd, level, tuple(source)


def _noise_warnings(maps: MapSet, content: Sequence[str], source: Sequence[str], mode: Mode) -> list[str]:
    sentences = []
    assumed = [name for name, origin in zip(maps.names, source, strict=True) if origin == "assumed"]
    if assumed:
        sentences.append(
            f"The noise level of {', '.join(assumed)} is not known (no CRLB map): a typical one is assumed, and these "
            "maps are not corrected towards the measurement. Give CRLB maps or a noise level."
        )
    if mode == "hard" and maps.crlb is not None:
        sentences.append(
            "Hard data consistency declares the maps noise-free, but they come with CRLB maps: their noise will be "
            "reproduced as if it were anatomy. Use auto or soft for measured data."
        )
    for name, kind in zip(maps.names, content, strict=True):
        if kind == "noise":
            sentences.append(
                f"{name}: holds nothing beyond its noise, so it is returned as measured, with nothing added."
            )
        elif kind == "empty":
            sentences.append(f"{name}: is empty, and stays empty.")
    return sentences
