"""Images of other formats read like NIfTI; names beside a stack are used; what is no image says what to do with it."""

from __future__ import annotations

import json
import os

import nibabel as nib
import numpy as np
import pytest

from mrsi_fast.mrsi.discovery import discover
from mrsi_fast.mrsi.images import StackNames, names_beside, read_image
from mrsi_fast.mrsi.io import read_maps
from mrsi_fast.mrsi.mapset import MapInputError

AFFINE = np.array([[-10.0, 0, 0, 30], [0, -10, 0, 25], [0, 0, 12, 4], [0, 0, 0, 1]])
VALUES = np.random.default_rng(0).uniform(1, 9, (6, 5, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("make", "name"),
    [(nib.MGHImage, "a.mgz"), (nib.MGHImage, "a.mgh"), (nib.Nifti1Pair, "a.hdr"), (nib.Nifti1Pair, "a.img"),
     (nib.Nifti2Image, "a.nii"), (nib.Nifti1Image, "A.NII.GZ")],
)  # fmt: skip
def test_formats_give_the_same_map(tmp_path, make, name):
    nib.save(make(VALUES, AFFINE), tmp_path / name)
    volume = read_image(tmp_path / name)
    np.testing.assert_array_equal(volume.data[0], VALUES)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-4)


def test_an_analyze_image_is_read_with_a_warning(tmp_path):
    nib.save(nib.AnalyzeImage(VALUES, AFFINE), tmp_path / "a.img")
    volume = read_image(tmp_path / "a.img")
    assert np.allclose(volume.data[0], VALUES) and "does not define left and right" in volume.remarks[-1]


def test_a_folder_of_pairs_counts_each_once(tmp_path):
    nib.save(nib.Nifti1Pair(VALUES, AFFINE), tmp_path / "conc_tNAA.hdr")
    nib.save(nib.MGHImage(2 * VALUES, AFFINE), tmp_path / "conc_tCr.mgz")
    maps = read_maps(tmp_path)
    assert maps.names == ("tNAA", "tCr")
    np.testing.assert_allclose(maps.maps, np.stack([VALUES, 2 * VALUES]))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("csi.rda", b">>> Begin of header <<<", "Siemens spectra.*spec2nii.*fit"),
        ("csi.SDAT", b"\0" * 99, "Philips spectra.*fit"), ("P12345.7", b"\0" * 99, "GE spectra.*fit"),
        ("meas_MID1.dat", b"\0" * 99, "Siemens spectra"), ("a.dcm", b"\0" * 128 + b"DICM", "DICOM.*dcm2niix"),
        ("IM0001", b"\0" * 128 + b"DICM", "DICOM"), ("a.nrrd", b"NRRD0004", "NRRD.*Slicer"),
        ("a.mnc", b"\x89HDF", "mnc2nii"),
        ("a.npy", b"\x93NUMPY", r"\(array, affine\)"), ("a.mat", b"MATLAB 5.0", "MATLAB"),
        ("a.tif", b"II*\0", "picture"),
        ("a.par", b"#", "dcm2niix"), ("a.zip", b"PK\3\4", "Unpack"), ("a.what", b"?", "not an image by its name"),
        ("a.mgz", b"nonsense", "not a readable image"), ("a.hdr", b"\0" * 348, "pair whose other"),
    ],
)  # fmt: skip
def test_other_files_say_what_to_do(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MapInputError, match=f"(?s){name}.*{said}"):
        read_image(tmp_path / name)


def test_half_a_pair_names_the_other_half(tmp_path):
    nib.save(nib.Nifti1Pair(VALUES, AFFINE), tmp_path / "a.hdr")
    (tmp_path / "a.img").unlink()
    with pytest.raises(MapInputError, match="pair whose other file is not here"):
        read_image(tmp_path / "a.hdr")


@pytest.mark.parametrize(
    ("names", "said"),
    [(("a.rda", "b.rda", "notes.txt"), "2 files of another kind .Siemens spectra.*spec2nii"),
     (("x/y/IM1.dcm",), "1 file of another kind .DICOM"), (("a.png",), "picture")],
)  # fmt: skip
def test_folders_of_other_files_say_what_to_do(tmp_path, names, said):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"?")
    with pytest.raises(MapInputError, match=said):
        discover(tmp_path)


def test_unfetched_content_is_named_on_reading(tmp_path):
    os.symlink(".git/annex/objects/x.nii.gz", tmp_path / "a.nii.gz")
    with pytest.raises(MapInputError, match="a.nii.gz: its content is not here.*git annex get"):
        read_image(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        ({"Metabolites": ["tNAA", "tCr"], "Units": "mM"}, StackNames(("tNAA", "tCr"), "mM")),
        ({"names": "tNAA, tCr"}, StackNames(("tNAA", "tCr"))), (["tNAA", "tCr"], StackNames(("tNAA", "tCr"))),
        ({"labels": {"0": "tNAA", "1": "tCr"}}, StackNames(("tNAA", "tCr"))),
        ({"channels": {"tCr": 2, "tNAA": 1}}, StackNames(("tNAA", "tCr"))),
        ({"maps": [{"name": "tNAA"}, {"name": "tCr"}]}, StackNames(("tNAA", "tCr"))),
        ({"Metabolites": [1, 2]}, None), ({"EchoTime": 0.05}, None), (7, None),
    ],
)  # fmt: skip
def test_names_in_a_json_file_beside_a_stack(tmp_path, record, wanted):
    (tmp_path / "maps.json").write_text(json.dumps(record))
    assert names_beside(tmp_path / "maps.nii.gz") == wanted


def test_a_damaged_json_file_is_named(tmp_path):
    assert names_beside(tmp_path / "maps.nii") is None
    (tmp_path / "maps.json").write_text("{")
    with pytest.raises(MapInputError, match="maps.json: cannot be read as JSON"):
        names_beside(tmp_path / "maps.nii")
