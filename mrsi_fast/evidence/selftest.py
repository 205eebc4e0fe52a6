"""The self-test of a scan, one octave lower, and the choices that follow from it.

The scan's own maps are cut to half their matrix (``halving``), super-resolved x2 with the settings of the run and
compared with the measured maps (``detail``): without the anatomical image, with it where ``alignment`` puts it, and
with several noise levels. What errs less is what the run uses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mrsi_fast.evidence.alignment import Alignment, align
from mrsi_fast.evidence.detail import Detail, compare
from mrsi_fast.evidence.fit import Fit
from mrsi_fast.evidence.halving import Halved, halve, is_identity
from mrsi_fast.evidence.testimony import NOT_ASKED, Evidence, Guidance, MapEvidence, Picture
from mrsi_fast.mrsi.anatomy import check_overlap, load_anatomy
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.intensity import without_padding
from mrsi_fast.mrsi.mapset import MapInputError, MapSet
from mrsi_fast.mrsi.noise import NoiseLevel
from mrsi_fast.mrsi.quality import Trust
from mrsi_fast.mrsi.total_variation import total_variation
from mrsi_fast.preparation import AcquisitionSettings

Float32 = NDArray[np.float32]
Image = tuple[NDArray, NDArray]
Predict = Callable[[Halved, "Image | None", NoiseLevel, float], Float32]
"""One-step mean [M, X, Y, Z] on the measured grid, guided by an image or not, with a noise level and a factor on it."""

NOISE_SCALES = (1.0, 2.0, 4.0)
SMALLEST_OWN_SHARE = 0.08
"""An image is another person's, or lies wrong beyond repair, if its mirror image explains all but this share of what it
explains itself. Set on one head (K_01's; simulated maps of 14 mm, 8 % noise): the right image 0.145, another person's
0.034, the right one upside down 0.035."""

SMALLEST_ADVANTAGE = 4.0
"""Log-likelihood that an image needs over its mirror image: 50 to 1."""

SMALLEST_BENEFIT = 0.01
"""Another noise level than the stated one has to lower the error by this share."""

TV_FIDELITIES = (3.0, 30.0, 300.0)
TV_ITERATIONS = 100


@dataclass(frozen=True)
class Options:
    """What of the evidence is asked for.

    Attributes:
        test: Whether to cut the scan and bring it back.
        align: Whether to align the anatomical image.
        force_image: Use the anatomical image whatever the evidence says.
        noise_scale: Factor on the noise level that the network is told; None to choose it.
        compare: Whether to try total variation too, which takes longer than the network.
    """

    test: bool = True
    align: bool = True
    force_image: bool = False
    noise_scale: float | None = 1.0
    compare: bool = True


def testify(
    maps: MapSet,
    trust: Trust,
    cut: tuple[bool, bool],
    known: AcquisitionSettings,
    predict: Predict,
    noise: NoiseLevel = None,
    anatomy: Any = None,
    options: Options | None = None,
) -> tuple[Evidence, Image | None, tuple[str, ...]]:
    """Asks a scan.

    Args:
        maps: The measured maps.
        trust: Their assessment.
        cut: Whether to cut along X and along Y: the axes that the run refines.
        known: What was declared of the acquisition.
        predict: The model with the settings of the run.
        noise: Noise level that the user gave.
        anatomy: Anatomical image, see ``anatomy.load_anatomy``, or None.
        options: What is asked for.

    Returns:
        The evidence; the image in the place where it is to be used, or None; sentences that warn.

    Raises:
        MapInputError: The anatomical image cannot be used at all.
    """
    options = options or Options()
    warnings: list[str] = []
    image, alignment, where = None, None, "anatomy"
    valid = _common(trust)
    if anatomy is not None:
        volume, where = load_anatomy(anatomy)
        check_overlap(volume, where, maps.affine, trust.support)
        image = (without_padding(volume.data[0]), volume.affine)
        warnings += [f"{where}: {text}." for text in volume.remarks]
        if options.align:
            alignment, image = _aligned(maps, valid, image, known, where)
    test = _Test.of(maps, trust, cut, known, predict, noise, options)
    guidance = None
    if image is not None:
        guidance = _judge_image(test, image, alignment, where, options)
        if not guidance.used:
            image = None
        if not guidance.used or not np.isfinite(guidance.error_with):
            warnings.append(guidance.reason)
    if test.halved is None:
        evidence = Evidence(False, test.reason, guidance=guidance, noise_scale=options.noise_scale or 1.0)
        return evidence, image, tuple(warnings)
    evidence = test.conclude(image, guidance)
    assert evidence.picture is not None
    return replace(evidence, picture=evidence.picture.cropped(*maps.shape[:2])), image, tuple(warnings)


class _Test:
    """The halved scan and what was brought back from it, each once."""

    def __init__(
        self, halved: Halved | None, reason: str, predict: Predict, noise: NoiseLevel, options: Options
    ) -> None:
        self.halved, self.reason, self.options = halved, reason, options
        self._predict, self._noise = predict, noise
        self._done: dict[tuple[int | None, float], tuple[Float32, tuple[Detail, ...]]] = {}

    @classmethod
    def of(
        cls,
        maps: MapSet,
        trust: Trust,
        cut: tuple[bool, bool],
        known: AcquisitionSettings,
        predict: Predict,
        noise: NoiseLevel,
        options: Options,
    ) -> _Test:
        """Halves the scan if that is asked for and possible."""
        if not options.test:
            return cls(None, NOT_ASKED, predict, noise, options)
        try:
            halved = halve(maps, trust, cut, known)
        except MapInputError as error:
            return cls(None, f"{NOT_ASKED} {error}", predict, noise, options)
        fine, low = halved.fine.hr_shape, halved.coarse.lr_shape
        reason = (
            f"Self-test: k-space of {fine[0]} x {fine[1]} was cut to {low[0]} x {low[1]} and super-resolved x2 "
            "(one-step mean). Errors are those outside the kept band, relative to zero-filling (1: no better)."
        )
        return cls(halved, reason, predict, _lowered(noise, halved), options)

    def details(self, image: Image | None, scale: float = 1.0) -> tuple[Float32, tuple[Detail, ...]]:
        """What was brought back, and its errors."""
        assert self.halved is not None
        key = (None if image is None else id(image[0]), scale)
        if key not in self._done:
            found = self._predict(self.halved, image, self._noise, scale)
            self._done[key] = found, compare(self.halved, found)
        return self._done[key]

    def error(self, image: Image | None, scale: float = 1.0) -> float:
        """Root mean square over maps of the error over zero-filling's."""
        errors = np.array([detail.error for detail in self.details(image, scale)[1]])
        errors = errors[np.isfinite(errors)]
        return float(np.sqrt(np.mean(errors**2))) if errors.size else float("nan")

    def conclude(self, image: Image | None, guidance: Guidance | None) -> Evidence:
        """Chooses the noise level and puts everything together."""
        assert self.halved is not None
        asked = self.options.noise_scale
        scales = NOISE_SCALES if asked is None else (asked,)
        errors = tuple((scale, self.error(image, scale)) for scale in scales)
        chosen = min(errors, key=lambda pair: pair[1] if np.isfinite(pair[1]) else np.inf)
        if not chosen[1] < (1 - SMALLEST_BENEFIT) * errors[0][1]:
            chosen = errors[0]
        found, details = self.details(image, chosen[0])
        unknown = np.full(len(details), np.nan)
        smooth = _total_variation(self.halved) if self.options.compare else unknown
        zero_filled = np.moveaxis(self.halved.coarse.zero_fill(np.moveaxis(_filled(self.halved), -1, 0)), 0, -1)
        return Evidence(
            tested=True,
            reason=self.reason,
            maps=tuple(
                MapEvidence(name, detail, tv)
                for name, detail, tv in zip(self.halved.maps.names, details, smooth, strict=True)
            ),
            guidance=guidance,
            noise_scale=chosen[0],
            noise_errors=errors,
            picture=Picture(self.halved.reference.astype(np.float32), found, zero_filled.astype(np.float32)),
        )


def _judge_image(test: _Test, image: Image, alignment: Alignment | None, where: str, options: Options) -> Guidance:
    """Whether the image is used: near enough, and the scan is brought back better with it than without."""
    place = "" if alignment is None else f" It fits best {_movement(alignment)}."
    if alignment is not None and alignment.placement.too_far and not options.force_image:
        return Guidance(False, f"{where}: not used, too far from the maps.{place}", np.nan, np.nan, alignment)
    if test.halved is None:
        unchecked = f"{where}: whether it helps was not tested.{place}"
        return Guidance(True, unchecked, np.nan, np.nan, alignment)
    scale = options.noise_scale or 1.0
    with_image, without = test.error(image, scale), test.error(None, scale)
    numbers = f"error {with_image:.3f} with it, {without:.3f} without"
    fault = None if options.force_image else _fault(alignment, with_image, without)
    verdict = f"not used, {fault}" if fault else "used as asked" if options.force_image else "used"
    return Guidance(fault is None, f"{where}: {verdict} ({numbers}).{place}", with_image, without, alignment)


def _fault(alignment: Alignment | None, with_image: float, without: float) -> str | None:
    """What speaks against an image that is near enough, or None."""
    if alignment is not None:
        if alignment.own_share < SMALLEST_OWN_SHARE or alignment.advantage < SMALLEST_ADVANTAGE:
            return "its mirror image fits the maps as well"
        if alignment.advantage_flipped < -SMALLEST_ADVANTAGE:
            return "it fits the maps better upside down or back to front"
    return None if with_image < without else "it does not fit the maps"


def _movement(alignment: Alignment) -> str:
    shift, turn = alignment.placement.shift_mm, alignment.placement.turn_deg
    return (
        f"after a shift by {shift[0]:+.1f}, {shift[1]:+.1f}, {shift[2]:+.1f} mm and a rotation by {turn[0]:+.1f}, "
        f"{turn[1]:+.1f}, {turn[2]:+.1f} degrees about X, Y, Z (explained variance of the maps "
        f"{100 * alignment.explained:.0f} %, by the affines alone {100 * alignment.explained_before:.0f} %)"
    )


def _aligned(
    maps: MapSet, valid: NDArray[np.bool_], image: Image, known: AcquisitionSettings, where: str
) -> tuple[Alignment | None, Image]:
    """The image where it explains the maps best; where it was if the maps are too few to tell."""
    if valid.sum() < 100:
        return None, image
    filled = np.where(valid, maps.maps, 0)
    try:
        fit = Fit(image[0], image[1], np.nan_to_num(filled), valid, maps.affine, known)
    except ValueError:
        raise MapInputError(
            f"{where}: has the same value everywhere and shows no anatomy. Give another image."
        ) from None
    found = align(fit)
    return found, (image[0], found.placement.matrix @ image[1])


def _common(trust: Trust) -> NDArray[np.bool_]:
    """[X, Y, Z] voxels where every map that is trusted anywhere is trusted."""
    used = trust.trusted.any(axis=(1, 2, 3))
    return trust.support & trust.trusted[used].all(axis=0)


def _lowered(noise: NoiseLevel, halved: Halved) -> NoiseLevel:
    """The noise level of the coarse maps that a noise level of the measured ones leaves."""
    factor = 1 / np.sqrt(halved.factors[0] * halved.factors[1])
    if noise is None or isinstance(noise, int | float):
        return None if noise is None else float(noise) * factor
    return {name: float(value) * factor for name, value in noise.items()}


def _filled(halved: Halved) -> NDArray[np.float64]:
    """The coarse maps [M, x, y, Z] of the filled reference, without gaps."""
    slices = np.moveaxis(halved.reference, -1, 0)
    return np.moveaxis(halved.coarse.forward(slices if is_identity(halved.fine) else halved.fine.pinv(slices)), 0, -1)


def _total_variation(halved: Halved) -> NDArray[np.float64]:
    """Error of total variation over zero-filling's [M], with the weight of the data that suits each map best."""
    low = _filled(halved)
    scale = np.maximum(np.abs(low).max(axis=(1, 2, 3), keepdims=True), 1e-30)
    y = torch.from_numpy(np.moveaxis(low / scale, -1, 0).copy()).float()
    operator: Acquisition = halved.coarse
    errors = []
    for fidelity in TV_FIDELITIES:
        smooth = total_variation(y, operator, fidelity, operator.pinv(y), TV_ITERATIONS).double().numpy()
        errors.append([one.error for one in compare(halved, np.moveaxis(smooth, 0, -1) * scale)])
    return np.min(np.array(errors, np.float64), axis=0)
