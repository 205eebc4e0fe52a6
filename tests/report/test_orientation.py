"""Every one of the 48 ways to store an axial slice is shown the same way up, with the right letters."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest

from mrsi_fast.report.orientation import slice_view

ORIENTATIONS = [
    np.array([[axis, flip] for axis, flip in zip(axes, flips, strict=True)])
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


def oriented(volume: np.ndarray, affine: np.ndarray, orientation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    image = nib.Nifti1Image(volume, affine).as_reoriented(orientation)
    return np.asarray(image.dataobj), image.affine


@pytest.mark.parametrize("flips", list(itertools.product((1, -1), repeat=2)))
@pytest.mark.parametrize("swap", [False, True])
def test_axial_slices_are_radiological(swap: bool, flips: tuple[int, int]) -> None:
    volume = np.arange(5 * 7 * 2, dtype=np.float32).reshape(5, 7, 2)  # RAS: x grows to the right, y to the front
    orientation = np.array([[int(swap), flips[0]], [int(not swap), flips[1]], [2, 1]])
    stored, affine = oriented(volume, np.diag([3.0, 2.0, 4.0, 1.0]), orientation)
    view = slice_view(affine)
    assert view.edges == ("R", "L", "P", "A")
    np.testing.assert_array_equal(view.turn(stored[:, :, 0]), volume[::-1, :, 0].T)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    assert view.size_mm(stored.shape[:2], (sizes[0], sizes[1])) == (15.0, 14.0)


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_edges_name_the_direction_of_the_shown_axes(orientation: np.ndarray) -> None:
    axis_of = {"L": 0, "R": 0, "P": 1, "A": 1, "I": 2, "S": 2}
    position = np.stack(np.meshgrid(*[np.arange(4.0)] * 3, indexing="ij"), axis=-1)
    channels = [oriented(position[..., axis], np.eye(4), orientation) for axis in range(3)]
    view = slice_view(channels[0][1])
    left, right, bottom, top = view.edges
    shown = [view.turn(volume[:, :, 0]) for volume, _ in channels]  # R, A, S coordinates as drawn
    for low, high, step in ((left, right, (0, 1)), (bottom, top, (1, 0))):
        assert axis_of[low] == axis_of[high]
        change = shown[axis_of[high]][step] - shown[axis_of[high]][0, 0]
        assert change == (1 if high in "RAS" else -1)


def test_oblique_angle_is_reported() -> None:
    angle = np.deg2rad(12.0)
    affine = np.eye(4)
    affine[:2, :2] = 5 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert slice_view(affine).oblique_deg == pytest.approx(12.0)
    assert slice_view(np.diag([-5.0, 5.0, 8.0, 1.0])).oblique_deg == 0.0
