"""Nearest-neighbour check: does the detail that the model draws come from the heads it was trained on?

The part of a slice that the acquisition does not see is compared with the same part of the train heads, unwarped, in
both mirrorings and at every shift (normalised cross-correlation). A model that repeats memorised gyri comes closer to
the train heads than the held-out truth does. The control is slices of the train heads as they are warped in training:
what a match looks like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.files import atomic_path
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.simulation.config import SimulationConfig

Float64 = NDArray[np.float64]


def plain_heads(config: SimulationConfig) -> SimulationConfig:
    """The settings of a preset for train heads as they are: no warp, no variation, no lesion."""
    anatomy = config.anatomy.model_copy(
        update={
            "split": "train",
            "rotation_deg": 0.0,
            "scale": (1.0, 1.0),
            "elastic_mm": 0.0,
            "ventricle_scale": 0.0,
            "flip": False,
        }
    )
    variation = config.variation.model_copy(
        update={"subject_sd": 0.0, "region_sd": 0.0, "gradient": 0.0, "texture_sd": (0.0, 0.0)}
    )
    tumour = config.tumour.model_copy(update={"probability": 0.0, "t1_only": 0.0})
    return config.model_copy(update={"anatomy": anatomy, "variation": variation, "tumour": tumour})


@dataclass(frozen=True, eq=False)
class Library:
    """Slices [L, X, Y] of one map of the train heads, as they are."""

    slices: Float64

    @classmethod
    def of(cls, volumes: Sequence[NDArray]) -> Library:
        """Collects the slices of volumes [X, Y, Z] and their mirror images; empty slices are left out."""
        both = [np.moveaxis(v, -1, 0) for volume in volumes for v in (volume, volume[::-1])]
        stacked = np.concatenate(both).astype(np.float64)
        return cls(stacked[np.abs(stacked).sum(axis=(1, 2)) > 0])

    def save(self, path: Path) -> None:
        """Writes the library, whole or not at all."""
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, slices=self.slices.astype(np.float32))

    @classmethod
    def load(cls, path: Path) -> Library:
        """Reads what :meth:`save` wrote."""
        with np.load(path) as stored:
            return cls(stored["slices"].astype(np.float64))

    def nearest(self, volume: NDArray, acquisition: Acquisition) -> list[float]:
        """Highest correlation over shifts of the unseen detail of each slice that has any with the library's.

        Args:
            volume: [X, Y, Z] of the library's map.
            acquisition: What the data show; only the rest is compared.
        """
        known = np.fft.rfft2(_unit(acquisition.null(self.slices)))
        best = []
        for image in np.moveaxis(np.asarray(volume, np.float64), -1, 0):
            detail = acquisition.null(image)
            if np.linalg.norm(detail) <= 1e-6 * np.linalg.norm(image):
                continue
            product = np.conj(known) * np.fft.rfft2(_unit(detail))
            best.append(float(np.fft.irfft2(product, s=image.shape).max()))
        return best


def _unit(images: Float64) -> Float64:
    norm = np.linalg.norm(images, axis=(-2, -1), keepdims=True)
    return images / np.where(norm > 0, norm, 1.0)
