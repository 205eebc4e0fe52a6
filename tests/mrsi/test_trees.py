"""Sets in labs' trees: each file with its role, sets kept apart, what is not used named with a reason."""

from __future__ import annotations

import os

import pytest

from mrsi_fast.mrsi.discovery import content_of, discover, discover_files
from mrsi_fast.mrsi.findings import ALL_MAPS
from mrsi_fast.mrsi.mapfiles import listing
from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.mrsi.patterns import Pattern


def plant(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def table(files):
    """Every used file by role and name."""
    found = {
        role: {name: path.name for name, path in files.table(role).items()} for role in ("map", "crlb", "snr", "fwhm")
    }
    return {role: names for role, names in found.items() if names} | {
        role: path.name for role, path in files.single.items()
    }


def unused(files):
    return {left.path.name: left.reason for left in files.unused}


VIENNA = (
    *(f"maps/Orig/{name}_{what}_map.nii" for name in ("NAA+NAAG", "Cr+PCr") for what in ("amp", "sd")),
    "maps/Extra/SNR_map.nii", "maps/Extra/FWHM_map.nii", "maps/mask.nii", "maps/Ratio/NAA+NAAG_RatToCr+PCr_map.nii",
    "maps/Outlier_Clip/NAA+NAAG_amp_map.nii",
)  # fmt: skip


@pytest.mark.parametrize("start", ["", "maps", "maps/Orig"])
def test_vienna_trees(tmp_path, start):
    (files,) = discover(plant(tmp_path / "P07", *VIENNA) / start)
    assert table(files) == {
        "map": {"tNAA": "NAA+NAAG_amp_map.nii", "tCr": "Cr+PCr_amp_map.nii"},
        "crlb": {"tNAA": "NAA+NAAG_sd_map.nii", "tCr": "Cr+PCr_sd_map.nii"},
        "snr": {ALL_MAPS: "SNR_map.nii"}, "fwhm": {ALL_MAPS: "FWHM_map.nii"}, "mask": "mask.nii",
    }  # fmt: skip
    assert files.maps["tNAA"].parent.name == "Orig" and "ratio" in unused(files)["NAA+NAAG_RatToCr+PCr_map.nii"]


def test_oryx_maps_and_bounds_in_folders_of_their_own(tmp_path):
    names = [f"nifti/{folder}/K1_{name}_{what}.nii" for name in ("NAA", "NAA+NAAG")
             for folder, what in (("conc_maps", "conc"), ("CRLB_maps", "CRLB"))]  # fmt: skip
    (files,) = discover(plant(tmp_path / "K1", *names, "nifti/ratio_maps/K1_NAA_conc.nii"))
    assert set(files.maps) == set(files.crlb) == {"NAA", "tNAA"}
    assert files.crlb["tNAA"].name == "K1_NAA+NAAG_CRLB.nii" and "ratio" in unused(files)["K1_NAA_conc.nii"]


def test_roles_told_by_folders_above_the_subjects(tmp_path):
    names = [f"{role}/{who}/tNAA.nii" for role in ("conc", "CRLB", "snr") for who in ("P1", "P2")]
    first, second = discover(plant(tmp_path / "study", *names))
    assert (first.label, second.label) == ("P1", "P2") and set(first.crlb) == set(first.snr) == {"tNAA"}
    assert first.crlb["tNAA"].parent.name == first.maps["tNAA"].parent.name == "P1"
    with pytest.raises(MapInputError, match="an uncertainty"):
        discover(tmp_path / "study" / "CRLB")
    lone = plant(tmp_path / "P3", "crlb/tNAA.nii") / "crlb" / "tNAA.nii"
    assert [one.role for one in (content_of(lone), content_of(tmp_path / "P3" / "tNAA.nii"))] == ["crlb", "map"]


def test_older_connectome_names(tmp_path):
    stem = "sub-01_ses-V1_space-orig"
    names = [f"{stem}_acq-conc_desc-{one}_mrsi.nii.gz" for one in ("CrPCr", "NAANAAG", "brainmask", "water")]
    names += [f"{stem}_acq-crlb_desc-CrPCr_mrsi.nii.gz", f"{stem}_acq-snr_desc-Voxel_mrsi.nii.gz"]
    names += [
        f"{stem}_acq-fwhm_desc-Voxel_mrsi.nii.gz",
        f"{stem.replace('orig', 'origfilt')}_acq-conc_desc-CrPCr_mrsi.nii.gz",
    ]
    (files,) = discover(plant(tmp_path / "derivatives/mrsi-orig/sub-01/ses-V1", *names))
    assert files.layout == "bids" and set(files.maps) == {"tCr", "tNAA"} and set(files.crlb) == {"tCr"}
    assert set(files.snr) == set(files.fwhm) == {ALL_MAPS} and "brainmask" in files.single["mask"].name
    assert "origfilt" not in files.maps["tCr"].name and files.label == "sub-01_ses-V1"
    assert "another version (filtered)" in unused(files)[names[-1]] and "water" in unused(files)[names[3]]


def test_maps_that_are_there_filtered_only_are_used(tmp_path):
    (files,) = discover(plant(tmp_path, "sub-01_space-origfilt_met-CrPCr_desc-signal_mrsi.nii.gz"))
    assert set(files.maps) == {"tCr"}


def test_quality_files_with_fewer_entities_serve_every_map_they_fit(tmp_path):
    plant(
        tmp_path, *(f"sub-01_ses-{ses}_run-{run}_met-Ins_desc-signal_mrsi.nii.gz" for ses in "12" for run in "12"),
        "sub-01_desc-snr_mrsi.nii.gz", "sub-01_ses-1_met-Ins_desc-crlb_mrsi.nii.gz",
        "sub-01_ses-2_run-2_desc-fwhm_mrsi.nii.gz",
        "sub-02_ses-1_run-1_met-Ins_desc-crlb_mrsi.nii.gz",
    )  # fmt: skip
    found = {files.label: table(files) for files in discover(tmp_path)}
    assert list(found) == [f"sub-01_ses-{ses}_run-{run}" for ses in "12" for run in "12"]
    assert all(one["snr"] == {ALL_MAPS: "sub-01_desc-snr_mrsi.nii.gz"} for one in found.values())
    assert ["crlb" in one for one in found.values()] == [True, True, False, False], (
        "never another session's or subject's"
    )
    assert ["fwhm" in one for one in found.values()] == [False, False, False, True]


def test_identifiers_part_sets_and_a_file_without_one_serves_all(tmp_path):
    plant(tmp_path, *(f"{who}_{what}.nii" for who in ("P07", "P08") for what in ("tNAA", "tCr", "tNAA_CRLB")),
    "SNR.nii",
          "P08_mask.nii", "P09_tNAA_CRLB.nii")  # fmt: skip
    first, second = discover(tmp_path)
    assert (first.label, second.label) == ("P07", "P08")
    assert table(first) == {"map": {"tNAA": "P07_tNAA.nii", "tCr": "P07_tCr.nii"},
    "crlb": {"tNAA": "P07_tNAA_CRLB.nii"},
                            "snr": {ALL_MAPS: "SNR.nii"}}  # fmt: skip
    assert second.single["mask"].name == "P08_mask.nii"
    assert "P09_tNAA_CRLB.nii" in {**unused(first), **unused(second)}


def test_an_image_that_several_people_would_share_is_used_for_none(tmp_path):
    first, second = discover(plant(tmp_path / "flat", "P1_tNAA.nii", "P2_tNAA.nii", "T1.nii", "P2_T1.nii"))
    assert not first.single and second.single["anatomy"].name == "P2_T1.nii"
    assert "to which of 2 sets" in unused(first)["T1.nii"]
    (alone,) = discover(plant(tmp_path / "alone", "P1_tNAA.nii", "T1.nii"))
    assert alone.single["anatomy"].name == "T1.nii"
    names = [f"sub-0{n}/mrs/sub-0{n}_met-tNAA_mrsi.nii.gz" for n in (1, 2)]
    sets = discover(plant(tmp_path / "bids", *names, "sub-01/anat/msub-01_T1w.nii", "sub-01/anat/sub-01_T1w.nii"))
    assert ["anatomy" in one.single for one in sets] == [True, False]


def test_a_cohorts_root_with_subjects_of_every_layout(tmp_path):
    plant(tmp_path / "P01" / "ses-01" / "mrsi", "conc_tNAA.nii.gz", "crlb_tNAA.nii.gz")
    plant(tmp_path / "P01" / "ses-01" / "anat", "T1.nii.gz")
    plant(tmp_path / "P02" / "fit", "concs/raw/NAA.nii.gz", "uncertainties/NAA_sd.nii.gz", "qc/NAA_fwhm.nii.gz")
    plant(tmp_path / "P03", *VIENNA)
    plant(tmp_path / "P10", "P10_tNAA.nii", "P10_tNAA_CRLB.nii")
    plant(tmp_path / "P04", "crlb_tNAA.nii")
    found = {files.label: files for files in discover(tmp_path)}
    assert list(found) == ["P01_ses-01", "P02_fit", "P03", "P04", "P10"]
    assert table(found["P01_ses-01"]) == {
        "map": {"tNAA": "conc_tNAA.nii.gz"}, "crlb": {"tNAA": "crlb_tNAA.nii.gz"}, "anatomy": "T1.nii.gz"}  # fmt: skip
    assert found["P02_fit"].fwhm_unit == "Hz" and set(found["P03"].crlb) == {"tNAA", "tCr"}
    assert "quality files (crlb_tNAA.nii ...) but no map" in found["P04"].problem, (
        "a subject is never lost without a word"
    )


def test_maps_below_a_folder_of_maps_are_named_and_not_mixed_in(tmp_path):
    (files,) = discover(plant(tmp_path, "conc_tNAA.nii", "old/conc_tNAA.nii", "old/conc_tCr.nii"))
    assert files.maps == {"tNAA": tmp_path / "conc_tNAA.nii"}
    assert list(listing(files.unused)) == [
        "conc_tCr.nii, conc_tNAA.nii: a map of another set in a folder below: give that folder to use it"]  # fmt: skip


def test_quality_files_named_a_little_differently_are_used_or_listed(tmp_path):
    plant(tmp_path, "totNAA.nii", "Cr.nii", "totNAA_CRLBs.nii", "totNAA_std.nii", "Cr_std.nii", "brainmask.nii",
          "Mask_brain.nii", "SN.nii", "LW.nii", "odd_thing.nii", "T2.nii", "crlb/Cr.nii")  # fmt: skip
    (files,) = discover(tmp_path)
    assert table(files) == {
        "map": {"Cr": "Cr.nii", "tNAA": "totNAA.nii"}, "crlb": {"tNAA": "totNAA_CRLBs.nii", "Cr": "Cr_std.nii"},
        "snr": {ALL_MAPS: "SN.nii"}, "fwhm": {ALL_MAPS: "LW.nii"}, "mask": "Mask_brain.nii"}  # fmt: skip
    assert set(unused(files)) == {"totNAA_std.nii", "brainmask.nii", "odd_thing.nii", "T2.nii", "Cr.nii"}
    assert unused(files)["totNAA_std.nii"] == "totNAA_CRLBs.nii is taken for the crlb of tNAA"


def test_ratios_and_results_are_never_maps(tmp_path):
    plant(
        tmp_path,
        "conc_tNAA.nii",
        "tCho_to_tNAA.nii",
        "ratio_Cho_NAA.nii",
        "sub-01_res-x2_met-CrPCr_desc-sr_mrsi.nii.gz",
    )
    (files,) = discover(tmp_path)
    assert set(files.maps) == {"tNAA"} and len(files.unused) == 3
    with pytest.raises(MapInputError, match="a result of mrsi-fast, not a measurement"):
        discover(plant(tmp_path / "results", "res-x2_met-CrPCr_desc-sr_mrsi.nii.gz"))


def test_unfetched_and_broken_files_keep_their_place_and_are_named(tmp_path):
    plant(tmp_path, "conc_tNAA.nii.gz")
    os.symlink("../.git/annex/objects/Xx/SHA256E-s9--1.nii.gz", tmp_path / "conc_tCr.nii.gz")
    os.symlink("gone.nii.gz", tmp_path / "crlb_tNAA.nii.gz")
    (tmp_path / "conc_Ins.nii.gz").write_text("/annex/objects/SHA256E-s12--abc.nii.gz\n")
    (tmp_path / "snr.nii.gz").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    (files,) = discover(tmp_path)
    assert set(files.maps) == {"tNAA", "tCr", "Ins"} and set(files.crlb) == {"tNAA"}
    said = {left.path.name: left.reason for left in files.unused if left.problem}
    assert "git annex get" in said["conc_tCr.nii.gz"] and "git-annex pointer" in said["conc_Ins.nii.gz"]
    assert "broken link to gone.nii.gz" in said["crlb_tNAA.nii.gz"] and "git lfs pull" in said["snr.nii.gz"]


def test_folders_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    plant(tmp_path, "P01/conc_tNAA.nii", "P02/conc_tNAA.nii")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("P02"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (files,) = discover(tmp_path)
    assert unused(files)["P02"] == "a folder that cannot be read (Permission denied)" and files.unused[-1].problem
    with pytest.raises(MapInputError, match="P02: a folder that cannot be read"):
        discover(tmp_path / "P02")


def test_the_truth_beside_a_simulated_scan_is_no_measurement(tmp_path):
    (files,) = discover(plant(tmp_path, "sub-000_acq-x4/conc_tNAA.nii.gz", "sub-000_truth/conc_tNAA.nii.gz"))
    assert files.maps["tNAA"].parent.name == "sub-000_acq-x4"


def test_linked_subject_folders_are_followed(tmp_path):
    plant(tmp_path / "store" / "a", "conc_tNAA.nii")
    (tmp_path / "study").mkdir()
    os.symlink(tmp_path / "store" / "a", tmp_path / "study" / "P01")
    assert [set(files.maps) for files in discover(tmp_path / "study")] == [{"tNAA"}]


def test_a_users_pattern_goes_before_the_table(tmp_path):
    plant(tmp_path, "x1-NAA-final.nii", "x1-NAA-bound.nii", "conc_Ins.nii")
    patterns = [Pattern.parse("{id}-{met}-final.nii"), Pattern.parse("crlb={id}-{met}-bound.nii")]
    found = {files.label: table(files) for files in discover(tmp_path, patterns=patterns)}
    assert found["x1"] == {"map": {"NAA": "x1-NAA-final.nii"}, "crlb": {"NAA": "x1-NAA-bound.nii"}}


def test_files_given_one_by_one(tmp_path):
    plant(tmp_path, *VIENNA, "P08/tNAA.nii")
    given = [tmp_path / name for name in (*VIENNA[:6], VIENNA[7], "P08/tNAA.nii")]
    first, second, refused = discover_files(given)
    assert table(first) == {
        "map": {"tNAA": "NAA+NAAG_amp_map.nii", "tCr": "Cr+PCr_amp_map.nii"},
        "crlb": {"tNAA": "NAA+NAAG_sd_map.nii", "tCr": "Cr+PCr_sd_map.nii"},
        "snr": {ALL_MAPS: "SNR_map.nii"}, "fwhm": {ALL_MAPS: "FWHM_map.nii"},
    }  # fmt: skip
    assert table(second) == {"map": {"tNAA": "tNAA.nii"}}
    assert "a ratio of metabolites" in refused.problem and "mrsi-fast ratio" in refused.problem
    (lone,) = discover_files([tmp_path / "maps/Orig/NAA+NAAG_sd_map.nii"])
    assert "an uncertainty (CRLB, %SD)" in lone.problem and "--crlb" in lone.problem


def test_pairs_in_capitals_and_what_macos_leaves_in_archives(tmp_path):
    (files,) = discover(plant(tmp_path, "TNAA.HDR", "TNAA.IMG", "__MACOSX/conc_tCr.nii", "._conc_tCho.nii"))
    assert table(files) == {"map": {"tNAA": "TNAA.HDR"}} and not files.unused


def test_stacks_of_maps_and_bounds(tmp_path):
    (files,) = discover(plant(tmp_path / "a", "conc.nii.gz", "crlb.nii.gz", "snr.nii.gz"))
    assert list(files.maps) == list(files.crlb) == list(files.snr) == [ALL_MAPS]
    (files,) = discover(plant(tmp_path / "b", "tNAA.nii.gz", "crlb.nii.gz", "conc.nii.gz"))
    assert list(files.maps) == ["tNAA"] and not files.crlb and set(unused(files)) == {"crlb.nii.gz", "conc.nii.gz"}


def test_an_image_with_bids_names_beside_maps_without(tmp_path):
    for subject in ("sub-01", "sub-02"):
        plant(tmp_path / subject / "ses-1", "mrsi/NAA.nii", f"anat/{subject}_ses-1_T1w.nii.gz")
    plant(tmp_path / "sub-01" / "ses-1" / "anat", "sub-02_ses-1_T1w.nii.gz")
    found = {files.label: files.single["anatomy"].name for files in discover(tmp_path)}
    assert found == {"sub-01_ses-1": "sub-01_ses-1_T1w.nii.gz", "sub-02_ses-1": "sub-02_ses-1_T1w.nii.gz"}


def test_two_pipelines_and_two_spellings_in_bids_names(tmp_path):
    name = "sub-01_met-NAA_desc-signal_mrsi.nii.gz"
    plant(tmp_path, *(f"derivatives/{pipeline}/sub-01/{name}" for pipeline in ("lcm", "fsl")))
    assert [files.label for files in discover(tmp_path)] == ["fsl_sub-01", "lcm_sub-01"]
    plant(tmp_path / "one", "sub-01_met-tNAA_desc-signal_mrsi.nii.gz", "sub-01_met-NAANAAG_desc-signal_mrsi.nii.gz")
    with pytest.raises(MapInputError, match="both match the map of tNAA"):
        discover(tmp_path / "one")


def test_versions_that_spm_wrote_beside_the_maps(tmp_path):
    (files,) = discover(plant(tmp_path, "conc_NAA.nii", "rconc_NAA.nii", "swconc_NAA.nii", "NAA_2mm.nii"))
    assert files.maps == {"NAA": tmp_path / "conc_NAA.nii"}
    assert "SPM" in unused(files)["rconc_NAA.nii"] and set(unused(files)) == {
        "rconc_NAA.nii",
        "swconc_NAA.nii",
        "NAA_2mm.nii",
    }


def test_a_bids_root_with_raw_images_and_derivatives(tmp_path):
    for subject in ("01", "02", "10"):
        own = f"sub-{subject}/ses-1"
        stem = f"sub-{subject}_ses-1"
        plant(tmp_path, f"{own}/anat/{stem}_T1w.nii.gz", f"{own}/anat/{stem}_FLAIR.nii.gz")
        plant(tmp_path / "derivatives", f"cat12/{own}/{stem}_desc-p1_T1w.nii.gz")
        if subject != "10":
            maps = [f"{stem}_space-orig_met-NAANAAG_desc-{what}_mrsi.nii.gz" for what in ("signal", "crlb")]
            plant(tmp_path / "derivatives" / "mrsi-orig" / own, *maps, f"{stem}_space-orig_desc-snr_mrsi.nii.gz")
    plant(tmp_path / "derivatives/skullstrip/sub-02/ses-1", "sub-02_ses-1_acq-memprage_desc-brain_T1w.nii.gz")
    first, second = discover(tmp_path)
    assert (first.label, second.label) == ("sub-01_ses-1", "sub-02_ses-1")
    assert first.single["anatomy"].name == "sub-01_ses-1_T1w.nii.gz"
    assert second.single["anatomy"].name == "sub-02_ses-1_acq-memprage_desc-brain_T1w.nii.gz"
    assert set(first.crlb) == set(second.crlb) == {"tNAA"} and set(first.snr) == {ALL_MAPS}
    for files, own in ((first, "sub-01"), (second, "sub-02")):
        assert all(own in path.name for path in files.paths())


def test_a_folder_for_each_metabolite(tmp_path):
    (files,) = discover(
        plant(tmp_path / "P07", *(f"{m}/{w}.nii" for m in ("NAA", "Cr") for w in ("conc", "crlb")), "NAA/snr.nii")
    )
    assert {name: path.parent.name for name, path in files.maps.items()} == {"NAA": "NAA", "Cr": "Cr"}
    assert set(files.crlb) == {"NAA", "Cr"} and set(files.snr) == {"NAA"}


def test_time_points_are_no_contrasts(tmp_path):
    assert [one.label for one in discover(plant(tmp_path, "DMI_t1_Glc.nii", "DMI_t2_Glc.nii"))] == ["DMI_t1", "DMI_t2"]
