"""Regions on the maps' grid: labels by majority, mirror images, statistics; against closed forms on small grids."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.mrsi.regions import (
    label_names,
    labels_on_grid,
    mid_sagittal_mm,
    mirror_image,
    region_rows,
)

AFFINE = np.array([[4.0, 0, 0, -38.0], [0, 4.0, 0, -38.0], [0, 0, 8.0, 0], [0, 0, 0, 1]])
SHAPE = (20, 20, 3)


def saved(path: Path, values: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(values.astype(np.int16), affine), path)
    return path


def fine_grid() -> tuple[np.ndarray, np.ndarray]:
    """1 mm labels on the same field of view: 7 in the left half (x < 0), 12 in the right one."""
    affine = np.eye(4)
    affine[:3, 3] = (-39.5, -39.5, -3.5)
    labels = np.full((80, 80, 24), 7)
    labels[40:] = 12
    return labels, affine


def test_finer_labels_come_by_majority(tmp_path: Path) -> None:
    labels, affine = fine_grid()
    labels[0:2, 0:4, 0:8] = 3  # half of the first voxel
    labels[4:5, 0:4, 0:8] = 3  # a quarter of the second
    labels[76:80, 76:80, 16:21] = 0  # five eighths of the last
    found = labels_on_grid(saved(tmp_path / "l.nii.gz", labels, affine), AFFINE, SHAPE)
    assert set(np.unique(found)) == {0, 3, 7, 12}
    assert found[0, 0, 0] in (3, 7) and found[1, 0, 0] == 7 and found[19, 19, 2] == 0
    assert (found[2:10, 1:] == 7).all() and (found[10:, :19] == 12).all()


@pytest.mark.parametrize("axes", [("L", "A", "S"), ("P", "S", "R"), ("S", "R", "A")])
def test_orientation_of_the_label_image_does_not_matter(tmp_path: Path, axes: tuple[str, str, str]) -> None:
    labels, affine = fine_grid()
    image = nib.Nifti1Image(labels.astype(np.int16), affine)
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(axes))
    )
    nib.save(turned, tmp_path / "turned.nii.gz")
    plain = labels_on_grid(saved(tmp_path / "l.nii.gz", labels, affine), AFFINE, SHAPE)
    np.testing.assert_array_equal(labels_on_grid(tmp_path / "turned.nii.gz", AFFINE, SHAPE), plain)


def test_coarser_labels_and_the_same_grid(tmp_path: Path) -> None:
    same = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 5
    np.testing.assert_array_equal(labels_on_grid(saved(tmp_path / "s.nii.gz", same, AFFINE), AFFINE, SHAPE), same)
    coarse = np.arange(1, 1 + 5 * 5 * 3).reshape(5, 5, 3)
    affine = AFFINE.copy()
    affine[:2, :2] *= 4
    affine[:2, 3] = -32.0
    found = labels_on_grid(saved(tmp_path / "c.nii.gz", coarse, affine), AFFINE, SHAPE)
    np.testing.assert_array_equal(found, coarse.repeat(4, 0).repeat(4, 1))


def test_what_is_no_label_image(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.full(SHAPE, 0.5, np.float32), AFFINE), tmp_path / "half.nii.gz")
    with pytest.raises(MapInputError, match="whole numbers"):
        labels_on_grid(tmp_path / "half.nii.gz", AFFINE, SHAPE)
    elsewhere = AFFINE.copy()
    elsewhere[0, 3] += 500
    with pytest.raises(MapInputError, match="no label is on the maps' grid"):
        labels_on_grid(saved(tmp_path / "far.nii.gz", np.ones(SHAPE), elsewhere), AFFINE, SHAPE)


@pytest.mark.parametrize("turn_deg", [0, 90, 20])
def test_mirror_image_on_turned_grids(turn_deg: float) -> None:
    """An ellipse of half-axes 60 and 80 mm about x = 3 mm; a block on its left comes out on its right."""
    angle = np.radians(turn_deg)
    affine = np.eye(4)
    affine[:2, :2] = 4 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    affine[:2, 3] = -affine[:2, :2] @ (30, 30)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in (61, 61, 2)), indexing="ij"), axis=-1)
    x, y, _ = np.moveaxis(grid @ affine[:3, :3].T + affine[:3, 3], -1, 0)
    support = ((x - 3) / 60) ** 2 + (y / 80) ** 2 < 1
    region = support & (np.abs(x + 30) < 10) & (np.abs(y - 10) < 12)
    plane = mid_sagittal_mm(support, affine)
    assert plane == pytest.approx(3.0, abs=2.0)  # half a voxel
    mirrored = mirror_image(region, support, affine, plane)
    assert x[mirrored].mean() == pytest.approx(2 * plane - x[region].mean(), abs=2.0)
    assert y[mirrored].mean() == pytest.approx(y[region].mean(), abs=2.0)
    assert mirrored.sum() == pytest.approx(region.sum(), rel=0.15)


def test_statistics_of_regions() -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((4, 4, 2), dtype=np.int32)
    labels[0], labels[1] = 2, 5
    mean = rng.uniform(5, 9, labels.shape).astype(np.float32)
    mean[0, 0, 0] = np.nan
    zero_filled = (mean - 0.5).astype(np.float32)
    samples = mean + rng.standard_normal((12, 1, 1, 1)).astype(np.float32)
    first, second = region_rows(labels, mean, zero_filled, samples, 0.25, {5: "thalamus"})
    assert (first.label, first.name, second.name) == (2, "2", "thalamus")
    assert first.voxels == 7 and first.volume_ml == 1.75 and second.voxels == 8
    values = mean[1].astype(np.float64)
    assert second.mean == pytest.approx(values.mean()) and second.sd == pytest.approx(values.std(ddof=1))
    assert second.zero_filled == pytest.approx(values.mean() - 0.5, rel=1e-6)
    assert second.inferred == pytest.approx(8 * 0.25 / (values**2).sum(), rel=1e-5)
    assert second.sd_of_mean == pytest.approx(samples[:, 1].mean(axis=(1, 2)).std(ddof=1), rel=1e-5)
    assert region_rows(labels, mean, zero_filled, None, 0.25)[0].sd_of_mean is None


def test_names_of_labels(tmp_path: Path) -> None:
    assert label_names(tmp_path / "atlas.nii.gz") == {}
    (tmp_path / "atlas.tsv").write_text("index\tname\tcolor\n2\tleft <WM>\t#fff\n41\tright WM\t#000\n")
    assert label_names(tmp_path / "atlas.nii.gz") == {2: "left <WM>", 41: "right WM"}
    (tmp_path / "atlas.tsv").write_text("number,label\n1,a\n")
    with pytest.raises(MapInputError, match="'index' and 'name'"):
        label_names(tmp_path / "atlas.nii.gz")
