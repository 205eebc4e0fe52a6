"""Heads as compact label volumes: real ones from FreeSurfer-style label maps, or the analytic phantom.

Labels become a few tissue classes once, when a head is first used; volumes are kept in memory, one byte a voxel, with
slices contiguous. Real label maps are read from the user's folder and never stored elsewhere.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from mrsi_fast.config import ConfigError

CLASSES: tuple[str, ...] = (
    "air",
    "WM",
    "GM",
    "CSF",
    "deep GM",
    "cerebellar WM",
    "cerebellar GM",
    "brain stem",
    "bone",
    "soft tissue",
    "scalp",
    "vessel",
)
BRAIN_CLASSES = slice(1, 8)
"""Classes inside the dura: tissue and CSF."""

TISSUE_OF_CLASS: dict[str, str] = {
    "WM": "WM",
    "GM": "GM",
    "CSF": "CSF",
    "deep GM": "GM",
    "cerebellar WM": "WM",
    "cerebellar GM": "GM",
    "brain stem": "WM",
}
"""Column of the concentration table that a class takes its mean from."""

_LABELS: dict[str, tuple[int, ...]] = {
    "WM": (2, 41, 25, 57, 77, 78, 79, 251, 252, 253, 254, 255, 85, 192),
    "GM": (3, 42, 17, 18, 53, 54, 19, 55, 20, 56),
    "CSF": (4, 5, 14, 15, 24, 43, 44, 72, 136, 137, 163, 164, 31, 63),
    "deep GM": (10, 11, 12, 13, 26, 49, 50, 51, 52, 58),
    "cerebellar WM": (7, 46),
    "cerebellar GM": (8, 47),
    "brain stem": (16, 28, 60),
    "bone": (215, 165, 515),
    "soft tissue": (202, 206, 207, 208, 209, 212, 214, 216, 230, 258, 502, 506, 507, 508, 509, 512, 514, 516, 530),
    "scalp": (211, 511, 259),
    "vessel": (30, 62),
}
"""FreeSurfer and SynthSeg label values of each class; 502-530 and 202-230 are SynthSeg's extra-cerebral classes."""

VENTRICLES: tuple[int, ...] = (4, 43)

SPLITS: dict[str, tuple[str, ...]] = {
    "train": ("01", "02", "03", "06", "07", "08", "11", "13", "14", "15", "16", "19", "20"),
    "val": ("05", "09", "12"),
    "test": ("04", "10", "17", "18"),
}
"""Subjects of ``anat_synthseg20`` by part; each part spans small to large ventricles."""

TUMOUR_SPLITS: dict[str, tuple[str, ...]] = {
    "train": ("01", "02", "03", "05", "07", "09"),
    "val": ("06",),
    "test": ("10",),
}
"""Patients of ``tumour_btp11_ccby3`` by part; both dates of a patient are on one side."""


@dataclass(frozen=True)
class Head:
    """One head.

    Attributes:
        name: Subject label.
        classes: Index into :data:`CLASSES`, uint8 [Z, X, Y], 1 mm voxels, RAS+ directions, air at the border.
        centre: Voxel indices (x, y, z) of the centre of the cerebrum.
        ventricles: Centre of the lateral ventricles relative to ``centre``, mm.
    """

    name: str
    classes: NDArray[np.uint8]
    centre: tuple[float, float, float]
    ventricles: tuple[float, float, float]


def head_from_labels(labels: NDArray[np.integer], name: str, margin_mm: int = 8) -> Head:
    """Builds a head from an RAS+ label volume of 1 mm voxels.

    Args:
        labels: FreeSurfer or SynthSeg labels [X, Y, Z]; unknown values count as soft tissue, 0 as air.
        name: Subject label.
        margin_mm: Slices kept above and below the brain.

    Raises:
        ConfigError: The volume holds no cerebral white matter.
    """
    table = np.full(int(max(labels.max(), 530)) + 1, CLASSES.index("soft tissue"), np.uint8)
    table[0] = 0
    for tissue, values in _LABELS.items():
        table[list(values)] = CLASSES.index(tissue)
    classes = table[labels]
    cerebrum = (classes == 1) | (classes == 2)
    if not (classes == 1).any():
        raise ConfigError(f"{name}: the label map holds no cerebral white matter (labels 2 and 41 of FreeSurfer).")
    heights = np.flatnonzero((classes == 2).any(axis=(0, 1)))
    low, high = max(0, heights[0] - margin_mm), min(classes.shape[2], heights[-1] + 1 + margin_mm)
    centre = _centroid(cerebrum)
    ventricles = np.isin(labels, VENTRICLES)
    offset = _centroid(ventricles) - centre if ventricles.any() else np.zeros(3)
    volume = np.pad(classes[:, :, low:high], 1).transpose(2, 0, 1)
    x, y, z = (float(v) for v in centre + np.array([1, 1, 1 - low]))
    return Head(name, np.ascontiguousarray(volume), (x, y, z), (float(offset[0]), float(offset[1]), float(offset[2])))


def _centroid(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    sums = [mask.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]
    return np.array([(s * np.arange(s.size)).sum() / s.sum() for s in sums])


@lru_cache(maxsize=64)
def load_head(path: str) -> Head:
    """Reads a label map, turned to RAS+; voxels must be close to 1 mm.

    Raises:
        ConfigError: The file is not a 3D label map of about 1 mm.
    """
    labels, size = read_labels(path)
    if np.abs(size - 1).max() > 0.1:
        raise ConfigError(
            f"{path}: expected voxels of 1 mm, found {size.round(2).tolist()} mm. Resample the label map "
            "with nearest-neighbour interpolation."
        )
    return head_from_labels(labels, Path(path).name.split("_")[0].removesuffix(".nii.gz"))


def read_labels(path: str) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Reads a 3D label map turned to RAS+: labels [X, Y, Z] and voxel size, mm.

    Raises:
        ConfigError: The file is not a 3D image.
    """
    image = nib.as_closest_canonical(nib.Nifti1Image.from_filename(path))
    if len(image.shape) != 3:
        raise ConfigError(f"{path}: expected one 3D label map, found an image of shape {image.shape}.")
    return np.asanyarray(image.dataobj).astype(np.int32), np.sqrt((image.affine[:3, :3] ** 2).sum(0))


def resolve_folder(folder: str) -> Path:
    """The folder itself, or the one of that name under ``$MRSI_FAST_DATA``.

    Raises:
        ConfigError: Neither exists.
    """
    for candidate in (Path(folder), Path(os.environ.get("MRSI_FAST_DATA", "../shared/data")) / folder):
        if candidate.is_dir():
            return candidate
    raise ConfigError(
        f"The folder {folder!r} does not exist, here or under $MRSI_FAST_DATA. Name a folder "
        'of sub-XX_dseg.nii.gz files, or set heads = "phantom" for the analytic head.'
    )


@lru_cache(maxsize=32)
def head_paths(folder: str, split: str) -> tuple[str, ...]:
    """Label maps of one part of a folder, sorted; :data:`SPLITS` decides, ``all`` takes every file.

    Raises:
        ConfigError: The folder does not exist or the part is empty.
    """
    files = sorted(resolve_folder(folder).glob("sub-*_dseg.nii.gz"))
    chosen = tuple(
        str(f) for f in files if split == "all" or f.name.split("_")[0].removeprefix("sub-") in SPLITS[split]
    )
    if not chosen:
        raise ConfigError(f'{folder}: no label map of split {split!r}; for heads of your own use split = "all".')
    return chosen
