"""Rows 27 to 40: values, grids, masks, images and scales."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from mrsi_fast.evaluation.metrics import ssim_gaussian_map
from mrsi_fast.mrsi.anatomy import resample_anatomy
from mrsi_fast.mrsi.io import read_maps
from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.mrsi.planes import check_matrix
from support.faults import AFFINE, command, fault, head, patched, refused, remarked, save, scan


def result(run, label, what="sr"):
    return nib.load(next(run[0].glob(f"*met-{label}_desc-{what}_mrsi.nii.gz")))


@fault(27)
def test_bytes_in_floats_out(run, row):
    image = result(run, "NAANAAG")
    slope = (float(image.header["scl_slope"]), float(image.header["scl_inter"]))
    assert image.get_data_dtype() == np.float32 and slope in ((1.0, 0.0), pytest.approx((np.nan, np.nan), nan_ok=True))
    assert len(np.unique(np.asarray(image.dataobj))) > 100


@fault(28)
@pytest.mark.parametrize("kind", [bool, np.int64, np.uint16, np.float16])
def test_arrays_of_any_number(row, kind):
    values = np.round(head()).astype(kind)
    np.testing.assert_array_equal(read_maps((values, AFFINE)).maps[0], values.astype(np.float32))


@fault(29)
def test_one_nan(run, row):
    values = result(run, "CrPCr").get_fdata()
    assert (
        np.isnan(values[8:10, 8:10]).all()
        and np.isfinite(np.delete(values, slice(7, 11), axis=0)).any(axis=(1, 2)).all()
    )
    record = json.loads(next(run[0].glob("*_desc-sr_mrsi.json")).read_text())
    assert record["maps"]["tCr"]["untrusted_in_support"]["missing"] == 1


@fault(30)
def test_all_nan(tmp_path, row):
    refused(save(tmp_path / "NAA.nii.gz", np.full((9, 8, 2), np.nan, np.float32)), "has no valid voxel", good=None)


@fault(31)
def test_beyond_numbers(tmp_path, row):
    values = head()
    values[3, 3, 0], values[4, 4, 1], values[5, 5, 0] = np.inf, -np.inf, 1e30
    path = save(tmp_path / "NAA.nii.gz", values)
    remarked(path, "2 values are infinite and count as missing")
    assert "blow" in command("validate", "-i", path).output
    overflowing = patched(save(tmp_path / "Cr.nii", head().astype(np.int16)), 112, "<f", 3e38)
    refused(overflowing, "exceed 32-bit numbers", "scl_slope")


@fault(32)
def test_constant(run, tmp_path, row):
    values = result(run, "Ins").get_fdata()
    assert np.isfinite(values).any() and (values[np.isfinite(values)] == 3.0).all()
    assert "has the same value in every valid voxel" in run[1].output
    remarked(scan_of(tmp_path, np.full((9, 8, 2), 3.0, np.float32)), "is the same everywhere (3)")


def scan_of(folder, values):
    return save(folder / "NAA.nii.gz", values)


@fault(33)
def test_negative(tmp_path, row):
    values = head()
    values[4:6, 4] *= -1
    path = save(tmp_path / "NAA.nii.gz", values)
    remarked(path, "2.8 % of its values are negative; they are kept")
    remarked(path, "negative; set to 0 as asked", options=("--clip-negative",))
    assert read_maps(path).maps.min() < 0 and read_maps(path, clip_negative=True).maps.min() == 0


@fault(34)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 3, 2), (7, 5, 1), (6, 7, 1), (17, 33, 1)])
def test_grids(sr, tmp_path, row, shape):
    path = save(tmp_path / "in" / "conc_tNAA.nii.gz", head(shape))
    done = sr("-i", path.parent, "-o", tmp_path / "out")
    if min(shape[:2]) < 6:
        assert done.exit_code == 3 and f"{shape[0]}x{shape[1]} voxels in plane" in done.output, done.output
        assert "at least 6x6 are needed" in done.output
    else:
        assert done.exit_code == 0, done.output
        image = nib.load(next((tmp_path / "out").glob("*desc-sr_mrsi.nii.gz")))
        assert image.shape == (2 * shape[0], 2 * shape[1], 1)


@fault(35)
def test_single_slice(run, row):
    assert result(run, "NAANAAG").shape == (18, 16, 1)
    plane = head((12, 13, 1))[..., 0]
    assert ssim_gaussian_map(plane, plane, 10.0)[0] == pytest.approx(1.0)


@fault(36)
def test_mask_elsewhere(tmp_path, row):
    scan(tmp_path / "in")
    fine = AFFINE.copy()
    fine[:3, :2] /= 2
    fine[:3, 3] -= fine[:3, :2].sum(axis=1) / 2
    mask = save(tmp_path / "m.nii.gz", np.pad(np.ones((10, 10, 2), np.uint8), ((4, 4), (3, 3), (0, 0))), fine)
    done = command("validate", "-i", tmp_path / "in", "--mask", mask)
    text = " ".join(done.output.split())
    assert done.exit_code == 0 and "another grid than the maps" in text and "resampled" in text, text
    away = fine.copy()
    away[0, 3] += 5000
    done = command(
        "validate", "-i", tmp_path / "in", "--mask", save(tmp_path / "far.nii.gz", np.ones((18, 16, 2)), away)
    )
    assert done.exit_code == 3 and "does not overlap the maps" in done.output, done.output


@fault(37)
def test_empty_mask(tmp_path, row):
    scan(tmp_path / "in")
    mask = save(tmp_path / "m.nii.gz", np.zeros((9, 8, 2), np.uint8))
    done = command("validate", "-i", tmp_path / "in", "--mask", mask)
    assert done.exit_code == 3 and "m.nii.gz" in done.output and "empty" in done.output, done.output


@fault(38)
def test_image_elsewhere(row):
    image = np.random.default_rng(0).uniform(1, 2, (20, 20, 8)).astype(np.float32)
    far = AFFINE.copy()
    far[:3, 3] += 900
    with pytest.raises(MapInputError, match="does not overlap the maps"):
        resample_anatomy((image, far), AFFINE, (9, 8, 2))
    half = AFFINE.copy()
    half[:3, 3] += half[:3, 0] * 5
    assert any(
        "check that it is coregistered" in text for text in resample_anatomy((image, half), AFFINE, (9, 8, 2)).warnings
    )


@fault(39)
@pytest.mark.parametrize("scale", ["3", "0", "-2", "1.5", "x4", "16", "4,4,4,4", "nan", ""])
def test_scales(sr, tmp_path, row, scale):
    done = sr("-i", tmp_path, "-o", tmp_path / "out", f"--scale={scale}")
    assert done.exit_code == 2 and not (tmp_path / "out").exists(), done.output


@fault(40)
def test_voxels_outside_training(sr, tmp_path, row):
    wide = AFFINE.copy()
    wide[:3, :2] *= 3
    save(tmp_path / "in" / "conc_tNAA.nii.gz", head((9, 8, 1)), wide)
    save(tmp_path / "in" / "crlb_tNAA.nii.gz", np.full((9, 8, 1), 5.0, np.float32), wide)
    done = sr("-i", tmp_path / "in", "-o", tmp_path / "out")
    assert done.exit_code == 0 and "the model was trained on 3.0 to 20.0 mm" in " ".join(done.output.split()), (
        done.output
    )
    for again in range(2):  # new, and finished before
        strict = sr("-i", tmp_path / "in", "-o", tmp_path / f"strict{0 * again}", "--strict")
        assert strict.exit_code == 4 and "--strict" in strict.output, strict.output
        assert list((tmp_path / "strict0").glob("*desc-sr_mrsi.nii.gz"))


def test_the_smallest_matrix_has_a_number():
    with pytest.raises(MapInputError, match="3x3"):
        check_matrix(read_maps((head((3, 3, 2)), AFFINE)))
