"""A head with a measured T1: tissue shares of one person beside that person's own image.

Read from a folder that holds one T1 and either tissue shares (FAST's ``*_pve_0/1/2``, ``pve_csf/gm/wm``, BIDS
``label-GM_probseg``) or a label map (``*label*``, ``*dseg*``, ``*_seg*``). Labels are matched to tissues by the T1
itself: CSF is darker than grey matter, which is darker than white matter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.mrsi.nifti import read_nifti
from mrsi_fast.simulation.anatomy import CLASSES
from mrsi_fast.simulation.fields import Array, Axis

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

TISSUES = ("WM", "GM", "CSF")
_SHARE_NAMES = {
    "CSF": r"(pve|prob|share|frac|tissue|label)[-_a-z]*csf|_pve_0$|csf.*prob",
    "GM": r"(pve|prob|share|frac|tissue|label)[-_a-z]*gm|_pve_1$|gm.*prob",
    "WM": r"(pve|prob|share|frac|tissue|label)[-_a-z]*wm|_pve_2$|wm.*prob",
}
_LABEL_NAME = r"label|dseg|_seg|segment"
_SMALLEST_LABEL_SHARE = 0.05
"""Labels that cover less of the head than this are not one of the three tissues (vessels, cysts)."""


@dataclass(frozen=True, eq=False)
class MeasuredHead:
    """Tissue shares and T1 of one person; takes the place of a simulated subject's warped head.

    Attributes:
        name: Of the folder.
        t1: [X, Y, Z] the measured image, its own units.
        shares: [3, X, Y, Z] share of each of :data:`TISSUES` on the grid of the T1.
        affine: Voxel of the T1 to subject space: mm, RAS+, origin at the centre of grey and white matter.
    """

    name: str
    t1: Float32
    shares: Float32
    affine: Float64

    @property
    def head(self) -> MeasuredHead:
        """Itself: what a subject's provenance names."""
        return self

    @cached_property
    def _to_voxel(self) -> Float64:
        return np.asarray(np.linalg.inv(self.affine), np.float64)

    def fractions(self, x: Axis, y: Axis, planes: Array, refine: int) -> Array:
        """Share of each simulated class [C, X, Y] on a slice, by trilinear interpolation; see ``WarpedHead``."""
        del refine  # shares are smooth between voxels, unlike labels
        result = np.zeros((len(CLASSES), x.count, y.count), x.dtype)
        points = np.empty((3, x.count, y.count))
        for z in planes:
            place = np.broadcast_arrays(x.points[:, None], y.points[None, :], float(z))
            for row in range(3):
                points[row] = sum(self._to_voxel[row, k] * place[k] for k in range(3)) + self._to_voxel[row, 3]
            for share, tissue in zip(self.shares, TISSUES, strict=True):
                found = ndimage.map_coordinates(share, points, order=1, mode="constant", output=np.float32)
                result[CLASSES.index(tissue)] += found / len(planes)
        return result


def head_folders(folder: Path) -> list[Path]:
    """Folders with a T1 and tissue shares, sorted: ``folder`` itself, or what lies up to two levels below it.

    Raises:
        MapInputError: There is none.
    """
    candidates = [folder, *sorted(path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_dir())]
    found = [path for path in candidates if _t1_file(path) is not None and _tissue_files(path)]
    if not found:
        raise MapInputError(
            f"{folder}: no head with a measured T1. A folder needs one T1 (*T1*.nii.gz) beside tissue shares "
            "(*_pve_0/1/2, pve_csf/gm/wm, *_label-GM_probseg) or a label map (*labels*, *dseg*)."
        )
    return found


def find_t1(folder: Path) -> Path | None:
    """The one T1 image of a folder, None without one or with several."""
    return _t1_file(folder) if folder.is_dir() else None


def read_head(folder: Path) -> MeasuredHead:
    """Reads a head.

    Raises:
        MapInputError: The images do not lie on one grid, or the labels do not separate three tissues.
    """
    t1_file, files = _t1_file(folder), _tissue_files(folder)
    if t1_file is None or not files:
        raise MapInputError(f"{folder.name}: holds no T1 with tissue shares or labels.")
    volume = read_nifti(t1_file)
    t1 = np.nan_to_num(volume.data[0])
    images = {}
    for tissue, file in files.items():
        image = read_nifti(file)
        if image.data.shape[1:] != t1.shape or not np.allclose(image.affine, volume.affine, atol=1e-2):
            raise MapInputError(f"{folder.name}: {file.name} is not on the grid of {t1_file.name}.")
        images[tissue] = np.nan_to_num(image.data[0])
    shares = _from_labels(images["labels"], t1, folder.name) if "labels" in images else _from_shares(images)
    matter = shares[:2].sum(axis=0)
    centre = np.array(ndimage.center_of_mass(matter))
    affine = volume.affine.copy()
    affine[:3, 3] = -affine[:3, :3] @ centre
    return MeasuredHead(folder.name, t1.astype(np.float32), shares, affine)


def _t1_file(folder: Path) -> Path | None:
    images = [path for path in sorted(folder.glob("*.nii*")) if re.search(r"t1", path.name, re.IGNORECASE)]
    plain = [path for path in images if not re.search(rf"pve|prob|mask|post|{_LABEL_NAME}", _stem(path))]
    return plain[0] if len(plain) == 1 else None


def _tissue_files(folder: Path) -> dict[str, Path]:
    images = sorted(folder.glob("*.nii*"))
    shares = {}
    for tissue, pattern in _SHARE_NAMES.items():
        if len(found := [path for path in images if re.search(pattern, _stem(path))]) == 1:
            shares[tissue] = found[0]
    if len(shares) == len(TISSUES):
        return shares
    labels = [path for path in images if re.search(_LABEL_NAME, _stem(path))]
    return {"labels": labels[0]} if len(labels) == 1 else {}


def _stem(path: Path) -> str:
    return path.name.lower().split(".nii")[0]


def _from_shares(images: dict[str, Float32]) -> Float32:
    shares = np.stack([images[tissue] for tissue in TISSUES]).astype(np.float32)
    return shares / max(float(shares.max()), 1e-6)  # 255 or 100 may represent 1


def _from_labels(labels: Float32, t1: Float32, name: str) -> Float32:
    inside = labels > 0
    values = [v for v in np.unique(labels[inside]) if (labels == v).sum() >= _SMALLEST_LABEL_SHARE * inside.sum()]
    if len(values) != len(TISSUES):
        raise MapInputError(
            f"{name}: the label map has {len(values)} large labels where CSF, grey and white matter are expected. "
            "Give tissue shares instead."
        )
    dark_to_bright = sorted(values, key=lambda v: float(np.median(t1[labels == v])))
    by_tissue = dict(zip(("CSF", "GM", "WM"), dark_to_bright, strict=True))
    return np.stack([labels == by_tissue[tissue] for tissue in TISSUES]).astype(np.float32)
