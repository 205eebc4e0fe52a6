"""``mrsi-fast sr`` from files to files: what it writes, says, skips, refuses, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from mrsi_fast.cli.app import app
from support.data import data_dir

AFFINE = np.array([[0.0, -10, 0, 40], [9, 0, 0, -30], [0, 0, 12, 5], [0, 0, 0, 1]])
PROGRAM = "import sys; from mrsi_fast.cli import main; sys.argv[0] = 'mrsi-fast'; main()"
FAST = ("--samples", "0", "--threads", "1")


def write_maps(
    folder: Path,
    names: tuple[str, ...] = ("NAA-NAAG",),
    shape: tuple[int, int, int] = (7, 6, 1),
    affine: np.ndarray = AFFINE,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    x, y = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    for number, name in enumerate(names):
        head = 10 / (1 + number) * np.exp(-2 * (x**2 + y**2))
        for what, values in (("conc", head), ("crlb", np.full_like(head, 5.0))):
            volume = np.repeat(values[..., None], shape[2], axis=2).astype(np.float32)
            nib.save(nib.Nifti1Image(volume, affine), folder / f"{what}_{name}.nii.gz")
    return folder


@pytest.fixture
def sr(model_folder: Path) -> Callable[..., Result]:
    def run(*arguments: str | Path) -> Result:
        return CliRunner().invoke(app, ["sr", "--model", str(model_folder), *FAST, *map(str, arguments)])

    return run


def test_a_folder_becomes_nifti_json_html_and_png(sr: Callable[..., Result], tmp_path: Path) -> None:
    maps = write_maps(tmp_path / "K_01", ("NAA-NAAG", "GPC-PCh"), (7, 6, 2))
    done = sr("-i", maps, "-o", tmp_path / "out", "--scale", "4,2", "--samples", "8", "--steps", "1", "--pictures")
    assert done.exit_code == 0, done.output
    written = {path.name for path in (tmp_path / "out").iterdir()}
    kinds = ("sr", "srstd", "measured", "zerofilled")
    stems = [f"res-x4x2_met-{label}_desc-{what}_mrsi" for label in ("NAANAAG", "GPCPCh") for what in kinds]
    pictures = {"res-x4x2_desc-sr_mrsi.png", *(f"{stem}.png" for stem in stems[::4])}
    assert written == {f"{stem}.nii.gz" for stem in stems} | pictures | {
        "res-x4x2_desc-sr_mrsi.json",
        "res-x4x2_report.html",
        "report.html",
        "run.json",
        "summary.csv",
    }
    image = nib.load(tmp_path / "out" / f"{stems[0]}.nii.gz")
    assert image.shape == (28, 12, 2) and image.get_data_dtype() == np.float32
    record = json.loads((tmp_path / "out" / "res-x4x2_desc-sr_mrsi.json").read_text())
    assert record["request"]["scale"] == "4,2" and record["fov_corner_difference_mm"] < 1e-6
    assert json.loads((tmp_path / "out" / "run.json").read_text())["inputs"][0]["status"] == "done"


def test_it_says_what_a_reader_needs_to_judge_the_result(sr: Callable[..., Result], tmp_path: Path) -> None:
    done = sr("-i", write_maps(tmp_path / "K_01"), "-o", tmp_path / "out", "--seed", "7")
    for text in (
        "7x6x1 voxels of 9 x 10 x 12 mm",
        "14x12x1 voxels of 4.5 x 5 x 12 mm",
        "moved 0.000 mm",
        "1 threads",
        "(assumed",
        "expected from noise",
        "outside the measured band",
        "one-step posterior mean",
        "out/res-x2_report.html",
    ):
        assert text in done.output, text


def test_large_voxels_are_warned_about(sr: Callable[..., Result], tmp_path: Path) -> None:
    coarse = write_maps(tmp_path / "coarse", affine=np.diag([18.0, 18.0, 12.0, 1.0]))
    done = sr("-q", "-i", coarse, "-o", tmp_path / "out")
    assert done.exit_code == 0 and done.stdout == ""
    assert "warning: coarse: The measured voxels are 18.0 mm wide" in done.stderr


def test_finished_results_are_skipped_but_not_stale_or_broken_ones(sr: Callable[..., Result], tmp_path: Path) -> None:
    maps, out = write_maps(tmp_path / "K_01"), tmp_path / "out"
    assert sr("-i", maps, "-o", out).exit_code == 0
    target = out / "res-x2_met-NAANAAG_desc-sr_mrsi.nii.gz"
    first = target.stat().st_mtime_ns
    again = sr("-i", maps, "-o", out)
    assert again.exit_code == 0 and "skipped" in again.output and target.stat().st_mtime_ns == first
    other = sr("-i", maps, "-o", out, "--seed", "1")
    assert other.exit_code == 4 and "made with other settings (seed)" in other.output
    assert sr("-i", maps, "-o", out, "--scale", "4").exit_code == 0  # another factor has other names
    target.write_bytes(b"")
    assert sr("-i", maps, "-o", out).exit_code == 0 and target.stat().st_size > 0
    second = target.stat().st_mtime_ns
    assert sr("-i", maps, "-o", out, "--seed", "1", "--overwrite").exit_code == 0
    assert target.stat().st_mtime_ns > second


def test_one_bad_input_does_not_stop_the_others(sr: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "broken.nii.gz").write_bytes(b"not gzip")
    good, other = write_maps(tmp_path / "a"), write_maps(tmp_path / "b")
    done = sr("-i", good, "-i", tmp_path / "broken.nii.gz", "-i", other, "-o", tmp_path / "out")
    assert done.exit_code == 4
    assert all((tmp_path / "out" / name / "res-x2_desc-sr_mrsi.json").exists() for name in "ab")
    assert "2 done, 0 skipped, 1 failed of 3 inputs." in done.output and "Traceback" not in done.output
    assert sr("-i", tmp_path / "broken.nii.gz", "-o", tmp_path / "out2").exit_code == 3


def test_several_subjects_keep_their_bids_names(sr: Callable[..., Result], tmp_path: Path) -> None:
    source = write_maps(tmp_path / "flat")
    for subject in ("01", "02"):
        folder = tmp_path / "study" / f"sub-{subject}"
        folder.mkdir(parents=True)
        for what, role in (("conc", "signal"), ("crlb", "crlb")):
            name = f"sub-{subject}_space-orig_met-NAANAAG_desc-{role}_mrsi.nii.gz"
            (folder / name).write_bytes((source / f"{what}_NAA-NAAG.nii.gz").read_bytes())
    done = sr("-i", tmp_path / "study", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    for subject in ("01", "02"):
        name = f"sub-{subject}_space-orig_res-x2_met-NAANAAG_desc-sr_mrsi.nii.gz"
        assert (tmp_path / "out" / f"sub-{subject}" / name).exists()


def test_the_same_seed_gives_the_same_files(sr: Callable[..., Result], tmp_path: Path) -> None:
    maps = write_maps(tmp_path / "K_01")
    for name in ("one", "two"):
        assert sr("-i", maps, "-o", tmp_path / name, "--samples", "1", "--steps", "2", "--save-samples").exit_code == 0
    for what in ("sr", "sample000"):
        file = f"res-x2_met-NAANAAG_desc-{what}_mrsi.nii.gz"
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--scale", "3"), "2, 4 or 8"),
        (("--scale", "8,8,8"), "at most 4 times is offered"),
        (("--device", "tpu"), "There is no device 'tpu'"),
        (("--mask", "nowhere.nii.gz"), "no such file"),
        (("--metabolites", "tNAA,,tCho"), "not a list of metabolites"),
        (("--seed", "-1"), "seed"),
        (("--samples", "0", "--save-samples"), "has nothing to save"),
    ],
)
def test_usage_errors_are_said_before_work(
    sr: Callable[..., Result], tmp_path: Path, arguments: tuple[str, ...], text: str
) -> None:
    done = sr("-i", write_maps(tmp_path / "K_01"), "-o", tmp_path / "out", *arguments)
    assert done.exit_code == 2 and text in done.output


def test_a_mask_belongs_to_one_input(sr: Callable[..., Result], tmp_path: Path) -> None:
    a, b = write_maps(tmp_path / "a"), write_maps(tmp_path / "b")
    done = sr("-i", a, "-i", b, "-o", tmp_path / "out", "--mask", a / "conc_NAA-NAAG.nii.gz")
    assert done.exit_code == 2 and "belongs to one set of maps" in done.output


def test_damaged_weights_end_with_their_own_code(model_folder: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in model_folder.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    weights = bytearray((damaged / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (damaged / "model.safetensors").write_bytes(weights)
    maps = write_maps(tmp_path / "K_01")
    for model in (damaged, tmp_path / "nowhere"):
        done = CliRunner().invoke(app, ["sr", "-i", str(maps), "-o", str(tmp_path / "out"), "--model", str(model)])
        assert done.exit_code == 5 and "model" in done.stderr and "Traceback" not in done.output


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruption_leaves_no_half_result(model_folder: Path, tmp_path: Path, number: int, code: int) -> None:
    maps, out = write_maps(tmp_path / "K_01"), tmp_path / "out"
    arguments = ["sr", "-i", maps, "-o", out, "--model", model_folder, "--samples", "1024", "--steps", "1000"]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert "K_01: tNAA from folder of maps" in process.stdout.readline()  # said when work on an input begins
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert {path.name for path in out.iterdir()} == {"run.json", "summary.csv", "report.html"}
    assert json.loads((out / "run.json").read_text())["inputs"][0]["status"] == "interrupted"


@pytest.mark.skipif(data_dir() is None, reason="the real scan is not here (MRSI_FAST_DATA)")
def test_the_real_scan(sr: Callable[..., Result], tmp_path: Path) -> None:
    scan = data_dir() / "mrsi_oryx2_mit" / "K_01"
    done = sr("-i", scan, "--metabolites", "tNAA,tCr,tCho,Ins,Glx", "--scale", "2", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "28x28x3 voxels of 5 x 5 x 12 mm" in done.output and "moved 0.000 mm" in done.output
    record = json.loads((tmp_path / "out" / "res-x2_desc-sr_mrsi.json").read_text())
    assert list(record["maps"]) == ["tNAA", "tCr", "tCho", "Ins", "Glx"]
    for facts in record["maps"].values():
        assert facts["noise_source"] == "crlb"
        assert facts["residual_whitened"] <= 1.001 * facts["residual_expected"]
    mean = nib.load(tmp_path / "out" / "res-x2_met-Ins_desc-sr_mrsi.nii.gz").get_fdata()
    raw = nib.load(scan / "conc_Ins.nii.gz").get_fdata()
    failed = (raw == 0) | (raw > 20000)
    assert failed.any() and np.isnan(mean[failed.repeat(2, 0).repeat(2, 1)]).all()


def test_the_page_can_be_rebuilt(sr: Callable[..., Result], tmp_path: Path) -> None:
    assert sr("-i", write_maps(tmp_path / "K_01"), "-o", tmp_path / "out", "--pictures").exit_code == 0
    page = tmp_path / "out" / "report.html"
    before = page.read_text()
    page.unlink()
    done = CliRunner().invoke(app, ["report", "-i", str(tmp_path / "out"), "-o", str(tmp_path / "again.html")])
    assert done.exit_code == 0 and "data:image/png" in before
    again = (tmp_path / "again.html").read_text()
    assert again == before.replace("<h1>K_01</h1>", "<h1>out</h1>").replace("<title>K_01 -", "<title>out -")
    assert CliRunner().invoke(app, ["report", "-i", str(tmp_path / "K_01")]).exit_code == 3


def test_names_of_any_kind(sr: Callable[..., Result], tmp_path: Path) -> None:
    odd = "süb $x_{1 [bold] 🧠 <i>"
    done = sr(
        "-i",
        write_maps(tmp_path / odd),
        "-i",
        write_maps(tmp_path / "plain"),
        "-o",
        tmp_path / "aus gabe",
        "--pictures",
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "aus gabe" / odd / "res-x2_met-NAANAAG_desc-sr_mrsi.png").exists()
    assert "Glyph" not in done.output and odd in done.output
