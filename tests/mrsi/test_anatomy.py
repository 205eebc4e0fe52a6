"""Anatomy on the maps' grid: in its right place at any angle, averaged and not aliased."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from mrsi_fast.mrsi.anatomy import resample_anatomy
from mrsi_fast.mrsi.mapset import MapInputError

GRID = np.diag([5.0, 5.0, 10.0, 1.0])
GRID[:3, 3] = -27.5, -22.5, -5.0
SHAPE = (12, 10, 2)


def rotated(angles, sizes, centre, shape):
    affine = np.eye(4)
    affine[:3, :3] = nib.eulerangles.euler2mat(*angles) * sizes
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def ramp(affine, shape, direction=(1.0, -0.5, 2.0)):
    """A linear function of world position, 500 at the origin: any correct resampling keeps it exactly."""
    positions = nib.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    return (500 + positions @ direction).astype(np.float32)


@pytest.mark.parametrize("angles", [(0, 0, 0), (0.3, -0.2, 0.5), (np.pi, 0, 0.1)])
@pytest.mark.parametrize("voxel_mm", [0.9, 1.0, 2.3, 7.0])
def test_a_linear_image_keeps_its_place_at_any_angle_and_size(angles, voxel_mm):
    shape = (int(95 / voxel_mm),) * 3
    affine = rotated(angles, voxel_mm, np.array([0.0, 0, 0]), shape)
    result = resample_anatomy((ramp(affine, shape), affine), GRID, SHAPE)
    assert result.overlap == 1.0 and result.warnings == ()
    np.testing.assert_allclose(result.image, ramp(GRID, SHAPE), atol=5e-3)


def test_aligned_voxels_are_box_means():
    """5 and 10 mm voxels made of 1 mm ones exactly: the mean over each block."""
    fine = np.random.default_rng(0).uniform(1, 2, (60, 50, 20)).astype(np.float32)
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = GRID[:3, 3] - (2, 2, 4.5)
    blocks = fine.reshape(12, 5, 10, 5, 2, 10).astype(float).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(resample_anatomy((fine, affine), GRID, SHAPE).image, blocks, atol=1e-5)


def test_a_pattern_finer_than_the_grid_averages_out():
    """1 mm stripes on a 5 mm grid: sampling alone would keep their full contrast as aliases."""
    stripes = np.broadcast_to(np.where(np.arange(80) % 2, 0.0, 100.0)[:, None, None], (80, 80, 40)) + 500.0
    stripes = stripes + np.arange(80)[None, :, None]
    affine = np.eye(4)
    affine[:3, 3] = -40, -40, -20
    image = resample_anatomy((stripes.astype(np.float32), affine), GRID, SHAPE).image
    across, along = image.std(axis=0).mean(), image.std(axis=1).mean()
    assert across < 0.5 * along, "stripes of +-50 shrink to a fifth, below the slope of 14 (sd) along y"


def test_coverage_is_reported_and_warned_about():
    affine = np.eye(4)
    affine[:3, 3] = -30, -25, -10
    half = np.random.default_rng(0).uniform(1, 2, (30, 50, 20)).astype(np.float32)
    result = resample_anatomy((half, affine), GRID, SHAPE)
    assert result.overlap == pytest.approx(0.5, abs=0.05)
    assert "covers 50 %" in result.warnings[0] and "coregistered" in result.warnings[0]
    assert (result.image[7:] == 0).all()
    region = np.zeros(SHAPE, bool)
    region[:5] = True
    assert resample_anatomy((half, affine), GRID, SHAPE, region).overlap == 1.0


def test_nothing_is_made_up_outside_the_image():
    data = np.zeros((60, 50, 20), np.float32)
    data[20:40, 15:35] = np.random.default_rng(0).uniform(100, 200, (20, 20, 20))
    data[0, 0, 0] = np.nan
    affine = np.eye(4)
    affine[:3, 3] = -29.5, -24.5, -9.5
    image = resample_anatomy(nib.Nifti1Image(data, affine), GRID, SHAPE).image
    inside = image != 0
    assert image.dtype == np.float32 and np.isfinite(image).all() and 0 < inside.mean() < 0.5
    assert 0 < image[inside].min() and image.max() < 200


def test_scaling_the_image_scales_it():
    affine = rotated((0.1, 0, 0.2), 2.0, np.zeros(3), (60, 60, 30))
    data = np.random.default_rng(0).uniform(1, 2, (60, 60, 30)).astype(np.float32)
    one = resample_anatomy((data, affine), GRID, SHAPE).image
    np.testing.assert_allclose(resample_anatomy((data * 1000, affine), GRID, SHAPE).image, one * 1000, rtol=1e-5)


def test_files_are_read_and_remarks_passed_on(tmp_path):
    affine = np.eye(4)
    affine[:3, 3] = -40, -40, -20
    affine[0, 1] = 0.1
    data = np.random.default_rng(0).uniform(1, 2, (90, 80, 40)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "T1.nii.gz")
    (warning,) = resample_anatomy(tmp_path / "T1.nii.gz", GRID, SHAPE).warnings
    assert warning.startswith("T1.nii.gz: the axes are sheared")


@pytest.mark.parametrize(
    ("data", "shift", "words"),
    [
        (np.ones((60, 50, 20)), 1000.0, "does not overlap"),
        (np.zeros((60, 50, 20)), 0.0, "does not overlap"),
        (np.ones((90, 90, 60)), -20.0, "same value everywhere"),
        (np.ones((60, 50)), 0.0, "give \\[X, Y, Z\\]"),
    ],
)
def test_unusable_images_are_refused(data, shift, words):
    affine = np.eye(4)
    affine[:3, 3] = np.array([-30, -25, -10]) + shift
    with pytest.raises(MapInputError, match=words):
        resample_anatomy((data, affine), GRID, SHAPE)


def test_an_image_of_one_slice_covers_the_slice_it_is_on() -> None:
    rng = np.random.default_rng(0)
    image = rng.uniform(1, 2, (8, 6, 1)).astype(np.float32)
    affine = np.diag([3.0, 3.0, 10.0, 1.0])  # finer in plane than thick: several points through the slice
    found = resample_anatomy((image, affine), affine, image.shape)
    assert found.overlap == 1.0
    np.testing.assert_allclose(found.image, image, rtol=1e-6)


def test_the_outermost_slices_keep_their_level() -> None:
    image = np.full((8, 6, 3), 5.0, np.float32)
    image[2:4, 2:4] = 7.0
    affine = np.diag([3.0, 3.0, 10.0, 1.0])
    found = resample_anatomy((image, affine), affine, image.shape)
    np.testing.assert_allclose(found.image, image, rtol=1e-6)


@pytest.mark.parametrize("name", ["T1.mgz", "T1.hdr", "T1.img"])
def test_images_of_other_formats_are_the_same_image(tmp_path, name) -> None:
    data, affine = np.random.default_rng(0).uniform(5, 9, (8, 8, 4)).astype(np.float32), np.diag([2.0, 2.0, 3.0, 1.0])
    nib.save((nib.MGHImage if name.endswith("mgz") else nib.Nifti1Pair)(data, affine), tmp_path / name)
    target = np.diag([4.0, 4.0, 3.0, 1.0])
    wanted = resample_anatomy((data, affine), target, (4, 4, 4))
    np.testing.assert_allclose(resample_anatomy(tmp_path / name, target, (4, 4, 4)).image, wanted.image, rtol=1e-5)
