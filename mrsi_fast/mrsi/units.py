"""The unit of a quality map, judged from its values where they leave no doubt: programs write the same map differently.

Cramér-Rao bounds come as percent of the concentration (LCModel's %SD, fsl_mrsi, MRSIPrep), as a fraction of it, or as a
standard deviation in the map's own unit. Three observations separate them, each counted as the number of decades by
which a reading lies outside its usual range (measured on 35 maps of a 3 T scan, ``docs/decisions/units.md``):

- the noise relative to the concentration that follows: 1 to 300 % as percent, else 1 to 60 %;
- the map's own scatter from voxel to voxel, 0.3 to 12 times the bound: the bound is a lower one, and anatomy is smooth;
- noise hardly depends on the concentration, so a relative bound falls where the concentration rises (slope of the
  logarithms -0.5 to -1), and an absolute one does not.

Linewidths come in ppm (0.02 to 0.3) or Hz (2 to 100): the two ranges do not meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.mapset import Float32, MapInputError
from mrsi_fast.mrsi.names import ABSENT_IN_HEALTHY_BRAIN, is_lipid_or_macromolecule

CrlbUnit = Literal["percent", "fraction", "absolute"]
FwhmUnit = Literal["ppm", "Hz"]

CRLB_UNITS: tuple[CrlbUnit, ...] = ("percent", "fraction", "absolute")
NO_FIT_PERCENT = 999.0
"""LCModel's %SD for a metabolite that it could not fit; so is anything above."""

PLAUSIBLE_LEVELS = (1e-12, 1e12)
"""Levels (99th percentile) that maps can have in some unit; their squares stay well inside float32."""

_RELATIVE_NOISE: dict[CrlbUnit, tuple[float, float]] = {
    "percent": (0.01, 3.0),
    "fraction": (0.01, 0.6),
    "absolute": (0.01, 0.6),
}
_SCATTER_OVER_BOUND = (0.3, 12.0)
_SLOPE_OF_RELATIVE, _SLOPE_OF_ABSOLUTE, _SLOPE_WEIGHT = -0.4, -0.2, 1.5
_WHOLE_NUMBERS = 0.5  # decades in favour of percent: nobody writes a fraction or a concentration in whole numbers
_CLEAR = 0.3  # decades by which another reading has to be better than percent
_IMPLAUSIBLE = 0.7  # decades
_ENOUGH_VOXELS = 8
_FAR_FROM_USUAL = 20.0  # times the median bound, where the concentration is within a factor of five
_LARGEST_PPM, _PLAUSIBLE_WIDTH = 1.0, (0.005, 150.0)
_PLAUSIBLE_MHZ = (15.0, 1500.0)
_PROTON_MHZ_PER_TESLA = 42.577


@dataclass(frozen=True)
class _Evidence:
    """Evidence of one map on the unit of its bounds."""

    name: str
    median: float
    relative: dict[CrlbUnit, float]
    scatter: float
    slope: float
    whole: bool

    def decades_off(self, unit: CrlbUnit) -> float:
        """How far outside the usual ranges this reading lies, in decades."""
        noise = self.relative[unit]
        off = _outside(noise, _RELATIVE_NOISE[unit])
        if self.scatter > 1e-3:  # a map without any scatter was made without noise
            off += _outside(self.scatter / noise, _SCATTER_OVER_BOUND)
        if np.isfinite(self.slope):
            beyond = _SLOPE_OF_ABSOLUTE - self.slope if unit == "absolute" else self.slope - _SLOPE_OF_RELATIVE
            off += _SLOPE_WEIGHT * float(np.clip(beyond, 0.0, 1.0))
        return off - _WHOLE_NUMBERS * (self.whole and unit == "percent")


def judge_crlb(maps: Float32, crlb: Float32, names: Sequence[str]) -> tuple[CrlbUnit, str | None]:
    """Tell the unit of a set's Cramér-Rao bounds; all maps of a set come from one program.

    Args:
        maps: Concentrations, [M, X, Y, Z], any unit.
        crlb: Their bounds as stored, same shape.
        names: Canonical names.

    Returns:
        The unit, and what to tell the user (None where it is percent beyond doubt or too little is known to judge).

    Raises:
        MapInputError: No unit makes the values plausible, or maps of the set disagree.
    """
    known = [e for e in map(_evidence, names, maps, crlb) if e is not None]
    telling = [e for e in known if e.name not in ABSENT_IN_HEALTHY_BRAIN and not is_lipid_or_macromolecule(e.name)]
    telling = telling or known
    if not telling:
        return "percent", None
    off = {unit: float(np.mean([e.decades_off(unit) for e in telling])) for unit in CRLB_UNITS}
    best = min(off, key=off.__getitem__)
    unit: CrlbUnit = best if off[best] < off["percent"] - _CLEAR else "percent"
    if off[unit] > _IMPLAUSIBLE:
        raise MapInputError(f"crlb: {_figures(telling)}. Check the files, or state the unit (crlb unit: percent, "
                            "fraction or absolute).")  # fmt: skip
    _refuse_mixture(telling, unit)
    if unit != "percent":
        meaning = (
            "standard deviations in the maps' own unit" if unit == "absolute" else "fractions of the concentration"
        )
        return (
            unit,
            f"inferred from its values: {meaning}, not percent: {_figures(telling)}; state the unit if not so",
        )
    others = [other for other in CRLB_UNITS if other != "percent" and off[other] < off["percent"] + 0.5 * _CLEAR]
    if others:
        return unit, f"taken as percent, but {' or '.join(others)} is as plausible: {_figures(telling)}; state the unit"
    return unit, None


def check_levels(maps: Float32, names: Sequence[str]) -> None:
    """Refuse maps whose level no unit explains: bytes in the wrong order, or a wrong slope in the header.

    One map of a set may be as low as it likes (a metabolite that no fit found); all of them may not.

    Args:
        maps: [M, X, Y, Z], any unit; values that are not finite or zero do not count.
        names: Canonical names.

    Raises:
        MapInputError: A map is too high, or all that hold anything are too low.
    """
    known = [np.abs(one[np.isfinite(one) & (one != 0)]).astype(np.float64) for one in maps]
    levels = {name: float(np.percentile(values, 99)) for name, values in zip(names, known, strict=True) if values.size}
    if not levels:
        return
    highest = max(levels, key=levels.__getitem__)
    if not PLAUSIBLE_LEVELS[0] <= levels[highest] <= PLAUSIBLE_LEVELS[1]:
        raise MapInputError(
            f"{highest}: its values reach {levels[highest]:.3g} (99th percentile), where maps in any unit are between "
            f"{PLAUSIBLE_LEVELS[0]:.0e} and {PLAUSIBLE_LEVELS[1]:.0e}. Check how the file was written (order of bytes, "
            "scl_slope), or multiply the maps by a constant."
        )


def judge_fwhm(fwhm: Float32, stated: FwhmUnit | None, said_by_layout: FwhmUnit | None) -> tuple[FwhmUnit, str | None]:
    """Tell the unit of linewidths.

    Args:
        fwhm: Linewidths as stored, any shape; zero, negative and NaN are no linewidth.
        stated: What the user states, which is obeyed.
        said_by_layout: The unit that the kind of folder implies (Hz for fsl_mrsi), if any.

    Returns:
        The unit, and what to tell the user where it is not the one to expect.

    Raises:
        MapInputError: The values are linewidths in neither unit.
    """
    widths = fwhm[np.isfinite(fwhm) & (fwhm > 0)]
    expected: FwhmUnit = said_by_layout or "ppm"
    if stated is not None or widths.size == 0:
        return stated or expected, None
    median = float(np.median(widths))
    each = [float(np.median(one[one > 0])) for one in (fwhm if fwhm.ndim == 4 else fwhm[None]) if (one > 0).any()]
    if min(each) < _LARGEST_PPM <= max(each):
        raise MapInputError(
            f"fwhm: the medians of the maps are {min(each):.3g} to {max(each):.3g}, linewidths in ppm and in Hz. Bring "
            "the files to one unit, or state it (fwhm unit: ppm or Hz)."
        )
    if not _PLAUSIBLE_WIDTH[0] <= median <= _PLAUSIBLE_WIDTH[1]:
        raise MapInputError(
            f"fwhm: its median is {median:.3g}, a linewidth neither in ppm (0.02 to 0.3) nor in Hz (2 to 100). Check "
            "the files, or leave them out."
        )
    unit: FwhmUnit = "ppm" if median < _LARGEST_PPM else "Hz"
    told = None if unit == expected else f"inferred from its values: {unit}, not {expected} (median {median:.3g})"
    return unit, told


def check_mhz(mhz: float | None) -> None:
    """Refuse a spectrometer frequency that is none.

    Raises:
        MapInputError: Outside 15 to 1500 MHz, as a field strength in tesla would be.
    """
    if mhz is None or _PLAUSIBLE_MHZ[0] <= mhz <= _PLAUSIBLE_MHZ[1]:
        return
    hint = (
        f" If it is the field in tesla: {mhz:g} T is {_PROTON_MHZ_PER_TESLA * mhz:.1f} MHz for protons."
        if 0 < mhz < 15
        else ""
    )
    raise MapInputError(f"mhz: {mhz:g} MHz is no spectrometer frequency.{hint}")


def relative_noise(values: NDArray, bound: NDArray, unit: CrlbUnit) -> NDArray:
    """Bound over concentration, as a fraction, in the shape of the inputs; not finite where the concentration is 0."""
    if unit == "absolute":
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.abs(bound / values)
    return bound / 100.0 if unit == "percent" else bound


def _evidence(name: str, values: Float32, bound: Float32) -> _Evidence | None:
    """The figures of one map over voxels that hold tissue and a fit; None where there are too few."""
    with np.errstate(invalid="ignore"):
        fitted = np.isfinite(values) & np.isfinite(bound) & (values > 0) & (bound > 0)
        fitted &= np.abs(bound - NO_FIT_PERCENT) > 0.05
    if fitted.sum() < _ENOUGH_VOXELS:
        return None
    full = np.percentile(values[fitted], 90)
    fitted &= (values > 0.2 * full) & (values < 5.0 * full)
    if fitted.sum() < _ENOUGH_VOXELS:
        return None
    usual = float(np.median(bound[fitted]))  # marks such as 5000 % would decide the slope
    fitted &= (bound > usual / _FAR_FROM_USUAL) & (bound < _FAR_FROM_USUAL * usual)
    if fitted.sum() < _ENOUGH_VOXELS:
        return None
    v, b = values[fitted].astype(np.float64), bound[fitted].astype(np.float64)
    whole, constant = bool(np.all(np.abs(b - np.round(b)) < 0.01)), b.min() == b.max()
    slope = float("nan")
    if (
        np.log(v).std() > 0.03 and len(v) >= 2 * _ENOUGH_VOXELS and not (constant and whole)
    ):  # a constant carries no information
        slope = float(np.polyfit(np.log(v), np.log(b), 1)[0])
    level = float(np.median(v))
    relative = {unit: float(np.median(relative_noise(v, b, unit))) for unit in CRLB_UNITS}
    return _Evidence(
        name, float(np.median(b)), relative, _scatter(values, fitted) / level, slope, whole and not constant
    )


def _scatter(values: Float32, fitted: NDArray[np.bool_]) -> float:
    """Robust standard deviation of a voxel against its neighbour, over sqrt(2)."""
    steps = []
    for axis in range(values.ndim):
        pair = np.diff(np.where(fitted, values, np.nan).astype(np.float64), axis=axis)
        steps.append(np.abs(pair[np.isfinite(pair)]))
    every = np.concatenate(steps)
    return 1.4826 * float(np.median(every)) / np.sqrt(2.0) if every.size else 0.0


def _outside(value: float, limits: tuple[float, float]) -> float:
    low, high = np.log10(limits)
    at = np.log10(max(value, 1e-30))
    return float(max(low - at, at - high, 0.0))


def _figures(telling: Sequence[_Evidence]) -> str:
    first = telling[0]
    readings = ", ".join(f"{100 * first.relative[unit]:.3g} % as {unit}" for unit in CRLB_UNITS)
    return (
        f"the median {first.median:.3g} of {first.name} would be a noise of {readings}, where the map itself varies by "
        f"{100 * first.scatter:.2g} % between neighbours"
    )


def _refuse_mixture(telling: Sequence[_Evidence], unit: CrlbUnit) -> None:
    for one in telling:
        better = min(CRLB_UNITS, key=one.decades_off)
        if one.decades_off(unit) > 1.0 and one.decades_off(better) < _CLEAR:
            raise MapInputError(
                f"crlb of {one.name}: its values (median {one.median:.3g}) are plausible as {better}, those of the "
                f"other maps as {unit}. Bring the files to one unit."
            )
