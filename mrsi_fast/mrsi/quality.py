"""Which voxels of which map can be believed, what their noise is, and how the others are bridged.

A voxel of a map is untrusted when it holds no value, its fit failed or blew up, it is flagged as lipid-contaminated, or
its SNR, linewidth or *absolute* Cramér-Rao bound is bad. The bound is compared with the level of the whole map and not
with the voxel's own value: a rule on the relative bound (%SD) removes voxels because they hold little of a metabolite,
which is what a tumour does to NAA (Kreis 2016, 10.1002/mrm.25568). Everything is decided on the acquired (LR) data.

Every limit is relative to the maps' own levels, so multiplying all maps by one constant changes no decision.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.mapset import Float32, MapInputError, MapSet
from mrsi_fast.mrsi.marks import LARGEST_BOUND_RISE, failed_bounds, zeros_in_tissue
from mrsi_fast.mrsi.names import ABSENT_IN_HEALTHY_BRAIN, is_lipid_or_macromolecule
from mrsi_fast.mrsi.support import estimate_support, head_is_unusable
from mrsi_fast.mrsi.units import relative_noise

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]

LARGEST_RISE: dict[str, float] = {"tNAA": 3.0, "NAA": 3.0, "tCr": 3.0, "Ins": 4.0, "Glx": 4.0}
"""How many times the map's level a real concentration may reach, for metabolites that disease raises little.

About twice the highest ratio of tumour to normal tissue in the literature's ranges (An 2018, 10.1002/mrm.26884, and
others): tNAA only falls, tCr 1.3, Ins 1.9, Glx 1.5. Every other metabolite: :data:`OTHER_RISE` (tCho reaches 4.3).
"""
OTHER_RISE = 8.0
LARGEST_SHARE: dict[str, float] = {"2HG": 1.5}
"""How many times the highest level among the other maps a metabolite that healthy brain lacks may reach.

2HG: 8.0 to 9.3 mM are the highest values reported (mrs-database). Others: ``OTHER_RISE``.
"""

_ENOUGH_VOXELS = 8


@dataclass(frozen=True)
class TrustRules:
    """Limits of trust. SNR and linewidth defaults are MRSIPrep's; None switches a rule off.

    Attributes:
        min_snr: Smallest spectral SNR.
        max_fwhm_ppm: Largest linewidth, ppm.
        max_crlb_of_median: Largest absolute Cramér-Rao bound (standard deviation), as a share of the map's median.
        max_relative_crlb_percent: Largest %SD. Off by default: it removes tumours; what it alone removes is reported.
        blow_up_sd: Robust standard deviations (1.4826 MAD) from the median beyond which a value may be a fit blow-up;
            it counts as one only if it also exceeds the level by :data:`LARGEST_RISE`. For a normal distribution 10
            never happens; real tissue contrast stays within a few.
        spectrometer_mhz: Proton frequency, to judge linewidths given in Hz (123.2 at 3 T).
    """

    min_snr: float | None = 4.0
    max_fwhm_ppm: float | None = 0.1
    max_crlb_of_median: float | None = 0.30
    max_relative_crlb_percent: float | None = None
    blow_up_sd: float = 10.0
    spectrometer_mhz: float | None = None


@dataclass(frozen=True, eq=False)
class Trust:
    """What can be believed of a set of maps.

    Attributes:
        trusted: [M, X, Y, Z] bool.
        support: Where there is tissue, [X, Y, Z] bool: the given mask, else estimated from the maps.
        sigma: Noise standard deviation of each voxel in the maps' units, CRLB x concentration, [M, X, Y, Z] float32;
            NaN where not known. None if no map has a CRLB.
        noise: One noise level per map, the median of ``sigma`` over trusted voxels, [M]; NaN where not known.
        level: Median of each map over well-measured voxels of the support, [M]; NaN where there are too few.
        counts: Reason -> number of voxels of the support it holds for, per map (a voxel may have several).
        warnings: Sentences about rules that could not be applied or took much away.
    """

    trusted: Bool
    support: Bool
    sigma: Float32 | None
    noise: Float64
    level: Float64
    counts: dict[str, tuple[int, ...]]
    warnings: tuple[str, ...] = field(default=())


def assess(maps: MapSet, rules: TrustRules | None = None) -> Trust:
    """Judge every voxel of every map.

    Args:
        maps: Maps with what quality data there are; a map whose CRLB, SNR or linewidth is NaN throughout has none.
        rules: Limits; default :class:`TrustRules`.

    Returns:
        Masks, noise and counts.

    Raises:
        MapInputError: No voxel of the head can be believed in any map; the reasons are named with what to do.
    """
    rules = rules or TrustRules()
    remarks: list[str] = []
    maps = replace(maps, maps=without_traces(maps.maps))
    values = maps.maps
    missing = ~np.isfinite(values)
    no_fit, sigma = failed_bounds(maps, remarks)
    poor = _poor_spectra(maps, rules, remarks)
    fitted = ~(missing | no_fit)
    support = maps.mask if maps.mask is not None else estimate_support(maps, fitted)
    no_fit |= zeros_in_tissue(maps, support)
    bad = {
        "missing": missing,
        "no fit": no_fit & ~missing,
        **poor,
        "lipid": np.broadcast_to(maps.lipid if maps.lipid is not None else False, values.shape),
        "outside mask": np.broadcast_to(~maps.mask if maps.mask is not None else False, values.shape),
    }
    believed = support & ~np.logical_or.reduce(list(bad.values()))
    level, spread = _levels(values, believed)
    bad["blow-up"] = _blow_ups(maps, level, spread, rules.blow_up_sd) & ~missing
    bad["crlb"] = _large_bounds(maps, sigma, believed, level, rules, remarks)
    trusted = ~np.logical_or.reduce(list(bad.values()))
    if rules.max_relative_crlb_percent is not None and maps.crlb is not None:
        percent = 100.0 * relative_noise(maps.maps, maps.crlb, maps.crlb_unit)
        bad["relative crlb"] = np.nan_to_num(percent, nan=0.0) > rules.max_relative_crlb_percent
        _remark_on_loss(maps, trusted & support, bad["relative crlb"], level, rules, remarks)
        trusted &= ~bad["relative crlb"]
    counts = {reason: tuple(int(n) for n in (flags & support).sum(axis=(1, 2, 3))) for reason, flags in bad.items()}
    if head_is_unusable(maps, trusted):
        raise MapInputError(_nothing_usable(maps, support, counts, rules))
    for name, flags in zip(maps.names, trusted & support, strict=True):
        if not flags.any():
            remarks.append(f"{name}: no voxel is trusted, so its result is NaN everywhere.")
    return Trust(
        trusted, support, sigma, _median_where(sigma, trusted & support, len(maps.names)), level, counts, tuple(remarks)
    )


def without_traces(maps: Float32) -> Float32:
    """Maps [M, X, Y, Z] with 0 for values below a millionth of the map's 99th percentile: what a fit leaves of nothing.

    A non-negative fit that finds nothing may write 1e-13 instead of 0, with a bound like any other (16 %).
    """
    size = np.abs(np.where(np.isfinite(maps), maps, 0))
    largest = np.percentile(size, 99, axis=(1, 2, 3), keepdims=True)
    return np.where(size < 1e-6 * largest, np.where(np.isfinite(maps), np.float32(0), maps), maps).astype(np.float32)


def _poor_spectra(maps: MapSet, rules: TrustRules, remarks: list[str]) -> dict[str, Bool]:
    """Voxels whose spectra are too noisy or too broad."""
    nowhere = np.zeros(maps.maps.shape, dtype=bool)
    poor = {"snr": nowhere, "fwhm": nowhere}
    if maps.snr is not None and rules.min_snr is not None:
        poor["snr"] = np.isfinite(maps.snr).any(axis=(1, 2, 3), keepdims=True) & ~(maps.snr >= rules.min_snr)
    if maps.fwhm is not None and rules.max_fwhm_ppm is not None:
        per_ppm = 1.0 if maps.fwhm_unit == "ppm" else rules.spectrometer_mhz or maps.spectrometer_mhz
        if per_ppm is None:
            remarks.append(
                "fwhm: is in Hz and the spectrometer frequency is unknown, so the linewidth limit is not applied. "
                "State the frequency to apply it (--mhz 123.2)."
            )
        else:
            has_width = np.isfinite(maps.fwhm).any(axis=(1, 2, 3), keepdims=True)
            width = maps.fwhm > 0  # a linewidth of 0 is none
            poor["fwhm"] = has_width & ~(width & (maps.fwhm <= rules.max_fwhm_ppm * per_ppm))
    return poor


def _nothing_usable(maps: MapSet, support: Bool, counts: dict[str, tuple[int, ...]], rules: TrustRules) -> str:
    """The sentence that says why, by the reasons that hold for most voxels, with the limit and what was found."""
    inside = max(int(support.sum()), 1)
    shares = {reason: max(n) / inside for reason, n in counts.items() if max(n)}
    details = {
        "snr": ("SNR", maps.snr, f"limit {rules.min_snr}, --min-snr"),
        "fwhm": ("linewidth", maps.fwhm, f"limit {rules.max_fwhm_ppm} ppm, --max-fwhm"),
    }
    parts = []
    for reason, share in sorted(shares.items(), key=lambda item: -item[1])[:3]:
        text = f"{reason} in {100 * min(share, 1.0):.0f} % of the head"
        if reason in details and details[reason][1] is not None:
            what, values, limit = details[reason]
            unit = f" {maps.fwhm_unit}" if reason == "fwhm" else ""
            known = values[:, support][np.isfinite(values[:, support])]  # type: ignore[index]
            if known.size:
                text += f" (median {what} {np.median(known):.3g}{unit}; {limit})"
        parts.append(text)
    return (
        f"{maps.source}: no voxel of the head passes the quality limits, so there is nothing to super-resolve: "
        f"{', '.join(parts) or 'no reason is recorded'}. Check the quality files and their units, or change the limits."
    )


def _levels(values: Float32, believed: Bool) -> tuple[Float64, Float64]:
    """Median and robust standard deviation (1.4826 MAD) of each map over believed voxels; NaN if these are few."""
    level = np.full(len(values), np.nan)
    spread = np.full(len(values), np.nan)
    for index, (one, where) in enumerate(zip(values, believed, strict=True)):
        if where.sum() >= _ENOUGH_VOXELS:
            level[index] = np.median(one[where])
            spread[index] = 1.4826 * np.median(np.abs(one[where] - level[index]))
    return level, spread


def _blow_ups(maps: MapSet, level: Float64, spread: Float64, blow_up_sd: float) -> Bool:
    """Values far outside the map's distribution *and* beyond what disease does to that metabolite.

    For metabolites that healthy brain lacks a high value in a low map is the finding itself; they are only held against
    the highest level among the other maps.
    """
    result = np.zeros(maps.maps.shape, dtype=bool)
    ordinary = [
        one
        for name, one in zip(maps.names, level, strict=True)
        if name not in ABSENT_IN_HEALTHY_BRAIN and not is_lipid_or_macromolecule(name) and one > 0
    ]
    for index, name in enumerate(maps.names):
        values = maps.maps[index]
        if name in ABSENT_IN_HEALTHY_BRAIN:
            if ordinary:
                result[index] = np.abs(values) > LARGEST_SHARE.get(name, OTHER_RISE) * max(ordinary)
        elif level[index] > 0:
            rise = LARGEST_RISE.get(name, OTHER_RISE)
            limit = max(blow_up_sd * spread[index], (rise - 1.0) * level[index])
            result[index] = np.abs(values - level[index]) > limit
    return result


def _large_bounds(
    maps: MapSet, sigma: Float32 | None, believed: Bool, level: Float64, rules: TrustRules, remarks: list[str]
) -> Bool:
    """Absolute bounds above a share of the map's median, for maps whose median is a measured level.

    Where most of a map lies below two standard deviations (2HG, lactate outside a lesion) its median is noise and no
    criterion for a voxel: the rule would remove the lesion with the rest. There a bound is held against
    the map's median bound: noise does not grow with the concentration, so a much larger one tells of a failed fit.
    """
    large = np.zeros(maps.maps.shape, dtype=bool)
    if sigma is None or rules.max_crlb_of_median is None:
        return large
    for index, name in enumerate(maps.names):
        where = believed[index] & np.isfinite(sigma[index])
        if not where.any() or not level[index] > 0:
            continue
        if np.mean(maps.maps[index][where] >= 2.0 * sigma[index][where]) < 0.5:
            remarks.append(
                f"{name}: most voxels are below twice the noise level, so the CRLB limit, a share of the map's "
                "median, is not applied. The CRLB still sets the noise level."
            )
            large[index] = sigma[index] > LARGEST_BOUND_RISE * np.median(sigma[index][where])
            continue
        large[index] = sigma[index] > rules.max_crlb_of_median * level[index]
    return large


def _remark_on_loss(
    maps: MapSet, kept: Bool, removed: Bool, level: Float64, rules: TrustRules, remarks: list[str]
) -> None:
    """Say what the relative rule takes away that every other rule keeps, and how low the map is there."""
    for index, name in enumerate(maps.names):
        lost = kept[index] & removed[index]
        if lost.any():
            low = np.median(maps.maps[index][lost]) / level[index] if level[index] > 0 else np.nan
            remarks.append(
                f"{name}: the relative CRLB limit of {rules.max_relative_crlb_percent:g} % alone removes "
                f"{int(lost.sum())} of {int(kept[index].sum())} voxels, whose median is {low:.2f} of the "
                "map's; such a rule deletes tissue that holds little of a metabolite, tumours first."
            )


def _median_where(sigma: Float32 | None, where: Bool, n_maps: int) -> Float64:
    noise = np.full(n_maps, np.nan)
    if sigma is not None:
        for index in range(n_maps):
            known = sigma[index][where[index] & np.isfinite(sigma[index])]
            noise[index] = np.median(known) if known.size else np.nan
    return noise


@lru_cache(maxsize=64)
def _gaussian(size: int, width: float) -> Float32:
    """[size, size] matrix of unnormalised Gaussian weights between positions of one axis, ``width`` in voxels."""
    apart = np.subtract.outer(np.arange(size), np.arange(size)) / width
    weights = np.exp(-0.5 * apart**2)
    weights[weights < 1e-12] = 0.0  # far below what counts, and denormal numbers are slow
    return weights.astype(np.float32)


def fill_untrusted(values: Float32, trusted: Bool, support: Bool | None = None, width: float = 0.7) -> Float32:
    """Bridge untrusted voxels slice by slice by normalised convolution (Knutsson & Westin 1993) of the trusted ones.

    A voxel becomes the Gaussian-weighted mean of the trusted voxels of its own map and slice; where none is near, of a
    four times wider Gaussian, then the slice's mean, then 0. Trusted voxels keep their values.

    Args:
        values: [..., X, Y] float32, e.g. [M, X, Y]; trusted entries finite, the others anything.
        trusted: The same shape, bool.
        support: Where to fill, broadcast to ``values``' shape; untrusted voxels outside become 0. Default everywhere.
        width: Standard deviation of the Gaussian in voxels. The default is that of the acquisition's point-spread
            function (FWHM 1.2 to 1.9 voxels by window and support); it also bridged dropped voxels of a real scan best.

    Returns:
        [..., X, Y] float32, a new array without NaN.
    """
    nx, ny = values.shape[-2:]
    known = np.where(trusted, values, np.float32(0))
    if trusted.all():
        return known
    weights = trusted.astype(np.float32)
    filled = known
    todo = ~trusted if support is None else ~trusted & support
    for scale in (width, 4.0 * width):
        gx, gy = _gaussian(nx, scale), _gaussian(ny, scale)
        total = gx @ weights @ gy
        near = todo & (total > 1e-4)
        filled = np.where(near, (gx @ known @ gy) / np.maximum(total, np.float32(1e-4)), filled)
        todo = todo & ~near
        if not todo.any():
            return filled
    mean = known.sum(axis=(-2, -1), keepdims=True) / np.maximum(weights.sum(axis=(-2, -1), keepdims=True), 1)
    return np.where(todo, mean, filled).astype(np.float32, copy=False)


def fill_volume(values: Float32, trusted: Bool, support: Bool) -> Float32:
    """:func:`fill_untrusted` for volumes: [M, X, Y, Z] with support [X, Y, Z], slices along Z."""
    per_slice = np.moveaxis(support, -1, 0)[:, None]
    filled = fill_untrusted(np.moveaxis(values, -1, 0), np.moveaxis(trusted, -1, 0), per_slice)
    return np.ascontiguousarray(np.moveaxis(filled, 0, -1))


def upsample_nearest(mask: NDArray, factors: tuple[int, int, int]) -> NDArray:
    """Repeat each LR voxel of [..., X, Y, Z] over the HR voxels that it covers (``j f`` to ``j f + f - 1``)."""
    for axis, factor in zip((-3, -2, -1), factors, strict=True):
        mask = np.repeat(mask, factor, axis=axis)
    return mask


def put_nan(values: NDArray[np.floating], trusted: Bool, factors: tuple[int, int, int]) -> None:
    """Put NaN where the acquired data were not trusted: the last step, after the residual has been computed.

    Args:
        values: HR maps, [M, X, Y, Z]; every HR voxel whose LR voxel is untrusted becomes NaN.
        trusted: LR trust, [M, X, Y, Z].
        factors: Refinement per axis.
    """
    for one, known in zip(values, trusted, strict=True):
        one[upsample_nearest(~known, factors)] = np.nan
