"""``mrsi-fast validate`` names what ``sr`` would find, and its exit code follows the worst input."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from mrsi_fast.cli.app import app
from support.data import data_dir


def validate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["validate", *map(str, arguments)])


def write_map(path: Path, voxel_mm: float = 10.0, missing: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y = np.meshgrid(np.linspace(-1, 1, 12), np.linspace(-1, 1, 10), indexing="ij")
    values = 8 * np.exp(-(x**2) - y**2)[..., None]
    values[4 : 4 + missing, 5] = np.nan
    nib.save(nib.Nifti1Image(values.astype(np.float32), np.diag([voxel_mm, voxel_mm, 12.0, 1.0])), path)
    return path


def test_grid_units_and_trust_are_said(tmp_path: Path) -> None:
    done = validate("-i", write_map(tmp_path / "K_01" / "tNAA.nii.gz", missing=3).parent)
    assert done.exit_code == 0
    assert "12x10x1 voxels of 10 x 10 x 12 mm, RAS" in done.output and "unit i.u." in done.output
    assert "missing 3" in done.output


def test_exit_codes(tmp_path: Path) -> None:
    good, bad = write_map(tmp_path / "tNAA.nii.gz"), tmp_path / "bad.nii.gz"
    bad.write_bytes(b"")
    assert validate("-i", good).exit_code == 0
    assert validate("-i", bad).exit_code == 3
    done = validate("-i", bad, "-i", good)
    assert done.exit_code == 4 and "bad: FAIL" in done.output and "tNAA: OK" in done.output
    assert validate().exit_code == 2


def test_large_voxels_warn_and_fail_only_if_strict(tmp_path: Path) -> None:
    coarse = write_map(tmp_path / "tNAA.nii.gz", voxel_mm=18.0)
    done = validate("-i", coarse)
    assert done.exit_code == 0 and "tNAA: WARN" in done.output and "18 mm wide" in done.output
    assert validate("-i", coarse, "--strict").exit_code == 3


@pytest.mark.skipif(data_dir() is None, reason="the real scan is not here (MRSI_FAST_DATA)")
def test_the_real_scan_is_found_by_name() -> None:
    done = validate("-i", data_dir() / "mrsi_oryx2_mit" / "K_01", "--metabolites", "tNAA,tCr,tCho,Ins,Glx")
    assert done.exit_code == 0 and "K_01: OK" in done.output
    assert "quality data: crlb, snr, fwhm" in done.output
    assert "14x14x3 voxels of 10 x 10 x 12 mm, PLS" in done.output
