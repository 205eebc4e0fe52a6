"""The measurement of one slice: from the object (or from HR truth) to LR maps with noise, failed fits and quality maps.

The linear part is :class:`mrsi_fast.mrsi.forward.Acquisition`; this module adds what surrounds it: excitation box,
lipid, noise that follows the window and the B0 field, fit failures, and the QC maps a fitting program would write.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.forward import Acquisition, Modes
from mrsi_fast.simulation.anatomy import BRAIN_CLASSES, CLASSES
from mrsi_fast.simulation.config import SignalConfig
from mrsi_fast.simulation.fields import Axis, SmoothField
from mrsi_fast.simulation.keys import Key, log_uniform
from mrsi_fast.simulation.subject import Slab

Array = NDArray[np.float32]

SHIFT_PPM: dict[str, float] = {"tNAA": 2.01, "tCr": 3.03, "tCho": 3.21, "Ins": 3.56, "Glx": 2.35, "2HG": 2.25,
                               "Gln": 2.44, "Glu": 2.34, "GSH": 2.95, "Gly": 3.55, "Lac": 1.31}
"""Chemical shift of each metabolite's main resonance, ppm (Govindaraju et al. 2000, 10.1002/1099-1492)."""

LIPID_LEAK: dict[str, float] = {"Lac": 1.0, "tNAA": 0.25, "Glx": 0.15, "2HG": 0.15, "GSH": 0.1, "Gln": 0.1, "Glu": 0.1}
"""Share of a lipid signal that a fit takes for each metabolite, relative to Lac (assumed)."""

SUSCEPTIBILITY: tuple[tuple[tuple[float, float, float], float], ...] = (
    ((0.0, 60.0, -32.0), 20.0), ((45.0, 8.0, -38.0), 18.0), ((-45.0, 8.0, -38.0), 18.0))
"""Places of poor B0 (frontal sinus, temporal poles): centre relative to the cerebrum's, and width, mm (assumed)."""


@dataclass(frozen=True)
class PressBox:
    """An excited box with soft edges, displaced per metabolite by its chemical shift.

    Attributes:
        centre: mm in the plane, for a resonance at 2.35 ppm.
        size: Full width at half maximum per axis, mm.
        edge: Width of the logistic edge, mm.
        shift: Displacement per ppm and axis, mm.
    """

    centre: tuple[float, float]
    size: tuple[float, float]
    edge: float
    shift: tuple[float, float]

    def profile(self, x: Array, y: Array, ppm: float = 2.35) -> Array:
        """Excitation of a resonance [X, Y], 0 to 1."""
        along = []
        for axis, points in enumerate((x, y)):
            offset = np.abs(points - self.centre[axis] - self.shift[axis] * (ppm - 2.35)) - self.size[axis] / 2
            along.append(1 / (1 + np.exp(np.clip(offset / self.edge, -30, 30))))
        return (along[0][:, None] * along[1][None, :]).astype(np.float32)


@dataclass(frozen=True)
class Protocol:
    """How one slice is measured.

    Attributes:
        operator: LR matrix, factors, support, window.
        source: ``truth`` (y = A x_HR, an inverse crime) or ``object`` (y from the fine object).
        noise: Factor on the table's noise.
        missing: Share of brain voxels without a fit.
        masked: Whether voxels outside the brain are untrusted.
        press: Excited box, or None.
        lipid: Lipid amplitude at the scalp in mM of Lac, 0 without.
    """

    operator: Acquisition
    source: Literal["truth", "object"] = "truth"
    noise: float = 0.0
    missing: float = 0.0
    masked: bool = False
    press: PressBox | None = None
    lipid: float = 0.0


@dataclass(frozen=True)
class Measurement:
    """LR maps and what a fitting program says about them.

    Attributes:
        maps: [M, nx, ny] mM; failed fits hold whatever the fit gave, missing voxels NaN.
        noise_sd: [M, nx, ny] standard deviation of each voxel's error, mM.
        trusted: [M, nx, ny] bool.
        fwhm_ppm: [nx, ny] linewidth.
        clean: [M, nx, ny] mM, the same maps without noise, lipid and failures.
        brain: [nx, ny] share of brain.
        support: [nx, ny] where the user would say there is tissue; everywhere without a mask.
    """

    maps: Array
    noise_sd: Array
    trusted: NDArray[np.bool_]
    fwhm_ppm: Array
    clean: Array
    brain: Array
    support: NDArray[np.bool_]

    @property
    def noise(self) -> Array:
        """One noise level per map [M], mM: the median over trusted voxels, 0 where there are none."""
        pairs = zip(self.noise_sd, self.trusted, strict=True)
        return np.array([np.median(sd[use]) if use.any() else 0.0 for sd, use in pairs], np.float32)


@lru_cache(maxsize=128)
def _modes(acquisition: Acquisition) -> Modes[Array]:
    """Float32 copies of an operator's matrices; bounded, unlike the operator's own cache of torch tensors."""
    exact = acquisition.modes_float64()
    return Modes(**{n: None if a is None else np.ascontiguousarray(a, np.float32) for n, a in vars(exact).items()})


def sample(acquisition: Acquisition, image: Array) -> Array:
    """``A x`` in float32 for arrays [..., X, Y]."""
    return _modes(acquisition).forward(image).astype(np.float32, copy=False)


def pool(image: Array, fine: int) -> Array:
    """Box mean over ``fine`` x ``fine`` blocks of [..., X fine, Y fine]."""
    if fine == 1:
        return image
    columns = sum((image[..., k::fine] for k in range(1, fine)), image[..., ::fine].copy())
    rows = sum((columns[..., k::fine, :] for k in range(1, fine)), columns[..., ::fine, :].copy())
    return np.ascontiguousarray(rows * np.float32(1 / fine**2))


def excite(slab: Slab, names: tuple[str, ...], press: PressBox | None) -> Slab:
    """The slab as the sequence excites it: each metabolite times its displaced box."""
    if press is None:
        return slab
    profiles = np.stack([press.profile(slab.x.points, slab.y.points, SHIFT_PPM.get(name, 2.35)) for name in names])
    return replace(slab, maps=slab.maps * profiles)


def poor_b0(key: Key, x: Array, y: Array, planes: Array, axes: tuple[Axis, Axis]) -> Array:
    """How bad B0 is [X, Y], 0 (good) to about 1: fixed places of susceptibility and a random smooth part."""
    z = float(np.mean(planes))
    total = np.zeros((x.size, y.size), np.float32)
    for (cx, cy, cz), width in SUSCEPTIBILITY:
        height = np.exp(-(((z - cz) / width) ** 2) / 2)
        total += height * np.exp(-(((x - cx) / width) ** 2) / 2)[:, None] * np.exp(-(((y - cy) / width) ** 2) / 2)[None]
    wave = SmoothField(key, "B0", 1, 14.0).slab(*axes, planes)[0]
    return np.clip(total + 0.35 * np.maximum(wave - 0.5, 0), 0, 1.5).astype(np.float32)


def measure(slab: Slab, truth: Array, names: tuple[str, ...], noise_sd: Array, protocol: Protocol,
            settings: SignalConfig, key: Key, slice_key: Key) -> Measurement:
    """Measures one slice.

    Args:
        slab: The excited object on the fine grid.
        truth: HR maps [M, X, Y], mM.
        names: Metabolites.
        noise_sd: Noise SD of one unwindowed LR voxel per map [M] at factor 1, mM.
        protocol: How.
        settings: Strengths of the imperfections.
        key: The subject's key (B0).
        slice_key: The slice's key (noise, failures).

    Returns:
        LR maps with quality maps.
    """
    operator = protocol.operator
    fine = slab.x.count // operator.hr_shape[0]
    whole = replace(operator, factors=(operator.factors[0] * fine, operator.factors[1] * fine), box=False)
    clean = sample(operator, truth) if protocol.source == "truth" else sample(whole, slab.maps)
    axes = slab.x.merged(whole.factors[0]), slab.y.merged(whole.factors[1])
    brain = _lr_share(slab.fractions[BRAIN_CLASSES].sum(0), whole.factors)
    if protocol.noise == 0 and not protocol.masked and protocol.lipid == 0 and protocol.missing == 0:
        everything = np.ones(clean.shape, bool)
        fwhm = np.full(brain.shape, 0.04, np.float32)
        return Measurement(clean, np.zeros_like(clean), everything, fwhm, clean, brain, everything[0])
    rng = slice_key.stream("noise")
    bad = poor_b0(key, axes[0].points, axes[1].points, slab.planes, axes)
    sd = protocol.noise * noise_sd[:, None, None] * (1 + settings.noise_inhomogeneity * bad)
    kernel = Acquisition(operator.lr_shape, (1, 1), operator.support, operator.window)
    white = rng.standard_normal(clean.shape, dtype=np.float32)
    maps = clean + sd * sample(kernel, white)
    if protocol.lipid:
        maps += _lipid(slab, whole, names, protocol.lipid)
    fwhm = (0.04 + 0.01 * rng.standard_normal(brain.shape) + settings.poor_b0_ppm * bad).astype(np.float32)
    fwhm = np.clip(fwhm, 0.02, None)
    support = brain > 0.4 if protocol.masked else np.ones(brain.shape, bool)
    trusted = np.broadcast_to((fwhm <= 0.1) & support, maps.shape).copy()
    _fail(maps, trusted, brain, axes, slab.planes, protocol, settings, slice_key)
    sd = (sd * noise_gain(kernel)).astype(np.float32)
    return Measurement(maps.astype(np.float32), sd, trusted, fwhm, clean, brain, support)


@lru_cache(maxsize=128)
def noise_gain(kernel: Acquisition) -> float:
    """SD of white unit noise on the LR grid after support and window: sqrt(mean over k of (W M)^2)."""
    return float(np.sqrt((kernel.modes_float64().gains ** 2).sum() / np.prod(kernel.lr_shape)))


def _lr_share(image: Array, factors: tuple[int, int]) -> Array:
    """Box mean of [X, Y] over LR voxels."""
    fx, fy = factors
    return image.reshape(image.shape[0] // fx, fx, image.shape[1] // fy, fy).mean(axis=(1, 3))


def _lipid(slab: Slab, operator: Acquisition, names: tuple[str, ...], amplitude: float) -> Array:
    """Lipid of the scalp as the fits of each metabolite see it [M, nx, ny], rings of the PSF included."""
    ring = amplitude * sample(operator, slab.fractions[CLASSES.index("scalp")])
    return np.stack([LIPID_LEAK.get(name, 0.05) * ring for name in names])


def _fail(maps: Array, trusted: NDArray[np.bool_], brain: Array, axes: tuple[Axis, Axis], planes: Array,
          protocol: Protocol, settings: SignalConfig, key: Key) -> None:
    """Plants spikes (single maps) and missing voxels (all maps, in clusters), in place."""
    rng = key.stream("failures")
    if protocol.missing > 0:
        level = SmoothField(key, "missing", 1, 1.2 * max(axes[0].step, 8.0)).slab(*axes, planes)[0]
        inside = level[brain > 0.4]
        if inside.size:
            gone = level > np.quantile(inside, 1 - protocol.missing)
            maps[:, gone], trusted[:, gone] = np.nan, False
    if protocol.noise > 0 and settings.spikes > 0:
        hit, seen, zero = rng.random((3, *maps.shape)) < np.array([settings.spikes, 0.9, 0.4])[:, None, None, None]
        size = np.exp(rng.uniform(np.log(1.3), np.where(seen, np.log(30), np.log(2.5))))
        typical = np.nanmax(np.abs(maps), axis=(1, 2), initial=0, keepdims=True)
        maps[:] = np.where(hit, np.where(zero, 0, size * typical), maps)
        trusted &= ~(hit & seen)


def draw_press(rng: np.random.Generator, fov_mm: tuple[float, float], settings: SignalConfig) -> PressBox:
    """Draws a box that lies within the field of view and within the head's usual size."""
    size = tuple(float(rng.uniform(0.5, 0.85) * min(extent, 170.0)) for extent in fov_mm)
    centre = (float(rng.uniform(-15, 15)), float(rng.uniform(-20, 20)))
    shift = rng.uniform(-1, 1, 2) * settings.chemical_shift_ppm_mm
    return PressBox(centre, (size[0], size[1]), float(rng.uniform(1.5, 4.0)), (float(shift[0]), float(shift[1])))


def draw_noise(rng: np.random.Generator, settings: SignalConfig) -> float:
    """Factor on the table's noise for one acquisition."""
    return log_uniform(rng, *settings.noise) if settings.noise[0] > 0 else 0.0
