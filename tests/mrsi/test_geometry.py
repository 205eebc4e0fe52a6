"""Grids: the field of view stays, voxel j covers its f finer voxels, orientations survive, bad affines are refused."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest

from mrsi_fast.mrsi.geometry import (
    check_affine,
    describe_grid,
    fov_corner_difference_mm,
    fov_corners_mm,
    hr_affine,
    parse_factors,
    shear_cosine,
    voxel_sizes_mm,
)
from mrsi_fast.mrsi.mapset import MapInputError


def oblique(sizes=(5.0, 5.5, 8.0), angles=(0.2, -0.15, 0.4), origin=(-60.0, 31.5, 12.25)):
    affine = np.eye(4)
    affine[:3, :3] = nib.eulerangles.euler2mat(*angles) * sizes
    affine[:3, 3] = origin
    return affine


ORIENTATIONS = [
    np.array([[perm[row] == column for column in range(3)] for row in range(3)]) * np.array(signs)
    for perm in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


@pytest.mark.parametrize("factors", [(2, 2, 1), (4, 4, 1), (8, 8, 1), (4, 2, 1), (8, 1, 1), (2, 2, 2)])
@pytest.mark.parametrize("shape", [(14, 14, 3), (46, 46, 10), (33, 47, 1)])
def test_fov_corners_do_not_move(factors, shape):
    affine = oblique()
    finer = tuple(n * f for n, f in zip(shape, factors, strict=True))
    assert fov_corner_difference_mm(affine, shape, hr_affine(affine, factors), finer) < 1e-10


def test_lr_centres_lie_at_the_stated_hr_positions():
    affine, factors = oblique(), (4, 2, 1)
    fine = hr_affine(affine, factors)
    for j in ((0, 0, 0), (3, 7, 2), (13, 1, 0)):
        position = [(n + 0.5) * f - 0.5 for n, f in zip(j, factors, strict=True)]
        np.testing.assert_allclose(fine @ [*position, 1], affine @ [*j, 1], atol=1e-10)


def test_the_usual_shortcuts_would_move_the_fov():
    """Guards the test above: nibabel's rescale_affine and a plain division fail it by millimetres."""
    affine, shape, finer = oblique((5, 5, 8)), (24, 24, 16), (48, 48, 32)
    divided = affine.copy()
    divided[:3, :3] /= 2
    assert fov_corner_difference_mm(affine, shape, divided, finer) > 1
    rescaled = nib.affines.rescale_affine(affine, shape, (2.5, 2.5, 4), finer)
    assert fov_corner_difference_mm(affine, shape, rescaled, finer) > 1


def test_finer_and_back_is_the_identity():
    np.testing.assert_allclose(hr_affine(hr_affine(oblique(), (4, 2, 1)), (0.25, 0.5, 1)), oblique(), atol=1e-12)


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_48_orientations_keep_their_axis_codes_and_sizes(orientation):
    affine = np.eye(4)
    affine[:3, :3] = orientation * np.array([10.0, 9.0, 12.0])
    affine[:3, 3] = 3, -4, 5
    fine = hr_affine(affine, (4, 2, 1))
    assert nib.aff2axcodes(fine) == nib.aff2axcodes(affine)
    np.testing.assert_allclose(voxel_sizes_mm(fine), np.array(voxel_sizes_mm(affine)) / (4, 2, 1))
    assert fov_corner_difference_mm(affine, (5, 6, 7), fine, (20, 12, 7)) < 1e-10


def test_there_are_48_orientations():
    assert len({matrix.tobytes() for matrix in map(np.ascontiguousarray, ORIENTATIONS)}) == 48


def test_fov_corners_of_a_known_grid():
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    np.testing.assert_allclose(fov_corners_mm(affine, (4, 2, 1)).min(axis=0), [-1, -1.5, -2])
    np.testing.assert_allclose(fov_corners_mm(affine, (4, 2, 1)).max(axis=0), [7, 4.5, 2])


def test_corner_difference_of_a_known_shift():
    moved = oblique()
    moved[:3, 3] += (3.0, 0.0, 4.0)
    assert fov_corner_difference_mm(oblique(), (4, 4, 4), moved, (4, 4, 4)) == pytest.approx(5.0)


def test_shear_is_measured():
    affine = np.diag([10.0, 10.0, 12.0, 1.0])
    assert shear_cosine(affine) == 0
    affine[0, 1] = 10 * np.tan(np.radians(5))
    assert shear_cosine(affine) == pytest.approx(np.sin(np.radians(5)))


@pytest.mark.parametrize(
    ("affine", "words"),
    [
        (np.zeros((4, 4)), "singular"),
        (np.diag([1.0, 1.0, 0.0, 1.0]), "singular"),
        (np.full((4, 4), np.nan), "not finite"),
        (np.diag([1.0, np.inf, 1.0, 1.0]), "not finite"),
        (np.eye(3), "shape"),
        (np.diag([1.0, 1.0, 1.0, 2.0]), "last row"),
        ("north", "not a matrix"),
    ],
)
def test_unusable_affines_are_refused_with_a_sentence(affine, words):
    with pytest.raises(MapInputError, match=f"tNAA.nii.*{words}"):
        check_affine(affine, "tNAA.nii")


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_singularity_does_not_depend_on_the_units(size):
    assert check_affine(np.diag([size, size, size, 1.0]), "x")[0, 0] == size


@pytest.mark.parametrize(
    ("scale", "factors"),
    [(4, (4, 4, 1)), ("2", (2, 2, 1)), ("4,2", (4, 2, 1)), ((4, 2, 1), (4, 2, 1)), ([8, 1], (8, 1, 1)),
     (2.0, (2, 2, 1)), ("8, 8, 1", (8, 8, 1))],
)  # fmt: skip
def test_scales(scale, factors):
    assert parse_factors(scale) == factors


@pytest.mark.parametrize("scale", [0, 1, 3, -2, 1.5, 16, "x4", "", "8,8,8", (4, 4, 4, 1), (1, 1, 1), None, "2,3"])
def test_other_scales_are_usage_errors_that_list_the_choices(scale):
    with pytest.raises(ValueError, match="2, 4 or 8|one of the three factors"):
        parse_factors(scale)


def test_description_names_matrix_voxel_orientation_and_centre():
    affine = np.diag([-10.0, 10.0, 12.0, 1.0])
    affine[:3, 3] = 65, -65, -12
    assert describe_grid(affine, (14, 14, 3)) == "14x14x3 voxels of 10 x 10 x 12 mm, LAS, centre (0.0, 0.0, 0.0) mm"
