"""Simulated volumes for evaluation: one subject with its HR truth, and LR maps with quality maps at several factors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.config import ConfigError
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.geometry import hr_affine, parse_factors
from mrsi_fast.mrsi.mapset import MapSet
from mrsi_fast.mrsi.volume_operator import Operator, VolumeAcquisition
from mrsi_fast.simulation.acquisition import Measurement, Protocol, draw_noise, draw_press, measure
from mrsi_fast.simulation.anatomical import synthesise_t1
from mrsi_fast.simulation.anatomy import BRAIN_CLASSES, CLASSES, TISSUE_OF_CLASS
from mrsi_fast.simulation.config import SimulationConfig
from mrsi_fast.simulation.imperfections import draw_mismatch
from mrsi_fast.simulation.keys import Key, log_uniform
from mrsi_fast.simulation.slices import Slice, render
from mrsi_fast.simulation.stack import Stack, geometry
from mrsi_fast.simulation.subject import Subject, draw_subject

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

_Taken = tuple[list[Measurement], Protocol, Operator]

CHECKSUM_MM = 1e-3  # values are rounded to this many mM before they are hashed
LARGEST_CRLB = 998.0  # percent; 999 would mean that there was no fit
NO_FIT = 999.0
SPIKE_CRLB = (6.0, 25.0)
"""%SD of a noticed failed fit that gave a value: 6 to 27 % at 5 to 29 times the map's level in the in-vivo scan K_01
(Oryx-MRSI), so that its absolute bound is far above its neighbours'."""


@dataclass(frozen=True, eq=False)
class MeasuredVolume:
    """LR maps of a subject at one factor.

    Attributes:
        maps: [M, X, Y, Z] mM; NaN where there was no fit.
        clean: [M, X, Y, Z] the same without noise, lipid, fit errors and failures.
        affine: Voxel to RAS+ mm.
        operator: How each slice, or the volume, was sampled.
        noise_sd: [M, X, Y, Z] stated standard deviation of the error, mM; 0 if noise-free. The true one is larger
            where the preset's ``excess`` is above 1.
        crlb: [M, X, Y, Z] reported Cramér-Rao bound in percent of the concentration, or None if noise-free.
        snr: [X, Y, Z] tNAA (or first map) over its noise, or None if noise-free.
        fwhm_ppm: [X, Y, Z] linewidth, or None if noise-free.
        mask: [X, Y, Z] where maps are valid, or None where the protocol delivers the whole field of view.
        lipid: [X, Y, Z] voxels flagged for lipid.
        failed: [M, X, Y, Z] fits that failed, noticed by the quality maps or not.
    """

    maps: Float32
    clean: Float32
    affine: NDArray[np.float64]
    operator: Operator
    noise_sd: Float32
    crlb: Float32 | None
    snr: Float32 | None
    fwhm_ppm: Float32 | None
    mask: Bool | None
    lipid: Bool
    failed: Bool


@dataclass(frozen=True, eq=False)
class SimulatedSubject:
    """One simulated subject.

    Attributes:
        names: Metabolites.
        truth: HR maps [M, X, Y, Z], mM: box means of the object, B1 field and excitation included.
        affine: HR voxel to RAS+ mm (origin at the centre of the cerebrum).
        measured: Factors (fx, fy), or (fx, fy, g) where the slices are refined too, to LR maps.
        tissue: Shares ``GM``, ``WM``, ``CSF`` [X, Y, Z].
        masks: ``brain``, ``lesion`` (at least half core), ``rim`` (infiltrated, not core), ``NAWM`` (white matter away
            from the lesion, of the other hemisphere where there is one), [X, Y, Z] bool.
        membership: How much of a voxel's signal is the lesion's [X, Y, Z].
        anatomy: Synthetic T1 image on the HR grid [X, Y, Z].
        provenance: Preset, seed, head, lesion: everything that the numbers depend on.
    """

    names: tuple[str, ...]
    truth: Float32
    affine: NDArray[np.float64]
    measured: dict[tuple[int, ...], MeasuredVolume]
    tissue: dict[str, Float32]
    masks: dict[str, Bool]
    membership: Float32
    anatomy: Float32
    provenance: dict[str, Any]

    def mapset(self, scale: int | Sequence[int]) -> MapSet:
        """LR maps at one factor in the form that the resolver takes.

        Raises:
            KeyError: The subject was not measured at that factor.
        """
        factors = scale_key(scale)
        if factors not in self.measured:
            raise KeyError(f"This subject was measured at {sorted(self.measured)}, not at {factors}.")
        low = self.measured[factors]
        shape = low.maps.shape
        per_map = [None if q is None else np.broadcast_to(q, shape) for q in (low.snr, low.fwhm_ppm)]
        return MapSet(
            low.maps,
            low.affine,
            self.names,
            crlb=low.crlb,
            snr=per_map[0],
            fwhm=per_map[1],
            mask=low.mask,
            lipid=low.lipid if low.lipid.any() else None,
            units="mM",
            source=f"simulation, preset {self.provenance['preset']}, subject {self.provenance['subject']}",
        )

    def checksum(self) -> str:
        """SHA-256 of truth, LR maps and masks, values rounded to :data:`CHECKSUM_MM` so that machines agree."""
        digest = hashlib.sha256("\n".join(self.names).encode())
        arrays: list[NDArray] = [self.truth, self.membership]
        for factors in sorted(self.measured):
            arrays += [self.measured[factors].maps, self.measured[factors].clean]
        for array in arrays:
            counts = np.nan_to_num(np.round(array.astype(np.float64) / CHECKSUM_MM), nan=-(2.0**31))
            digest.update(counts.astype("<i4").tobytes())
        for name in sorted(self.masks):
            digest.update(np.packbits(self.masks[name]).tobytes())
        return digest.hexdigest()


def simulate(
    preset: str | SimulationConfig = "realistic-3T",
    subjects: int | Iterable[int] = 1,
    seed: int = 0,
    scales: Sequence[int | Sequence[int]] = (2, 4, 8),
) -> Iterator[SimulatedSubject]:
    """Simulates subjects, one after the other.

    Args:
        preset: Name of a preset, or settings.
        subjects: How many (0, 1, ...), or which numbers.
        seed: Of the set; subject and seed decide everything.
        scales: Super-resolution factors to measure each subject for.

    Yields:
        Subjects in order.

    Raises:
        ConfigError: Unknown preset, missing data, or a factor that does not divide the matrix.
    """
    config = SimulationConfig.preset(preset) if isinstance(preset, str) else preset
    factors = [scale_key(scale) for scale in scales]
    for number in range(subjects) if isinstance(subjects, int) else subjects:
        yield simulate_subject(config, number, seed, factors)


def scale_key(scale: int | str | Sequence[int]) -> tuple[int, ...]:
    """What a scale is called in ``SimulatedSubject.measured``: two factors, or three where the slices are refined."""
    factors = parse_factors(scale)
    return factors[:2] if factors[2] == 1 else factors


def simulate_subject(
    config: SimulationConfig,
    number: int,
    seed: int,
    factors: Sequence[tuple[int, ...]],
    subject: Subject | None = None,
) -> SimulatedSubject:
    """Simulates one subject; heads of the split are taken in turn by ``number``, unless it was drawn before.

    See :func:`simulate`.
    """
    settings = config.volume
    for fx, fy, *_ in factors:
        if settings.matrix[0] % fx or settings.matrix[1] % fy:
            raise ConfigError(
                f"The factor {fx},{fy} does not divide the matrix {settings.matrix[0]}x"
                f"{settings.matrix[1]} of preset {config.name}; change volume.matrix."
            )
    through = _through(factors)
    key = Key.of("subject", seed, number)
    subject = subject or draw_subject(config, key, settings.metabolites, head=number)
    common = _drawn_protocol(config, key)
    parts, excited, taken = _taken(config, subject, common, factors, key)
    affine = _affine(config, through)
    measured = {scale: _assemble(*found, affine, key) for scale, found in taken.items()}
    t1 = [
        synthesise_t1(part.fractions, (part.anatomy_lesion, part.lesion), key, key.child("slice", index))
        for index, part in enumerate(parts)
    ]
    return SimulatedSubject(
        names=subject.names,
        truth=_stack([part.truth for part in parts]),
        affine=affine,
        measured=measured,
        tissue=_tissue(parts),
        masks=_masks(parts, subject, config, excited),
        membership=_stack([part.lesion for part in parts]),
        anatomy=_stack(t1),
        provenance=_provenance(config, subject, number, seed, common),
    )


def _drawn_protocol(config: SimulationConfig, key: Key) -> dict[str, Any]:
    """What the subject's measurements at all factors have in common, as arguments of ``Protocol``."""
    settings, signal = config.volume, config.signal
    rng = key.stream("acquisition")
    boxed, oily, masked = rng.random(3) < [signal.press, signal.lipid, signal.masked]
    press = draw_press(rng, settings.fov_mm, signal) if boxed else None
    return {
        "source": settings.source,
        "noise": draw_noise(rng, signal),
        "press": press,
        "missing": float(rng.uniform(*signal.missing)),
        "masked": bool(masked),
        "lipid": log_uniform(rng, 0.5, 20.0) if oily else 0.0,
        "magnitude": settings.magnitude,
        "excess": log_uniform(key.stream("excess"), *signal.excess),
        "mismatch": draw_mismatch(key.stream("mismatch"), signal),
        "silent": bool(key.stream("background").random() < signal.silent_background),
    }


def _through(factors: Sequence[tuple[int, ...]]) -> int:
    """The through-plane factor that all scales share, as they share the truth.

    Raises:
        ConfigError: They do not.
    """
    found = {scale[2] if len(scale) == 3 else 1 for scale in factors} or {1}
    if len(found) > 1:
        raise ConfigError(
            f"The scales {', '.join(','.join(map(str, scale)) for scale in factors)} refine the slices by different "
            "factors, but all are measured from one truth. Simulate them one by one."
        )
    return found.pop()


def _taken(
    config: SimulationConfig, subject: Subject, common: dict[str, Any], factors: Sequence[tuple[int, ...]], key: Key
) -> tuple[list[Slice], Bool | None, dict[tuple[int, ...], _Taken]]:
    """The planes of the truth, those of them that were excited (None: all), and what was measured at each scale."""
    settings, through = config.volume, _through(factors)
    protocols = {scale: Protocol(_operator(config, scale), **common) for scale in factors}
    if through > 1:
        stack = Stack(config, subject, through, common["press"])
        axis = stack.axis(through)
        found: dict[tuple[int, ...], _Taken] = {
            scale: (stack.measure(protocol, key), protocol, VolumeAcquisition(protocol.operator, axis))
            for scale, protocol in protocols.items()
        }
        return stack.parts, stack.excited, found
    heights = [settings.first_mm + index * settings.step_mm for index in range(settings.slices)]
    parts = [render(subject, geometry(config, z, settings.thickness_mm), common["press"]) for z in heights]
    found = {}
    for scale, protocol in protocols.items():
        slices = []
        for index, part in enumerate(parts):
            arguments = (part.slab, part.truth, subject.names, subject.noise_sd, protocol, config.signal)
            slices.append(measure(*arguments, key, key.child("slice", index)))
        found[scale] = slices, protocol, protocol.operator
    return parts, None, found


def _operator(config: SimulationConfig, factors: tuple[int, ...]) -> Acquisition:
    """Of a slice."""
    (x, y), (fx, fy) = config.volume.matrix, factors[:2]
    return Acquisition((x // fx, y // fy), (fx, fy), config.volume.support, config.volume.window)


def _affine(config: SimulationConfig, through: int) -> NDArray[np.float64]:
    """HR voxel to mm in subject space."""
    volume = config.volume
    affine = np.eye(4)
    for axis in range(2):
        voxel = volume.fov_mm[axis] / volume.matrix[axis]
        affine[axis, axis], affine[axis, 3] = voxel, (voxel - volume.fov_mm[axis]) / 2
    affine[2, 2], affine[2, 3] = volume.step_mm, volume.first_mm
    return hr_affine(affine, (1, 1, through))


def _stack(slices: Sequence[NDArray]) -> Float32:
    """Slices [..., X, Y] to a float32 volume [..., X, Y, Z]."""
    return np.ascontiguousarray(np.stack(slices, axis=-1), np.float32)


def _assemble(
    slices: Sequence[Measurement], protocol: Protocol, operator: Operator, affine: NDArray[np.float64], key: Key
) -> MeasuredVolume:
    """One volume of measured slices, with the quality maps that a fitting program reports."""
    maps, sd = _stack([s.maps for s in slices]), _stack([s.noise_sd for s in slices])
    failed = np.stack([s.failed for s in slices], axis=-1)
    noticed = failed & ~np.stack([s.trusted for s in slices], axis=-1)
    fx, fy = protocol.operator.factors
    through = 1 if isinstance(operator, Acquisition) else operator.axis.factor
    low_affine = hr_affine(affine, (1 / fx, 1 / fy, 1 / through))
    crlb = snr = fwhm = None
    if protocol.noise > 0:
        reported = sd * np.exp(0.05 * key.stream("reported bound").standard_normal(sd.shape))
        with np.errstate(divide="ignore", invalid="ignore"):
            crlb = np.minimum(100 * reported / np.abs(maps), LARGEST_CRLB)
            low, high = SPIKE_CRLB
            crlb = np.where(noticed, low * (high / low) ** key.stream("spike bound").random(sd.shape), crlb)
            snr = np.abs(maps[0]) / sd[0]
        crlb = np.where(np.isnan(maps) | (failed & (maps == 0)), NO_FIT, crlb).astype(np.float32)
        snr, fwhm = snr.astype(np.float32), _stack([s.fwhm_ppm for s in slices])
    mask = np.stack([s.support for s in slices], axis=-1) if protocol.masked else None
    return MeasuredVolume(
        maps,
        _stack([s.clean for s in slices]),
        low_affine,
        operator,
        sd,
        crlb,
        snr,
        fwhm,
        mask,
        np.stack([s.lipid for s in slices], axis=-1),
        failed,
    )


def _tissue(parts: Sequence[Slice]) -> dict[str, Float32]:
    shares = {}
    for tissue in ("GM", "WM", "CSF"):
        rows = [CLASSES.index(name) for name, column in TISSUE_OF_CLASS.items() if column == tissue]
        shares[tissue] = _stack([part.fractions[rows].sum(0) for part in parts])
    return shares


def _masks(parts: Sequence[Slice], subject: Subject, config: SimulationConfig, excited: Bool | None) -> dict[str, Bool]:
    white, core, lesion, brain = (
        np.stack(image, axis=-1)
        for image in zip(
            *(
                (part.fractions[CLASSES.index("WM")], part.core, part.lesion, part.fractions[BRAIN_CLASSES].sum(0))
                for part in parts
            ),
            strict=True,
        )
    )
    normal = (white > 0.9) & (lesion < 0.01)
    if subject.lesion is not None:
        x = geometry(config, 0.0, 1.0).axes[0].merged(parts[0].slab.x.count // white.shape[0]).points
        normal &= (x * subject.lesion.centre[0] < 0)[:, None, None]
    found = {"brain": brain > 0.5, "lesion": core >= 0.5, "rim": (lesion >= 0.15) & (core < 0.5), "NAWM": normal}
    return found if excited is None else {name: mask & excited for name, mask in found.items()}


def _provenance(
    config: SimulationConfig, subject: Subject, number: int, seed: int, protocol: dict[str, Any]
) -> dict[str, Any]:
    lesion = subject.lesion
    about: dict[str, Any] = {"kind": "none"}
    if lesion is not None:
        about = {
            "kind": lesion.kind,
            "centre_mm": list(lesion.centre),
            "reach_mm": lesion.shapes[0].reach,
            "maps": [name for name, hit in zip(subject.names, lesion.changed, strict=True) if hit],
        }
    return {
        "preset": config.name,
        "subject": number,
        "seed": seed,
        "split": config.anatomy.split,
        "head": subject.anatomy.head.name,
        "lesion": about,
        "t1_only_lesion": subject.anatomy_lesion is not None,
        "source": protocol["source"],
        "inverse_crime": protocol["source"] == "truth",
        "support": config.volume.support,
        "window": config.volume.window,
        "noise_factor": protocol["noise"],
        "press_box": protocol["press"] is not None,
        "lipid_mM": protocol["lipid"],
        "noise_excess": protocol["excess"],
        "mismatch": None if protocol["mismatch"] is None else asdict(protocol["mismatch"]),
    }
