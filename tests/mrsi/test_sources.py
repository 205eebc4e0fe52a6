"""What a user gives as maps is sorted by role: stacks, mappings, files; what is no map by its name is refused."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from mrsi_fast.mrsi.io import read_maps
from mrsi_fast.mrsi.mapset import MapInputError

AFFINE = np.diag([10.0, 10.0, 12.0, 1.0])
NAMES = ("tNAA", "tCr", "tCho")
MAPS = np.random.default_rng(1).uniform(1, 9, (3, 6, 5, 2)).astype(np.float32)
BOUNDS = np.random.default_rng(2).integers(3, 30, (3, 6, 5, 2)).astype(np.float32)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, AFFINE), path)
    return path


def stack(*arrays):
    return np.moveaxis(np.concatenate(arrays), 0, -1)


def check(maps, bounds=True):
    assert maps.names == NAMES
    np.testing.assert_array_equal(maps.maps, MAPS)
    if bounds:
        np.testing.assert_array_equal(maps.crlb, BOUNDS)
    else:
        assert maps.crlb is None


def test_a_stack_of_maps_and_bounds_is_parted_by_its_names(tmp_path):
    path = save(tmp_path / "all.nii.gz", stack(MAPS, BOUNDS))
    check(read_maps(path, names="tNAA,tCr,tCho,crlb_tNAA,crlb_tCr,tCho_CRLB"))
    mixed = np.concatenate([MAPS[:1], BOUNDS, MAPS[1:]])
    check(read_maps((mixed, AFFINE), names=["tNAA", "tNAA_sd", "crlb_tCr", "CRLB_tCho", "tCr", "tCho"]))
    with pytest.raises(MapInputError, match="a ratio"):
        read_maps(path, names="tNAA,tCr,tCho,crlb_tNAA,crlb_tCr,tCho_to_tCr")


def test_names_beside_a_stack_with_roles_and_units(tmp_path):
    path = save(tmp_path / "all.nii.gz", stack(MAPS, BOUNDS))
    record = {"Metabolites": [*NAMES, *(f"{name}_CRLB" for name in NAMES)], "Units": "mM"}
    (tmp_path / "all.json").write_text(json.dumps(record))
    maps = read_maps(path)
    check(maps)
    assert maps.units == "mM"
    check(read_maps(save(tmp_path / "other.nii.gz", stack(MAPS)), names=NAMES), bounds=False)


def test_five_axes_and_single_volumes(tmp_path):
    check(read_maps(save(tmp_path / "five.nii.gz", stack(MAPS)[:, :, :, None]), names=NAMES), bounds=False)
    for extra in (1, 2):
        path = save(tmp_path / f"conc_tNAA_{extra}.nii.gz", MAPS[0].reshape(MAPS[0].shape + (1,) * extra))
        np.testing.assert_array_equal(read_maps(path, names="tNAA").maps[0], MAPS[0])
    twice = save(tmp_path / "two_each.nii.gz", stack(MAPS, MAPS).reshape(6, 5, 2, 2, 3))
    with pytest.raises(MapInputError, match="holds 6 maps but 3 names"):
        read_maps(twice, names=NAMES)


def test_names_in_the_name_of_a_stack_are_used_and_said(tmp_path):
    maps = read_maps(save(tmp_path / "tNAA_tCr_tCho.nii.gz", stack(MAPS)))
    check(maps, bounds=False)
    assert any("come from the file name" in text for text in maps.warnings)
    with pytest.raises(MapInputError, match="holds 3 maps but 0 names.*--names.*JSON"):
        read_maps(save(tmp_path / "maps.nii.gz", stack(MAPS)))


def test_a_folder_of_two_stacks(tmp_path):
    save(tmp_path / "conc.nii.gz", stack(MAPS))
    save(tmp_path / "crlb.nii.gz", stack(BOUNDS))
    check(read_maps(tmp_path, names=NAMES))
    (tmp_path / "conc.json").write_text(json.dumps({"Metabolites": NAMES}))
    check(read_maps(tmp_path))
    save(tmp_path / "crlb.nii.gz", stack(BOUNDS[:2]))
    with pytest.raises(MapInputError, match="holds 2 volumes, but conc.nii.gz 3 maps"):
        read_maps(tmp_path)


def test_names_for_single_files_are_not_used_and_that_is_said(tmp_path):
    save(tmp_path / "conc_tNAA.nii.gz", MAPS[0])
    maps = read_maps(tmp_path, names="tCr")
    assert maps.names == ("tNAA",) and any("the names given are not used" in text for text in maps.warnings)


def test_a_mapping_may_name_roles(tmp_path):
    maps = {name: (one, AFFINE) for name, one in zip(NAMES, MAPS, strict=True)}
    bounds = dict(zip(NAMES, BOUNDS, strict=True))
    check(read_maps({"maps": maps, "crlb": bounds}))
    check(read_maps(maps | {f"crlb_{name}": one for name, one in bounds.items()}))
    full = read_maps(
        {"maps": maps, "crlb": bounds, "snr": BOUNDS[0], "fwhm": {"tCr": BOUNDS[1]}, "mask": BOUNDS[2] > 5}
    )
    check(full)
    assert (full.snr == BOUNDS[0]).all() and (full.fwhm[1] == BOUNDS[1]).all() and np.isnan(full.fwhm[0]).all()
    np.testing.assert_array_equal(full.mask, BOUNDS[2] > 5)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({1: (MAPS[0], AFFINE)}, "1 is no name of a metabolite"), ({"tNAA_sd": (MAPS[0], AFFINE)}, "there is none"),
        ({"NAA_to_Cr": (MAPS[0], AFFINE)}, "a ratio"), ({"maps": {"tNAA": (MAPS[0], AFFINE)}, "foo": 1}, "no role foo"),
        ({"tNAA": (MAPS[0], AFFINE), "NAA+NAAG": (MAPS[1], AFFINE)}, "second map of tNAA"),
        ({"乳酸": (MAPS[0], AFFINE)}, "Latin"),
    ],
)  # fmt: skip
def test_mappings_that_make_no_sense(source, said):
    with pytest.raises(MapInputError, match=said):
        read_maps(source)


@pytest.mark.parametrize(
    "name", ["NAA_CRLB", "NAA_sd_map", "snr_tNAA", "fwhm", "NAA_RatToCr+PCr_map", "brain_mask", "T1_Bet"]
)
def test_a_file_that_is_no_map_by_its_name_is_refused_unless_the_user_names_it(tmp_path, name):
    path = save(tmp_path / f"{name}.nii.gz", MAPS[0])
    with pytest.raises(MapInputError, match=f"(?s){name.replace('+', '.')}.nii.gz: .*--map NAME="):
        read_maps(path)
    assert read_maps(path, names="Foo").names == ("Foo",)
    assert read_maps({"tNAA": path}).names == ("tNAA",)


def test_a_set_with_unfetched_files_says_so_and_does_the_rest(tmp_path):
    save(tmp_path / "conc_tNAA.nii.gz", MAPS[0])
    (tmp_path / "conc_Lac.nii.gz").write_text("version https://git-lfs.github.com/spec/v1\n")
    maps = read_maps(tmp_path)
    assert maps.names == ("tNAA",) and any(
        "conc_Lac.nii.gz" in text and "git lfs pull" in text for text in maps.warnings
    )
    with pytest.raises(MapInputError, match="conc_Lac.nii.gz: its content is not here"):
        read_maps(tmp_path, metabolites="tNAA,Lac")
