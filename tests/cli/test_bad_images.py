"""Anatomical images that are of no use for the maps: a sentence with the file's name, never a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from mrsi_fast.cli.app import app
from support.displaced import head, maps

Run = Callable[[str, np.ndarray, np.ndarray], tuple[Result, dict]]


@pytest.fixture
def sr(model_folder: Path, tmp_path: Path) -> Run:
    """Super-resolves the maps of a head, guided by an image that is saved under a name first."""
    values, valid, affine = maps()
    for name, one in zip(("tNAA", "tCr"), values, strict=True):
        nib.save(nib.Nifti1Image((one * valid).astype(np.float32), affine), tmp_path / f"conc_{name}.nii.gz")

    def run(name: str, image: np.ndarray, where: np.ndarray) -> tuple[Result, dict]:
        file, out = tmp_path / "images" / name, tmp_path / "out"
        file.parent.mkdir()
        nib.save(nib.Nifti1Image(image, where), file)
        options = ["sr", "--model", str(model_folder), "--samples", "0", "--threads", "1"]
        given = [*(str(one) for one in tmp_path.glob("conc_*")), "-o", str(out), "--anatomy", str(file)]
        done = CliRunner().invoke(app, [*options, *given])
        records = list(out.glob("*desc-sr_mrsi.json"))
        return done, json.loads(records[0].read_text()) if records else {}

    return run


def far(affine: np.ndarray) -> np.ndarray:
    moved = affine.copy()
    moved[:3, 3] += [400, 0, 0]
    return moved


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("elsewhere.nii.gz", lambda image, affine: (image, far(affine)), "does not overlap the maps"),
        ("constant.nii.gz", lambda image, affine: (np.full_like(image, 7), affine), "has the same value everywhere"),
        (
            "inside.nii.gz",
            lambda image, affine: ((image > 0).astype(np.float32), affine),
            "has the same value everywhere",
        ),
        ("brain_mask.nii.gz", lambda image, affine: (image, affine), "is a mask by its name"),
        ("empty.nii.gz", lambda image, affine: (0 * image, affine), "has the same value everywhere"),
        ("not_a_number.nii.gz", lambda image, affine: (np.nan * image, affine), "has the same value everywhere"),
        ("series.nii.gz", lambda image, affine: (np.stack([image] * 3, -1), affine), "holds 3 volumes"),
    ],
)
def test_what_is_no_image_of_this_head_is_refused_by_name(sr: Run, name: str, change: Callable, sentence: str) -> None:
    done, written = sr(name, *change(*head()))
    text = " ".join(done.output.split())
    assert done.exit_code == 3 and f"{name}: {sentence}" in text, text
    assert "Traceback" not in done.output and not written


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (
            "dark.nii.gz",
            lambda image: np.where(image > 0, image.max() + 0.5 - image, 0),
        ),  # as CSF and fat change places
        ("one_volume.nii.gz", lambda image: image[..., None]),
    ],
)
def test_another_contrast_or_a_fourth_axis_of_one_is_an_image(sr: Run, name: str, change: Callable) -> None:
    image, affine = head()
    done, written = sr(name, change(image), affine)
    guidance = written["evidence"]["guidance"]
    assert done.exit_code == 0 and guidance["reason"].startswith(name), done.output
    assert guidance["alignment"]["distance_mm"] < 0.6 and guidance["alignment"]["advantage"] > 4
    assert written["anatomy_used"] == guidance["used"]


def test_the_order_in_which_voxels_are_stored_does_not_matter(sr: Run) -> None:
    image = nib.Nifti1Image(*head())
    turned = image.as_reoriented(nib.orientations.axcodes2ornt("PIL"))
    assert nib.aff2axcodes(turned.affine) != nib.aff2axcodes(image.affine)
    done, written = sr("turned.nii.gz", turned.get_fdata(dtype=np.float32), turned.affine)
    found = written["evidence"]["guidance"]["alignment"]
    assert done.exit_code == 0 and found["distance_mm"] < 0.6 and found["angle_deg"] < 1


@pytest.mark.parametrize(
    ("name", "turn"),
    [
        ("upside_down.nii.gz", lambda image: image[:, :, ::-1]),
        ("axes_swapped.nii.gz", lambda image: image.swapaxes(0, 1)),
    ],
)
def test_a_wrong_orientation_is_refused_and_the_maps_are_made_without(sr: Run, name: str, turn: Callable) -> None:
    image, affine = head()
    done, written = sr(name, np.ascontiguousarray(turn(image)), affine)
    assert done.exit_code == 0 and not written["anatomy_used"], done.output
    reason = written["evidence"]["guidance"]["reason"]
    assert reason.startswith(f"{name}: not used, ") and name in done.output
