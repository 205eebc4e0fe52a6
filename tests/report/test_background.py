"""The anatomical image under the maps of a report."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from mrsi_fast.report.background import packed_background


def test_the_image_may_come_in_any_format_that_is_read(tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(1, 200, (12, 10, 8)).astype(np.float32)
    affine = np.diag([5.0, 5.0, 5.0, 1.0])
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "T1.nii.gz")
    nib.save(nib.MGHImage(values, affine), tmp_path / "T1.mgz")
    nib.save(nib.Nifti1Pair(values, affine), tmp_path / "T1.hdr")
    packed = [packed_background(tmp_path / name, affine, (12, 10, 8)) for name in ("T1.nii.gz", "T1.mgz", "T1.hdr")]
    assert len(packed[0]) > 100 and packed[1] == packed[0] and packed[2] == packed[0]
