"""Inputs as shells give them, sets put together by hand, and what is said of the files that are not used."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from mrsi_fast.cli.app import app
from mrsi_fast.cli.exits import CommandError
from mrsi_fast.cli.hand import by_hand
from mrsi_fast.cli.inputs import collect, with_anatomy
from mrsi_fast.mrsi.mapset import MapInputError

AFFINE = np.diag([10.0, 10.0, 12.0, 1.0])
SHAPE = (12, 10, 2)


def validate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["validate", *map(str, arguments)])


def values(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(5, 9, SHAPE).astype(np.float32)


def write(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values(seed), AFFINE), path)
    return path


def study(folder: Path) -> Path:
    for number in (1, 2, 10):
        write(folder / f"sub-{number}" / "conc_tNAA.nii.gz", number)
    return folder


def test_patterns_are_expanded_by_us_or_by_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study(tmp_path))
    quoted = collect([Path("sub-*")])
    expanded = collect([Path("sub-1")], [Path("sub-2"), Path("sub-10")])
    assert [one.label for one in quoted] == [one.label for one in expanded] == ["sub-1", "sub-2", "sub-10"]
    for one, number in zip(quoted, (1, 2, 10), strict=True):
        np.testing.assert_array_equal(one.read(None).maps[0], values(number))
    done = validate("-i", "sub-*", "sub-1")
    assert done.exit_code == 0 and done.output.count(": OK") == 3
    assert validate("sub-2", "sub-10").exit_code == 0
    nothing = validate("-i", "P*")
    assert nothing.exit_code == 3 and "nothing matches this pattern" in nothing.output


def test_a_name_with_brackets_is_a_name_where_it_exists(tmp_path: Path) -> None:
    write(tmp_path / "run[1]" / "tNAA.nii.gz")
    assert [one.label for one in collect([tmp_path / "run[1]"])] == ["run[1]"]


def test_files_of_one_person_are_one_set_and_others_stay_apart(tmp_path: Path) -> None:
    for seed, name in enumerate(("P07_tNAA", "P07_tCr", "P07_tNAA_CRLB", "P08_tNAA", "anything")):
        write(tmp_path / f"{name}.nii.gz", seed)
    write(tmp_path / "P07_tCr_to_tNAA.nii.gz")
    found = {one.label: one for one in collect(sorted(tmp_path.glob("*.nii.gz")))}
    assert set(found) == {"P07", "P08_tNAA", "anything", "P07_tCr_to_tNAA"}
    together = found["P07"].read(None)
    assert together.names == ("tNAA", "tCr")
    np.testing.assert_array_equal(together.maps, np.stack([values(0), values(1)]))
    np.testing.assert_array_equal(together.crlb[0], values(2))
    assert found["anything"].read(None).names == ("map",)
    with pytest.raises(MapInputError, match="a ratio of metabolites.*mrsi-fast ratio"):
        found["P07_tCr_to_tNAA"].read(None)


def test_quality_files_beside_maps_that_were_given_are_named(tmp_path: Path) -> None:
    one, two = write(tmp_path / "P07_tNAA.nii.gz"), write(tmp_path / "P07_tCr.nii.gz", 1)
    for name in ("P07_tNAA_CRLB", "P08_tNAA_CRLB", "SNR", "P07_Ins_CRLB"):
        write(tmp_path / f"{name}.nii.gz", 2)
    for given in ([one], [one, two]):
        (entry,) = collect(given)
        assert entry.left_out() == [
            "P07_tNAA_CRLB.nii.gz: was not given; give the folder, or --crlb, to use it",
            "SNR.nii.gz: was not given; give the folder, or --snr, to use it",
        ]
    (entry,) = collect([one], None, by_hand(crlb=[str(tmp_path / "P07_tNAA_CRLB.nii.gz")]))
    assert entry.left_out() == []


def test_quality_maps_given_as_maps_are_refused_with_their_place(tmp_path: Path) -> None:
    done = validate("-i", write(tmp_path / "NAA_sd_map.nii"))
    assert done.exit_code == 3 and "give it with --crlb beside a map" in " ".join(done.output.split())


def test_a_set_by_hand(tmp_path: Path) -> None:
    a, b, c, d = (write(tmp_path / "odd" / f"{letter}.nii.gz", seed) for seed, letter in enumerate("abcd"))
    hand = by_hand([f"NAA+NAAG={a}", f"tCr={b}"], [f"tNAA={c}"], [str(d)])
    (entry,) = collect(None, None, hand)
    maps = entry.read(None)
    assert entry.label == "odd" and maps.names == ("tNAA", "tCr") and maps.source == "maps given by name"
    np.testing.assert_array_equal(maps.maps, np.stack([values(0), values(1)]))
    np.testing.assert_array_equal(maps.crlb[0], values(2))
    assert np.isnan(maps.crlb[1]).all() and (maps.snr == values(3)).all()
    done = validate("--map", f"tNAA={a}", "--crlb", c, "--fwhm", f"tNAA={d}")
    assert done.exit_code == 0 and "quality data: crlb, fwhm" in done.output


def test_quality_by_hand_beside_one_input(tmp_path: Path) -> None:
    path, bound = write(tmp_path / "P07_tNAA.nii.gz"), write(tmp_path / "x.nii.gz", 3)
    (entry,) = collect([path], None, by_hand(crlb=[str(bound)]))
    np.testing.assert_array_equal(entry.read(None).crlb[0], values(3))
    other = write(tmp_path / "sub" / "tCr.nii.gz", 4)
    (entry,) = collect([path], None, by_hand([f"tCr={other}"]))
    assert entry.read(None).names == ("tNAA", "tCr")
    with pytest.raises(CommandError, match="--crlb belongs to one set of maps, but 2"):
        collect([path, other.parent], None, by_hand(crlb=[str(bound)]))
    with pytest.raises(CommandError, match="--map adds to one set"):
        collect([path, other.parent], None, by_hand([f"tCr={other}"]))


def test_what_cannot_be_understood_is_said(tmp_path: Path) -> None:
    path = str(write(tmp_path / "a=b.nii.gz"))
    for options, said in (
        ({"maps": [path]}, "give NAME=FILE"), ({"maps": [f"x={tmp_path}/no.nii"]}, "no such file"),
        ({"maps": [f"tNAA={path}", f"NAANAAG={path}"]}, "a second map of tNAA"), ({"maps": [f"乳酸={path}"]}, "Latin"),
        ({"crlb": [path, f"tNAA={path}"]}, "one FILE for all maps"),
        ({"crlb": [f"a={path}", f"a={path}"]}, "given twice"),
        ({"patterns": ["x={met}"]}, "no role x"), ({"like": tmp_path / "no.nii"}, "--like .*no such file"),
    ):  # fmt: skip
        with pytest.raises(CommandError, match=said):
            by_hand(**options)  # type: ignore[arg-type]
    assert by_hand(snr=[path]).quality == {"snr": Path(path)}, "a file whose name has a = in it"


def test_a_users_pattern(tmp_path: Path) -> None:
    write(tmp_path / "r1~NAA~c.nii.gz", 1)
    write(tmp_path / "r1~NAA~e.nii.gz", 2)
    done = validate("-i", tmp_path, "--pattern", "{id}~{met}~c.nii.gz", "--pattern", "crlb={id}~{met}~e.nii.gz")
    assert done.exit_code == 0 and "r1: " in done.output and "quality data: crlb" in done.output


def test_what_is_not_used_is_listed(tmp_path: Path) -> None:
    for name in ("conc_tNAA", "T1_Bet", "T2_Bet", "tNAA_to_tCr", "odd"):
        write(tmp_path / f"{name}.nii.gz")
    os.symlink("gone.nii.gz", tmp_path / "crlb_tNAA.nii.gz")
    done = validate("-i", tmp_path)
    assert done.exit_code == 3 and "crlb_tNAA.nii.gz: is a broken link to gone.nii.gz" in done.output
    (tmp_path / "crlb_tNAA.nii.gz").unlink()
    done = validate("-i", tmp_path)
    assert done.exit_code == 0
    for line in ("anatomy: T1_Bet.nii.gz, used by sr with --anatomy auto", "not used: T2_Bet.nii.gz: another contrast",
                 "not used: tNAA_to_tCr.nii.gz: a ratio", "not used: odd.nii.gz: no metabolite"):  # fmt: skip
        assert line in done.output


def test_one_bad_name_leaves_the_rest_alone(tmp_path: Path) -> None:
    write(tmp_path / "good" / "conc_tNAA.nii.gz")
    for name in ("conc_tNAA", "conc_乳酸", "sub-01_met-_desc-signal_mrsi"):
        write(tmp_path / "odd" / f"{name}.nii.gz")
    write(tmp_path / "twice" / "conc_NAA-NAAG.nii.gz")
    write(tmp_path / "twice" / "tNAA.nii.gz")
    done = validate("-i", tmp_path / "good", "-i", tmp_path / "odd", "-i", tmp_path / "twice")
    assert done.exit_code == 4 and "good: OK" in done.output and "twice: FAIL" in done.output
    assert "warning: conc_乳酸.nii.gz: its name has no letter or digit of the Latin alphabet" in done.output
    assert "its met- names no metabolite" in done.output and "odd: WARN" in done.output


def test_each_set_gets_its_own_anatomical_image(tmp_path: Path) -> None:
    for name in ("sub-01", "sub-02", "sub-03"):
        write(tmp_path / name / "mrsi" / "conc_tNAA.nii.gz")
        write(tmp_path / name / "anat" / ("T1.nii.gz" if name != "sub-03" else "FLAIR.nii.gz"))
    sets = collect([tmp_path])
    auto = with_anatomy(sets, "auto")
    assert [one.anatomy and one.anatomy.parts[-3] for one in auto] == ["sub-01", "sub-02", None]
    assert [one.anatomy for one in with_anatomy(sets, None)] == [None] * 3
    with pytest.raises(CommandError, match="belongs to one person, but 3 sets.*--anatomy auto"):
        with_anatomy(sets, str(tmp_path / "sub-01/anat/T1.nii.gz"))
    with pytest.raises(CommandError, match="no such file"):
        with_anatomy(sets[:1], str(tmp_path / "none.nii"))
    assert with_anatomy(sets[:1], str(tmp_path / "sub-02/anat/T1.nii.gz"))[0].anatomy is not None


def test_images_by_a_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("sub-01", "sub-02"):
        write(tmp_path / "maps" / name / "conc_tNAA.nii.gz")
    write(tmp_path / "raw" / "sub-01" / "x_T1.nii.gz")
    sets = collect([Path("maps")])
    assert [one.anatomy for one in with_anatomy(sets, "raw/sub-{sub}/*T1*")] == [Path("raw/sub-01/x_T1.nii.gz"), None]
    assert with_anatomy(sets, "raw/{label}/*T1*")[0].anatomy == Path("raw/sub-01/x_T1.nii.gz")
    write(tmp_path / "raw" / "sub-01" / "y_T1.nii.gz")
    for pattern, said in (
        ("raw/{label}/*", "2 files fit sub-01"),
        ("{ses}", "no ses"),
        ("{", "no pattern"),
        ("{0}", "no"),
    ):
        with pytest.raises(CommandError, match=said):
            with_anatomy(sets, pattern)


def test_two_sessions_of_one_person_may_share_an_image(tmp_path: Path) -> None:
    image = write(tmp_path / "T1.nii.gz")
    for session in "12":
        write(tmp_path / "study" / f"sub-01_ses-{session}_met-Ins_desc-signal_mrsi.nii.gz")
    sets = with_anatomy(collect([tmp_path / "study"]), str(image))
    assert [(one.label, one.anatomy) for one in sets] == [("sub-01_ses-1", image), ("sub-01_ses-2", image)]
