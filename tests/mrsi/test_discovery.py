"""Finding maps by name in the three folder layouts: pure path logic, so empty files do."""

from __future__ import annotations

import os

import pytest

from mrsi_fast.mrsi.discovery import ALL_MAPS, discover, name_from_file
from mrsi_fast.mrsi.mapset import MapInputError


def plant(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def found(table):
    return {name: path.name for name, path in table.items()}


def test_flat_folder_with_prefixes(tmp_path):
    plant(tmp_path, "conc_NAA-NAAG.nii.gz", "conc_-CrCH2.nii.gz", "crlb_NAA-NAAG.nii.gz", "snr.nii.gz", "fwhm.nii",
          "T1_Bet.nii.gz", "T1_Bet_pve_0.nii.gz", "T2_Bet.nii.gz", "brain_mask.nii.gz", "lipid_mask.nii.gz",
          "notes.txt", "spectra.npz", "._conc_Ins.nii.gz")  # fmt: skip
    (files,) = discover(tmp_path)
    assert files.layout == "folder" and files.units == "i.u." and files.fwhm_unit == "ppm"
    assert found(files.maps) == {"tNAA": "conc_NAA-NAAG.nii.gz", "-CrCH2": "conc_-CrCH2.nii.gz"}
    assert found(files.crlb) == {"tNAA": "crlb_NAA-NAAG.nii.gz"}
    assert found(files.snr) == {ALL_MAPS: "snr.nii.gz"} and found(files.fwhm) == {ALL_MAPS: "fwhm.nii"}
    assert found(files.single) == {
        "anatomy": "T1_Bet.nii.gz",
        "mask": "brain_mask.nii.gz",
        "lipid": "lipid_mask.nii.gz",
    }


def test_flat_folder_with_plain_names(tmp_path):
    plant(tmp_path, "NAA+NAAG.nii.gz", "mI.nii.gz", "NAA+NAAG_crlb.nii.gz", "mI_snr.nii.gz", "linewidth.nii.gz",
          "something_else.nii.gz", "b0.nii.gz")  # fmt: skip
    (files,) = discover(tmp_path)
    assert found(files.maps) == {"tNAA": "NAA+NAAG.nii.gz", "Ins": "mI.nii.gz"}
    assert list(files.crlb) == ["tNAA"] and list(files.snr) == ["Ins"] and list(files.fwhm) == [ALL_MAPS]


FSL = ("NAA", "NAAG", "NAA+NAAG", "Cr", "PCr", "Cr+PCr")


def fsl_tree(root, scalings=("raw", "internal", "molarity")):
    plant(root, *(f"concs/{scaling}/{name}.nii.gz" for scaling in scalings for name in FSL))
    plant(root, *(f"uncertainties/{name}_sd.nii.gz" for name in FSL))
    plant(root, *(f"qc/{name}_{kind}.nii.gz" for name in ("NAA", "NAAG", "PCr") for kind in ("snr", "fwhm")))
    return plant(root, "qc/fit_failed.nii.gz", "nuisance/p0.nii.gz", "fit/fit.nii.gz")


def test_fsl_mrsi_tree(tmp_path):
    (files,) = discover(fsl_tree(tmp_path / "out"))
    assert files.layout == "fsl_mrsi" and files.fwhm_unit == "Hz" and files.units == "mM"
    assert set(files.maps) == {"NAA", "NAAG", "tNAA", "Cr", "PCr", "tCr"}
    assert files.maps["tNAA"].parts[-2:] == ("molarity", "NAA+NAAG.nii.gz")
    assert files.crlb["tCr"].name == "Cr+PCr_sd.nii.gz"
    assert files.single["failed"].name == "fit_failed.nii.gz"


def test_fsl_mrsi_totals_borrow_the_quality_of_their_main_component(tmp_path):
    (files,) = discover(fsl_tree(tmp_path / "out"))
    assert files.snr["tNAA"].name == "NAA_snr.nii.gz" and files.fwhm["tNAA"].name == "NAA_fwhm.nii.gz"
    assert files.snr["tCr"].name == "PCr_snr.nii.gz", "Cr has none here, so its second component stands in"
    assert files.snr["NAAG"].name == "NAAG_snr.nii.gz"


@pytest.mark.parametrize(
    ("below", "scaling", "folder", "units"),
    [("", None, "molarity", "mM"), ("", "raw", "raw", "i.u."), ("concs", None, "molarity", "mM"),
     ("concs/internal", None, "internal", "ratio to tCr"), ("concs/raw", "internal", "internal", "ratio to tCr")],
)  # fmt: skip
def test_fsl_mrsi_from_any_of_its_folders(tmp_path, below, scaling, folder, units):
    (files,) = discover(fsl_tree(tmp_path / "out") / below, scaling)
    assert {path.parent.name for path in files.maps.values()} == {folder}
    assert files.units == units and files.crlb


def test_fsl_mrsi_scaling_that_is_not_there(tmp_path):
    with pytest.raises(MapInputError, match="molality not found.*molarity, raw, internal"):
        discover(fsl_tree(tmp_path / "out"), "molality")
    with pytest.raises(MapInputError, match="holds no map"):
        (tmp_path / "empty/concs/raw").mkdir(parents=True)
        discover(tmp_path / "empty")


def bids_names(prefix, mets=("NAANAAG", "CrPCr"), space="orig"):
    per_map = [f"met-{met}_desc-{desc}" for met in mets for desc in ("signal", "crlb")]
    return [f"{prefix}_space-{space}_{rest}_mrsi.nii.gz" for rest in (*per_map, "desc-snr", "desc-fwhm")]


def test_mrsiprep_names(tmp_path):
    folder = tmp_path / "derivatives/mrsi-orig/sub-01/ses-01"
    plant(folder, *bids_names("sub-01_ses-01"), "sub-01_ses-01_space-mrsi_desc-brain_mask.nii.gz",
          "sub-01_ses-01_space-orig_met-NAANAAG_desc-signalt1corr_mrsi.nii.gz",
          "sub-01_ses-01_space-MNI152NLin2009cAsym_met-NAANAAG_desc-signal_mrsi.nii.gz")  # fmt: skip
    for start in (folder, tmp_path):
        (files,) = discover(start)
        assert files.layout == "bids" and files.label == "sub-01_ses-01"
        assert found(files.maps) == {
            "tNAA": "sub-01_ses-01_space-orig_met-NAANAAG_desc-signal_mrsi.nii.gz",
            "tCr": "sub-01_ses-01_space-orig_met-CrPCr_desc-signal_mrsi.nii.gz"}  # fmt: skip
        assert set(files.crlb) == {"tNAA", "tCr"} and set(files.snr) == set(files.fwhm) == {ALL_MAPS}
        assert files.single["mask"].name.endswith("_desc-brain_mask.nii.gz")


def test_one_set_per_subject_session_and_resolution(tmp_path):
    plant(tmp_path / "sub-02/ses-01", *bids_names("sub-02_ses-01"))
    plant(tmp_path / "sub-01", *bids_names("sub-01"))
    plant(tmp_path / "sub-01", "sub-01_space-orig_res-5mm_met-Ins_desc-signal_mrsi.nii.gz")
    assert [(files.label, sorted(files.maps)) for files in discover(tmp_path)] == [
        ("sub-01", ["tCr", "tNAA"]), ("sub-01_res-5mm", ["Ins"]), ("sub-02_ses-01", ["tCr", "tNAA"])]  # fmt: skip


def test_mrsiprep_input_tree_goes_before_its_output_tree(tmp_path):
    plant(tmp_path / "mrsiprep/sub-01/mrsi/orig", *bids_names("sub-01"))
    plant(tmp_path / "mrsi-orig/sub-01", *bids_names("sub-01"))
    (files,) = discover(tmp_path)
    assert "mrsi-orig" in files.maps["tNAA"].parts


def test_two_files_for_one_map_are_refused_by_name(tmp_path):
    plant(tmp_path, "conc_NAA-NAAG.nii.gz", "tNAA.nii.gz")
    with pytest.raises(MapInputError, match="conc_NAA-NAAG.nii.gz and tNAA.nii.gz both match the map of tNAA"):
        discover(tmp_path)


@pytest.mark.parametrize("names", [(), ("readme.txt",), ("T1.nii.gz", "snr.nii.gz"), ("crlb_Ins.nii.gz",)])
def test_a_folder_without_maps_says_what_is_known(tmp_path, names):
    plant(tmp_path, *names)
    with pytest.raises(MapInputError, match="no metabolite map was found by name.*conc_<name>"):
        discover(tmp_path)
    with pytest.raises(MapInputError, match="no such folder"):
        discover(tmp_path / "absent")


def test_a_loop_of_links_ends(tmp_path):
    plant(tmp_path / "sub-01", *bids_names("sub-01"))
    os.symlink(tmp_path, tmp_path / "sub-01" / "again")
    assert len(discover(tmp_path)) == 1


@pytest.mark.parametrize(
    ("file", "name"),
    [("conc_GPC-PCh.nii.gz", "tCho"), ("sub-1_space-orig_met-GluGln_desc-signal_mrsi.nii.gz", "Glx"), ("mI.nii", "Ins"),
     ("scan7_tNAA.nii.gz", "tNAA"), ("Cr+PCr.nii.gz", "tCr"), ("unknown.nii.gz", "map"),
     ("Smith_John.nii.gz", "map"), ("DOE^JOHN.nii", "map"), ("Müller Anna 1970.nii", "map"),
     ("conc_Foo.nii", "Foo")],
)  # fmt: skip
def test_name_from_a_file_name(file, name):
    assert name_from_file(file) == name
