"""Inputs become sets of maps; nothing is overwritten; a bad input is kept with its problem."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mrsi_fast.cli.exits import CommandError
from mrsi_fast.cli.inputs import check_output, collect
from mrsi_fast.cli.layout import Home
from mrsi_fast.mrsi.mapset import MapInputError

AFFINE = np.diag([10.0, 10.0, 12.0, 1.0])


def write_map(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).uniform(1, 9, (6, 5, 2)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, AFFINE), path)
    return path


def test_a_folder_and_a_file(tmp_path: Path) -> None:
    write_map(tmp_path / "K_01" / "conc_NAA-NAAG.nii.gz")
    write_map(tmp_path / "K_01" / "conc_Ins.nii.gz", 1)
    single = write_map(tmp_path / "files" / "tCho.nii.gz")
    folder, file = collect([tmp_path / "K_01", single])
    assert (folder.label, file.label) == ("K_01", "tCho")
    assert folder.read(["Ins", "tNAA"]).names == ("Ins", "tNAA")
    assert file.read(None).names == ("tCho",)
    assert Home(tmp_path / "out", bids=False).folders([folder, file]) == [
        tmp_path / "out" / "K_01",
        tmp_path / "out" / "tCho",
    ]
    assert Home(tmp_path / "out", bids=False).folders([folder]) == [tmp_path / "out"]


def test_a_bids_folder_with_several_subjects(tmp_path: Path) -> None:
    for subject in ("01", "02"):
        for what, seed in (("desc-signal", int(subject)), ("desc-crlb", 9)):
            write_map(tmp_path / f"sub-{subject}" / f"sub-{subject}_space-orig_met-NAANAAG_{what}_mrsi.nii.gz", seed)
    first, second = collect([tmp_path])
    assert (first.label, second.label) == ("sub-01", "sub-02")
    one, two = first.read(None), second.read(None)
    assert one.names == two.names == ("tNAA",) and one.crlb is not None
    assert not np.array_equal(one.maps, two.maps)


def test_bad_inputs_stay_in_the_list_with_their_problem(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    missing, empty = collect([tmp_path / "nowhere", tmp_path / "empty"])
    with pytest.raises(MapInputError, match="no such file or folder"):
        missing.read(None)
    with pytest.raises(MapInputError, match="no metabolite map was found"):
        empty.read(None)


def test_no_input_is_refused() -> None:
    with pytest.raises(CommandError, match="at least one input"):
        collect([])


def test_parents_tell_folders_of_equal_names_apart(tmp_path: Path) -> None:
    for name in ("sub-01", "sub-02"):
        write_map(tmp_path / name / "ses-01" / "mrsi" / "tNAA.nii.gz")
        write_map(tmp_path / name / "scan" / "tNAA.nii.gz")
    given = [tmp_path / name / place for place in ("scan", "ses-01/mrsi") for name in ("sub-01", "sub-02")]
    assert [entry.label for entry in collect(given)] == ["sub-01_scan", "sub-02_scan", "sub-01_mrsi", "sub-02_mrsi"]
    assert [entry.label for entry in collect([given[0], given[0]])] == ["scan"], "the same folder twice is one input"


def test_the_output_folder_is_made_and_left_clean(tmp_path: Path) -> None:
    sets = collect([write_map(tmp_path / "in" / "tNAA.nii.gz")])
    check_output(tmp_path / "new" / "out", sets)
    assert list((tmp_path / "new" / "out").iterdir()) == []


@pytest.mark.parametrize("given", ["in", "in/tNAA.nii.gz"])
def test_writing_beside_the_inputs_is_refused(tmp_path: Path, given: str) -> None:
    write_map(tmp_path / "in" / "tNAA.nii.gz")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for output in (tmp_path / "in", tmp_path / "link"):
        with pytest.raises(CommandError, match="never overwritten"):
            check_output(output, collect([tmp_path / given]))


def test_an_output_that_cannot_be_written_is_said_before_work(tmp_path: Path) -> None:
    sets = collect([write_map(tmp_path / "in" / "tNAA.nii.gz")])
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(CommandError, match="cannot be written"):
        check_output(blocked / "out", sets)
    if os.getuid() != 0:  # root writes anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(CommandError, match="permission denied"):
            check_output(tmp_path / "locked", sets)


def test_names_that_would_leave_the_output_folder_are_tamed(tmp_path: Path) -> None:
    write_map(tmp_path / "..x" / "tNAA.nii.gz")
    assert collect([tmp_path / "..x"])[0].label == "x"
    undecoded = tmp_path / os.fsdecode(b"s\xff")
    write_map(undecoded / "tNAA.nii.gz")
    assert collect([undecoded])[0].label == "s_"
