"""A BIDS dataset in, a BIDS derivative dataset out; flat folders otherwise; nobody else's dataset is touched."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from mrsi_fast.cli.app import app
from mrsi_fast.cli.inputs import InputSet
from mrsi_fast.cli.layout import dataset_of, home_of
from support.cohort import hidden_in, save, write_subject


def bids_dataset(root: Path, sessions: dict[str, tuple[str, ...]], described: bool = True) -> Path:
    """A dataset with MRSIPrep's names: maps under derivatives, a T1 among the raw data."""
    for number, (sub, ses) in enumerate((sub, ses) for sub, several in sessions.items() for ses in several):
        parts = [part for part in (sub, ses) if part]
        folder = root.joinpath("derivatives", "mrsi-orig", *parts, "mrsi")
        made = write_subject(root / "scratch", 8.0 + number, ("tNAA",))
        folder.mkdir(parents=True)
        start = "_".join([*parts, "space-orig_met-NAANAAG"])
        (made / "conc_tNAA.nii.gz").rename(folder / f"{start}_desc-signal_mrsi.nii.gz")
        (made / "crlb_tNAA.nii.gz").rename(folder / f"{start}_desc-crlb_mrsi.nii.gz")
        made.rmdir()
    if described:
        facts = {"Name": "a study", "BIDSVersion": "1.9.0", "DatasetDOI": "10.1/x", "DatasetVersion": "2"}
        (root / "dataset_description.json").write_text(json.dumps(facts))
    return root


@pytest.fixture
def run(model_folder: Path) -> Callable[..., Result]:
    def command(*words: str | Path) -> Result:
        more = ("--model", model_folder, "--threads", "1") if words[0] == "sr" else ()
        return CliRunner().invoke(app, [str(one) for one in (*words, *more)])

    return command


def test_a_bids_dataset_gets_its_derivatives(run: Callable[..., Result], tmp_path: Path) -> None:
    root = bids_dataset(tmp_path / "study", {"sub-01": ("ses-a", "ses-b"), "sub-02": ("",)})
    done = run("sr", "-i", root)
    assert done.exit_code == 0, done.output
    out = root / "derivatives" / "mrsi_fast"
    records = {path.relative_to(out).as_posix() for path in out.rglob("*_desc-sr_mrsi.json")}
    assert records == {
        "sub-01/ses-a/mrs/sub-01_ses-a_space-orig_res-x2_desc-sr_mrsi.json",
        "sub-01/ses-b/mrs/sub-01_ses-b_space-orig_res-x2_desc-sr_mrsi.json",
        "sub-02/mrs/sub-02_space-orig_res-x2_desc-sr_mrsi.json",
    }
    facts = json.loads((out / "dataset_description.json").read_text())
    assert facts["DatasetType"] == "derivative" and facts["GeneratedBy"][0]["Name"] == "mrsi_fast"
    assert facts["SourceDatasets"] == [{"DOI": "10.1/x", "Version": "2", "URL": "../.."}]
    ignored = (out / ".bidsignore").read_text().split()
    assert "*_mrsi.nii.gz" in ignored and not hidden_in(out)
    at_top = {path.name for path in out.iterdir()} - {"sub-01", "sub-02", ".bidsignore", "dataset_description.json"}
    assert at_top == {"run.json", "summary.csv", "report.html"} <= {*ignored, "report.html"}
    page = (out / "report.html").read_text()
    assert page.count("<img src=") == 3 and "sub-01/ses-a/mrs/sub-01_ses-a_space-orig_res-x2_report.html" in page
    again = run("sr", "-i", root)  # the results below the dataset are not taken for inputs
    assert again.exit_code == 0 and "0 done, 3 skipped, 0 failed of 3 inputs." in again.output
    changed = root / "derivatives/mrsi-orig/sub-02/mrsi/sub-02_space-orig_met-NAANAAG_desc-signal_mrsi.nii.gz"
    write_subject(tmp_path / "other", 20.0, ("tNAA",))
    (tmp_path / "other" / "conc_tNAA.nii.gz").rename(changed)
    redone = run("sr", "-i", f"{root}/derivatives/mrsi-orig")  # the same dataset, entered further down
    assert redone.exit_code == 0 and "1 done, 2 skipped, 0 failed of 3 inputs." in redone.output, redone.output
    assert "sub-02: done again, because the input has changed since (map of tNAA)" in redone.output


def test_one_subject_of_a_dataset_lies_where_it_lies_in_the_whole(run: Callable[..., Result], tmp_path: Path) -> None:
    root = bids_dataset(tmp_path / "study", {"sub-01": ("ses-a",), "sub-02": ("ses-a",)})
    out = tmp_path / "derivatives" / "fine"
    done = run("sr", "-i", root / "derivatives" / "mrsi-orig" / "sub-02", "-o", out)
    assert done.exit_code == 0, done.output
    assert list(out.rglob("sub-02/ses-a/mrs/*_desc-sr_mrsi.json")) and not (out / "sub-01").exists()
    facts = json.loads((out / "dataset_description.json").read_text())
    assert str(tmp_path) not in json.dumps(facts) and "URL" not in facts.get("SourceDatasets", [{}])[0]


def test_flat_names_below_the_dataset(run: Callable[..., Result], tmp_path: Path) -> None:
    root = bids_dataset(tmp_path / "study", {"sub-01": ("",), "sub-02": ("",)}, described=False)
    assert run("sr", "-i", root, "--layout", "flat", "-o", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "sub-01" / "sub-01_space-orig_res-x2_desc-sr_mrsi.json").is_file()
    assert not (tmp_path / "out" / "dataset_description.json").exists()
    assert run("sr", "-i", root, "--layout", "bids", "-o", tmp_path / "bids").exit_code == 0
    assert (tmp_path / "bids" / "sub-01" / "mrs" / "sub-01_space-orig_res-x2_desc-sr_mrsi.json").is_file()


def test_another_dataset_is_not_written_into(run: Callable[..., Result], tmp_path: Path) -> None:
    root = bids_dataset(tmp_path / "study", {"sub-01": ("",)})
    other = tmp_path / "derivatives" / "fmriprep"
    other.mkdir(parents=True)
    description = json.dumps({"Name": "fMRIPrep", "GeneratedBy": [{"Name": "fMRIPrep"}]})
    (other / "dataset_description.json").write_text(description)
    done = run("sr", "-i", root, "-o", other)
    assert done.exit_code == 2 and "is the BIDS dataset 'fMRIPrep', which mrsi-fast has not made" in done.output
    assert [path.name for path in other.iterdir()] == ["dataset_description.json"]
    assert (other / "dataset_description.json").read_text() == description


def test_without_a_dataset_a_folder_is_asked_for(run: Callable[..., Result], tmp_path: Path) -> None:
    done = run("sr", "-i", write_subject(tmp_path / "sub", 8.0))
    assert done.exit_code == 2 and "-o FOLDER" in done.output


def test_where_a_dataset_is_seen(tmp_path: Path) -> None:
    root = bids_dataset(tmp_path / "study", {"sub-01": ("ses-a",)})
    (root / "sub-01" / "ses-a" / "anat").mkdir(parents=True)
    assert dataset_of(root) == root
    assert dataset_of(root / "sub-01" / "ses-a" / "anat") == root
    (root / "dataset_description.json").unlink()
    assert dataset_of(root / "sub-01") == root
    (tmp_path / "plain").mkdir()
    assert dataset_of(tmp_path / "plain") is None and dataset_of(tmp_path / "nowhere" / "x.nii") is None
    home = home_of(tmp_path / "out", "bids", [])
    labels = ["sub-1_ses-2_acq-x", "sub-1", "P07", "siteA_sub-1"]
    folders = home.folders([InputSet(tmp_path, label) for label in labels])
    below = [folder.relative_to(tmp_path / "out").as_posix() for folder in folders]
    assert below == ["sub-1/ses-2/mrs", "sub-1/mrs", "P07", "siteA_sub-1"]


def test_anatomical_images_of_a_dataset_are_each_subjects_own(run: Callable[..., Result], tmp_path: Path) -> None:
    root = bids_dataset(tmp_path / "study", {"sub-01": ("",), "sub-02": ("",)})
    for sub in ("sub-01", "sub-02"):
        folder = root / sub / "anat"
        folder.mkdir(parents=True)
        made = write_subject(tmp_path / f"t1-{sub}", 8.0, ("tNAA",))
        (made / "conc_tNAA.nii.gz").rename(folder / f"{sub}_T1w.nii.gz")
    for asked in ("auto", f"{root}/sub-{{sub}}/anat/sub-{{sub}}_T1w.nii.gz"):
        out = tmp_path / f"out-{asked == 'auto'}"
        done = run("sr", "-i", root, "-o", out, "--anatomy", asked, "--align", "off")
        assert done.exit_code == 0, done.output
        assert "no anatomical image was found" not in done.output
        for sub in ("sub-01", "sub-02"):
            record = json.loads(next((out / sub).glob("*_desc-sr_mrsi.json")).read_text())
            assert record["request"]["anatomy"] in (f"{sub}_T1w.nii.gz", asked, Path(asked).name)
            assert "anatomy" in record["identity"]["inputs"]


def test_the_cohort_page_and_the_summary(run: Callable[..., Result], tmp_path: Path) -> None:
    odd = "<b>&'\"x"
    for name in ("fine", odd):
        write_subject(tmp_path / "in" / name, 8.0, ("tNAA",))
    write_subject(tmp_path / "in" / "broken", 8.0, ("tNAA",))
    (tmp_path / "in" / "broken" / "conc_tNAA.nii.gz").write_bytes(b"x")
    done = run("sr", "-i", tmp_path / "in" / "*", "-o", tmp_path / "out")
    assert done.exit_code == 4
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<b>" not in page and "&lt;b&gt;" in page
    policy = page.split('http-equiv="Content-Security-Policy" content="')[1].split('"')[0]
    assert "default-src &#39;none&#39;" in policy and "unsafe" not in policy and "script-src" not in policy
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    assert page.index('class="bad"') < page.index("<img src=") and page.count("<img src=") == 2
    with (tmp_path / "out" / "summary.csv").open() as stream:
        rows = {row["input"]: row for row in csv.DictReader(stream)}
    assert rows["fine"]["verdict"] == "not tested" and rows["broken"]["verdict"] == "" and rows["broken"]["detail"]


def test_false_detail_comes_before_a_large_residual(tmp_path: Path) -> None:
    from mrsi_fast.report.cohort import verdict_of, write_cohort

    verdicts = (
        "adds true detail",
        "adds false detail: prefer the zero-filled map",
        "adds nothing beyond interpolation",
    )
    maps = {name: {"verdict": verdict} for name, verdict in zip(("tNAA", "tCho", "Ins"), verdicts, strict=True)}
    worst = verdict_of({"maps": maps})
    assert worst == "adds false detail: tCho; adds nothing beyond interpolation: Ins; adds true detail: tNAA"
    assert verdict_of(None) == verdict_of({"maps": {}}) == "not tested"
    common = {"result": "", "maps": "tNAA", "seconds": 1.0, "detail": "", "finished": "", "residual_over_expected": ""}
    rows = [
        {**common, "input": "warned", "status": "done", "verdict": "", "warnings": 2},
        {**common, "input": "far", "status": "done", "verdict": "", "residual_over_expected": "2.5", "warnings": 1},
        {
            **common,
            "input": "false",
            "status": "skipped",
            "verdict": worst,
            "residual_over_expected": "",
            "warnings": 0,
        },
        {**common, "input": "well", "status": "done", "verdict": "", "residual_over_expected": "1", "warnings": 0},
        {**common, "input": "none", "status": "failed", "verdict": "", "warnings": ""},
    ]
    page = write_cohort(tmp_path, tmp_path / "report.html", rows).read_text()
    assert "4 of 5 inputs have a result" in page
    order = [page.index(f"<figcaption>{name}") for name in ("none", "false", "far", "warned", "well")]
    assert order == sorted(order)
    for reason in (
        "adds false detail: tCho",
        "residual 2.5 times its expectation from noise",
        "2 warnings",
        "nothing to remark",
    ):
        assert f"{reason}</small>" in page or f"{reason};" in page, reason


def test_a_picture_that_cannot_be_read_is_left_out(run: Callable[..., Result], tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(write_subject(tmp_path / name, 8.0, ("tNAA",)) / "conc_tNAA.nii.gz", np.full((7, 6), 3.0))
    out = tmp_path / "out"
    assert run("sr", "-i", tmp_path / "a", "-i", tmp_path / "b", "-o", out).exit_code == 0
    assert (out / "report.html").read_text().count("<img src=") == 2
    next((out / "a").glob("*met-NAANAAG_desc-sr_mrsi.nii.gz")).write_bytes(b"x")
    from mrsi_fast.cli.summary import write_summary

    write_summary(out, 0, [], [])
    page = (out / "report.html").read_text()
    assert page.count("<img src=") == 1 and "no picture" in page
