"""One NIfTI file in: good files give their numbers and place, every bad one a sentence of ours."""

from __future__ import annotations

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest

from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.mrsi.nifti import read_nifti, volume_from_image

AFFINE = np.array([[0, -10, 0, 64], [-10, 0, 0, 58], [0, 0, 12, 31], [0, 0, 0, 1.0]])


def image(shape=(5, 4, 3), dtype=np.float32, affine=AFFINE, seed=0):
    return nib.Nifti1Image(np.random.default_rng(seed).uniform(0, 9, shape).astype(dtype), affine)


def content(of=None, patch=()):
    """Bytes of an image with header fields replaced: (offset, struct format, values...)."""
    raw = bytearray((of or image()).to_bytes())
    for offset, form, *values in patch:
        struct.pack_into(form, raw, offset, *values)
    return bytes(raw)


DIM, DATATYPE, BITPIX, PIXDIM, VOX_OFFSET, SLOPE, UNITS, QFORM, SFORM, SROW, INTENT = (
    40, 70, 72, 76, 108, 112, 123, 252, 254, 280, 328)  # fmt: skip


@pytest.mark.parametrize("name", ["map.nii", "map.nii.gz", "MAP.NII.GZ", "a b ä 🧠.nii.gz"])
def test_values_and_place_are_read(tmp_path, name):
    source = image()
    raw = source.to_bytes()
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.lower().endswith("gz") else raw)
    volume = read_nifti(tmp_path / name)
    assert volume.data.dtype == np.float32 and volume.data.shape == (1, 5, 4, 3)
    np.testing.assert_array_equal(volume.data[0], source.get_fdata(dtype=np.float32))
    np.testing.assert_array_equal(volume.affine, AFFINE)
    assert volume.remarks == () and volume.xform_code == 2


@pytest.mark.parametrize("make", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_versions_byte_orders_and_types(tmp_path, make, order, dtype):
    values = np.arange(60).reshape(5, 4, 3)
    header = make.header_class(endianness=order)
    header.set_data_dtype(dtype)
    path = tmp_path / "map.nii.gz"
    nib.save(make(values.astype(np.dtype(dtype).newbyteorder(order)), AFFINE, header), path)
    np.testing.assert_array_equal(read_nifti(path).data[0], values)


def test_integer_storage_is_scaled_by_slope_and_intercept(tmp_path):
    path = tmp_path / "map.nii"
    path.write_bytes(content(image(dtype=np.int16), [(SLOPE, "<2f", 0.5, 3.0)]))
    stored = np.random.default_rng(0).uniform(0, 9, (5, 4, 3)).astype(np.int16)
    np.testing.assert_allclose(read_nifti(path).data[0], stored * 0.5 + 3.0, rtol=1e-6)


def test_fewer_and_more_axes(tmp_path):
    nib.save(image((5, 4)), tmp_path / "flat.nii")
    assert read_nifti(tmp_path / "flat.nii").data.shape == (1, 5, 4, 1)
    nib.save(image((5, 4, 3, 1, 1)), tmp_path / "tail.nii")
    assert read_nifti(tmp_path / "tail.nii").data.shape == (1, 5, 4, 3)
    stack = image((5, 4, 3, 2))
    nib.save(stack, tmp_path / "stack.nii")
    np.testing.assert_array_equal(read_nifti(tmp_path / "stack.nii").data[1], stack.get_fdata(dtype=np.float32)[..., 1])


BAD_FILES = {
    "empty": (b"", "map.nii.gz", "is empty"),
    "text as gz": (b"not an image at all", "map.nii.gz", "not compressed with gzip"),
    "plain as gz": (content(), "map.nii.gz", "rename it to .nii"),
    "gz as plain": (gzip.compress(content()), "map.nii", "rename it to .nii.gz"),
    "text as nii": (b"x" * 400, "map.nii", "not a valid NIfTI header"),
    "other suffix": (content(), "map.img", "not a NIfTI file by its name"),
    "gz cut in the header": (gzip.compress(content())[:40], "map.nii.gz", "truncated"),
    "gz cut in the data": (gzip.compress(content(), 0)[:-60], "map.nii.gz", "truncated"),
    "nii cut in the header": (content()[:200], "map.nii", "truncated within its header"),
    "nii cut in the data": (content()[:-8], "map.nii", "truncated"),
    "gz content too short": (gzip.compress(content()[:-8]), "map.nii.gz", "truncated"),
    "wrong gzip checksum": (gzip.compress(content())[:-8] + b"\0" * 8, "map.nii.gz", "corrupt.*CRC"),
    "flipped bit in the data": (None, "map.nii.gz", "CRC|damaged"),
    "huge dims": (content(patch=[(DIM, "<4h", 3, 32767, 32767, 32767)]), "map.nii", "has 32767 x 32767 x 32767"),
    "huge dims gz": (gzip.compress(content(patch=[(DIM, "<4h", 3, 2000, 2000, 2000)])), "map.nii.gz", "more than"),
    "negative dim": (content(patch=[(DIM, "<4h", 3, 5, -4, 3)]), "map.nii", "at least one voxel"),
    "zero-length axis": (content(patch=[(DIM, "<4h", 3, 0, 4, 3)]), "map.nii", "at least one voxel"),
    "nine axes": (content(patch=[(DIM, "<h", 9)]), "map.nii", "not a valid NIfTI header"),
    "unknown type": (content(patch=[(DATATYPE, "<h", 77)]), "map.nii", "not a valid NIfTI"),
    "colours": (content(patch=[(DATATYPE, "<2h", 128, 24)]), "map.nii", "colours"),
    "complex": (content(image(dtype=np.complex64)), "map.nii", "spectra or complex data.*Fit it first"),
    "huge offset": (content(patch=[(VOX_OFFSET, "<f", 1e12)]), "map.nii", "data at byte"),
    "NaN offset": (content(patch=[(VOX_OFFSET, "<f", np.nan)]), "map.nii", "not a valid NIfTI"),
    "negative offset": (content(patch=[(VOX_OFFSET, "<f", -1)]), "map.nii", "not a valid NIfTI"),
    "NaN affine": (content(patch=[(SROW + 4, "<f", np.nan)]), "map.nii", "not finite"),
    "zero affine": (content(patch=[(SROW, "<12f", *[0.0] * 12)]), "map.nii", "singular"),
    "metres that are not": (content(patch=[(UNITS, "<B", 1)]), "map.nii", "unit is metres.*Correct xyzt_units"),
    "trailing gigabytes": (gzip.compress(content() + bytes(2**24 + 2), 1), "map.nii.gz", "bytes follow the data"),
}


@pytest.mark.parametrize("fault", BAD_FILES)
def test_every_bad_file_is_one_sentence(tmp_path, fault):
    raw, name, words = BAD_FILES[fault]
    if fault == "flipped bit in the data":
        raw = bytearray(gzip.compress(content(), 0))
        raw[-100] ^= 1
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(MapInputError, match=words) as error:
        read_nifti(tmp_path / name)
    message = str(error.value)
    assert message.startswith(name + ": ") and str(tmp_path) not in message and "\n" not in message


def test_missing_and_folder(tmp_path):
    with pytest.raises(MapInputError, match="no such file"):
        read_nifti(tmp_path / "map.nii")
    (tmp_path / "map.nii").mkdir()
    with pytest.raises(MapInputError, match="not a file"):
        read_nifti(tmp_path / "map.nii")


def test_every_truncation_and_many_bit_flips_end_in_our_error_or_a_volume(tmp_path):
    whole = content(image((2, 2, 1)))
    generator = np.random.default_rng(1)
    path = tmp_path / "map.nii"
    outcomes = set()
    for trial in range(400):
        raw = bytearray(whole[: trial % len(whole)] if trial % 2 else whole)
        for position in generator.integers(0, max(len(raw), 1), 3):
            raw[position : position + 1] = bytes([generator.integers(256)])
        path.write_bytes(raw)
        try:
            outcomes.add(read_nifti(path, max_values=10_000).data.ndim)
        except MapInputError:
            outcomes.add("refused")
    assert outcomes == {4, "refused"}


def test_size_is_refused_before_anything_is_allocated(tmp_path, monkeypatch):
    """A gzip bomb: the header alone must be enough to refuse it."""
    bomb = content(patch=[(DIM, "<4h", 3, 1024, 1024, 1024)]) + bytes(10**6)
    (tmp_path / "map.nii.gz").write_bytes(gzip.compress(bomb))
    read = gzip.GzipFile.read
    taken = []
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, size=-1: taken.append(size) or read(self, size))
    with pytest.raises(MapInputError, match="1073741824 values"):
        read_nifti(tmp_path / "map.nii.gz")
    assert sum(taken) < 1000


@pytest.mark.parametrize("ecode", [44, 6])
def test_real_spectra_are_told_from_a_map_with_a_left_over_extension(tmp_path, ecode):
    for shape, spectra in (((4, 4, 1, 512), ecode == 44), ((4, 4, 3), False)):
        source = image(shape)
        source.header.extensions.append(nib.nifti1.Nifti1Extension(ecode, b'{"SpectrometerFrequency": [123.2]}'))
        nib.save(source, tmp_path / "map.nii.gz")
        if spectra:
            with pytest.raises(MapInputError, match="NIfTI-MRS, 512 points.*fsl_mrsi"):
                read_nifti(tmp_path / "map.nii.gz")
        else:
            assert read_nifti(tmp_path / "map.nii.gz").data.shape[1:] == shape[:3]


def test_intent_name_alone_marks_spectra():
    source = image((4, 4, 1, 512))
    source.header["intent_name"] = b"mrs_v0_9"
    with pytest.raises(MapInputError, match="spectra"):
        volume_from_image(source, "image")


@pytest.mark.parametrize(("unit", "size"), [(1, 0.010), (3, 10_000.0)])
def test_metres_and_microns_become_mm(tmp_path, unit, size):
    affine = np.diag([size, size, size, 1.0])
    affine[:3, 3] = size
    (tmp_path / "map.nii").write_bytes(content(image(affine=affine), [(UNITS, "<B", unit)]))
    volume = read_nifti(tmp_path / "map.nii")
    np.testing.assert_allclose(volume.affine[:3], np.diag([10.0, 10, 10, 1])[:3] + [0, 0, 0, 10.0], rtol=1e-6)
    assert "converted to mm" in volume.remarks[0]


@pytest.mark.parametrize("unit", [0, 2])
def test_an_unset_unit_is_mm(tmp_path, unit):
    (tmp_path / "map.nii").write_bytes(content(patch=[(UNITS, "<B", unit)]))
    assert read_nifti(tmp_path / "map.nii").remarks == ()


def test_scl_slope_that_is_not_finite_is_remarked(tmp_path):
    (tmp_path / "map.nii").write_bytes(content(patch=[(SLOPE, "<f", np.inf)]))
    volume = read_nifti(tmp_path / "map.nii")
    assert "scl_slope" in volume.remarks[0]
    np.testing.assert_array_equal(volume.data[0], image().get_fdata(dtype=np.float32))


def test_nan_pixdim_with_a_good_sform_is_remarked(tmp_path):
    (tmp_path / "map.nii").write_bytes(content(patch=[(PIXDIM + 4, "<f", np.nan)]))
    volume = read_nifti(tmp_path / "map.nii")
    np.testing.assert_array_equal(volume.affine, AFFINE)
    assert "pixdim" in volume.remarks[0]


def test_sform_without_qform_is_accepted_as_fsl_mrsi_writes_it(tmp_path):
    (tmp_path / "map.nii").write_bytes(content(patch=[(QFORM, "<2h", 0, 2)]))
    assert read_nifti(tmp_path / "map.nii").remarks == ()


def test_qform_that_differs_is_remarked_in_mm_and_can_be_chosen(tmp_path):
    source = image()
    source.set_sform(AFFINE, 1)
    moved = AFFINE.copy()
    moved[:3, 3] += (0, 3, 4)
    source.set_qform(moved, 1)
    nib.save(source, tmp_path / "map.nii")
    volume = read_nifti(tmp_path / "map.nii")
    np.testing.assert_allclose(volume.affine, AFFINE)
    assert "differ by up to 5.00 mm; the sform is used" in volume.remarks[0]
    np.testing.assert_allclose(read_nifti(tmp_path / "map.nii", form="q").affine, moved, atol=1e-4)
    np.testing.assert_allclose(volume_from_image(source, "image", form="q").affine, moved, atol=1e-4)


def test_asking_for_a_form_that_is_not_set_is_refused(tmp_path):
    (tmp_path / "map.nii").write_bytes(content(patch=[(QFORM, "<2h", 0, 2)]))
    with pytest.raises(MapInputError, match="qform was requested but is not set"):
        read_nifti(tmp_path / "map.nii", form="q")


def test_no_orientation_at_all_is_remarked(tmp_path):
    (tmp_path / "map.nii").write_bytes(content(patch=[(QFORM, "<2h", 0, 0)]))
    assert "is unknown" in read_nifti(tmp_path / "map.nii").remarks[0]


def test_shear_is_remarked(tmp_path):
    sheared = AFFINE.copy()
    sheared[0, 0] = 1.0
    nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.float32), sheared), tmp_path / "map.nii")
    volume = read_nifti(tmp_path / "map.nii")
    np.testing.assert_allclose(volume.affine, sheared)
    assert any("sheared (cosine 0.100)" in remark for remark in volume.remarks)


def test_values_beyond_float32_become_infinite_and_nothing_is_printed(tmp_path, capfd):
    nib.save(nib.Nifti1Image(np.array([[[1e300, 1.0]]]), AFFINE), tmp_path / "map.nii")
    assert np.isinf(read_nifti(tmp_path / "map.nii").data[0, 0, 0, 0])
    assert capfd.readouterr() == ("", "")


def test_image_objects_use_their_own_affine(tmp_path):
    built = image()
    np.testing.assert_array_equal(volume_from_image(built, "image").affine, AFFINE)
    nib.save(built, tmp_path / "map.nii.gz")
    loaded = volume_from_image(nib.load(tmp_path / "map.nii.gz"), "image")
    np.testing.assert_array_equal(loaded.data[0], built.get_fdata(dtype=np.float32))
    with pytest.raises(MapInputError, match="image: holds spectra or complex"):
        volume_from_image(image(dtype=np.complex64), "image")
    with pytest.raises(MapInputError, match="more than"):
        volume_from_image(built, "image", max_values=10)


def test_other_image_formats_are_taken_as_objects():
    volume = volume_from_image(nib.MGHImage(np.ones((3, 2, 2), np.float32), AFFINE), "image")
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-4)
