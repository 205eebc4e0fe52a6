"""Inputs that nobody means: each ends in one sentence, for itself alone."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mrsi_fast.cli.exits import CommandError
from mrsi_fast.cli.hand import by_hand
from mrsi_fast.cli.inputs import collect
from mrsi_fast.cli.running import AcquisitionOptions
from mrsi_fast.mrsi.anatomy import load_anatomy
from mrsi_fast.mrsi.io import read_maps
from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.preparation import AcquisitionSettings

AFFINE = np.diag([10.0, 10.0, 12.0, 1.0])
VALUES = np.random.default_rng(0).uniform(5, 9, (12, 10, 2)).astype(np.float32)


def save(path: Path, values: np.ndarray = VALUES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, AFFINE), path)
    return path


def test_the_folder_that_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "P07" / "tNAA.nii.gz")
    monkeypatch.chdir(tmp_path / "P07")
    for given in (".", "../P07", "", "../P07/."):
        (entry,) = collect([Path(given)])
        assert entry.label == "P07" and entry.read(None).names == ("tNAA",)


def test_things_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "conc_tNAA.nii.gz")
    os.symlink("self", tmp_path / "self")
    (tmp_path / "tCr.nii.gz").mkdir()
    sets = collect([tmp_path / "conc_tNAA.nii.gz", tmp_path / "self", tmp_path / "tCr.nii.gz", Path("/dev/null")])
    assert len(sets) == 4
    for entry, said in zip(sets, ("is not a file", "broken link", "no metabolite map", "is not a file"), strict=True):
        with pytest.raises(MapInputError, match=said):
            entry.read(None)


@pytest.mark.parametrize(
    "name", ["a\nb_tNAA", "\x1b[31mP_tNAA", os.fsdecode(b"P\xff_tNAA"), "x" * 200 + "_tNAA", "-o_tNAA"]
)
def test_names_that_terminals_and_folders_do_not_like(tmp_path: Path, name: str) -> None:
    save(tmp_path / "in" / "x.nii.gz").rename(tmp_path / "in" / f"{name}.nii.gz")
    (entry,) = collect([tmp_path / "in"])
    assert entry.read(None).names == ("tNAA",)
    assert entry.label.isprintable() and "/" not in entry.label


@pytest.mark.parametrize(
    ("names", "said"),
    [(["tNAA", "乳酸"], "Latin"), (["tNAA", "NAANAAG"], "second map"), (["crlb_tNAA", "crlb_tCr"], "holds no map"),
     (["tNAA"], "2 maps but 1 names"), (["tNAA", "tCr_to_tNAA"], "a ratio")],
)  # fmt: skip
def test_names_of_a_stack_that_make_no_sense(tmp_path: Path, names: list[str], said: str) -> None:
    (entry,) = collect([save(tmp_path / "maps.nii.gz", np.stack([VALUES, VALUES], -1))])
    with pytest.raises(MapInputError, match=said):
        entry.read(None, names)
    with pytest.raises(MapInputError, match="Latin"):
        entry.read(["乳酸"], ["tNAA", "tCr"])


def test_a_stack_of_bounds_for_one_map_and_bounds_for_no_map(tmp_path: Path) -> None:
    path, stack = save(tmp_path / "a" / "tNAA.nii.gz"), np.stack([VALUES, VALUES], -1)
    save(tmp_path / "a" / "crlb_tNAA.nii.gz", stack)
    with pytest.raises(MapInputError, match="holds 2 volumes where one crlb of tNAA"):
        collect([path.parent])[0].read(None)
    (entry,) = collect([path], None, by_hand(crlb=[f"tCr={path}"]))
    with pytest.raises(MapInputError, match="--crlb tCr: there is no map of that name; the maps are tNAA"):
        entry.read(None)
    entry = collect([save(tmp_path / "all.nii.gz", stack)])[0]
    assert any("no map for the crlb of tCr" in text for text in entry.read(None, ["tNAA", "tCr_crlb"]).warnings)


def test_maps_that_look_like_something_else(tmp_path: Path) -> None:
    """A mask as map, a map copied under another name, units that differ within a set, bounds without a number."""
    plain = {"tNAA": VALUES, "tCr": VALUES[::-1] * 0.7}
    odd = {
        "holds the values 0, 1 alone": {**plain, "tCho": (VALUES > 7).astype(np.float32)},
        "tCr: has the same values as tNAA": {**plain, "tNAA": plain["tCr"]},
        "its median is 1.4e+06 times that of tCr": {**plain, "tNAA": VALUES * 1e6},
    }
    for number, (said, maps) in enumerate(odd.items()):
        for name, values in maps.items():
            save(tmp_path / str(number) / f"conc_{name}.nii.gz", values)
        (entry,) = collect([tmp_path / str(number)])
        assert any(said in warning for warning in entry.read(None).warnings), entry.read(None).warnings
    save(tmp_path / "plain" / "conc_tNAA.nii.gz")
    save(tmp_path / "plain" / "crlb_tNAA.nii.gz", np.full_like(VALUES, np.nan))
    (entry,) = collect([tmp_path / "plain"])
    assert entry.read(None).warnings == ("crlb_tNAA.nii.gz: holds no number, so it is not used.",)


def test_a_mask_of_the_background_is_refused(tmp_path: Path) -> None:
    x, y = np.meshgrid(np.linspace(-1, 1, 12), np.linspace(-1, 1, 10), indexing="ij")
    head = (x**2 + y**2 < 0.8)[..., None]
    save(tmp_path / "conc_tNAA.nii.gz", VALUES * head)
    save(tmp_path / "mask.nii.gz", np.broadcast_to(~head, VALUES.shape).astype(np.uint8))
    with pytest.raises(MapInputError, match="mask: covers 0 % .* and 100 % of the rest.* inverted"):
        collect([tmp_path])[0].read(None)
    one = np.zeros_like(VALUES, np.uint8)
    one[6, 5, 0] = 1  # a region of interest, however small, is meant
    save(tmp_path / "mask.nii.gz", one)
    assert collect([tmp_path])[0].read(None).mask.sum() == 1


def test_files_given_for_another_role_than_their_names_tell(tmp_path: Path) -> None:
    path = save(tmp_path / "conc_tNAA.nii.gz")
    snr = save(tmp_path / "snr.nii.gz", np.full_like(VALUES, 8.0))
    maps = read_maps(path, crlb=snr)
    assert "snr.nii.gz: is a signal-to-noise ratio by its name, but was given as an uncertainty" in maps.warnings[0]
    for name, said in (
        ("crlb_tNAA", "an uncertainty"),
        ("brain_mask", "a mask"),
        ("T1_mask", "a mask"),
        ("tCr", "a map"),
    ):
        with pytest.raises(MapInputError, match=f"{name}.nii.gz: is {said}.* by its name, which guides nothing"):
            load_anatomy(save(tmp_path / f"{name}.nii.gz"))
    assert load_anatomy(save(tmp_path / "P07_T1w.nii.gz"))[1] == "P07_T1w.nii.gz"


def test_what_is_not_used_is_checked_all_the_same() -> None:
    with pytest.raises(CommandError, match="table axes QQQ"):
        by_hand(table_axes="QQQ")
    for odd in (-1.0, 0.0, float("nan"), float("inf")):
        with pytest.raises(CommandError, match="--slice-thickness"):
            AcquisitionOptions(slice_thickness=odd).settings()
        with pytest.raises(ValueError, match="thickness_mm"):
            AcquisitionSettings.parse({"thickness_mm": odd}, "acquisition")
    with pytest.raises(MapInputError, match="the path is empty"):
        read_maps(" ")


def test_labels_leave_room_for_the_rest_of_a_file_name(tmp_path: Path) -> None:
    """Two subjects whose folders and files have the longest names: 200 equal letters, in two bytes each or one."""
    for folder in ("1" + "x" * 200, "2" + "é" * 100):
        save(tmp_path / folder / ("P" * 230 + "_tNAA.nii.gz"))
    labels = [entry.label for entry in collect([tmp_path])]
    assert len(set(labels)) == 2 and all(len(os.fsencode(label)) <= 150 for label in labels)
    assert labels == [entry.label for entry in collect([tmp_path])] and labels[0].startswith("1xxx")


def test_names_beside_a_stack_that_mislead(tmp_path: Path) -> None:
    """Two lists under one key, of which a parser would take the last; a ratio among the maps."""
    stack = save(tmp_path / "conc.nii.gz", np.stack([VALUES, VALUES[::-1]], axis=-1))
    for text, said in (
        ('{"Metabolites": ["tNAA", "tCr"], "Metabolites": ["tCr", "tNAA"]}', "the key Metabolites stands twice"),
        ('{"Metabolites": ["tNAA", "tNAA/tCr"]}', "tNAA/tCr: a ratio of metabolites"),
    ):
        (tmp_path / "conc.json").write_text(text)
        with pytest.raises(MapInputError, match=said):
            read_maps(stack)
    with pytest.raises(MapInputError, match="a ratio of metabolites"):
        read_maps({"tNAA": (VALUES, AFFINE), "tCho/tNAA": (VALUES[::-1], AFFINE)})
    both = read_maps({"tNAA": (VALUES, AFFINE), "GABA/MM": (VALUES[::-1], AFFINE)}, metabolites="all")
    assert both.names == ("tNAA", "GABA+")


def test_one_map_in_two_files(tmp_path: Path) -> None:
    given = [save(tmp_path / "tNAA.nii"), save(tmp_path / "tNAA.nii.gz")]
    for entry in [*collect(given), *collect([tmp_path])]:
        with pytest.raises(MapInputError, match="both match the map of tNAA|a second file for one map"):
            entry.read(None)


@pytest.mark.parametrize(
    "content", [b"", b"\0\xff" * 999, b"$$CONC 9 lines in following concentration table\n", b'"' * 300_000]
)
def test_tables_of_nonsense(tmp_path: Path, content: bytes) -> None:
    like = save(tmp_path / "grid.nii.gz")
    (tmp_path / "lcm").mkdir()
    for row in range(9):
        (tmp_path / "lcm" / f"sl1_{row + 1}-1.table").write_bytes(content)
    (tmp_path / "x.csv").write_bytes(b"Row, Col, Cr, Cr %SD\n" + content)
    for given in ("lcm", "x.csv"):
        (entry,) = collect([tmp_path / given], None, by_hand(like=like))
        with pytest.raises(MapInputError):
            entry.read(None)
