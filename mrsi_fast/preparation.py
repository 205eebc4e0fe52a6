"""From measured maps to what the sampler needs, in four stages; nothing is drawn here.

1. ``judge``: which voxels are data, and the others bridged;
2. ``measure``: the operator that made them, their noise, what each map holds and its scale;
3. ``invert``: the estimate that the data alone give, and data consistency;
4. ``place_anatomy``: the anatomical image on the fine grid.

Each stage reads what the stages before it made and changes nothing. Arrays are [M, X, Y, Z], as everywhere outside; the
operator works on slices [Z, M, X, Y] within stage 3 (``mrsi.slabs``), a few at a time.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from mrsi_fast.config import Settings
from mrsi_fast.mrsi.anatomy import resample_anatomy
from mrsi_fast.mrsi.conditioning import estimate, standardise_anatomy
from mrsi_fast.mrsi.consistency import DataConsistency, Mode
from mrsi_fast.mrsi.declared_window import remarks_on_window
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.geometry import IN_PLANE_FACTORS, hr_affine, parse_factors, voxel_sizes_mm
from mrsi_fast.mrsi.interpolated import remarks_on_interpolation
from mrsi_fast.mrsi.kspace import Support, Window
from mrsi_fast.mrsi.mapset import MapSet
from mrsi_fast.mrsi.noise import Noise, NoiseLevel, noise_of, remarks_on_noise
from mrsi_fast.mrsi.quality import Trust, TrustRules, assess, fill_volume, upsample_nearest
from mrsi_fast.mrsi.scaling import Content, map_content, map_scale
from mrsi_fast.mrsi.slabs import fill_by_slab, to_slices
from mrsi_fast.mrsi.through_plane import Kind
from mrsi_fast.mrsi.volume_operator import Operator, VolumeAcquisition, operator_of, remarks_on_slices
from mrsi_fast.sampling import Volume

Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Factors = tuple[int, int, int]

_KEY_VOXELS = 64


class AcquisitionSettings(Settings):
    """What is known about how the maps were acquired and reconstructed; None means not declared, hence assumed.

    Attributes:
        support: k-space support, "square" or "ellipse"; assumed square.
        window: k-space window that was applied, "none", "hamming" or "hann"; assumed none.
        box: Whether the high-resolution maps shall be box means of the object (1/sinc in the band).
        matrix: Voxels that were measured along the two in-plane axes, where the maps were interpolated since.
        through_plane: How the slices came about, "encoded" (3D phase encoding) or "slices" (each excited by itself);
            counts where they are refined, and is assumed encoded.
        thickness_mm: Thickness of a slice, for "slices": adjacent ones are as thick as they are apart.
    """

    support: Support | None = None
    window: Window | None = None
    box: bool = False
    matrix: tuple[int, int] | None = None
    through_plane: Kind | None = None
    thickness_mm: float | None = Field(default=None, gt=0, allow_inf_nan=False)


@dataclass(frozen=True, eq=False)
class Request:
    """The request, apart from the maps and the anatomical image; see ``prepare``."""

    factors: Factors
    data_consistency: Mode
    acquisition: AcquisitionSettings
    noise: NoiseLevel
    rules: TrustRules | None
    noise_scale: float


@dataclass(frozen=True, eq=False)
class Prepared:
    """Measured maps ready for sampling, and what brings the samples back to the user.

    Attributes:
        maps: The input.
        request: What was asked for.
        affine: Voxel to RAS+ mm of the high-resolution grid.
        trust: Which voxels are data, and why the others are not.
        content: Per map "signal", "noise" or "empty"; only signal goes through the network.
        noise_source: Per map "crlb", "given", "assumed" or "declared noise-free".
        acquisition: The operator, of a slice or of the volume.
        volume: What the sampler needs.
        consistency: Data consistency of all slices, [Z, M, X, Y].
        filled: [M, x, y, Z] the maps, untrusted voxels bridged.
        anatomy_warnings: Sentences about the anatomical image.
    """

    maps: MapSet
    request: Request
    affine: Float64
    trust: Trust
    content: tuple[Content, ...]
    noise_source: tuple[str, ...]
    acquisition: Operator
    volume: Volume
    consistency: DataConsistency
    filled: Float32
    anatomy_warnings: tuple[str, ...]

    @functools.cached_property
    def warnings(self) -> tuple[str, ...]:
        """All sentences for the user; worked out when they are asked for, since a self-test does not tell them."""
        asked, valid = self.request, self.trust.trusted & self.trust.support
        return (
            *self.maps.warnings,
            *self.trust.warnings,
            *([] if asked.acquisition.matrix is not None else remarks_on_interpolation(self.maps)),
            *self.anatomy_warnings,
            *remarks_on_slices(self.acquisition),
            *remarks_on_window(self.maps.maps, valid, self.acquisition),
            *remarks_on_noise(self.maps, self.content, self.noise_source, asked.data_consistency == "hard"),
        )

    @property
    def factors(self) -> Factors:
        """Super-resolution factor per axis, slices last."""
        return self.request.factors

    def zero_fill(self, out: Float32 | None = None) -> Float32:
        """[M, X, Y, Z] zero-filled interpolation, in the maps' units, written to ``out`` if that is given."""
        low, operator = to_slices(self.filled), self.acquisition
        result = np.empty_like(self.volume.z) if out is None else out
        return fill_by_slab(operator, result, lambda chosen: operator.zero_fill(low[chosen]))

    @property
    def plane(self) -> Acquisition:
        """The operator of each slice."""
        operator = self.acquisition
        return operator.plane if isinstance(operator, VolumeAcquisition) else operator


@dataclass(frozen=True, eq=False)
class Judged:
    """Stage 1: maps of which every voxel is known to be data or not.

    Attributes:
        maps: The input.
        trust: Which voxels are data, and why the others are not.
        valid: [M, X, Y, Z] trusted voxels of the support.
        filled: [M, X, Y, Z] the maps, untrusted voxels bridged.
    """

    maps: MapSet
    trust: Trust
    valid: Bool
    filled: Float32


@dataclass(frozen=True, eq=False)
class Measured:
    """Stage 2: how the maps came about.

    Attributes:
        operator: The acquisition.
        noise: Noise of voxels and maps.
        content: Per map "signal", "noise" or "empty".
        scale: [M] scale of each map for the network; 0 for a map that does not go through it.
    """

    operator: Operator
    noise: Noise
    content: tuple[Content, ...]
    scale: Float64


def prepare(
    maps: MapSet,
    scale: int | str | Sequence[int],
    data_consistency: Mode = "auto",
    acquisition: AcquisitionSettings | None = None,
    noise: NoiseLevel = None,
    anatomy: Any = None,
    rules: TrustRules | None = None,
    noise_scale: float = 1.0,
) -> Prepared:
    """Prepares one set of maps.

    Args:
        maps: The measured maps.
        scale: Super-resolution factor, see ``geometry.parse_factors``.
        data_consistency: "auto", "soft", "hard" or "off"; "hard" declares the maps noise-free.
        acquisition: What is known about the acquisition.
        noise: Noise standard deviation of a voxel, see ``noise.noise_of``.
        anatomy: Coregistered anatomical image (path, NIfTI image or (array, affine)), or None.
        rules: Limits of trust.
        noise_scale: Factor on the noise level that the network is told; data consistency keeps its own.

    Raises:
        MapInputError: Nothing can be super-resolved, a noise level is negative or names no map, or the anatomical image
            cannot be used.
        ValueError: The scale is not offered.
    """
    known = acquisition or AcquisitionSettings()
    request = Request(parse_factors(scale), data_consistency, known, noise, rules, noise_scale)
    judged = judge(maps, rules)
    affine = hr_affine(maps.affine, request.factors)
    region = upsample_nearest(judged.trust.support, request.factors)
    image = place_anatomy(anatomy, affine, region.shape, region, by_plane=request.factors[2] == 1)
    return _prepared(judged, request, content_key(judged), *image)


def without(prepared: Prepared, distrusted: Bool) -> Prepared:
    """The same maps prepared again, with some voxels no longer taken for data.

    Args:
        prepared: As ``prepare`` made it.
        distrusted: [M, X, Y, Z] voxels that are no data under any rules.

    Raises:
        MapInputError: Nothing else is left.
    """
    judged = judge(prepared.maps, prepared.request.rules, distrusted)
    volume = prepared.volume
    return _prepared(judged, prepared.request, volume.content_key, volume.anatomy, prepared.anatomy_warnings)


def _prepared(
    judged: Judged, request: Request, key: bytes, image: Float32 | None, remarks: tuple[str, ...]
) -> Prepared:
    """Stages 2 and 3, and everything put together."""
    maps, trust, factors, mode = judged.maps, judged.trust, request.factors, request.data_consistency
    measured = measure(judged, request)
    z, consistency = invert(judged, measured, factors, mode)
    affine = hr_affine(maps.affine, factors)
    volume = Volume(
        names=maps.names,
        z=z,
        trusted=upsample_nearest(trust.trusted, factors),
        scale=measured.scale,
        noise=measured.noise.level * request.noise_scale,
        factors=refined(factors, maps.shape, measured.operator.acquired),
        voxel_mm=voxel_sizes_mm(affine)[:2],
        anatomy=image,
        slices=tuple(int(i) for i in np.flatnonzero(np.repeat(judged.valid.any(axis=(0, 1, 2)), factors[2]))),
        content_key=key,
    )
    return Prepared(
        maps=maps,
        request=request,
        affine=affine,
        trust=trust,
        content=measured.content,
        noise_source=measured.noise.source,
        acquisition=measured.operator,
        volume=volume,
        consistency=consistency,
        filled=judged.filled,
        anatomy_warnings=remarks,
    )


def refined(factors: Factors, shape: Sequence[int], acquired: tuple[int, int] | None) -> tuple[float, float]:
    """How many times finer than what was measured the result is, per in-plane axis.

    Raises:
        ValueError: More than 8 times, because the maps were interpolated before.
    """
    measured = acquired or (shape[0], shape[1])
    first, second = (f * n / a for f, n, a in zip(factors[:2], shape[:2], measured, strict=True))
    if max(first, second) > max(IN_PLANE_FACTORS):
        raise ValueError(
            f"The scale refines maps of {shape[0]}x{shape[1]} voxels, of which {measured[0]}x{measured[1]} were "
            f"measured, {max(first, second):.3g} times beyond the measurement. At most {max(IN_PLANE_FACTORS)} times "
            "is offered."
        )
    return first, second


def judge(maps: MapSet, rules: TrustRules | None = None, distrusted: Bool | None = None) -> Judged:
    """Stage 1: decides which voxels are data and bridges the others.

    Raises:
        MapInputError: No voxel of the head is data.
    """
    if distrusted is None:
        trust = assess(maps, rules)
    else:  # as if they had not been measured, but counted under a name of their own
        trust = assess(replace(maps, maps=np.where(distrusted, np.float32(np.nan), maps.maps)), rules)
        lost = distrusted & trust.support & np.isfinite(maps.maps)
        number = tuple(int(n) for n in lost.sum(axis=(1, 2, 3)))
        missing = tuple(n - m for n, m in zip(trust.counts["missing"], number, strict=True))
        trust = replace(trust, counts={**trust.counts, "missing": missing, "outlier": number})
    filled = fill_volume(maps.maps, trust.trusted, trust.support)
    return Judged(maps, trust, trust.trusted & trust.support, filled)


def measure(judged: Judged, request: Request) -> Measured:
    """Stage 2: describes the acquisition, the noise, and what each map holds.

    Raises:
        MapInputError: A noise level is negative or names no map.
    """
    maps, known = judged.maps, request.acquisition
    operator = operator_of(
        maps.shape,
        request.factors,
        voxel_sizes_mm(maps.affine)[2],
        (known.support, known.window, known.box, known.matrix),
        (known.through_plane, known.thickness_mm),
    )
    declared_free = request.data_consistency == "hard" and request.noise is None
    found = noise_of(maps, judged.trust, 0.0 if declared_free else request.noise, operator)
    content = map_content(maps.maps, judged.valid, found.stated)
    scale = map_scale(maps.maps, judged.valid, found.level)
    scale[[kind != "signal" for kind in content]] = 0.0
    return Measured(operator, found, content, scale)


def invert(judged: Judged, measured: Measured, factors: Factors, mode: Mode) -> tuple[Float32, DataConsistency]:
    """Stage 3: brings the measured data to the fine grid and sets up data consistency.

    A map declared noise-free is inverted exactly, whatever its neighbours are.

    Returns:
        [M, X, Y, Z] the estimate ``A_lambda+ y``, and data consistency of all slices, [Z, M, X, Y].
    """
    low, operator, noise = to_slices(judged.filled), measured.operator, measured.noise
    noisy = [bool(level > 0) for level in noise.level]
    fine = (len(noisy), *(n * f for n, f in zip(judged.maps.shape, factors, strict=True)))
    z = fill_by_slab(
        operator,
        np.empty(fine, dtype=np.float32),
        lambda slab: torch.stack([estimate(operator, low[slab, i], one) for i, one in enumerate(noisy)], dim=1),
    )
    consistency = DataConsistency(
        mode,
        operator,
        low,
        to_slices(noise.sd) if np.isfinite(noise.sd).any() else None,
        to_slices(judged.valid),
        exact=None if any(noisy) else torch.from_numpy(z).movedim(-1, 0),
        largest_factor=torch.from_numpy(noise.largest_factor),
    )
    return z, consistency


def content_key(judged: Judged) -> bytes:
    """Key of what was measured, for the noise of samples: 16 bytes that differ between any two subjects.

    It is made of the order of size of 64 voxels of each map that holds anything, evenly spread over its data. An order
    does not change with the unit of the maps, nor with the order in which they come, their files' names or the machine;
    the maps of two subjects, or of one subject measured twice, share it by chance in one of 64! cases.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, values, valid in sorted(
        zip(judged.maps.names, judged.maps.maps, judged.valid, strict=True), key=itemgetter(0)
    ):
        data = values[valid]
        if data.any():
            chosen = data[np.linspace(0, data.size - 1, min(data.size, _KEY_VOXELS)).round().astype(int)]
            digest.update(name.encode() + np.argsort(chosen, kind="stable").astype("<u4").tobytes())
    return digest.digest()


def place_anatomy(
    anatomy: Any, affine: ArrayLike, shape: Sequence[int], region: Bool, by_plane: bool = True
) -> tuple[Float32 | None, tuple[str, ...]]:
    """Stage 4: brings the anatomical image, if there is one, to the fine grid in standard units.

    Args:
        anatomy: See ``anatomy.resample_anatomy``, or None.
        affine: Of the fine grid.
        shape: Voxels of the fine grid.
        region: [X, Y, Z] where the image has to cover the maps.
        by_plane: Bring each plane across the last axis to standard units; else the image keeps its own.

    Returns:
        [X, Y, Z] image or None, and sentences about it.

    Raises:
        MapInputError: The image cannot be used.
    """
    if anatomy is None:
        return None, ()
    resampled = resample_anatomy(anatomy, affine, shape, region)
    if not by_plane:  # planes of other directions will be cut from it
        return resampled.image, resampled.warnings
    planes = [standardise_anatomy(resampled.image[..., z]) for z in range(resampled.image.shape[2])]
    return np.stack(planes, axis=-1), resampled.warnings
