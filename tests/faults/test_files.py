"""Rows 1 to 26: files that are damaged, hostile or of another kind, and what their headers say."""

from __future__ import annotations

import gzip
import tracemalloc
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest

from mrsi_fast.mrsi.geometry import hr_affine
from mrsi_fast.mrsi.io import read_maps
from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.mrsi.nifti import read_nifti
from support.faults import AFFINE, command, fault, head, patched, refused, remarked, save, scan

AGAIN = "Copy or export the file again."


@fault(1)
def test_empty(tmp_path, row):
    (tmp_path / "NAA.nii.gz").write_bytes(b"")
    refused(tmp_path / "NAA.nii.gz", "the file is empty", AGAIN, good=scan(tmp_path / "good"))


@fault(2)
def test_text(tmp_path, row):
    (tmp_path / "NAA.nii.gz").write_text("tNAA;12.3\n" * 9)
    refused(
        tmp_path / "NAA.nii.gz", "is not compressed with gzip", "holds something else", good=scan(tmp_path / "good")
    )


@fault(3)
def test_plain_as_gz(tmp_path, row):
    save(tmp_path / "NAA.nii", head()).rename(tmp_path / "NAA.nii.gz")
    refused(tmp_path / "NAA.nii.gz", "rename it to .nii")


@fault(4)
def test_gz_as_plain(tmp_path, row):
    save(tmp_path / "NAA.nii.gz", head()).rename(tmp_path / "NAA.nii")
    refused(tmp_path / "NAA.nii", "rename it to .nii.gz")


@fault(5)
def test_cut_header(tmp_path, row):
    path = save(tmp_path / "NAA.nii.gz", head())
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:200]))
    refused(path, "truncated within its header")


@fault(6)
def test_cut_data(tmp_path, row):
    path = save(tmp_path / "NAA.nii", head())
    path.write_bytes(path.read_bytes()[:-40])
    refused(path, "the file is truncated", "bytes")


@fault(7)
def test_wrong_crc(tmp_path, row):
    path = save(tmp_path / "NAA.nii.gz", head())
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 0xFF
    path.write_bytes(raw)
    refused(path, "corrupt", AGAIN)


@fault(8)
def test_sizes_of_32767(tmp_path, row):
    refused(patched(save(tmp_path / "NAA.nii", head()), 42, "<3h", 32767, 32767, 32767), "32767 x 32767 x 32767")


@fault(9)
def test_sizes_of_2000(tmp_path, row):
    refused(patched(save(tmp_path / "NAA.nii.gz", head()), 42, "<3h", 2000, 2000, 2000), "values, more than the")


@fault(10)
def test_bomb(tmp_path, row):
    path = save(tmp_path / "conc_NAA.nii.gz", np.zeros((300, 300, 300), np.uint8))
    assert path.stat().st_size < 200_000
    tracemalloc.start()
    with pytest.raises(MapInputError, match="27000000 values, more than the 16777216 accepted"):
        read_maps(path)
    assert tracemalloc.get_traced_memory()[1] < 4e6
    tracemalloc.stop()
    refused(path, "300 x 300 x 300")


@fault(11)
def test_negative_dim(tmp_path, row):
    refused(patched(save(tmp_path / "NAA.nii", head()), 42, "<h", -9), "NAA.nii")


@fault(12)
def test_no_header(tmp_path, row):
    refused(patched(save(tmp_path / "NAA.nii", head()), 40, "<h", 9), "not a valid NIfTI header")
    refused(patched(save(tmp_path / "Cr.nii", head()), 70, "<h", 77), "not a valid NIfTI header")


@fault(13)
def test_axis_without_voxels(tmp_path, row):
    refused(patched(save(tmp_path / "NAA.nii", head()), 42, "<h", 0), "at least one voxel")


@fault(14)
def test_huge_offset(tmp_path, row):
    refused(patched(save(tmp_path / "NAA.nii", head()), 108, "<f", 1e12), "data at byte 1e+12")


@fault(15)
def test_affine_with_nan(tmp_path, row):
    refused(patched(save(tmp_path / "NAA.nii", head()), 280, "<f", np.nan), "not finite")


@fault(16)
def test_affine_of_zeros(tmp_path, row):
    refused(patched(save(tmp_path / "NAA.nii", head()), 280, "<12f", *[0.0] * 12), "singular")


@fault(17)
def test_pixdim_nan(tmp_path, row):
    path = patched(save(tmp_path / "NAA.nii", head(), qform_code=0), 80, "<3f", *[np.nan] * 3)
    remarked(path, "pixdim is not finite")


@fault(18)
def test_slope_nan(tmp_path, row):
    remarked(patched(save(tmp_path / "NAA.nii", head()), 112, "<f", np.inf), "scl_slope is not finite")


@fault(19)
def test_no_qform(tmp_path, row):
    image = nib.Nifti1Image(head(), AFFINE)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "NAA.nii.gz")
    assert command("validate", "-i", tmp_path / "NAA.nii.gz").exit_code == 0


@fault(20)
def test_two_forms(tmp_path, row):
    image = nib.Nifti1Image(head(), AFFINE)
    moved = AFFINE.copy()
    moved[0, 3] += 7
    image.set_qform(moved, 1)
    nib.save(image, tmp_path / "NAA.nii.gz")
    remarked(tmp_path / "NAA.nii.gz", "sform and qform differ by up to 7.00 mm; the sform is used")
    remarked(tmp_path / "NAA.nii.gz", "the qform is used", options=("--form", "q"))
    assert read_nifti(tmp_path / "NAA.nii.gz", "q").affine[0, 3] == pytest.approx(AFFINE[0, 3] + 7)


@fault(21)
def test_shear(tmp_path, row):
    sheared = AFFINE.copy()
    sheared[0, 0] = 2.0
    image = nib.Nifti1Image(head(), sheared)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "NAA.nii.gz")
    remarked(tmp_path / "NAA.nii.gz", "the axes are sheared")


@fault(22)
def test_orientations(row):
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        affine = np.eye(4)
        affine[:3, :3] = np.diag([9.0, 10, 12])[:, order] * signs
        maps = read_maps((head(), affine))
        assert nib.aff2axcodes(hr_affine(maps.affine, (2, 2, 1))) == nib.aff2axcodes(affine)


@fault(23)
def test_units_of_length(tmp_path, row):
    metres = AFFINE.copy()
    metres[:3] /= 1000
    remarked(save(tmp_path / "NAA.nii", head(), metres, xyzt_units=1), "unit is metres; converted to mm")
    refused(save(tmp_path / "Cr.nii", head(), xyzt_units=1), "Correct xyzt_units")


@fault(24)
def test_complex(tmp_path, row):
    refused(
        save(tmp_path / "NAA.nii.gz", np.ones((8, 8, 2, 64), np.complex64)), "spectra or complex data", "Fit it first"
    )


@fault(25)
def test_stack(tmp_path, row):
    path = save(tmp_path / "maps.nii.gz", np.stack([head(), head(level=4)], -1))
    refused(path, "holds 2 maps", "--names")
    assert command("validate", "-i", path, "--names", "tNAA,tCr").exit_code == 0


@fault(26)
def test_colours(tmp_path, row):
    colours = np.zeros((8, 8, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    refused(save(tmp_path / "NAA.nii.gz", colours), "colours or records")
