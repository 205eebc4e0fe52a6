"""Interpolated maps are recognised by their traces, measured ones are not; the operator takes a declared matrix."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.interpolated import estimate_acquired_matrix, remarks_on_interpolation
from mrsi_fast.mrsi.io import read_maps
from mrsi_fast.mrsi.mapset import MapSet
from mrsi_fast.mrsi.resampling import values_behind
from mrsi_fast.preparation import AcquisitionSettings, prepare, refined
from support.data import data_dir

AFFINE = np.diag([10.0, 10, 15, 1])
NAMES = ("tNAA", "tCr", "tCho")


def measured(n, window="none", noise=0.08, fine=128):
    """Three maps of two slices as acquired with ``n`` lines: a textured head, sampled in k-space, with fit noise."""
    generator = np.random.default_rng(n)
    x, y = np.meshgrid(*[np.linspace(-1, 1, fine)] * 2, indexing="ij")
    head = (x / 0.7) ** 2 + (y / 0.8) ** 2 < 1
    texture = ndimage.gaussian_filter(generator.normal(size=(6, fine, fine)), (0, 3, 3))
    objects = np.where(head, 10 * (1 + 0.2 * texture / texture.std()), 0.0)
    lines = np.fft.fftshift(np.fft.fft2(objects), axes=(1, 2))
    low = slice(fine // 2 - n // 2, fine // 2 - n // 2 + n)
    radius = np.hypot(*np.meshgrid(*[(np.arange(n) - n // 2) / (n / 2)] * 2, indexing="ij")).clip(0, 1)
    weight = 0.54 + 0.46 * np.cos(np.pi * radius) if window == "hamming" else 1.0
    maps = np.fft.ifft2(np.fft.ifftshift(lines[:, low, low] * weight, axes=(1, 2))).real * (n / fine) ** 2
    return maps + 10 * noise * generator.normal(size=maps.shape)


def zero_filled(maps, size):
    n = maps.shape[-1]
    lines = np.zeros((len(maps), size, size), complex)
    low = slice(size // 2 - n // 2, size // 2 - n // 2 + n)
    lines[:, low, low] = np.fft.fftshift(np.fft.fft2(maps), axes=(1, 2))
    return np.fft.ifft2(np.fft.ifftshift(lines, axes=(1, 2))).real * (size / n) ** 2


def as_set(maps, masked=False, axis=2):
    if masked:
        x, y = np.meshgrid(*[np.linspace(-1, 1, maps.shape[-1])] * 2, indexing="ij")
        maps = maps * ((x / 0.7) ** 2 + (y / 0.8) ** 2 < 1)
    volumes = np.moveaxis(maps.reshape(3, 2, *maps.shape[1:]), 1, -1).astype(np.float32)
    return MapSet(np.moveaxis(volumes, -1, axis - 3), AFFINE, NAMES, slice_axis=axis)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("window", ["none", "hamming"])
@pytest.mark.parametrize("n", [12, 16, 24, 32])
def test_measured_maps_are_left_alone(n, window, masked):
    for noise in (0.02, 0.08, 0.2):
        assert estimate_acquired_matrix(as_set(measured(n, window, noise), masked)) is None


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("n", "size"), [(16, 32), (16, 64), (32, 64), (44, 64)])
def test_zero_filled_maps_are_recognised(n, size, masked):
    found = estimate_acquired_matrix(as_set(zero_filled(measured(n), size), masked))
    assert found is not None and max(abs(one - n) for one in found) <= 2, found


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("n", "size"), [(16, 32), (16, 64), (12, 36), (10, 20), (24, 32)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_repeated_blocks_are_recognised_on_any_axis(n, size, masked, axis):
    index = np.arange(size) * n // size
    found = estimate_acquired_matrix(as_set(measured(n)[:, index][:, :, index], masked, axis))
    assert found is not None and max(abs(one - n) for one in found) <= 1, found


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("fields", [False, True])
@pytest.mark.parametrize(("n", "size"), [(16, 32), (14, 28), (10, 30), (24, 36)])
def test_linear_and_cubic_interpolation_are_recognised(n, size, fields, order, masked):
    """Fields of view or first and last voxels agreeing; as float, and as stored in 16 bits."""
    how = {"grid_mode": True, "mode": "nearest"} if fields else {}
    maps = ndimage.zoom(measured(n), (1, size / n, size / n), order=order, **how)
    step = np.abs(maps).max() / 32767
    for stored in (maps, np.round(maps / step) * step):
        assert estimate_acquired_matrix(as_set(stored, masked)) == (n, n)


@pytest.mark.parametrize("n", [8, 12])
def test_small_zero_filled_maps_without_a_mask_are_recognised(n):
    assert estimate_acquired_matrix(as_set(zero_filled(measured(n), 2 * n))) == (n, n)


def test_smooth_maps_without_noise_are_left_alone():
    x, y = np.meshgrid(*[np.linspace(-1, 1, 32)] * 2, indexing="ij")
    smooth = [10 + 3 * np.cos(2 * x + k) * np.cos(3 * y) + x**2 * y for k in range(6)]
    head = (x / 0.7) ** 2 + (y / 0.8) ** 2 < 1
    assert values_behind(smooth, 32) is None
    assert values_behind([np.where(head, one, np.nan) for one in smooth], 32) is None


def test_one_axis_alone():
    assert estimate_acquired_matrix(as_set(np.repeat(measured(16), 2, axis=1))) == (16, 16)
    assert estimate_acquired_matrix(as_set(np.repeat(measured(16), 4, axis=2))) == (16, 16)


def test_maps_without_detail_of_their_own():
    x, y = np.meshgrid(*[np.linspace(-1, 1, 24)] * 2, indexing="ij")
    plateau = np.broadcast_to(np.where(x**2 + y**2 < 0.6, 5.0, 0.0), (6, 24, 24))
    for toy in (plateau, np.full((6, 24, 24), 3.0), np.zeros((6, 24, 24)), np.full((6, 24, 24), np.nan)):
        assert estimate_acquired_matrix(as_set(toy)) is None
    assert estimate_acquired_matrix(as_set(np.round(measured(16)))) is None, "whole numbers repeat by chance"


def test_the_real_scan_is_as_measured():
    root = data_dir()
    if root is None or not (root / "mrsi_oryx2_mit/K_01").is_dir():
        pytest.skip("needs the real scan mrsi_oryx2_mit/K_01: set MRSI_FAST_DATA")
    scan = read_maps(root / "mrsi_oryx2_mit/K_01")
    assert estimate_acquired_matrix(scan) is None
    twice = MapSet(scan.maps.repeat(2, axis=1).repeat(2, axis=2), scan.affine, scan.names)
    assert estimate_acquired_matrix(twice) == (14, 14)


def test_the_estimate_is_told_unless_the_matrix_is_declared():
    maps = as_set(zero_filled(measured(16), 32))
    (sentence,) = remarks_on_interpolation(maps)
    assert "32x32 voxels in plane but no detail beyond about 16x16" in sentence
    assert "--acquired-matrix 16,16" in sentence
    plain = prepare(maps, 2)
    assert sentence in plain.warnings and plain.volume.factors == (2, 2)
    declared = prepare(maps, 2, acquisition=AcquisitionSettings(matrix=(16, 16)))
    assert sentence not in declared.warnings and declared.volume.factors == (4, 4)
    assert "16x16 k-space samples (zero-filled to 32x32) of a 64x64 map" in declared.acquisition.describe()


@pytest.mark.parametrize("window", ["none", "hamming"])
@pytest.mark.parametrize("support", ["square", "ellipse"])
def test_the_operator_of_zero_filled_maps_is_the_plain_one_followed_by_zero_filling(window, support):
    """For an odd number of lines, where no line is measured on one side only."""
    image = np.random.default_rng(0).normal(size=(60, 52))
    plain = Acquisition((15, 13), (4, 4), support, window)
    filled = Acquisition((15, 13), (2, 2)).zero_fill(plain.forward(image))
    operator = Acquisition((30, 26), (2, 2), support, window, acquired=(15, 13))
    np.testing.assert_allclose(operator.forward(image), filled, atol=1e-12)
    np.testing.assert_allclose(operator.pinv(filled), plain.pinv(plain.forward(image)), atol=1e-9)
    constant = np.full((60, 52), 3.0)
    np.testing.assert_allclose(operator.forward(constant), 3.0, atol=1e-12)


def test_the_matrix_itself_is_no_interpolation_and_a_larger_one_is_refused():
    assert Acquisition((16, 16), (2, 2), acquired=(16, 16)) == Acquisition((16, 16), (2, 2))
    with pytest.raises(ValueError, match=r"acquired is \(20, 16\): give two whole numbers from 1"):
        Acquisition((16, 16), (2, 2), acquired=(20, 16))


def test_refining_more_than_eight_times_what_was_measured_is_refused():
    assert refined((2, 4, 1), (64, 32), (16, 32)) == (8, 4)
    with pytest.raises(ValueError, match="64x64 voxels, of which 16x16 were measured, 16 times beyond"):
        refined((4, 4, 1), (64, 64), (16, 16))
