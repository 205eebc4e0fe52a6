"""Rigid alignment of an anatomical image to metabolite maps: the place where the image explains the maps best.

Maps of 5 to 15 mm voxels have no edges to match. What they have is contrast between tissues, blurred by a known
operator. So the image is taken through that operator (``fit``), and the place is sought where it leaves least of the
maps' variance unexplained. A map's noise only widens that minimum.

The search goes by Gauss-Newton steps with damping (Levenberg-Marquardt), first at the voxels of the maps, then on the
fine model of the object.

A brain and its mirror image are alike in all but what is that person's own. So the mirrored image, aligned likewise, is
the control: an image that does not explain the maps better than its mirror image is not known to be of this person, or
to lie right. An image that explains them better once it is flipped front to back or head to foot is upside down.

The maps never move. A placement turns the image about the centre of the maps and shifts it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.evidence.fit import Explanation, Fit, rigid

Float64 = NDArray[np.float64]

LARGEST_SHIFT_MM = 15.0
LARGEST_TURN_DEG = 15.0
EXPECTED = 5.0
"""Standard deviation of a misplacement that is expected, mm and degrees: it holds what the maps leave open."""

STEPS_FAR, STEPS_NEAR, STEPS_OF_MIRROR = 30, 8, 2
"""Steps at most at the voxels of the maps, and on the fine model; of a mirror image only the likelihood is wanted."""

SMALLEST_STEP, SMALLEST_GAIN = 0.05, 0.02
"""The search ends with a step below the one (mm and degrees) or a gain of log-likelihood below the other."""

FIRST_DAMPING, DAMPING_RATIO = 0.1, 5.0
"""Share of its own curvature that is added to each direction at first, and how it falls and rises."""


@dataclass(frozen=True)
class Placement:
    """How an image is moved, in mm and degrees about a centre: turned about X, then Y, then Z, then shifted.

    Attributes:
        shift_mm: Along X, Y, Z (RAS+).
        turn_deg: About X, Y, Z.
        centre_mm: The fixed point of the turns.
    """

    shift_mm: tuple[float, float, float]
    turn_deg: tuple[float, float, float]
    centre_mm: tuple[float, float, float]

    @property
    def matrix(self) -> Float64:
        """[4, 4], to be multiplied from the left to the image's affine."""
        return rigid(np.array([*self.shift_mm, *self.turn_deg]), np.array(self.centre_mm))

    @property
    def distance_mm(self) -> float:
        """Length of the shift."""
        return float(np.linalg.norm(self.shift_mm))

    @property
    def angle_deg(self) -> float:
        """Angle of the turn as a whole."""
        cosine = (np.trace(self.matrix[:3, :3]) - 1) / 2
        return float(np.rad2deg(np.arccos(np.clip(cosine, -1, 1))))

    @property
    def too_far(self) -> bool:
        """Whether an image that has to be moved so far is refused."""
        return self.distance_mm > LARGEST_SHIFT_MM or self.angle_deg > LARGEST_TURN_DEG


@dataclass(frozen=True)
class Alignment:
    """The best placement and how well it explains the maps.

    Attributes:
        placement: How the image has to be moved.
        explained: Share of the maps' variance that the image explains there, mean over maps, 0 to 1.
        explained_before: The same where the affines put it.
        explained_mirrored: The same for the mirrored image where that fits best; NaN for an image too far away.
        explained_by_field: The same for a smooth field without any image.
        advantage: Log-likelihood of the image over that of its mirror image; NaN likewise.
        advantage_flipped: The same over the better one of the images flipped front to back and head to foot; about 0
            for a single slice, which is its own image head to foot; NaN likewise.
        evaluations: How often the fit was computed.
    """

    placement: Placement
    explained: float
    explained_before: float
    explained_mirrored: float
    explained_by_field: float
    advantage: float
    advantage_flipped: float
    evaluations: int

    @property
    def own_share(self) -> float:
        """Share of what the image explains beyond a smooth field that its mirror image does not; free of noise."""
        return (self.explained - self.explained_mirrored) / max(self.explained - self.explained_by_field, 1e-6)


def align(fit: Fit) -> Alignment:
    """Finds the place that leaves least unexplained, and how well the mirrored images do at their best.

    The mirrored images of an image that lies too far away are not tried: it is refused for that already.

    Args:
        fit: Image and maps.
    """
    far, nowhere = fit.coarser(), np.zeros(6)
    rough = _best(far, nowhere, STEPS_FAR)
    found, before = _best(fit, rough.values, STEPS_NEAR), fit.at(nowhere)
    shift, turn = tuple(map(float, found.values[:3])), tuple(map(float, found.values[3:]))
    placement = Placement(shift, turn, tuple(map(float, fit.centre)))  # type: ignore[arg-type]
    tried = [fit, far]
    mirrored = advantage = advantage_flipped = float("nan")
    if not placement.too_far:
        mirror, *flips = (far.mirrored(placement.matrix, axis) for axis in range(3))
        close = fit.mirrored(placement.matrix)
        of_mirror = _best(close, _best(mirror, nowhere, STEPS_FAR).values, STEPS_OF_MIRROR)
        mirrored, advantage = of_mirror.explained, found.likelihood - of_mirror.likelihood
        advantage_flipped = rough.likelihood - max(_best(flip, nowhere, STEPS_FAR).likelihood for flip in flips)
        tried += [mirror, close, *flips]
    return Alignment(
        placement=placement,
        explained=found.explained,
        explained_before=before.explained,
        explained_mirrored=mirrored,
        explained_by_field=fit.explained_by_field(),
        advantage=advantage,
        advantage_flipped=advantage_flipped,
        evaluations=sum(one.evaluations for one in tried),
    )


def _best(fit: Fit, start: Float64, steps: int) -> Explanation:
    """The place of largest posterior probability, by damped Gauss-Newton steps (Marquardt 1963, 10.1137/0111030)."""
    best, damping = fit.at(start), FIRST_DAMPING
    slope, curvature = _posterior(fit, best)
    for _ in range(steps):
        step = np.linalg.solve(curvature + damping * np.diag(curvature.diagonal()), slope)
        tried = fit.at(best.values + step)
        gain = _cost(best) - _cost(tried)
        best, damping = (tried, damping / DAMPING_RATIO) if gain > 0 else (best, damping * DAMPING_RATIO)
        if np.abs(step).max() < SMALLEST_STEP or 0 < gain < SMALLEST_GAIN:
            break
        if gain > 0:
            slope, curvature = _posterior(fit, best)
    return best


def _cost(found: Explanation) -> float:
    """Negative logarithm of the posterior probability of a place."""
    return 0.5 * float(((found.values / EXPECTED) ** 2).sum()) - found.likelihood


def _posterior(fit: Fit, found: Explanation) -> tuple[Float64, Float64]:
    """Downhill slope [6] and curvature [6, 6] of the cost."""
    slope, curvature = fit.slopes(found)
    return slope - found.values / EXPECTED**2, np.eye(6) / EXPECTED**2 - curvature
