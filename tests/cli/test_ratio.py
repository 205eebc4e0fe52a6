"""Ratios on disk: sample by sample where samples were saved, else of means and deviations."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from mrsi_fast.cli.app import app
from mrsi_fast.mrsi.export import write_map

STEM = "sub-01_space-orig_res-x2"
RATIO = f"{STEM}_met-GPCPChOverNAANAAG_desc-ratio"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """What ``mrsi-fast sr --save-samples`` leaves: means, eight samples of two maps that vary together, a sidecar."""
    rng = np.random.default_rng(5)
    common = rng.uniform(0.8, 1.2, (8, 4, 3, 2))
    samples = {"NAANAAG": 10.0 * common, "GPCPCh": 2.0 * common * rng.uniform(0.99, 1.01, common.shape)}
    folder = tmp_path / "results"
    folder.mkdir()
    for label, values in samples.items():
        write_map(folder / f"{STEM}_met-{label}_desc-sr_mrsi.nii.gz", values.mean(0), np.eye(4), kind="mean")
        for number, sample in enumerate(values):
            path = folder / f"{STEM}_met-{label}_desc-sample{number:03d}_mrsi.nii.gz"
            write_map(path, sample, np.eye(4), kind="sample")
    sums = {path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for path in folder.iterdir()}
    facts = {"seed": 3, "maps": {"tNAA": {}, "tCho": {}}, "identity": {"sha256": "0" * 64}, "files": sums}
    (folder / f"{STEM}_desc-sr_mrsi.json").write_text(json.dumps(facts))
    np.savez(tmp_path / "samples.npz", **samples)
    return folder


def ratio(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["ratio", *map(str, arguments)])


def test_samples_are_divided_before_they_are_summarised(results: Path, tmp_path: Path) -> None:
    done = ratio("tCho/tNAA", "-i", results, "-o", tmp_path / "out", "--times", "1.0")
    assert done.exit_code == 0, done.output
    stored = np.load(tmp_path / "samples.npz")
    expected = stored["GPCPCh"].astype(np.float32) / stored["NAANAAG"].astype(np.float32)
    found = {
        what: nib.load(tmp_path / "out" / f"{RATIO}{what}_mrsi.nii.gz").get_fdata()
        for what in ("", "std", "probability")
    }
    np.testing.assert_allclose(found[""], np.median(expected, axis=0), rtol=1e-6)
    np.testing.assert_allclose(found["std"], expected.std(axis=0, ddof=1), rtol=1e-4)
    reference = np.median(np.median(expected, axis=0))
    np.testing.assert_allclose(found["probability"], (expected > reference).mean(axis=0), atol=0.126)
    apart = stored["GPCPCh"].std(0, ddof=1) / stored["NAANAAG"].mean(0)
    assert found["std"].max() < 0.2 * apart.max()  # what the maps have in common cancels
    record = json.loads((tmp_path / "out" / f"{RATIO}_mrsi.json").read_text())
    assert record["samples"] == 8 and record["result"]["seed"] == 3


def test_without_samples_the_means_are_divided(results: Path) -> None:
    record = results / f"{STEM}_desc-sr_mrsi.json"
    facts = json.loads(record.read_text())
    facts["files"] = {name: one for name, one in facts["files"].items() if "desc-sample" not in name}
    record.write_text(json.dumps(facts))  # samples that lie there but belong to no result are not used
    done = ratio("GPC+PCh / NAA+NAAG", "-i", results)
    assert done.exit_code == 0 and "no samples were saved" in done.output
    assert not (results / f"{RATIO}std_mrsi.nii.gz").exists()
    first, second = (
        nib.load(results / f"{STEM}_met-{one}_desc-sr_mrsi.nii.gz").get_fdata() for one in ("GPCPCh", "NAANAAG")
    )
    np.testing.assert_allclose(nib.load(results / f"{RATIO}_mrsi.nii.gz").get_fdata(), first / second, rtol=1e-6)


def _without_samples(results: Path, shares: tuple[float, float]) -> None:
    """As ``sr`` leaves it without samples: means and standard deviations, here shares of 3 and 4 % of the means."""
    record = results / f"{STEM}_desc-sr_mrsi.json"
    facts = json.loads(record.read_text())
    facts["files"] = {name: one for name, one in facts["files"].items() if "desc-sample" not in name}
    for label, share in zip(("GPCPCh", "NAANAAG"), shares, strict=True):
        mean = nib.load(results / f"{STEM}_met-{label}_desc-sr_mrsi.nii.gz").get_fdata()
        path = results / f"{STEM}_met-{label}_desc-srstd_mrsi.nii.gz"
        write_map(path, (share * mean).astype(np.float32), np.eye(4), kind="std")
        facts["files"][path.name] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    record.write_text(json.dumps(facts))


def test_deviations_on_disk_give_that_of_the_ratio(results: Path, tmp_path: Path) -> None:
    _without_samples(results, (0.03, 0.04))
    done = ratio("tCho/tNAA", "-i", results, "-o", tmp_path / "out", "--threshold", "0.2")
    assert done.exit_code == 0 and "deviation to first order" in done.output, done.output
    found = {
        what: nib.load(tmp_path / "out" / f"{RATIO}{what}_mrsi.nii.gz").get_fdata()
        for what in ("", "std", "probability")
    }
    np.testing.assert_allclose(found["std"] / found[""], 0.05, rtol=1e-5)  # 3, 4, 5
    draws = np.random.default_rng(0).normal(size=(2, 200_000))
    at = found[""].flat[0]
    drawn = at * (1 + 0.03 * draws[0]) / (1 + 0.04 * draws[1])
    assert found["std"].flat[0] == pytest.approx(drawn.std(), rel=0.01)
    assert found["probability"].flat[0] == pytest.approx((drawn > 0.2).mean(), abs=0.02)
    facts = json.loads((tmp_path / "out" / f"{RATIO}_mrsi.json").read_text())
    assert facts["samples"] == 0 and "JCGM 100:2008" in facts["deviation"]


def test_a_damaged_deviation_is_refused(results: Path) -> None:
    _without_samples(results, (0.03, 0.04))
    path = results / f"{STEM}_met-GPCPCh_desc-srstd_mrsi.nii.gz"
    path.write_bytes(path.read_bytes()[:-9])
    done = ratio("tCho/tNAA", "-i", results)
    assert done.exit_code == 3 and "desc-srstd" in done.output and "missing or not as written" in done.output


def test_a_reference_region_sets_the_denominator_floor(results: Path, tmp_path: Path) -> None:
    region = np.zeros((4, 3, 2), np.float32)
    region[0, 0, 0] = 1
    nib.save(nib.Nifti1Image(region, np.eye(4)), tmp_path / "nawm.nii.gz")
    assert ratio("tCho/tNAA", "-i", results, "--reference", tmp_path / "nawm.nii.gz").exit_code == 0
    record = json.loads((results / f"{RATIO}_mrsi.json").read_text())
    expected = 0.3 * np.load(tmp_path / "samples.npz")["NAANAAG"].astype(np.float32).mean(0)[0, 0, 0]
    assert record["denominator_floor"] == pytest.approx(expected, rel=1e-5)
    assert record["reference_region"] == "nawm.nii.gz, 1 voxels"
    elsewhere = np.eye(4)
    elsewhere[0, 3] = 300
    nib.save(nib.Nifti1Image(region, elsewhere), tmp_path / "far.nii.gz")
    done = ratio("tCho/tNAA", "-i", results, "--reference", tmp_path / "far.nii.gz")
    assert done.exit_code == 3 and "far.nii.gz: no label is on the maps' grid" in done.output


def test_labels_set_the_reference_and_a_threshold_gives_a_hotspot(results: Path, tmp_path: Path) -> None:
    labels = np.zeros((4, 3, 2), np.int16)
    labels[:, 0], labels[:, 1], labels[:, 2] = 2, 41, 7
    nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "dseg.nii.gz")
    done = ratio("tCho/tNAA", "-i", results, "--labels", tmp_path / "dseg.nii.gz", "--reference-labels", "2,41",
                 "--times", "1.0", "--cni")  # fmt: skip
    assert done.exit_code == 0 and "dseg.nii.gz labels 2, 41, 16 voxels" in done.output, done.output
    record = json.loads((results / f"{RATIO}_mrsi.json").read_text())
    stored = np.load(tmp_path / "samples.npz")
    samples = stored["GPCPCh"].astype(np.float32).astype(np.float64) / stored["NAANAAG"].astype(np.float32)
    level = np.median(np.median(samples, axis=0)[:, :2])
    assert record["reference_ratio"] == pytest.approx(level, rel=1e-6)
    volumes = (samples > level).sum(axis=(1, 2, 3)) / 1000  # voxels of 1 mm
    assert record["hotspot"]["volume_ml"] == pytest.approx(np.median(volumes), abs=2e-3)
    assert record["hotspot"]["interval_ml"] == pytest.approx(np.percentile(volumes, [5, 95]), abs=2e-3)
    index = nib.load(results / f"{RATIO}cni_mrsi.nii.gz").get_fdata()
    assert np.isfinite(index).all() and "McKnight" in record["cni_method"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--mirror",), "--mirror needs --times"),
        (("--times", "2", "--threshold", "0.4"), "not both"),
        (("--reference-labels", "2"), "belong together"),
        (("--reference", "none.nii.gz"), "there is no such file"),
    ],
)
def test_options_that_contradict_each_other(results: Path, options: tuple[str, ...], text: str) -> None:
    done = ratio("tCho/tNAA", "-i", results, *options)
    assert done.exit_code == 2 and text in done.output


def test_samples_of_an_earlier_run_do_not_enter(results: Path, tmp_path: Path) -> None:
    """A file that the record does not speak of is not part of the result."""
    assert ratio("tCho/tNAA", "-i", results, "-o", tmp_path / "clean").exit_code == 0
    for label in ("NAANAAG", "GPCPCh"):
        left = np.full((4, 3, 2), 5.0, np.float32)
        write_map(results / f"{STEM}_met-{label}_desc-sample008_mrsi.nii.gz", left, np.eye(4), kind="sample")
    assert ratio("tCho/tNAA", "-i", results, "-o", tmp_path / "again").exit_code == 0
    first, second = ((tmp_path / name / f"{RATIO}_mrsi.nii.gz").read_bytes() for name in ("clean", "again"))
    assert first == second


@pytest.mark.parametrize(
    ("asked", "code", "text"),
    [("tCho", 2, "is not a ratio"), ("tCho/", 2, "is not a ratio"), ("tCho/Ins", 3, "no super-resolved map of Ins")],
)
def test_what_cannot_be_divided(results: Path, asked: str, code: int, text: str) -> None:
    done = ratio(asked, "-i", results)
    assert done.exit_code == code and text in done.output


def test_a_folder_without_results(tmp_path: Path) -> None:
    done = ratio("tCho/tNAA", "-i", tmp_path)
    assert done.exit_code == 3 and "holds no result" in done.output


def test_places_that_are_none(results: Path, tmp_path: Path) -> None:
    """Output that cannot be written is a usage error of every command, input that is not there is named."""
    (tmp_path / "file").touch()
    for command, target in ((("ratio", "tCho/tNAA"), tmp_path / "file"), (("report",), tmp_path / "file" / "a.html")):
        done = CliRunner().invoke(app, [*command, "-i", str(results), "-o", str(target)])
        assert done.exit_code == 2 and "the output folder cannot be written" in done.output, done.output
        done = CliRunner().invoke(app, [*command, "-i", str(tmp_path / "none")])
        assert done.exit_code == 3 and "there is no such" in done.output, done.output
