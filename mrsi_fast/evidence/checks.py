"""Which evidence a run asks for, and what of it acts on the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.evidence.halving import Halved
from mrsi_fast.evidence.selftest import Options, testify
from mrsi_fast.evidence.testimony import NOT_ASKED, Evidence
from mrsi_fast.mrsi.mapset import MapSet
from mrsi_fast.mrsi.noise import NoiseLevel
from mrsi_fast.mrsi.quality import assess
from mrsi_fast.mrsi.volume_operator import Operator
from mrsi_fast.preparation import AcquisitionSettings

Float32 = NDArray[np.float32]

LARGEST_COST = 0.5
"""The self-test is on by default where it costs less than this share of the run."""


@dataclass(frozen=True)
class Checks:
    """The user's choices.

    Attributes:
        evidence: Test the scan on itself: "on" (total variation beside it), "off", or "auto" where it costs less than
            half of the run. An anatomical image is reason enough: it is not used unseen.
        align: "auto" aligns the anatomical image to the maps, "off" believes the affines.
        anatomy_trust: "check" refuses an image that is too far or does not help, "force" uses it all the same.
        noise_scale: Factor on the noise level that the network is told, or "auto" for the one that errs least among 1,
            2 and 4, where it costs less than half of the run to find out.
        shrink: "auto" multiplies what is added outside the measured band by the amplitude that the test found, between
            0 and 1.
    """

    evidence: Literal["auto", "on", "off"] = "auto"
    align: Literal["auto", "off"] = "auto"
    anatomy_trust: Literal["check", "force"] = "check"
    noise_scale: float | Literal["auto"] = "auto"
    shrink: Literal["auto", "off"] = "off"

    def __post_init__(self) -> None:
        """Checks what types cannot."""
        allowed = {
            "evidence": ("auto", "on", "off"),
            "align": ("auto", "off"),
            "anatomy_trust": ("check", "force"),
            "shrink": ("auto", "off"),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose {' or '.join(values)}.")
        if self.noise_scale != "auto" and not 0 < float(self.noise_scale) < np.inf:
            raise ValueError(f"noise_scale is {self.noise_scale!r}; give 'auto' or a number above 0.")
        if self.shrink == "auto" and self.evidence == "off":
            raise ValueError("shrink='auto' needs the self-test, but evidence is 'off'.")

    def options(self, factors: tuple[int, int], evaluations: int, with_image: bool) -> Options:
        """What to ask for in a run.

        Args:
            factors: In-plane factors of the run.
            evaluations: Network evaluations of the run for a slice.
            with_image: Whether there is an anatomical image.
        """
        share = 1 / (factors[0] * factors[1] * evaluations)  # one evaluation on the measured grid over the whole run
        tries = 2 if with_image else 1
        always = self.evidence == "on" or self.shrink == "auto"
        test = self.evidence != "off" and (always or with_image or tries * share < LARGEST_COST)
        scale: float | None
        if self.noise_scale == "auto":
            scale = None if test and (always or (tries + 2) * share < LARGEST_COST) else 1.0
        else:
            scale = float(self.noise_scale)
        return Options(test, self.align == "auto", self.anatomy_trust == "force", scale, self.evidence == "on")


def ask(
    mean: Callable[..., Float32],
    maps: MapSet,
    factors: Sequence[int],
    anatomy: Any,
    settings: Mapping[str, Any],
    evaluations: int,
    checks: Checks,
) -> tuple[Evidence, Any, tuple[str, ...]]:
    """What a scan says of itself before it is super-resolved.

    Args:
        mean: One-step mean [M, X, Y, Z] of maps, a scale and keyword arguments of ``preparation.prepare``.
        maps: The measured maps, slices last.
        factors: Of the run.
        anatomy: Anatomical image, or None.
        settings: ``data_consistency``, ``acquisition``, ``noise`` and ``rules`` of the run.
        evaluations: Network evaluations of the run for a slice.
        checks: The user's choices.

    Returns:
        The evidence; the anatomical image in its place, or None; sentences that warn.
    """
    options = checks.options((factors[0], factors[1]), evaluations, anatomy is not None)
    operator = settings["acquisition"] or AcquisitionSettings()
    if max(factors[:2]) == 1:  # the test cuts in plane, where nothing is refined
        options = replace(options, test=False)
    if not options.test and (anatomy is None or not options.align):
        return Evidence(False, NOT_ASKED, noise_scale=options.noise_scale or 1.0), anatomy, ()

    def predict(halved: Halved, image: Any, noise: NoiseLevel, scale: float) -> Float32:
        own = {**settings, "acquisition": halved.known, "noise": noise, "anatomy": image, "noise_scale": scale}
        return mean(halved.maps, (*halved.factors, 1), **own)

    return testify(
        maps,
        assess(maps, settings["rules"]),
        (factors[0] > 1, factors[1] > 1),
        operator,
        predict,
        settings["noise"],
        anatomy,
        options,
    )


def disbelieved(mean: Float32, operator: Operator, amplitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    """What to take from maps so that their detail outside the measured band is that of the mean times an amplitude.

    ``(1 - a) null(mean)``: taken from the mean itself, its own detail is scaled; samples move with the mean and keep
    their spread. The measured band stays as it is.

    Args:
        mean: [M, X, Y, Z].
        operator: The acquisition.
        amplitudes: [M], 0 to 1.
    """
    detail = np.moveaxis(operator.null(np.moveaxis(mean.astype(np.float64), -1, 0)), 0, -1)
    return (1 - amplitudes[:, None, None, None]) * detail
