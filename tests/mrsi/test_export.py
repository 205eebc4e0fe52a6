"""Writing: geometry and numbers survive, identities do not, files are whole or absent."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mrsi_fast.mrsi.export import DESCRIPTIONS, refuse_overwrite, without_identity, write_map, write_sidecar
from mrsi_fast.mrsi.geometry import hr_affine
from mrsi_fast.mrsi.io import read_maps
from mrsi_fast.mrsi.mapset import MapInputError

AFFINE = np.array([[0, -10, 0, 64], [-10, 0, 0, 58], [0, 0, 12, 31], [0, 0, 0, 1.0]])


def values(shape=(5, 4, 3), dtype=np.float32):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, bool])
def test_stored_as_float32_with_slope_one_and_both_forms(tmp_path, name, dtype):
    source = values(dtype=dtype)
    write_map(tmp_path / name, source[::-1], AFFINE, kind="mean", name="tNAA", xform_code=1, window=(0.0, 2.5))
    image = nib.load(tmp_path / name)
    assert image.get_data_dtype() == np.float32 and image.dataobj.slope == 1 and image.dataobj.inter == 0
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), source[::-1].astype(np.float32))
    qform, q_code = image.get_qform(coded=True)
    sform, s_code = image.get_sform(coded=True)
    assert q_code == s_code == 1 and image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(qform, AFFINE, atol=1e-4)
    np.testing.assert_array_equal(sform, AFFINE)
    assert (float(image.header["cal_min"]), float(image.header["cal_max"])) == (0.0, 2.5)
    assert image.header.get_intent()[::2] == ("estimate", "NAANAAG")


@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_48_orientations_in_are_48_orientations_out(tmp_path, order, signs):
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[list(order)] * np.array(signs) @ np.diag([10.0, 9.0, 12.0])
    affine[:3, 3] = 11, -7, 3
    source = values((3, 4, 2))
    write_map(tmp_path / "lr.nii.gz", source, affine, kind="map", name="Ins")
    maps = read_maps(tmp_path / "lr.nii.gz", names=["Ins"])
    fine = hr_affine(maps.affine, (2, 4, 1))
    write_map(tmp_path / "hr.nii.gz", maps.maps[0].repeat(2, 0).repeat(4, 1), fine, kind="mean", name="Ins")
    out = nib.load(tmp_path / "hr.nii.gz")
    assert nib.aff2axcodes(out.affine) == nib.aff2axcodes(out.get_qform()) == nib.aff2axcodes(affine)
    np.testing.assert_allclose(out.get_qform(), fine, atol=1e-4)
    np.testing.assert_array_equal(out.get_fdata(dtype=np.float32)[::2, ::4], source)


def test_nothing_personal_of_an_input_is_carried_over(tmp_path):
    """The input names a patient in its extension, description, auxiliary file and intent; the output's bytes do not."""
    image = nib.Nifti1Image(values(), AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension(44, b'{"PatientName": "Jane Roe", "PatientID": "4711"}'))
    image.header["descrip"] = b"Jane Roe 4711"
    image.header["aux_file"] = b"Jane Roe"
    image.header["db_name"] = b"Jane Roe"
    image.header["intent_name"] = b"Jane Roe"
    nib.save(image, tmp_path / "tNAA.nii")
    assert b"Jane Roe" in (tmp_path / "tNAA.nii").read_bytes()
    maps = read_maps(tmp_path / "tNAA.nii")
    write_map(tmp_path / "out.nii", maps.maps[0], maps.affine, kind="mean", name=maps.names[0])
    raw = (tmp_path / "out.nii").read_bytes()
    assert b"Jane" not in raw and b"Roe" not in raw and b"4711" not in raw
    out = nib.load(tmp_path / "out.nii")
    assert len(out.header.extensions) == 0
    assert bytes(out.header["descrip"]).rstrip(b"\0").decode() == DESCRIPTIONS["mean"]


def test_an_unknown_name_leaves_no_text_in_the_header(tmp_path):
    write_map(tmp_path / "a.nii", values(), AFFINE, kind="mean", name="Jane Roe")
    assert b"Jane" not in (tmp_path / "a.nii").read_bytes()
    assert all(len(text) <= 79 for text in DESCRIPTIONS.values())


def test_equal_maps_give_equal_bytes_and_no_file_name_inside(tmp_path):
    for name in ("one.nii.gz", "two.nii.gz"):
        write_map(tmp_path / name, values(), AFFINE, kind="mean")
    one, two = ((tmp_path / name).read_bytes() for name in ("one.nii.gz", "two.nii.gz"))
    assert one == two and b"one" not in one[:64]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.nii.gz", "two.nii.gz"]


def test_a_sheared_affine_is_kept_in_the_sform(tmp_path):
    sheared = AFFINE.copy()
    sheared[0, 0] = 1.5
    write_map(tmp_path / "a.nii", values(), sheared, kind="mean")
    image = nib.load(tmp_path / "a.nii")
    np.testing.assert_allclose(image.get_sform(), sheared, atol=1e-5)
    sizes = np.linalg.norm(sheared[:3, :3], axis=0)
    left, _, right = np.linalg.svd(sheared[:3, :3] / sizes)
    straight = sheared.copy()
    straight[:3, :3] = (left @ right) * sizes  # nearest orthogonal axes (polar factor): a qform has no shear
    np.testing.assert_allclose(image.get_qform(), straight, atol=1e-4)


def test_odd_space_codes_become_scanner(tmp_path):
    for code, stored in ((0, 1), (3, 3), (77, 1)):
        write_map(tmp_path / "a.nii", values(), AFFINE, kind="mean", xform_code=code)
        assert int(nib.load(tmp_path / "a.nii").header["qform_code"]) == stored


def test_an_input_is_never_overwritten(tmp_path):
    source = tmp_path / "in.nii"
    source.write_bytes(b"precious")
    os.symlink(source, tmp_path / "link.nii")
    os.link(source, tmp_path / "twin.nii")
    for name in ("in.nii", "link.nii", "twin.nii", "./sub/../in.nii"):
        (tmp_path / "sub").mkdir(exist_ok=True)
        with pytest.raises(MapInputError, match="input of this run"):
            write_map(tmp_path / name, values(), AFFINE, kind="mean", inputs=[source])
    with pytest.raises(MapInputError, match="input of this run"):
        write_sidecar(source, {}, inputs=[tmp_path / "absent", str(source)])
    assert source.read_bytes() == b"precious"
    refuse_overwrite(tmp_path / "new.nii", [source])


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    target = tmp_path / "a.nii"
    target.write_bytes(b"old")

    def disk_full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", disk_full)
    with pytest.raises(OSError, match="No space"):
        write_map(target, values(), AFFINE, kind="mean")
    assert target.read_bytes() == b"old" and [path.name for path in tmp_path.iterdir()] == ["a.nii"]


@pytest.mark.parametrize(
    ("name", "shape", "affine", "words"),
    [("a.mgz", (2, 2, 2), AFFINE, "written as .nii"), ("a.nii", (2, 2), AFFINE, "one map"),
     ("a.nii", (2, 2, 2), np.zeros((4, 4)), "singular")],
)  # fmt: skip
def test_what_cannot_be_written_is_refused(tmp_path, name, shape, affine, words):
    with pytest.raises(MapInputError, match=words):
        write_map(tmp_path / name, values(shape), affine, kind="mean")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("/home/jane/study/tNAA.nii.gz", "tNAA.nii.gz"),
        ("/home/jane roe/a b.nii", "a b.nii"),
        ("C:\\Users\\Jane\\x.nii", "x.nii"),
        ("~/x/y.nii", "y.nii"),
        ("\\\\server\\share\\x.nii", "x.nii"),
        ("sr -i /data/jane/x.nii -o ~/out/y --scale 4", "sr -i x.nii -o y --scale 4"),
        ("read from '/data/jane/' and C:/Users/Jane/z.nii", "read from 'jane' and z.nii"),
        ("tCho/tNAA in mmol/L, 1/2, a / b", "tCho/tNAA in mmol/L, 1/2, a / b"),
        ("https://doi.org/10.1007/s10278-025-01652-x", "https://doi.org/10.1007/s10278-025-01652-x"),
        ("results/sub-01/x.nii", "results/sub-01/x.nii"),
    ],
)
def test_absolute_paths_are_cut_to_their_last_part(text, kept):
    assert without_identity({"a": [text]}) == {"a": [kept]}


def test_sidecar_is_plain_json(tmp_path):
    record = {"Scale": (4, 4, 1), "Seed": np.int64(7), "Residual": np.float32(0.5), "Std": float("nan"), "Ok": np.True_,
              "Grid": np.eye(2), "Input": tmp_path / "tNAA.nii.gz", "Nothing": None, "Text": "µmol/g"}  # fmt: skip
    write_sidecar(tmp_path / "a.json", record)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert str(tmp_path) not in text and "NaN" not in text
    assert json.loads(text) == {
        "Scale": [4, 4, 1], "Seed": 7, "Residual": 0.5, "Std": None, "Ok": True, "Grid": [[1, 0], [0, 1]],
        "Input": "tNAA.nii.gz", "Nothing": None, "Text": "µmol/g"}  # fmt: skip


def test_keys_that_name_people_or_machines_and_odd_values_are_errors(tmp_path):
    with pytest.raises(ValueError, match="must not hold Host"):
        write_sidecar(tmp_path / "a.json", {"run": [{"Host": "scanner-pc"}]})
    with pytest.raises(TypeError, match="holds a object"):
        write_sidecar(tmp_path / "a.json", {"x": object()})
    assert list(tmp_path.iterdir()) == []
