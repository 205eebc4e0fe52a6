"""A report's page as a reader uses it: texts, pointer, panels, and the values that its files hold there."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from support.chromium import Chromium


def number(text: str) -> float:
    """The number that a text starts with."""
    found = re.match(r"-?[\d.e+-]+", text.strip())
    assert found, text
    return float(found[0])


def text(page: Chromium, element: str) -> str:
    """What an element of the page reads."""
    return str(page.value(f"document.getElementById('{element}').textContent"))


def entries(page: Chromium) -> list[str]:
    """The maps and ratios that the page offers."""
    return list(page.value("[...document.getElementById('map').options].map((o) => o.value)"))


def box(page: Chromium, key: str) -> list[float]:
    """Left, top, right and bottom of a panel in the window."""
    return list(
        page.value(
            f"(() => {{ const r = document.getElementById('panel-{key}').getBoundingClientRect();"
            " return [r.left, r.top, r.right, r.bottom]; })()"
        )
    )


def point_at(page: Chromium, key: str, x: float, y: float, click: bool = False) -> None:
    """Move the pointer to a place in a panel, in shares of its width and height, and click there if asked to."""
    left, top, right, bottom = box(page, key)
    page.mouse(left + x * (right - left), top + y * (bottom - top), click)


def pixels(page: Chromium, key: str, path: Path) -> np.ndarray:
    """A panel as it looks, [height, width, 3]."""
    left, top, right, bottom = box(page, key)
    picture = Image.open(io.BytesIO(page.screenshot(path))).convert("RGB")
    return np.asarray(picture.crop((left, top, right, bottom))).astype(int)


def place(page: Chromium) -> tuple[tuple[int, int, int], np.ndarray]:
    """Voxel of the finer grid and RAS mm that the page states for the pointer, or for the crosshair."""
    stated = text(page, "place")
    index = re.search(r"voxel (-?\d+), (-?\d+), (-?\d+)", stated)
    assert index, stated
    mm = [float(value) * (1 if side in "RAS" else -1) for side, value in re.findall(r"([RLAPSI]) ([\d.]+)", stated)]
    return (int(index[1]), int(index[2]), int(index[3])), np.array(mm)


class Files:
    """The NIfTI files of one map of a result.

    Args:
        folder: Where they are.
        label: Their ``met-`` label.
    """

    def __init__(self, folder: Path, label: str) -> None:
        self.images = {}
        for key, what in (("mean", "sr"), ("sd", "srstd"), ("zerofilled", "zerofilled"), ("measured", "measured")):
            found = sorted(folder.glob(f"*_met-{label}_desc-{what}_mrsi.nii.gz"))
            assert len(found) == 1, (label, what, found)
            self.images[key] = nib.nifti1.load(found[0])
        self.values = {key: np.asarray(image.get_fdata()) for key, image in self.images.items()}

    def at(self, key: str, mm: np.ndarray) -> float:
        """The value of the voxel that holds a point; NaN outside."""
        index = np.floor((np.linalg.inv(self.images[key].affine) @ [*mm, 1.0])[:3] + 0.5).astype(int)
        values = self.values[key]
        return float(values[tuple(index)]) if ((index >= 0) & (index < values.shape)).all() else float("nan")

    def top(self, key: str) -> float:
        """The level that the page's steps are stated against."""
        return float(np.nanpercentile(np.abs(self.values[key]), 99.5))

    def edge_mm(self, mm: np.ndarray) -> float:
        """Distance of a point from the next voxel border within the plane, in voxels of the finer grid."""
        voxel = (np.linalg.inv(self.images["mean"].affine) @ [*mm, 1.0])[:2] + 0.5
        return float(np.abs(voxel - np.round(voxel)).min())


def record_of(folder: Path) -> dict:
    """The JSON record of the one result in a folder."""
    (path,) = folder.glob("*_desc-sr_mrsi.json")
    return json.loads(path.read_text())
