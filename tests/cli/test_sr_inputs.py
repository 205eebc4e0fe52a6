"""``mrsi-fast sr`` from tables, from files named by hand, and with the anatomical image beside the maps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from mrsi_fast.cli.app import app
from support.lcmodel_tables import write_run

AFFINE = np.array([[0.0, -10, 0, 30], [-10, 0, 0, 35], [0, 0, 12, 0], [0, 0, 0, 1]])
SHAPE = (8, 7, 1)


@pytest.fixture
def sr(model_folder: Path) -> Callable[..., Result]:
    def run(*arguments: str | Path) -> Result:
        options = ["sr", "--model", str(model_folder), "--samples", "0", "--threads", "1"]
        return CliRunner().invoke(app, [*options, *map(str, arguments)])

    return run


def head(level: float) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(-1, 1, SHAPE[0]), np.linspace(-1, 1, SHAPE[1]), indexing="ij")
    rounded = [float(f"{value:.2e}") for value in (level * np.exp(-(x**2) - y**2)).ravel()]
    return np.array(rounded, dtype=np.float32).reshape(SHAPE)


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values.astype(np.float32), affine), path)
    return path


def record(folder: Path) -> dict:
    return json.loads(next(folder.glob("*desc-sr_mrsi.json")).read_text())


def load(folder: Path, name: str) -> np.ndarray:
    return nib.load(next(folder.glob(f"*met-{name}_desc-sr_mrsi.nii.gz"))).get_fdata()


def test_lcmodel_tables_become_finer_maps_in_one_command(sr: Callable[..., Result], tmp_path: Path) -> None:
    levels = {"NAA+NAAG": 10.0, "Cr+PCr": 8.0}
    conc, percent = {n: head(v) for n, v in levels.items()}, {n: np.full(SHAPE, 7.0, np.float32) for n in levels}
    write_run(tmp_path / "lcm", conc, percent, np.full(SHAPE, 20.0), np.full(SHAPE, 0.05))
    for name, file in (("NAA+NAAG", "tNAA"), ("Cr+PCr", "tCr")):
        save(tmp_path / "maps" / f"conc_{file}.nii.gz", conc[name])
        save(tmp_path / "maps" / f"crlb_{file}.nii.gz", percent[name])
    save(tmp_path / "maps" / "snr.nii.gz", np.full(SHAPE, 20.0))
    save(tmp_path / "maps" / "fwhm.nii.gz", np.full(SHAPE, 0.05))
    done = sr("-i", tmp_path / "lcm", "--like", tmp_path / "maps" / "snr.nii.gz", "-o", tmp_path / "a")
    assert done.exit_code == 0, done.output
    assert sr("-i", tmp_path / "maps", "-o", tmp_path / "b").exit_code == 0
    for name in ("NAANAAG", "CrPCr"):
        np.testing.assert_allclose(load(tmp_path / "a", name), load(tmp_path / "b", name), rtol=1e-5, atol=1e-5)
    lost = sr("-i", tmp_path / "lcm", "-o", tmp_path / "c")
    assert lost.exit_code == 3 and "--like IMAGE" in lost.output


def test_an_image_beside_the_maps_is_offered_and_used_if_asked(sr: Callable[..., Result], tmp_path: Path) -> None:
    save(tmp_path / "P07" / "mrsi" / "conc_tNAA.nii.gz", head(10.0))
    fine = AFFINE @ np.diag([0.5, 0.5, 1.0, 1.0])
    texture = np.random.default_rng(0).uniform(50, 99, (16, 14, 1))
    save(tmp_path / "P07" / "anat" / "T1.nii.gz", texture, fine)
    done = sr("-i", tmp_path / "P07", "-o", tmp_path / "without")
    assert "not used: T1.nii.gz: an anatomical image; --anatomy auto guides the result by it" in done.output
    assert not record(tmp_path / "without")["anatomy_used"]
    assert sr("-i", tmp_path / "P07", "-o", tmp_path / "with", "--anatomy", "auto").exit_code == 0
    assert record(tmp_path / "with")["anatomy_used"]


def test_files_by_hand(sr: Callable[..., Result], tmp_path: Path) -> None:
    a, b = save(tmp_path / "in" / "a.nii", head(10.0)), save(tmp_path / "in" / "b.nii", np.full(SHAPE, 5.0))
    done = sr("--map", f"tNAA={a}", "--crlb", f"tNAA={b}", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert list(record(tmp_path / "out")["maps"]) == ["tNAA"]
    assert record(tmp_path / "out")["maps"]["tNAA"]["noise_source"] == "crlb"
    refused = sr("--map", f"tNAA={a}", "-o", tmp_path / "in")
    assert refused.exit_code == 2 and "never overwritten" in refused.output
