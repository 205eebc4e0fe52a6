"""Reading map sets: every source gives the same MapSet, one grid is enforced, and the real scan is found by name."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from mrsi_fast.mrsi.discovery import discover
from mrsi_fast.mrsi.export import write_map
from mrsi_fast.mrsi.io import read_maps, with_mask
from mrsi_fast.mrsi.mapset import MapInputError, MapSet
from support.data import data_dir

AFFINE = np.array([[0, -10, 0, 64], [-10, 0, 0, 58], [0, 0, 12, 31], [0, 0, 0, 1.0]])
SHAPE = (5, 4, 3)


def volume(seed):
    return np.random.default_rng(seed).uniform(1, 9, SHAPE).astype(np.float32)


def save(path, values, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


@pytest.fixture
def k01():
    root = data_dir()
    if root is None or not (root / "mrsi_oryx2_mit/K_01").is_dir():
        pytest.skip("needs the real scan mrsi_oryx2_mit/K_01: set MRSI_FAST_DATA")
    return root / "mrsi_oryx2_mit/K_01"


def test_the_real_scan_is_found_by_name(k01):
    maps = read_maps(k01)
    assert maps.names == ("tNAA", "tCr", "tCho", "Ins", "Glx")
    assert maps.maps.shape == maps.crlb.shape == maps.snr.shape == maps.fwhm.shape == (5, 14, 14, 3)
    files = ("NAA-NAAG", "Cr-PCr", "GPC-PCh", "Ins", "Glu-Gln")
    arrays = (maps.maps, maps.crlb, maps.snr, maps.fwhm)
    for index, name in enumerate(files):
        for array, file in zip(arrays, (f"conc_{name}", f"crlb_{name}", "snr", "fwhm"), strict=True):
            stored = nib.load(k01 / f"{file}.nii.gz").get_fdata(dtype=np.float32)
            np.testing.assert_array_equal(array[index], stored)
    np.testing.assert_array_equal(maps.affine, nib.load(k01 / "conc_Ins.nii.gz").affine)
    assert maps.fwhm_unit == "ppm" and maps.xform_code == 1 and maps.source == "folder of maps"
    assert str(k01) not in repr(maps.warnings)


def test_the_real_scan_by_request(k01):
    maps = read_maps(k01, metabolites="NAA+NAAG, mI ,Lac")
    assert maps.names == ("tNAA", "Ins", "Lac") and maps.warnings == ()
    assert len(read_maps(k01, metabolites="all").names) == 35
    with pytest.raises(MapInputError, match="2HG: there is no map of that name; found were .*tNAA"):
        read_maps(k01, metabolites=["2HG"])


def test_all_sources_give_the_same_maps(tmp_path):
    values = {"tNAA": volume(1), "Ins": volume(2)}
    paths = {name: save(tmp_path / f"{name}.nii.gz", one) for name, one in values.items()}
    images = {name: nib.Nifti1Image(one, AFFINE) for name, one in values.items()}
    arrays = {name: (one, AFFINE) for name, one in values.items()}
    stack = np.stack(list(values.values()))
    save(tmp_path / "other" / "stack.nii.gz", np.moveaxis(stack, 0, -1))
    readings = [
        read_maps(tmp_path), read_maps(paths), read_maps(images), read_maps(arrays),
        read_maps({"NAA+NAAG": str(paths["tNAA"]), "mI": images["Ins"]}),
        read_maps((stack, AFFINE), names=["tNAA", "Ins"]), read_maps((stack, AFFINE), names="NAANAAG, mI"),
        read_maps(tmp_path / "other" / "stack.nii.gz", names=["tNAA", "Ins"]),
        read_maps(nib.Nifti1Image(np.moveaxis(stack, 0, -1), AFFINE), names=["tNAA", "mI"]),
    ]  # fmt: skip
    for maps in readings:
        order = [maps.names.index(name) for name in values]
        np.testing.assert_array_equal(maps.maps[order], stack)
        np.testing.assert_array_equal(maps.affine, AFFINE)
        assert maps.maps.dtype == np.float32 and str(tmp_path) not in maps.source + repr(maps.warnings)
    assert read_maps(readings[0]) is readings[0]


def test_single_maps(tmp_path):
    path = save(tmp_path / "conc_GPC-PCh.nii.gz", volume(1))
    assert read_maps(path).names == ("tCho",)
    assert read_maps(path, names=["Lac"]).names == ("Lac",)
    assert read_maps((volume(1), AFFINE)).names == ("map",)
    flat = read_maps((volume(1)[..., 0], AFFINE), names=["tNAA"])
    assert flat.maps.shape == (1, 5, 4, 1)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.float64])
def test_arrays_of_any_real_type_are_cast(dtype):
    values = np.random.default_rng(0).integers(0, 2, SHAPE).astype(dtype)
    assert read_maps((values[::-1], AFFINE)).maps.dtype == np.float32


def test_reading_leaves_the_callers_array_alone():
    values = volume(1)
    values[0, 0, 0] = np.inf
    maps = read_maps((values, AFFINE), names=["tNAA"])
    assert np.isinf(values[0, 0, 0]) and np.isnan(maps.maps[0, 0, 0, 0])


def test_fsl_mrsi_tree(tmp_path):
    for name in ("NAA", "NAA+NAAG", "Ins"):
        save(tmp_path / f"concs/raw/{name}.nii.gz", volume(len(name)))
        save(tmp_path / f"uncertainties/{name}_sd.nii.gz", volume(10 + len(name)))
    for name in ("NAA", "Ins"):
        save(tmp_path / f"qc/{name}_snr.nii.gz", volume(20 + len(name)))
        save(tmp_path / f"qc/{name}_fwhm.nii.gz", volume(30 + len(name)))
    failed = np.zeros(SHAPE, np.uint8)
    failed[1, 2, 0] = 1
    save(tmp_path / "qc/fit_failed.nii.gz", failed)
    maps = read_maps(tmp_path)
    assert maps.names == ("tNAA", "Ins") and maps.fwhm_unit == "Hz" and maps.source == "fsl_mrsi output"
    np.testing.assert_array_equal(maps.crlb[0], volume(18))
    np.testing.assert_array_equal(maps.snr[0], volume(23))
    assert np.isnan(maps.maps).sum() == 2 and np.isnan(maps.maps[:, 1, 2, 0]).all()
    assert any("1 voxels are marked as failed fits" in warning for warning in maps.warnings)


def test_fsl_mrsi_internal_scaling_is_warned_about(tmp_path):
    save(tmp_path / "concs/internal/Ins.nii.gz", volume(1))
    maps = read_maps(tmp_path / "concs/internal")
    assert maps.units == "ratio to tCr" and any("take ratios afterwards" in warning for warning in maps.warnings)


@pytest.mark.parametrize(
    ("said", "units"),
    [
        ("Namespace(combine=[['Cr', 'PCr']], internal_ref=['NAA', 'NAAG'], output='o')\n--------\n", "ratio to tNAA"),
        ('{"output": "o", "internal_ref": ["Tau"], "TE": null}\n--------\n', "ratio to Tau"),
        ("Namespace(internal_ref=['PCr', 'Cr'])", "ratio to tCr"),
        ("Namespace(internal_ref=None)", "ratio to tCr"),
        ("Namespace(internal_ref=['Ins', 3])", "ratio to tCr"),
        ("", "ratio to tCr"),
    ],
)
def test_fsl_mrsi_tells_its_internal_reference_in_its_options(tmp_path, said, units):
    for scaling in ("internal", "raw"):
        save(tmp_path / f"concs/{scaling}/Ins.nii.gz", volume(1))
    (tmp_path / "options.txt").write_text(said)
    assert read_maps(tmp_path, scaling="internal").units == units
    assert read_maps(tmp_path / "concs" / "internal").units == units
    assert read_maps(tmp_path).units == "i.u."
    lone = tmp_path / "concs/internal/Ins.nii.gz"
    for source in (lone, {"Ins": lone}, {"maps": {"Ins": lone}}):
        alone = read_maps(source)
        assert alone.units == units and any("take ratios afterwards" in warning for warning in alone.warnings)
    assert read_maps(tmp_path / "concs/raw/Ins.nii.gz").units == "i.u."


def test_files_of_several_scalings_are_refused(tmp_path):
    for scaling in ("internal", "raw"):
        save(tmp_path / f"concs/{scaling}/Ins.nii.gz", volume(1))
    with pytest.raises(MapInputError, match=r"several scalings of fsl_mrsi \(i.u., ratio to tCr\)"):
        read_maps({"Ins": tmp_path / "concs/raw/Ins.nii.gz", "tNAA": tmp_path / "concs/internal/Ins.nii.gz"})


def test_an_array_of_one_slice_for_each_name():
    stack = np.stack([volume(1), volume(2)])[..., 0]
    flat = read_maps((stack, AFFINE), names=["tNAA", "Ins"], crlb=stack + 1, snr=stack[0])
    assert flat.names == ("tNAA", "Ins") and flat.maps.shape == (2, 5, 4, 1)
    np.testing.assert_array_equal(flat.maps[..., 0], stack)
    np.testing.assert_array_equal(flat.crlb[..., 0], stack + 1)
    parted = read_maps((stack, AFFINE), names=["tNAA", "crlb_tNAA"])
    assert parted.names == ("tNAA",) and parted.crlb.shape == (1, 5, 4, 1)
    with pytest.raises(MapInputError, match="holds 1 maps but 3 names"):
        read_maps((stack, AFFINE), names=["tNAA", "Ins", "tCr"])


def test_an_array_that_may_be_maps_of_one_slice_is_remarked():
    values = np.random.default_rng(0).uniform(1, 9, (3, 9, 8)).astype(np.float32)
    odd = read_maps((values, np.diag([10.0, 10, 10, 1])))
    assert odd.maps.shape == (1, 3, 9, 8)
    assert any("if it holds 3 maps of one slice, give their 3 names" in warning for warning in odd.warnings)
    usual = read_maps((np.moveaxis(values, 0, -1), np.diag([10.0, 10, 10, 1])))
    assert not any("of one slice" in warning for warning in usual.warnings)


@pytest.mark.parametrize("factor", [1e20, 1e-30, 1e13, 1e-14])
def test_a_level_that_no_unit_explains_is_refused_with_the_figure(tmp_path, factor):
    save(tmp_path / "conc_tNAA.nii.gz", (volume(1) * np.float64(factor)).astype(np.float32))
    save(tmp_path / "conc_Ins.nii.gz", volume(2) * np.float32(1 if factor > 1 else 0))
    level = f"{np.percentile(volume(1).astype(np.float64) * factor, 99):.3g}"
    with pytest.raises(MapInputError, match=f"tNAA: its values reach {level.replace('+', '.')}.*order of bytes"):
        read_maps(tmp_path)


@pytest.mark.parametrize("factor", [1e9, 1e-9])
def test_maps_of_any_usual_unit_are_read_and_one_may_be_a_trace(tmp_path, factor):
    for name, scale in (("tNAA", factor), ("2HG", 1e-14 * factor)):
        save(tmp_path / f"conc_{name}.nii.gz", volume(1) * np.float32(scale))
    assert set(read_maps(tmp_path).names) == {"tNAA", "2HG"}


def test_mrsiprep_tree_and_more_than_one_subject(tmp_path):
    for subject in ("sub-01", "sub-02"):
        for desc, seed in (("signal", 1), ("crlb", 2)):
            save(tmp_path / subject / f"{subject}_space-orig_met-GluGln_desc-{desc}_mrsi.nii.gz", volume(seed))
        save(tmp_path / subject / f"{subject}_space-orig_desc-snr_mrsi.nii.gz", volume(3))
    maps = read_maps(tmp_path / "sub-01")
    assert maps.names == ("Glx",)
    np.testing.assert_array_equal(maps.crlb[0], volume(2))
    np.testing.assert_array_equal(maps.snr[0], volume(3))
    with pytest.raises(MapInputError, match=r"2 sets of maps \(sub-01, sub-02\)"):
        read_maps(tmp_path)


def test_quality_data_can_be_given(tmp_path):
    values = np.stack([volume(1), volume(2)])
    maps = read_maps((values, AFFINE), names=["tNAA", "Ins"], crlb={"mI": volume(3)}, snr=volume(4),
                     fwhm=save(tmp_path / "lw.nii", volume(5)), mask=np.ones(SHAPE), lipid=np.zeros(SHAPE))  # fmt: skip
    assert np.isnan(maps.crlb[0]).all() and any("tNAA: has no crlb" in warning for warning in maps.warnings)
    np.testing.assert_array_equal(maps.crlb[1], volume(3))
    np.testing.assert_array_equal(maps.snr, np.stack([volume(4)] * 2))
    assert maps.mask.dtype == bool and maps.mask.all() and not maps.lipid.any()
    with pytest.raises(MapInputError, match="crlb: holds 1 volumes for 2 maps"):
        read_maps((values, AFFINE), names=["tNAA", "Ins"], crlb=volume(3))


@pytest.mark.parametrize("role", ["crlb", "snr", "fwhm", "lipid"])
def test_everything_has_to_lie_on_one_grid(tmp_path, role):
    moved = AFFINE.copy()
    moved[:3, 3] += (0, 0, 6)
    for other in (save(tmp_path / "moved.nii.gz", volume(3), moved), (volume(3)[:4], AFFINE)):
        with pytest.raises(MapInputError, match="is on another grid.*differ by up to (6|10).00 mm"):
            read_maps((volume(1), AFFINE), names=["tNAA"], **{role: other})


def test_maps_on_two_grids_are_refused():
    with pytest.raises(MapInputError, match="Ins: is on another grid.*than tNAA"):
        read_maps({"tNAA": (volume(1), AFFINE), "Ins": (volume(2), AFFINE * [[2], [2], [2], [1]])})


def test_float32_rounding_of_a_header_is_the_same_grid():
    rounded = AFFINE + 1e-4
    rounded[3] = 0, 0, 0, 1
    assert read_maps({"tNAA": (volume(1), AFFINE), "Ins": (volume(2), rounded)}).maps.shape[0] == 2


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        (volume(1), {}, "alone has no position"),
        ((np.zeros((2, 3, 4, 5, 6)), AFFINE), {}, "cannot be used"),
        ((np.array([["a"]]), AFFINE), {}, "cannot be used"),
        ((np.zeros((0, 4, 3)), AFFINE), {}, "cannot be used"),
        ((np.ones((2, *SHAPE)), AFFINE), {}, "holds 2 maps but 0 names"),
        ((np.ones((2, *SHAPE)), AFFINE), {"names": ["tNAA"]}, "holds 2 maps but 1 names"),
        ((np.ones((2, *SHAPE)), AFFINE), {"names": ["tNAA", "NAA+NAAG"]}, "a second map of tNAA"),
        ({"tNAA": (volume(1), AFFINE), "NAANAAG": (volume(2), AFFINE)}, {}, "a second map of tNAA"),
        ({}, {}, "Give at least one map"),
        ({"tNAA": (np.ones((2, *SHAPE)), AFFINE)}, {}, "holds 2 volumes where one map of tNAA is expected"),
        ((np.full(SHAPE, np.nan), AFFINE), {"names": ["tNAA"]}, "tNAA: has no valid voxel"),
        ((volume(1), AFFINE), {"mask": np.zeros(SHAPE)}, "mask: is empty"),
        ((volume(1), np.zeros((4, 4))), {}, "singular"),
        ({"tNAA": (volume(1), AFFINE)}, {"metabolites": " , "}, "list is empty"),
        ("absent.nii.gz", {}, "no such file"),
    ],
)
def test_unusable_sources_are_refused_with_a_sentence(source, options, words):
    with pytest.raises(MapInputError, match=words):
        read_maps(source, **options)


def test_odd_values_are_remarked_and_kept():
    values = np.stack([volume(seed) for seed in range(4)])
    values[0, 0, 0, :2] = np.inf, -np.inf
    values[1] = 0
    values[2, :, :, 0] -= 20
    maps = read_maps((values, AFFINE), names=["tNAA", "2HG", "Ins", "Glx"])
    text = "\n".join(maps.warnings)
    assert "tNAA: 2 values are infinite" in text and np.isnan(maps.maps[0]).sum() == 2
    assert "2HG: is the same everywhere (0)" in text
    assert "Ins: 33.3 % of its values are negative; they are kept" in text
    np.testing.assert_array_equal(maps.maps[2], values[2])
    assert "Glx" not in text


def test_one_remark_for_many_files(tmp_path):
    sheared = AFFINE.copy()
    sheared[0, 0] = 1
    for seed, name in enumerate(("tNAA", "tCr", "Ins")):
        save(tmp_path / f"{name}.nii.gz", volume(seed), sheared)
    (warning,) = read_maps(tmp_path).warnings
    assert warning.startswith("tNAA.nii.gz and 2 more: the axes are sheared")


def test_default_choice_takes_channels_and_stand_ins(tmp_path):
    for name in ("NAA", "NAAG", "Cr", "PCr", "tCr", "Lac", "Ins"):
        save(tmp_path / f"{name}.nii.gz", volume(1))
    maps = read_maps(tmp_path)
    assert maps.names == ("NAA", "tCr", "Ins")
    assert any("4 more were found and not read (" in warning and "Lac" in warning for warning in maps.warnings)
    assert read_maps(tmp_path, metabolites=["Lac"]).names == ("Lac",)


def test_selecting_from_a_mapset():
    maps = read_maps((np.stack([volume(1), volume(2)]), AFFINE), names=["tNAA", "Ins"], snr=volume(3))
    chosen = maps.select(["mI"])
    np.testing.assert_array_equal(chosen.maps[0], volume(2))
    assert chosen.snr.shape == (1, *SHAPE) and read_maps(maps, metabolites="Ins").names == ("Ins",)
    with pytest.raises(MapInputError, match="no map called Lac; the maps are tNAA, Ins"):
        maps.select(["Lac"])


def test_a_mask_can_be_put_on_maps_that_are_read_already(tmp_path):
    maps = read_maps((volume(1), AFFINE), names=["tNAA"])
    mask = volume(2) > 4
    for given in (mask, (mask, AFFINE), save(tmp_path / "mask.nii.gz", mask.astype(np.uint8))):
        np.testing.assert_array_equal(with_mask(maps, given).mask, mask)
        np.testing.assert_array_equal(read_maps(maps, mask=given).mask, mask)
    assert maps.mask is None
    with pytest.raises(MapInputError, match="mask: is empty"):
        with_mask(maps, np.zeros(SHAPE))
    away = AFFINE + [[0, 0, 0, 500], [0] * 4, [0] * 4, [0] * 4]
    with pytest.raises(MapInputError, match="mask: is on another grid .* than the maps.* It does not overlap"):
        with_mask(maps, (np.ones((2, 2, 2)), away))


def test_one_of_several_sets_found_in_a_folder(tmp_path):
    for subject, seed in (("sub-01", 1), ("sub-02", 2)):
        save(tmp_path / f"{subject}_space-orig_met-Ins_desc-signal_mrsi.nii.gz", volume(seed))
        save(tmp_path / f"{subject}_space-orig_desc-snr_mrsi.nii.gz", volume(seed + 5))
    for files, seed in zip(discover(tmp_path), (1, 2), strict=True):
        maps = read_maps(files)
        np.testing.assert_array_equal(maps.maps[0], volume(seed))
        np.testing.assert_array_equal(maps.snr[0], volume(seed + 5))
        assert maps.source == "BIDS-like folder"


def test_a_mapset_checks_its_shapes():
    with pytest.raises(MapInputError, match="2 names"):
        MapSet(np.zeros((1, *SHAPE), np.float32), AFFINE, ("tNAA", "Ins"))
    with pytest.raises(MapInputError, match="mask has shape"):
        MapSet(np.zeros((1, *SHAPE), np.float32), AFFINE, ("tNAA",), mask=np.ones((2, 2, 2), bool))


def test_what_is_written_is_read_back(tmp_path):
    write_map(tmp_path / "tNAA.nii.gz", volume(1), AFFINE, kind="mean", name="tNAA", xform_code=4)
    maps = read_maps(tmp_path)
    np.testing.assert_array_equal(maps.maps[0], volume(1))
    np.testing.assert_array_equal(maps.affine, AFFINE)
    assert maps.xform_code == 4 and maps.warnings == ()
