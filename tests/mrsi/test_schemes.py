"""What names say: role, metabolite and what tells sets apart, for the layouts of programs and labs."""

from __future__ import annotations

import pytest

from mrsi_fast.mrsi.findings import ALL_MAPS
from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.mrsi.patterns import Pattern
from mrsi_fast.mrsi.schemes import classify, split_name

SET = {"sub": "01", "ses": "V1"}


@pytest.mark.parametrize(
    ("path", "role", "name", "tags"),
    [
        # flat folders
        ("conc_NAA-NAAG", "map", "tNAA", {}), ("conc_-CrCH2", "map", "-CrCH2", {}),
        ("crlb_NAA-NAAG", "crlb", "tNAA", {}),
        ("mI", "map", "Ins", {}), ("NAA_mM", "map", "NAA", {}), ("P07_tNAA", "map", "tNAA", {"id": "P07"}),
        ("P07_tNAA_CRLB", "crlb", "tNAA", {"id": "P07"}), ("tNAA_P07", "map", "tNAA", {"id": "P07"}),
        ("conc_tNAA_P07", "map", "tNAA", {"id": "P07"}), ("P07.tNAA.sd", "crlb", "tNAA", {"id": "P07"}),
        ("scan 7 tNAA", "map", "tNAA", {"id": "scan 7"}), ("sub-01_tCho_map", "map", "tCho", {"sub": "01"}),
        ("sub-01_ses-Cr_NAA", "map", "NAA", {"sub": "01", "ses": "Cr"}), ("Glu_Gln", "map", "Glx", {}),
        ("conc_β-ATP", "map", "beta-ATP", {}), ("area_NAA", "map", "NAA", {}), ("conc", "map", ALL_MAPS, {}),
        ("crlb", "crlb", ALL_MAPS, {}), ("NAA_CRLBs", "crlb", "NAA", {}), ("NAA_std", "crlb", "NAA", {}),
        ("SN", "snr", ALL_MAPS, {}), ("LW", "fwhm", ALL_MAPS, {}), ("SNR_map", "snr", ALL_MAPS, {}),
        ("mI_snr", "snr", "Ins", {}), ("P07_FWHM", "fwhm", ALL_MAPS, {"id": "P07"}),
        ("tNAA_fwhm_Hz", "fwhm", "tNAA", {}),
        ("brainmask", "mask", ALL_MAPS, {}), ("Mask_brain", "mask", ALL_MAPS, {}),
        ("P07_mask", "mask", ALL_MAPS, {"id": "P07"}),
        ("T1_Bet", "anatomy", ALL_MAPS, {}), ("P07_MPRAGE", "anatomy", ALL_MAPS, {"id": "P07"}),
        ("fit_failed", "failed", ALL_MAPS, {}), ("lipid_mask", "lipid", ALL_MAPS, {}),
        ("SI_NAA_Area", "map", "NAA", {"id": "SI"}), ("maps_NAA", "map", "NAA", {}), ("NAA_conc_mM", "map", "NAA", {}),
        ("tNAAcrlb", "crlb", "tNAA", {}), ("tNAASNR", "snr", "tNAA", {}), ("NAA_amp_sd", "crlb", "NAA", {}),
        ("20210304_P07_NAA_%SD", "crlb", "NAA", {"id": "20210304_P07"}),
        # folders that tell
        ("crlb/NAA", "crlb", "NAA", {}), ("snr/NAA", "snr", "NAA", {}),
        ("std_maps/P07_NAA", "crlb", "NAA", {"id": "P07"}),
        ("P01_SNRmap_tNAA", "snr", "tNAA", {"id": "P01"}), ("tNAA_pSD", "crlb", "tNAA", {}),
        ("sigma_tNAA", "crlb", "tNAA", {}), ("NAA_crlb_pct", "crlb", "NAA", {}),
        ("CRLB/P01/NAA", "crlb", "NAA", {}), ("snr_maps/P01/ses1/NAA_map", "snr", "NAA", {}),
        # identifiers that are words for other things elsewhere
        ("P1_tNAA", "map", "tNAA", {"id": "P1"}), ("C2_tNAA_crlb", "crlb", "tNAA", {"id": "C2"}),
        ("P1_SNR", "snr", ALL_MAPS, {"id": "P1"}), ("C3_mask", "mask", ALL_MAPS, {"id": "C3"}),
        ("P2_T1", "anatomy", ALL_MAPS, {"id": "P2"}), ("tNAA_P1", "map", "tNAA", {"id": "P1"}),
        ("MNI01_tNAA", "map", "tNAA", {"id": "MNI01"}),
        ("PD_01_tNAA", "map", "tNAA", {"id": "PD_01"}), ("T2_tNAA", "map", "tNAA", {"id": "T2"}),
        # Oryx-MRSI
        ("nifti/conc_maps/K1_NAA+NAAG_conc", "map", "tNAA", {"id": "K1"}),
        ("nifti/CRLB_maps/K1_NAA+NAAG_CRLB", "crlb", "tNAA", {"id": "K1"}),
        # Vienna
        ("maps/Orig/NAA+NAAG_amp_map", "map", "tNAA", {}), ("maps/Orig/NAA+NAAG_sd_map", "crlb", "tNAA", {}),
        ("maps/Extra/FWHM_map", "fwhm", ALL_MAPS, {}), ("maps/Extra/SNR_map", "snr", ALL_MAPS, {}),
        # fsl_mrsi
        ("concs/raw/NAA", "map", "NAA", {}), ("uncertainties/NAA+NAAG_sd", "crlb", "tNAA", {}),
        ("qc/NAA_fwhm", "fwhm", "NAA", {}), ("qc/fit_failed", "failed", ALL_MAPS, {}),
        # MRSIPrep, and what went before it; entities in any order
        ("sub-01_ses-V1_space-orig_met-CrPCr_desc-signal_mrsi", "map", "tCr", SET),
        ("desc-crlb_met-CrPCr_space-orig_ses-V1_sub-01_mrsi", "crlb", "tCr", SET),
        ("sub-01_ses-V1_space-orig_desc-snr_mrsi", "snr", ALL_MAPS, SET),
        ("sub-01_ses-V1_space-orig_acq-conc_desc-CrPCr_spectroscopy", "map", "tCr", SET),
        ("sub-01_ses-V1_space-orig_acq-crlb_desc-CrPCr_mrsi", "crlb", "tCr", SET),
        ("sub-01_ses-V1_space-orig_acq-fwhm_desc-Voxel_mrsi", "fwhm", ALL_MAPS, SET),
        ("sub-01_ses-V1_space-orig_acq-conc_desc-brainmask_mrsi", "mask", ALL_MAPS, SET),
        ("sub-01_ses-V1_acq-csi_met-NAA_mrsi", "map", "NAA", {**SET, "acq": "csi"}),
        ("sub-1_desc-NAA_mrsi", "map", "NAA", {"sub": "1"}),
        # the role in an entity or a suffix of its own
        ("sub-1_acq-crlb_met-NAA_mrsi", "crlb", "NAA", {"sub": "1"}),
        ("sub-1_met-NAA_stat-crlb_mrsi", "crlb", "NAA", {"sub": "1"}),
        ("sub-1_met-NAA_crlb", "crlb", "NAA", {"sub": "1"}), ("sub-1_met-NAA_snr", "snr", "NAA", {"sub": "1"}),
        ("sub-1_NAA_desc-crlb", "crlb", "NAA", {"sub": "1"}), ("sub-1_met-NAA_conc", "map", "NAA", {"sub": "1"}),
        ("sub-1_met-NAA_desc-percentSD_mrsi", "crlb", "NAA", {"sub": "1"}),
        ("sub-1_met-NAA_map", "map", "NAA", {"sub": "1"}), ("sub-1_met-NAA_desc-fwhm", "fwhm", "NAA", {"sub": "1"}),
        ("sub-1_acq-std_met-NAA_mrsi", "map", "NAA", {"sub": "1", "acq": "std"}),
        ("sub-01_ses-V1_run-01_acq-memprage_desc-brain_T1w", "anatomy", ALL_MAPS, SET),
    ],
)  # fmt: skip
def test_roles_and_names(path, role, name, tags):
    what = classify(path)
    assert (what.role, what.name, what.tags) == (role, name, tags)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("NAA_RatToCr+PCr_map", "ratio"), ("tCho_2_tCr", "ratio"), ("Cho-over-NAA", "ratio"),
        ("ratio_tCho_tNAA", "ratio"),
        ("conc_tCho_to_tCr", "ratio"), ("NAAoverCr_map", "ratio"), ("ratios/NAA", "ratio"), ("P07_CNI", "index"),
        ("T1_Bet_pve_0", "tissue"), ("P07_GM", "tissue"), ("T2_Bet", "another contrast"),
        ("T1_mask", "mask of another"), ("P07_c1", "tissue"), ("PD", "another contrast"), ("NAA_T2", "contrast"),
        *((f"{prefix}sub-01_T1w", "a prefix of SPM") for prefix in ("c1", "mwp1", "rc2", "y_", "iy_", "wm")),
        ("wsub-01_met-NAA_mrsi", "a prefix of SPM"),
        ("b0", "field"), ("water_ref", "water"), ("something_else", "no metabolite"), ("mrsi_Cr_Cho", "no metabolite"),
        ("act", "no metabolite"), ("conc_乳酸", "Latin"), ("nuisance/p0", "nuisance"),
        ("sub-01_ses-01_met-_desc-signal_mrsi", "names no metabolite"),
        ("sub-01_space-MNI152NLin2009cAsym_met-CrPCr_desc-signal_mrsi", "resampled to space-MNI152NLin2009cAsym"),
        ("sub-01_met-CrPCr_desc-signalpvc_mrsi", "derived version"),
        ("sub-01_space-orig_res-x2_met-CrPCr_desc-sr_mrsi", "a result of mrsi-fast"),
        ("res-x2_met-CrPCr_desc-srstd_mrsi", "a result of mrsi-fast"), ("sub-01_desc-water_mrsi", "water"),
        ("sub-01_ses-1_acq-press_mrsi", "spectra have to be fitted"),
        ("sub-01_met-water_mrsi", "water"), ("sub-01_met-NAA_desc-qmask_mrsi", "a mask of one"),
        ("sub-01_met-NAAoverCr_mrsi", "ratio"), ("sub-01_space-MNI152_tNAA_map", "resampled to space-MNI152"),
        ("sub-01_tNAA_desc-zscore", "a mask, a statistic"),
        *((f"{word}_tNAA", "a mask, a statistic") for word in ("mask", "P01_qmask", "z-score", "tstat", "var")),
        *((f"tNAA_{word}", "a mask, a statistic") for word in ("residual", "baseline", "MNI_map", "upsampled")),
        *((f"{word}/P01_tNAA", "a mask, a statistic") for word in ("mask", "z_maps", "residuals", "qc", "template")),
    ],
)  # fmt: skip
def test_what_is_no_map_says_why(path, reason):
    what = classify(path)
    assert what.role in ("ratio", "other") and reason in what.reason


def test_versions_of_maps_are_told_apart():
    assert classify("concs/molality/NAA").variant == "molality" and classify("concs/molality/NAA").unit == "mmol/kg"
    assert classify("sub-01_space-origfilt_met-NAA_desc-signal_mrsi").variant == "filtered"
    assert classify("maps/Outlier_Clip/NAA_amp_map").variant == "filtered"
    assert classify("qc/NAA_fwhm").unit == classify("FWHM_hz").unit == "Hz" and classify("fwhm").unit == ""


@pytest.mark.parametrize(
    ("text", "parts"),
    [("tNAA", ("", "tNAA")), ("A_b_tNAA", ("A_b", "tNAA")), ("Cr_NAA", None), ("NAA_smooth", None), ("x", None)],
)
def test_splitting_an_identifier_off(text, parts):
    assert split_name(text) == parts


@pytest.mark.parametrize(
    ("pattern", "path", "role", "name", "tags"),
    [
        ("{id}_{met}.nii.gz", "a/P07_NAA.nii.gz", "map", "NAA", {"id": "P07"}),
        ("crlb={id}_{met}_err*.nii", "P07_NAA_err_v2.nii", "crlb", "NAA", {"id": "P07"}),
        ("{id}/fit/{met}?.nii", "x/P07/fit/NAA1.nii", "map", "NAA", {"id": "P07"}),
        ("{id}/{id}_{met}.nii", "P07/P07_NAA.nii", "map", "NAA", {"id": "P07"}),
        ("snr=quality.nii", "quality.nii", "snr", ALL_MAPS, {}),
        ("map=C-{met}.nii", "C-Foo.nii", "map", "Foo", {}),
        ("{id}_{met}", "P07_NAA.nii.gz", "map", "NAA", {"id": "P07"}),
    ],
)
def test_a_users_own_pattern(pattern, path, role, name, tags):
    what = Pattern.parse(pattern).read(path)
    assert what is not None and (what.role, what.name, what.tags) == (role, name, tags)


def test_patterns_that_do_not_fit_or_make_no_sense():
    assert Pattern.parse("{id}_{met}.nii").read("P07-NAA.nii") is None
    assert Pattern.parse("{met}").read("crlb_NAA.nii") is None and Pattern.parse("{met}").read("NAA_mask.nii") is None
    assert Pattern.parse("{id}/{id}_{met}.nii").read("P07/P08_NAA.nii") is None
    for text, said in (
        ("foo={met}.nii", "no role foo"),
        ("{name}.nii", "{name} is not known"),
        ("a.nii", "Add {met}"),
    ):
        with pytest.raises(MapInputError, match=said):
            Pattern.parse(text)
