"""Slices: found on any axis, moved to the end and back, no voxel moves in space; a matrix too small is refused."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest

from mrsi_fast.mrsi.geometry import factors_label, fov_corners_mm, parse_factors
from mrsi_fast.mrsi.io import read_maps
from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.mrsi.planes import back_to, check_matrix, find_slice_axis, order_with_last, reordered, slices_last


@pytest.mark.parametrize(
    ("shape", "sizes", "axis"),
    [
        ((16, 16, 3), (10, 10, 12), 2),
        ((3, 16, 16), (15, 7.5, 7.5), 0),
        ((16, 1, 16), (10, 15, 10), 1),
        ((1, 16, 16), (10, 10, 10), 0),
        ((16, 16, 1), (20, 10, 10), 2),
        ((32, 42, 22), (5, 5, 5.25), 2),
        ((22, 42, 32), (5, 5, 5.3), 2),
        ((22, 32, 42), (5.3, 5, 5), 0),
        ((16, 16, 16), (10, 10, 10), 2),
        ((16, 16, 8), (10, 10, 10), 2),
        ((8, 16, 16), (10, 10, 10), 2),
        ((3, 16, 16), (10, 10, 10), 0),
        ((16, 4, 16), (10, 10, 10), 1),
        ((64, 64, 10), (3.4, 3.4, 2.0), 2),
        ((10, 64, 64), (2.0, 3.4, 3.4), 0),
        ((20, 24, 6), (8, 10, 15), 2),
        ((20, 24, 20), (8, 9, 9.5), 2),
        ((1, 1, 8), (20, 20, 20), 2),
        ((24, 6, 6), (10, 10, 10), 2),
    ],
)
def test_the_axis_of_the_slices(shape, sizes, axis):
    assert find_slice_axis(np.diag([*sizes, 1.0]), shape, "maps") == axis
    oblique = np.eye(4)
    oblique[:3, :3] = nib.eulerangles.euler2mat(0.3, 0.2, -0.4) @ np.diag(np.array(sizes) * (-1, 1, -1))
    assert find_slice_axis(oblique, shape, "maps") == axis


def test_matrix_and_voxel_sizes_that_contradict_each_other_ask_the_user():
    with pytest.raises(
        MapInputError, match="maps: by the matrix 3x16x16 .* the first axis, .* the third. Say which with --sl"
    ):
        find_slice_axis(np.diag([10.0, 10, 15, 1]), (3, 16, 16), "maps")
    values = np.random.default_rng(0).uniform(1, 2, (3, 16, 16))
    given = (values, np.diag([10.0, 10, 15, 1]))
    assert read_maps(given, slice_axis=0).slice_axis == 0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_turning_moves_no_voxel_and_can_be_undone(axis):
    generator = np.random.default_rng(0)
    affine = np.eye(4)
    affine[:3, :3] = nib.eulerangles.euler2mat(0.3, 0.2, -0.4) @ np.diag([8.0, -9.0, 12.0])
    affine[:3, 3] = 4, -7, 30
    values = generator.normal(size=(2, 7, 8, 9)).astype(np.float32)
    maps = read_maps((values, affine), names=["tNAA", "Ins"], crlb=np.abs(values), snr=values[0], mask=values[0] > 0,
                     slice_axis=axis)  # fmt: skip
    turned = slices_last(maps)
    assert turned.slice_axis == 2 and turned.shape == tuple(maps.shape[i] for i in order_with_last(axis))
    for place in itertools.product((0, 3, 6), (1, 5), (2, 8)):
        there = [place[i] for i in order_with_last(axis)]
        assert (turned.maps[:, *there] == values[:, *place]).all()
        assert turned.mask[*there] == maps.mask[place] and (turned.crlb[:, *there] == maps.crlb[:, *place]).all()
        np.testing.assert_allclose(turned.affine @ [*there, 1], affine @ [*place, 1], atol=1e-9)
    np.testing.assert_array_equal(reordered(turned.affine, back_to(axis)), affine)
    corners = {tuple(np.round(c, 6)) for c in fov_corners_mm(affine, maps.shape)}
    assert corners == {tuple(np.round(c, 6)) for c in fov_corners_mm(turned.affine, turned.shape)}


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 1, 8), (2, 2, 1), (4, 4, 1), (5, 7, 1), (7, 5, 3), (3, 3, 3), (64, 1, 5)]
)
def test_a_matrix_too_small_is_refused_with_the_number(shape):
    values = np.random.default_rng(0).uniform(1, 2, shape)
    maps = read_maps((values, np.diag([10.0, 10, 10, 1])), names=["tNAA"])
    with pytest.raises(MapInputError, match="too few to super-resolve: at least 6x6 are needed"):
        check_matrix(maps)


@pytest.mark.parametrize("shape", [(6, 6, 1), (7, 6, 2), (1, 6, 9), (17, 33, 1)])
def test_the_smallest_matrix_and_odd_ones_pass(shape):
    check_matrix(read_maps((np.random.default_rng(0).uniform(1, 2, shape), np.diag([10.0, 10, 10, 1])), names=["tNAA"]))


@pytest.mark.parametrize(
    ("scale", "axis", "factors", "name"),
    [
        (2, 0, (1, 2, 2), "x2"),
        ("4,2", 0, (1, 4, 2), "x4x2"),
        ("4,2", 1, (4, 1, 2), "x4x2"),
        ("1,2,2", 0, (1, 2, 2), "x2"),
        ("1,2,1", 0, (1, 2, 1), "x1x2"),
        ("4,2,1", None, (4, 2, 1), "x4x2"),
        ("1,8,8", None, (1, 8, 8), "x8"),
        (8, None, (8, 8, 1), "x8"),
        ("2,2,2", 2, (2, 2, 2), "x2x2x2"),
        ("4,8,8", 0, (4, 8, 8), "x4x8x8"),
        ((1, 1, 4), 2, (1, 1, 4), "x1x1x4"),
        ((2, 1, 2), 2, (2, 1, 2), "x2x1x2"),
    ],
)
def test_factors_by_array_axis(scale, axis, factors, name):
    assert parse_factors(scale, axis) == factors
    assert factors_label(factors, axis) == name


def test_a_large_factor_along_the_slices_is_refused():
    with pytest.raises(ValueError, match="at most 4 times is offered: the first of the three factors"):
        parse_factors("8,2,1", 0)
    with pytest.raises(ValueError, match="8 times through the plane; at most 4 times is offered: one of the three"):
        parse_factors("8,8,8")
