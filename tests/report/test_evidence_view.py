"""Pictures of self-test and alignment show what was found, where it was found."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from mrsi_fast.report.alignment_view import PIXEL_MM, alignment_pictures
from mrsi_fast.report.evidence_view import evidence_table, selftest_pictures
from mrsi_fast.report.html import write_page, write_report
from mrsi_fast.report.view import ResultView
from support.results import save, view


def tested(shift_mm: float = 0.0, used: bool = True) -> ResultView:
    """A result whose self-test brought the maps back with an error of 1 in one voxel."""
    matrix = np.eye(4)
    matrix[0, 3] = shift_mm
    alignment = {"matrix": matrix.tolist()}
    facts = {"error": 0.9, "amplitude": 1.23456, "verdict": "adds true detail"}
    evidence = {"maps": {"tNAA": facts}, "guidance": {"used": used, "reason": "T1.", "alignment": alignment}}
    shown = view(evidence=evidence)
    maps = []
    for one in shown.maps:
        assert one.measured is not None
        back = one.measured.copy()
        back[9, 4, 1] += 1
        maps.append(replace(one, brought_back=back, cut_zero_filled=one.measured + np.float32(0.5)))
    return replace(shown, maps=tuple(maps))


def pixels(data: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)


def test_an_error_of_the_self_test_is_seen_in_its_voxel_alone() -> None:
    shown = tested()
    pictures = {label: pixels(still.data) for label, still, _, _ in selftest_pictures(shown, shown.maps[0], 1)}
    assert list(pictures) == ["measured", "brought back", "zero-filled", "error, brought back", "error, zero-filled"]
    error = pictures["error, brought back"]
    # x runs to the left of the patient, so to the right of a radiological picture; y upwards from the bottom
    red = np.argwhere(error[..., 0] > error[..., 2] + 60)
    assert red.tolist() == [[14 - 1 - 4, 9]]
    untrusted = (error == 158).all(axis=-1)
    assert untrusted[:, 0].all() and not untrusted[:, 2:].any()


def test_no_self_test_no_pictures_and_no_column_for_what_was_not_tried() -> None:
    shown = view()
    assert selftest_pictures(shown, shown.maps[0], 1) == []
    table = evidence_table(tested().record)
    assert table is not None and "total variation's" not in table["heads"]
    assert table["rows"][0] == ("tNAA", "0.900", "1.23", "?", "adds true detail")


@pytest.mark.parametrize("shift", [0.0, 10.0])
def test_the_image_moves_and_the_outlines_do_not(tmp_path: Path, shift: float) -> None:
    shown = tested(shift)
    image = np.zeros((80, 80, 24), np.float32)
    image[38:42] = 100.0  # a sheet at x = 0
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-79, -79, -23)
    nib.save(nib.Nifti1Image(image, affine), tmp_path / "T1.nii.gz")
    matrix = np.eye(4)
    matrix[0, 3] = shift
    found = alignment_pictures(shown, tmp_path / "T1.nii.gz", matrix)
    assert [one.plane for one in found["before"]] == ["axial", "coronal", "sagittal"]
    before, after = (pixels(found[key][0].data) for key in ("before", "after"))
    orange = [(one == (255, 176, 0)).all(axis=-1) for one in (before, after)]
    assert orange[0].any() and (orange[0] == orange[1]).all()

    def sheet(picture: np.ndarray) -> float:
        grey = np.where((picture == picture[..., :1]).all(axis=-1), picture[..., 0], 0)
        return float((grey.sum(axis=0) * np.arange(grey.shape[1])).sum() / grey.sum())

    # towards +x, the patient's right, is to the left of the picture
    assert sheet(before) - sheet(after) == pytest.approx(shift / PIXEL_MM, abs=0.3)


@pytest.mark.parametrize("used", [True, False])
def test_the_page_shows_both_and_says_whether_the_image_was_used(tmp_path: Path, used: bool) -> None:
    nib.save(nib.Nifti1Image(np.ones((60, 60, 20), np.float32), np.diag([3.0, 3, 3, 1])), tmp_path / "T1.nii.gz")
    text = write_page(tested(3.0, used), tmp_path / "report.html", tmp_path / "T1.nii.gz").read_text()
    assert "Pictures of the self-test, slice " in text
    assert ("after alignment" in text) is used and ("(not used)" in text) is not used
    assert "outlines of the maps" not in write_page(tested(), tmp_path / "none.html").read_text()


def test_files_give_the_same_pictures_as_the_run(tmp_path: Path) -> None:
    shown = replace(tested(), title="results")
    sidecar = save(shown, tmp_path / "results")
    page = write_report(tmp_path / "results", [sidecar], tmp_path / "again.html")
    assert page.read_bytes() == write_page(shown, tmp_path / "direct.html").read_bytes()
