"""Measured scans cut by 2, and heads with a measured T1."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from mrsi_fast.evaluation.guided import PLACEMENTS, mean_gain, measured_subject, rigid
from mrsi_fast.evaluation.measured_head import find_t1, head_folders, read_head
from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.simulation.anatomy import CLASSES
from mrsi_fast.simulation.fields import Axis

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def save(path: Path, data: NDArray, affine: NDArray = AFFINE) -> None:
    nib.Nifti1Image(data.astype(np.float32), affine).to_filename(path)


def head_arrays() -> tuple[NDArray, dict[str, NDArray]]:
    """A T1 and shares of a head of nested boxes: CSF around grey around white matter."""
    shape = (40, 44, 36)
    shares = {name: np.zeros(shape) for name in ("CSF", "GM", "WM")}
    shares["CSF"][4:36, 4:40, 4:32] = 1
    shares["GM"][7:33, 7:37, 7:29] = 1
    shares["WM"][12:28, 12:32, 11:25] = 1
    shares["CSF"] -= shares["GM"]
    shares["GM"] -= shares["WM"]
    return 20 * shares["CSF"] + 60 * shares["GM"] + 100 * shares["WM"], shares


def test_shares_and_labels_describe_the_same_head(tmp_path: Path) -> None:
    t1, shares = head_arrays()
    for folder in ("fast", "named", "labels"):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / "T1_brain.nii.gz", t1)
    for number, name in enumerate(("CSF", "GM", "WM")):
        save(tmp_path / "fast" / f"T1_brain_pve_{number}.nii.gz", shares[name])
        save(tmp_path / "named" / f"pve_{name.lower()}.nii.gz", 255 * shares[name])
    save(tmp_path / "labels" / "segmentation_labels.nii.gz", 1 * shares["GM"] + 2 * shares["WM"] + 3 * shares["CSF"])
    heads = [read_head(folder) for folder in head_folders(tmp_path)]
    assert [head.name for head in heads] == ["fast", "labels", "named"]
    for head in heads:
        np.testing.assert_allclose(head.shares, np.stack([shares[n] for n in ("WM", "GM", "CSF")]), atol=1e-6)
    # The origin is the centre of grey and white matter, so the shares there are those of the middle voxel.
    axis = Axis.centred(0.0, 4.0, 2)
    found = heads[0].fractions(axis, axis, np.array([0.0], np.float32), 1)
    assert found[CLASSES.index("WM")] == pytest.approx(1.0) and found.sum(axis=0) == pytest.approx(1.0)
    assert find_t1(tmp_path / "fast") == tmp_path / "fast" / "T1_brain.nii.gz"


def test_a_folder_without_a_head_is_told(tmp_path: Path) -> None:
    save(tmp_path / "T1.nii.gz", head_arrays()[0])
    with pytest.raises(MapInputError, match="no head with a measured T1"):
        head_folders(tmp_path)
    save(tmp_path / "labels.nii.gz", head_arrays()[1]["GM"])
    with pytest.raises(MapInputError, match="1 large labels"):
        read_head(tmp_path)


def test_the_subject_holds_the_persons_tissue(tmp_path: Path) -> None:
    t1, shares = head_arrays()
    save(tmp_path / "T1.nii.gz", t1)
    for name, share in shares.items():
        save(tmp_path / f"pve_{name.lower()}.nii.gz", share)
    subject = measured_subject(read_head(tmp_path), "paper-like", 0, [(4, 4)], slices=1)
    assert subject.truth.shape == (6, 64, 64, 1) and subject.provenance["head"] == tmp_path.name
    white = subject.tissue["WM"] > 0.99
    # 16 x 20 voxels of 2 mm are white matter; only HR voxels that lie inside with all their width count.
    area_mm2 = float(subject.tissue["WM"].sum()) * 3.4375**2
    assert area_mm2 == pytest.approx(32 * 40, rel=0.03)
    assert (32 - 2 * 3.4375) * (40 - 2 * 3.4375) * 0.8 < float(white.sum()) * 3.4375**2 < 32 * 40
    tnaa = subject.truth[0]
    assert tnaa[white].mean() == pytest.approx(9, rel=0.5) and tnaa[~subject.masks["brain"]].max() < 0.5 * tnaa.max()


def test_placements_are_rigid_and_as_long_as_they_say() -> None:
    assert np.linalg.norm(PLACEMENTS["off by 2.3 mm"][:3, 3]) == pytest.approx(2.3)
    turned = rigid(turn_deg=(0, 0, 90)) @ np.array([1.0, 0, 0, 1])
    np.testing.assert_allclose(turned, [0, 1, 0, 1], atol=1e-12)
    for matrix in PLACEMENTS.values():
        np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-12)


def test_halving_the_error_is_six_decibels() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(1, 2, (16, 16, 2))
    error = rng.normal(size=truth.shape)
    everywhere = np.ones(truth.shape, bool)
    assert mean_gain(truth, truth + 0.5 * error, truth + error, everywhere) == pytest.approx(20 * np.log10(2))
