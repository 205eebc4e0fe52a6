"""A T1-weighted image synthesised from the tissue shares, with random contrast (the label maps come without one)."""

from __future__ import annotations

import numpy as np

from mrsi_fast.simulation.anatomy import CLASSES
from mrsi_fast.simulation.fields import Array
from mrsi_fast.simulation.keys import Key

TYPICAL: dict[str, float] = {
    "air": 0.0,
    "WM": 1.0,
    "GM": 0.68,
    "CSF": 0.22,
    "deep GM": 0.80,
    "cerebellar WM": 0.97,
    "cerebellar GM": 0.66,
    "brain stem": 0.93,
    "bone": 0.15,
    "soft tissue": 0.6,
    "scalp": 1.1,
    "vessel": 0.6,
}
"""Intensity of each class relative to white matter in a usual MPRAGE (assumed)."""

NOT_BRAIN = tuple(CLASSES.index(name) for name in ("air", "bone", "soft tissue", "scalp", "vessel"))


def synthesise_t1(fractions: Array, lesions: tuple[Array, ...], key: Key, slice_key: Key) -> Array:
    """A T1-weighted image on the grid of the tissue shares.

    Args:
        fractions: Share of each class [C, X, Y].
        lesions: Memberships [X, Y] of lesions that the image shows, each with an intensity of its own.
        key: The subject's key (contrast, bias field).
        slice_key: The slice's key (noise).

    Returns:
        [X, Y], arbitrary units, skull-stripped in half of the subjects.
    """
    rng = key.stream("T1 contrast")
    values = np.array([TYPICAL[name] for name in CLASSES])
    values *= np.exp(rng.normal(0, 0.08, values.size))
    if rng.random() < 0.15:  # far-off contrasts: another sequence, another field
        values[1:] = rng.uniform(0.05, 1.2, values.size - 1)
    if rng.random() < 0.5:
        values[list(NOT_BRAIN)] = 0.0
    image = np.tensordot(values.astype(fractions.dtype), fractions, axes=(0, 0))
    for lesion in lesions:
        level = float(rng.uniform(0.25, 1.3) * values[CLASSES.index("WM")])
        image += float(rng.uniform(0.4, 1.0)) * lesion * (level - image)
    u, v = (np.linspace(-1, 1, n) for n in image.shape)
    a = rng.normal(0, 0.06, 4)
    image *= np.exp((a[0] * u + a[1] * u**2)[:, None] + (a[2] * v + a[3] * v**2)[None, :])
    noise = float(rng.uniform(0.005, 0.04)) * slice_key.stream("T1 noise").standard_normal(image.shape)
    return np.maximum(image + noise * (image > 0.02), 0)
