"""``mrsi-fast simulate`` writes what ``sr`` reads, with the truth beside it, the same every time."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from mrsi_fast.cli.app import app
from mrsi_fast.mrsi.geometry import hr_affine
from mrsi_fast.mrsi.io import read_maps
from mrsi_fast.simulation.config import SimulationConfig
from mrsi_fast.simulation.volume import simulate

PRESET = """
name = "small"
[signal]
noise = [1.0, 1.0]
[volume]
metabolites = ["tNAA", "tCho"]
matrix = [32, 24]
fov_mm = [208.0, 208.0]
slices = 1
first_mm = 10.0
"""


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["simulate", *map(str, arguments)])


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(PRESET)
    return path


def test_subjects_are_readable_and_equal_the_api(preset: Path, tmp_path: Path) -> None:
    done = run("--preset", preset, "--subjects", "0,3", "--scales", "2,4", "--seed", "5", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    folders = {path.name for path in (tmp_path / "out").iterdir()}
    assert folders == {f"sub-00{n}_{what}" for n in (0, 3) for what in ("acq-x2", "acq-x4", "truth")}
    expected = next(simulate(SimulationConfig.load(preset), [3], 5, [2, 4]))
    maps = read_maps(tmp_path / "out" / "sub-003_acq-x4")
    assert maps.names == ("tNAA", "tCho") and maps.crlb is not None and maps.snr is not None and maps.fwhm is not None
    np.testing.assert_array_equal(maps.maps, expected.measured[4, 4].maps)
    truth = nib.load(tmp_path / "out" / "sub-003_truth" / "tNAA.nii.gz")
    np.testing.assert_array_equal(truth.get_fdata(dtype=np.float32), expected.truth[0])
    np.testing.assert_allclose(hr_affine(maps.affine, (4, 4, 1)), truth.affine, atol=1e-5)
    record = json.loads((tmp_path / "out" / "sub-003_truth" / "simulation.json").read_text())
    assert record["seed"] == 5 and record["sha256"] == expected.checksum()


def test_a_number_means_how_many(preset: Path, tmp_path: Path) -> None:
    assert run("--preset", preset, "--subjects", "2", "--scales", "4", "-o", tmp_path / "out", "-q").exit_code == 0
    assert {path.name for path in (tmp_path / "out").glob("*truth")} == {"sub-000_truth", "sub-001_truth"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--preset", "nothing"), "There is no simulation preset 'nothing'"),
        (("--scales", "3"), "has to be 2, 4 or 8"),
        (("--subjects", "some"), "whole numbers"),
        (("--subjects", "9" * 5000), "whole numbers"),
        (("--subjects", "1000000000"), "at most 10000 subjects"),
        (("--subjects", ",".join(map(str, range(10_001)))), "at most 10000 subjects"),
        (("--subjects", "0,9999999999"), "at most 2147483647"),
        (("--subjects", "0"), "that is none"),
        (("--heads", "nowhere", "--split", "all"), "'nowhere' does not exist"),
    ],
)
def test_usage_errors(arguments: tuple[str, ...], text: str, tmp_path: Path) -> None:
    done = run("-o", tmp_path / "out", *arguments)
    assert done.exit_code == 2 and text in done.output and "Traceback" not in done.output


def test_the_phantom_needs_no_data_with_any_preset() -> None:
    from mrsi_fast.cli.simulate import _settings

    for name in ("realistic-3T", "stress"):
        settings = _settings(name, "phantom", None)
        assert settings.anatomy.heads == "phantom" and settings.anatomy.tumour_masks is None
