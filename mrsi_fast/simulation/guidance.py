"""The anatomical image as it is in life: displaced, distorted, of any contrast, partly missing, or of another head.

The network has to weigh the image by how well it fits the maps; it can learn that only from images that do not fit.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from mrsi_fast.mrsi.conditioning import standardise_anatomy
from mrsi_fast.simulation.anatomical import NOT_BRAIN, TYPICAL
from mrsi_fast.simulation.anatomy import CLASSES
from mrsi_fast.simulation.config import GuidanceConfig, SimulationConfig
from mrsi_fast.simulation.fields import Array, Axis, SmoothField
from mrsi_fast.simulation.keys import Key, log_uniform
from mrsi_fast.simulation.slices import Geometry, pool
from mrsi_fast.simulation.subject import Subject
from mrsi_fast.simulation.warp import Orientation, WarpedHead, draw_head, rotation_matrix

LARGEST_SHIFT_MM = 6.0
LARGEST_TURN_DEG = 6.0
DISTORTION_WIDTH_MM = 25.0
OTHER_SLICE_MM = (10.0, 25.0)

_T2 = {"WM": 0.45, "GM": 0.6, "CSF": 1.3, "deep GM": 0.5, "cerebellar WM": 0.45, "cerebellar GM": 0.6}
_T2 |= {"brain stem": 0.45, "bone": 0.1, "soft tissue": 0.5, "scalp": 0.9, "vessel": 0.2}
_FLAIR = {"WM": 0.6, "GM": 0.8, "CSF": 0.12, "deep GM": 0.75, "cerebellar WM": 0.6, "cerebellar GM": 0.75}
_FLAIR |= {"brain stem": 0.6, "bone": 0.1, "soft tissue": 0.6, "scalp": 1.0, "vessel": 0.3}
CONTRASTS: tuple[dict[str, float], ...] = (
    TYPICAL,
    TYPICAL | {"vessel": 1.6, "scalp": 1.3},
    {"air": 0.0} | _T2,
    {"air": 0.0} | _FLAIR,
)
"""Intensities (assumed) of T1, T1 with contrast agent, T2 and FLAIR; arbitrary contrasts are drawn class by class."""

_WRONG = ("head", "slice", "mirrored", "upside down")


def lifelike_image(
    config: SimulationConfig, subject: Subject, geometry: Geometry, orientation: Orientation, key: Key
) -> NDArray[np.float32]:
    """One slice of an anatomical image on the HR grid, standardised as for the network.

    Args:
        config: All settings.
        subject: Whose maps it comes with.
        geometry: The slice of the maps.
        orientation: What the subject's slices are.
        key: The slice's key.

    Returns:
        float32 [X, Y].
    """
    settings, rng = config.guidance, key.stream("guidance")
    anatomy, shift = _place(config, rng, subject, orientation, key)
    x, y = geometry.axes
    thickness = geometry.thickness * float(rng.uniform(0.3, 1.5))
    planes = replace(geometry, thickness=thickness).planes
    fractions = anatomy.fractions(x, y, planes, 1)
    values = _contrast(settings, rng)
    if rng.random() < 0.5:
        values[list(NOT_BRAIN)] = 0.0
    image = np.tensordot(values.astype(fractions.dtype), fractions, axes=(0, 0))
    moved = (Axis(x.start + shift[0], x.step, x.count, x.dtype), Axis(y.start + shift[1], y.step, y.count, y.dtype))
    for lesion in (subject.anatomy_lesion, subject.lesion):
        if lesion is None or (lesion is subject.lesion and rng.random() < settings.lesion_unseen):
            continue
        membership = np.zeros_like(image)
        lesion.membership_into(membership, fractions, *moved, planes + shift[2])
        level = float(rng.uniform(0.25, 1.6) * values[CLASSES.index("WM")])
        image += float(rng.uniform(0.4, 1.0)) * membership * (level - image)
    image = _distorted(image, settings, rng, (x, y), planes, key)
    image = pool(_degraded(image, settings, rng), geometry.fine)
    standard = standardise_anatomy(image)
    return np.where(standard != 0, standard * rng.uniform(0.85, 1.2) + rng.normal(0, 0.15), 0).astype(np.float32)


def _place(
    config: SimulationConfig, rng: np.random.Generator, subject: Subject, orientation: Orientation, key: Key
) -> tuple[WarpedHead, NDArray[np.float64]]:
    """The head as the image shows it, and how far it is displaced (mm)."""
    settings, anatomy = config.guidance, subject.anatomy
    flip, shift = np.eye(3), np.zeros(3)
    kind = _WRONG[int(rng.integers(len(_WRONG)))] if rng.random() < settings.wrong else "right"
    if kind == "head":
        anatomy = draw_head(config.anatomy, key.child("another head"), None, config.precision).reoriented(orientation)
    elif kind == "slice":
        shift[2] = rng.choice([-1, 1]) * rng.uniform(*OTHER_SLICE_MM)
    elif kind == "mirrored":
        flip[0, 0] = -1
    elif kind == "upside down":
        flip[1, 1] = -1
    if rng.random() >= settings.aligned:
        shift += np.clip(settings.shift_mm * rng.standard_t(3, 3) / np.sqrt(3), -LARGEST_SHIFT_MM, LARGEST_SHIFT_MM)
        turn = np.clip(settings.turn_deg * rng.standard_t(3, 3) / np.sqrt(3), -LARGEST_TURN_DEG, LARGEST_TURN_DEG)
        flip = flip @ rotation_matrix(np.deg2rad(turn))
    return anatomy.displaced(flip, shift), shift


def _contrast(settings: GuidanceConfig, rng: np.random.Generator) -> NDArray[np.float64]:
    """Intensity of every tissue class."""
    kind = int(rng.choice(len(settings.contrasts), p=np.array(settings.contrasts) / sum(settings.contrasts)))
    if kind < len(CONTRASTS):
        values = np.array([CONTRASTS[kind][name] for name in CLASSES])
        return values * np.exp(rng.normal(0, 0.1, values.size))
    values = rng.uniform(0.05, 1.2, len(CLASSES))
    values[0] = 0.0
    return values


def _distorted(
    image: Array, settings: GuidanceConfig, rng: np.random.Generator, axes: tuple[Axis, Axis], planes: Array, key: Key
) -> Array:
    """The image under a smooth displacement in plane, in half of the cases."""
    size = float(rng.uniform(0, settings.distortion_mm))
    if rng.random() < 0.5 or size == 0:
        return image
    field = SmoothField(key, "distortion", 2, DISTORTION_WIDTH_MM, image.dtype.name).slab(*axes, planes)
    field *= size / max(float(np.abs(field).max()), 1e-6)
    places = [
        np.arange(axis.count)[(slice(None), None) if number == 0 else (None, slice(None))] + field[number] / axis.step
        for number, axis in enumerate(axes)
    ]
    return map_coordinates(image, places, order=1, mode="nearest")


def _degraded(image: Array, settings: GuidanceConfig, rng: np.random.Generator) -> Array:
    """The image with bias field and noise, and what lies beyond its field of view missing."""
    u, v = (np.linspace(-1, 1, n) for n in image.shape)
    a = rng.uniform(-1, 1, 5)
    log = (a[0] * u + a[1] * u**2)[:, None] + (a[2] * v + a[3] * v**2)[None, :] + a[4] * u[:, None] * v[None, :]
    strength = np.log(settings.bias) * rng.random() ** 2
    image = image * np.exp(strength * log / max(float(np.abs(log).max()), 1e-6)).astype(image.dtype)
    noise = log_uniform(rng, *settings.noise) * rng.standard_normal(image.shape, dtype=image.dtype)
    image = np.maximum(image + noise * (image > 0.02), 0)
    if rng.random() < settings.partial:
        axis, side = int(rng.integers(2)), int(rng.integers(2))
        cut = int(image.shape[axis] * rng.uniform(0.2, 0.6))
        image[(slice(None),) * axis + (slice(0, cut) if side else slice(image.shape[axis] - cut, None),)] = 0
    return image
