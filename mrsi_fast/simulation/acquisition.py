"""The measurement of one slice: from the object (or from HR truth) to LR maps with noise, failed fits and quality maps.

The linear part is :class:`mrsi_fast.mrsi.forward.Acquisition`; this module adds what surrounds it: excitation box,
lipid, noise that follows the window and the B0 field, fit errors and failures, and what a fitting program says of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.forward import Acquisition, Modes
from mrsi_fast.simulation.anatomy import BRAIN_CLASSES, CLASSES
from mrsi_fast.simulation.config import SignalConfig
from mrsi_fast.simulation.fields import Array, Axis, SmoothField, correlate
from mrsi_fast.simulation.imperfections import Mismatch, excess_noise
from mrsi_fast.simulation.keys import Key, log_uniform
from mrsi_fast.simulation.subject import Slab

SHIFT_PPM: dict[str, float] = {
    "tNAA": 2.01,
    "tCr": 3.03,
    "tCho": 3.21,
    "Ins": 3.56,
    "Glx": 2.35,
    "2HG": 2.25,
    "Gln": 2.44,
    "Glu": 2.34,
    "GSH": 2.95,
    "Gly": 3.55,
    "Lac": 1.31,
}
"""Chemical shift of each metabolite's main resonance, ppm (Govindaraju et al. 2000, NMR Biomed 13:129)."""

REFERENCE_PPM = 2.35  # the sequence is centred on this frequency (assumed)

LIPID_LEAK: dict[str, float] = {"Lac": 1.0, "tNAA": 0.25, "Glx": 0.15, "2HG": 0.15, "GSH": 0.1, "Gln": 0.1, "Glu": 0.1}
"""Share of a lipid signal that a fit takes for each metabolite, relative to Lac (assumed); 0.05 for the others."""

LIPID_FLAG_MM = 3.0  # lipid above this (mM of Lac) is seen in the spectra, and the voxel flagged (assumed)

SUSCEPTIBILITY: tuple[tuple[tuple[float, float, float], float], ...] = (
    ((0.0, 60.0, -32.0), 20.0),
    ((45.0, 8.0, -38.0), 18.0),
    ((-45.0, 8.0, -38.0), 18.0),
)
"""Places of poor B0 (frontal sinus, temporal poles): centre relative to the cerebrum's, and width, mm (assumed)."""

BEST_FWHM_PPM = (0.04, 0.005)  # mean and SD of the linewidth where B0 is good

SILENT_SHARE = 0.02  # voxels with less brain than this hold nothing where a pipeline has blanked the background
MASK_SHARE = 0.4  # an LR voxel belongs to a brain mask from this share of brain on
SIGNAL_SHARE = 0.2  # and to the region that holds signal, as ``mrsi.quality.estimate_support`` finds it, from this one


@dataclass(frozen=True)
class PressBox:
    """An excited box with soft edges, displaced per metabolite by its chemical shift.

    Attributes:
        centre: mm in the plane, for a resonance at :data:`REFERENCE_PPM`.
        size: Full width at half maximum per axis, mm.
        edge: Width of the logistic edge, mm.
        shift: Displacement per ppm and axis, mm.
    """

    centre: tuple[float, float]
    size: tuple[float, float]
    edge: float
    shift: tuple[float, float]

    def profile(self, x: Array, y: Array, ppm: float) -> Array:
        """Excitation of a resonance [X, Y], 0 to 1."""
        along = []
        for axis, points in enumerate((x, y)):
            centre = self.centre[axis] + self.shift[axis] * (ppm - REFERENCE_PPM)
            offset = np.abs(points - centre) - self.size[axis] / 2
            along.append(1 / (1 + np.exp(np.clip(offset / self.edge, -30, 30))))
        return along[0][:, None] * along[1][None, :]


@dataclass(frozen=True)
class Protocol:
    """How a subject is measured.

    Attributes:
        operator: LR matrix, factors, support, window.
        source: ``truth`` (y = A x_HR, an inverse crime) or ``object`` (y from the fine object).
        noise: Factor on the table's noise.
        missing: Share of brain voxels without a fit.
        masked: Whether voxels outside the brain are untrusted.
        press: Excited box, or None.
        lipid: Lipid amplitude at the scalp in mM of Lac, 0 without.
        magnitude: Whether the maps are magnitudes.
        excess: True noise over the stated one.
        mismatch: Difference between the true k-space weighting and the operator's, or None.
        silent: Whether unmasked voxels outside the head hold nothing.
    """

    operator: Acquisition
    source: Literal["truth", "object"] = "truth"
    noise: float = 0.0
    missing: float = 0.0
    masked: bool = False
    press: PressBox | None = None
    lipid: float = 0.0
    magnitude: bool = False
    excess: float = 1.0
    mismatch: Mismatch | None = None
    silent: bool = False


@dataclass(frozen=True)
class VolumePart:
    """What a slice of a volume that was measured as a whole has from it.

    Attributes:
        clean: [M, nx, ny] mM, without noise.
        white: [M, nx, ny] unit noise as the sampling along the third axis leaves it; white in the plane.
        noise_gain: Its standard deviation.
    """

    clean: Array
    white: Array
    noise_gain: float


@dataclass(frozen=True)
class Measurement:
    """LR maps of one slice and what a fitting program says about them.

    Attributes:
        maps: [M, nx, ny] mM; failed fits hold whatever the fit gave, missing voxels NaN.
        noise_sd: [M, nx, ny] stated standard deviation of each voxel's error, mM; the true one is larger by the
            protocol's excess.
        trusted: [M, nx, ny] bool.
        failed: [M, nx, ny] bool, fits that failed, noticed or not.
        lipid: [nx, ny] bool, voxels flagged for lipid.
        fwhm_ppm: [nx, ny] linewidth.
        clean: [M, nx, ny] mM, the same maps without noise, lipid and failures.
        support: [nx, ny] where there is tissue: the user's brain mask, else what the maps themselves show.
    """

    maps: Array
    noise_sd: Array
    trusted: NDArray[np.bool_]
    failed: NDArray[np.bool_]
    lipid: NDArray[np.bool_]
    fwhm_ppm: Array
    clean: Array
    support: NDArray[np.bool_]

    @property
    def noise(self) -> Array:
        """One noise level per map [M], mM: the median over trusted voxels, 0 where there are none."""
        pairs = zip(self.noise_sd, self.trusted, strict=True)
        return np.array([np.median(sd[use]) if use.any() else 0.0 for sd, use in pairs], self.maps.dtype)


@lru_cache(maxsize=128)
def _modes(acquisition: Acquisition, dtype: str) -> Modes[NDArray]:
    """Copies of an operator's matrices in one precision; bounded, unlike the operator's own cache of torch tensors."""
    exact = vars(acquisition.modes_float64()).items()
    copies: dict[str, Any] = {n: None if a is None else np.ascontiguousarray(a, dtype) for n, a in exact}
    return Modes(**copies)


def sample(acquisition: Acquisition, image: Array) -> Array:
    """``A x`` for arrays [..., X, Y] in their own precision."""
    return _modes(acquisition, str(image.dtype)).forward(image)


@lru_cache(maxsize=128)
def noise_gain(kernel: Acquisition) -> float:
    """SD of white unit noise on the LR grid after support and window: sqrt(mean over k of (W M)^2)."""
    return float(np.sqrt((kernel.modes_float64().gains ** 2).sum() / np.prod(kernel.lr_shape)))


def excite(slab: Slab, names: tuple[str, ...], press: PressBox | None) -> Slab:
    """The slab as the sequence excites it: each metabolite times its displaced box."""
    if press is None:
        return slab
    maps = slab.maps.copy()
    for image, name in zip(maps, names, strict=True):
        image *= press.profile(slab.x.points, slab.y.points, SHIFT_PPM.get(name, REFERENCE_PPM))
    return replace(slab, maps=maps)


def poor_b0(key: Key, x: Axis, y: Axis, planes: Array) -> Array:
    """How bad B0 is [X, Y], 0 (good) to about 1: fixed places of susceptibility and a random smooth part."""
    z, gx, gy = float(np.mean(planes)), x.points, y.points
    total = np.zeros((x.count, y.count), x.dtype)
    for (cx, cy, cz), width in SUSCEPTIBILITY:
        height = float(np.exp(-(((z - cz) / width) ** 2) / 2))
        bell = np.exp(-(((gx - cx) / width) ** 2) / 2)[:, None] * np.exp(-(((gy - cy) / width) ** 2) / 2)[None]
        total += height * bell
    wave = SmoothField(key, "B0", 1, 14.0, x.dtype).slab(x, y, planes)[0]
    return np.clip(total + 0.35 * np.maximum(wave - 0.5, 0), 0, 1.5)


def measure(
    slab: Slab,
    truth: Array,
    names: tuple[str, ...],
    table_noise: Array,
    protocol: Protocol,
    settings: SignalConfig,
    key: Key,
    slice_key: Key,
    *,
    whole: VolumePart | None = None,
) -> Measurement:
    """Measures one slice.

    Args:
        slab: The excited object on the fine grid.
        truth: HR maps [M, X, Y], mM.
        names: Metabolites.
        table_noise: Noise SD of one unwindowed LR voxel per map [M], mM.
        protocol: How.
        settings: Strengths of the imperfections.
        key: The subject's key (B0, fit errors).
        slice_key: The slice's key (noise, failures).
        whole: What was measured of the whole volume for this slice, where the slices do not stand for themselves.

    Returns:
        LR maps with quality maps.
    """
    operator = protocol.operator
    from_object = object_operator(operator, slab)
    clean = clean_maps(slab, truth, protocol) if whole is None else whole.clean
    clean = clean if protocol.mismatch is None else protocol.mismatch.apply(clean)
    clean = np.abs(clean) if protocol.magnitude else clean
    x, y = slab.x.merged(from_object.factors[0]), slab.y.merged(from_object.factors[1])
    share = _brain_share(slab, from_object.factors, protocol.press)
    support = share > (MASK_SHARE if protocol.masked else SIGNAL_SHARE)
    trusted = np.broadcast_to(support | (not protocol.masked), clean.shape).copy()
    nowhere = np.zeros(clean.shape, bool)
    if protocol.noise == 0:  # noise-free data are free of every other imperfection too
        fwhm = np.full(support.shape, BEST_FWHM_PPM[0])
        return Measurement(clean, np.zeros_like(clean), trusted, nowhere, nowhere[0], fwhm, clean, support)
    rng = slice_key.stream("noise")
    bad = poor_b0(key, x, y, slab.planes)
    sd = bad * settings.noise_inhomogeneity + 1
    sd = sd * (protocol.noise * table_noise).astype(sd.dtype)[:, None, None]
    kernel = Acquisition(operator.lr_shape, (1, 1), operator.support, operator.window)
    white = rng.standard_normal(clean.shape, dtype=clean.dtype) if whole is None else whole.white
    white = np.tensordot(correlate(names, "Gln", "Glu", -0.6, str(clean.dtype)), white, axes=(1, 0))
    true_sd = sd
    if protocol.excess > 1 or settings.noise_tail > 0:
        true_sd = sd * excess_noise(clean, sd, support, (x, y), slab.planes, protocol.excess, settings, slice_key)
    maps = _fitted(clean, names, settings, key) + true_sd * sample(kernel, white)
    lipid = _add_lipid(maps, names, protocol.lipid, from_object, slab) if protocol.lipid else nowhere[0]
    fwhm = BEST_FWHM_PPM[0] + BEST_FWHM_PPM[1] * rng.standard_normal(bad.shape) + settings.poor_b0_ppm * bad
    trusted &= (fwhm <= 0.1) & ~lipid
    if protocol.silent and not protocol.masked:
        maps[:, share < SILENT_SHARE] = 0
    failed = _fail(maps, trusted, support, (x, y), slab.planes, protocol, settings, slice_key)
    gain = noise_gain(kernel) * (1.0 if whole is None else whole.noise_gain)
    return Measurement(maps, sd * gain, trusted, failed, lipid, fwhm, clean, support)


def object_operator(operator: Acquisition, slab: Slab) -> Acquisition:
    """The operator of a slice from the fine grid of the object."""
    fine = slab.x.count // operator.hr_shape[0]
    return replace(operator, factors=(operator.factors[0] * fine, operator.factors[1] * fine), box=False)


def clean_maps(slab: Slab, truth: Array, protocol: Protocol) -> Array:
    """LR maps [M, nx, ny] of a slice or plane without noise, from HR truth or from the object."""
    operator = protocol.operator
    return sample(operator, truth) if protocol.source == "truth" else sample(object_operator(operator, slab), slab.maps)


def _add_lipid(
    maps: Array, names: tuple[str, ...], strength: float, operator: Acquisition, slab: Slab
) -> NDArray[np.bool_]:
    """Let the scalp's lipid leak into LR maps [M, X, Y], in place; returns where it is flagged [X, Y]."""
    ring = strength * sample(operator, slab.fractions[CLASSES.index("scalp")])
    maps += np.array([LIPID_LEAK.get(name, 0.05) for name in names], maps.dtype)[:, None, None] * ring
    return np.abs(ring) > LIPID_FLAG_MM


def _brain_share(slab: Slab, factors: tuple[int, int], press: PressBox | None) -> Array:
    """Share of each LR voxel that is excited brain [nx, ny]."""
    image = slab.fractions[BRAIN_CLASSES].sum(0)
    if press is not None:
        image = image * press.profile(slab.x.points, slab.y.points, REFERENCE_PPM)
    fx, fy = factors
    return image.reshape(image.shape[0] // fx, fx, image.shape[1] // fy, fy).mean(axis=(1, 3))


def _fitted(clean: Array, names: tuple[str, ...], settings: SignalConfig, key: Key) -> Array:
    """Maps with the systematic errors of the fit: a gain per map, and Glx (or Glu) taken for 2HG."""
    gain = np.exp(settings.fit_gain_sd * key.stream("fit gain").standard_normal(len(names)))
    maps = clean * gain.astype(clean.dtype)[:, None, None]
    source = next((name for name in ("Glx", "Glu") if name in names), None)
    if settings.cross_talk and source is not None and "2HG" in names:
        maps[names.index("2HG")] += settings.cross_talk * clean[names.index(source)]
    return maps


def _fail(
    maps: Array,
    trusted: NDArray[np.bool_],
    support: NDArray[np.bool_],
    axes: tuple[Axis, Axis],
    planes: Array,
    protocol: Protocol,
    settings: SignalConfig,
    key: Key,
) -> NDArray[np.bool_]:
    """Plants spikes (single maps) and missing voxels (all maps, in clusters), in place; returns where."""
    rng = key.stream("failures")
    failed = np.zeros(maps.shape, bool)
    if settings.spikes > 0:
        hit, seen, zero = rng.random((3, *maps.shape)) < np.array([settings.spikes, 0.9, 0.4])[:, None, None, None]
        size = np.exp(rng.uniform(np.log(1.3), np.where(seen, np.log(30), np.log(2.5))))
        typical = np.abs(maps).max(axis=(1, 2), keepdims=True)
        maps[:] = np.where(hit, np.where(zero, 0, size * typical), maps)
        trusted &= ~(hit & seen)
        failed |= hit
    if protocol.missing > 0 and support.any():
        width = 1.2 * max(axes[0].step, 8.0)
        level = SmoothField(key, "missing", 1, width, axes[0].dtype).slab(*axes, planes)[0]
        gone = level > np.quantile(level[support], 1 - protocol.missing)
        maps[:, gone], trusted[:, gone], failed[:, gone] = np.nan, False, True
    return failed


def draw_press(rng: np.random.Generator, fov_mm: tuple[float, float], settings: SignalConfig) -> PressBox:
    """Draws a box that lies within the field of view and within the head's usual size."""
    width, height = (float(rng.uniform(*settings.press_size)) * min(extent, 170.0) for extent in fov_mm)
    centre = (float(rng.uniform(-15, 15)), float(rng.uniform(-20, 20)))
    along_x, along_y = (float(s) for s in rng.uniform(-1, 1, 2) * settings.chemical_shift_ppm_mm)
    return PressBox(centre, (width, height), float(rng.uniform(*settings.press_edge_mm)), (along_x, along_y))


def draw_noise(rng: np.random.Generator, settings: SignalConfig) -> float:
    """Factor on the table's noise for one acquisition."""
    return log_uniform(rng, *settings.noise) if settings.noise[0] > 0 else 0.0
