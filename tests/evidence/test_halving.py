"""Maps cut to half their matrix, and the detail that the cut takes away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mrsi_fast.evidence.detail import compare
from mrsi_fast.evidence.halving import Halved, halve
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.kspace import Support, Window
from mrsi_fast.mrsi.mapset import MapInputError, MapSet
from mrsi_fast.mrsi.quality import assess
from mrsi_fast.preparation import AcquisitionSettings


def scan(shape: tuple[int, int, int] = (24, 24, 2), crlb: float | None = 5.0, seed: int = 0) -> MapSet:
    """Two maps with detail at every frequency inside a mask."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, bool)
    mask[3:-3, 3:-3] = True
    maps = (rng.uniform(5, 10, (2, *shape)) * mask).astype(np.float32)
    bound = None if crlb is None else np.where(mask, crlb, 999.0).astype(np.float32) * np.ones((2, 1, 1, 1), np.float32)
    return MapSet(maps, np.diag([5.0, 5.0, 5.0, 1.0]), ("tNAA", "tCr"), crlb=bound, mask=mask)


def cut(maps: MapSet, support: Support = "square", window: Window = "none", matrix: Any = None) -> Halved:
    return halve(maps, assess(maps), known=AcquisitionSettings(support=support, window=window, matrix=matrix))


@pytest.mark.parametrize(("support", "window"), [("square", "none"), ("ellipse", "hamming"), ("square", "hann")])
def test_coarse_maps_are_what_half_the_matrix_measures(support: Support, window: Window) -> None:
    """A fine object measured at both matrices: cutting the fine measurement gives the coarse one."""
    rng = np.random.default_rng(1)
    fine_object = rng.uniform(5, 10, (1, 96, 96))
    at_24, at_12 = (Acquisition((n, n), (96 // n, 96 // n), support, window).forward(fine_object) for n in (24, 12))
    maps = MapSet(np.moveaxis(at_24[None], 1, -1).astype(np.float32), np.eye(4), ("tNAA",))
    halved = cut(maps, support, window)
    found = np.moveaxis(halved.maps.maps, -1, 1)[0]
    np.testing.assert_allclose(found, at_12, atol=2e-5 * np.abs(at_12).max())


@pytest.mark.parametrize("window", ["none", "hamming"])
def test_of_interpolated_maps_half_of_the_measured_matrix_is_kept(window: Window) -> None:
    """16x14 voxels zero-filled to 32x32: what 8x7 zero-filled to 16x16 measure of the same object."""
    fine_object = np.random.default_rng(1).uniform(5, 10, (1, 96, 96))
    at_32, at_16 = (
        Acquisition((n, n), (96 // n, 96 // n), "square", window, acquired=acquired).forward(fine_object)
        for n, acquired in ((32, (16, 14)), (16, (8, 7)))
    )
    maps = MapSet(np.moveaxis(at_32[None], 1, -1).astype(np.float32), np.eye(4), ("tNAA",))
    halved = cut(maps, "square", window, (16, 14))
    found = np.moveaxis(halved.maps.maps, -1, 1)[0]
    np.testing.assert_allclose(found, at_16, atol=2e-5 * np.abs(at_16).max())
    assert halved.known.matrix == (8, 7) and halved.known.window == window
    true = np.moveaxis(Acquisition((32, 32), (3, 3)).forward(fine_object), 0, -1)[None]
    assert compare(halved, true)[0].error < 1e-3
    with pytest.raises(MapInputError, match="10 x 14 voxels before interpolation"):
        cut(maps, "square", window, (10, 14))


def test_field_of_view_stays_and_odd_axes_are_filled_up() -> None:
    halved = cut(scan((25, 24, 2)))
    assert halved.maps.shape == (13, 12, 2) and halved.reference.shape == (2, 26, 24, 2)
    # The first coarse voxel covers the first two fine ones: its centre lies between theirs.
    np.testing.assert_allclose(halved.maps.affine @ [0, 0, 0, 1], [2.5, 2.5, 0, 1])


def test_stated_noise_follows_the_cut() -> None:
    """White noise of variance s^2 leaves s^2/4 in a mean of four voxels, and three quarters of its power outside."""
    maps = scan(crlb=5.0)
    halved = cut(maps)
    sigma = halved.maps.crlb / 100 * np.abs(halved.maps.maps)
    inside = np.s_[0, 3:9, 3:9, 0]
    blocks = (0.05 * maps.maps[0, 6:18, 6:18, 0]).reshape(6, 2, 6, 2)
    np.testing.assert_allclose(sigma[inside], np.sqrt((blocks**2).mean(axis=(1, 3))) / 2, rtol=1e-4)
    assert halved.noise_share_outside == pytest.approx(0.75)
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(1, 24, 24, 400))
    windowed = cut(scan(), "ellipse", "hamming")
    white = np.moveaxis(windowed.fine.forward(np.moveaxis(noise, -1, 0)), 0, -1)
    share = (windowed.detail(white, measured=True) ** 2).mean() / (white**2).mean()
    assert windowed.noise_share_outside == pytest.approx(share, rel=0.03)


def test_the_unit_of_the_stated_noise_makes_no_difference() -> None:
    percent = scan(crlb=5.0)
    sd = (percent.crlb / 100 * np.abs(percent.maps)).astype(np.float32)
    absolute = replace(percent, crlb=np.where(percent.mask, sd, 0).astype(np.float32), crlb_unit="absolute")
    levels = []
    for maps in (percent, absolute):
        coarse = halve(maps, assess(maps)).maps
        levels.append(assess(coarse).sigma)
    np.testing.assert_allclose(levels[1], levels[0], rtol=1e-5)
    assert np.nanmedian(levels[0]) > 0


def test_too_small_a_matrix_is_told() -> None:
    with pytest.raises(MapInputError, match="10 x 10 voxels.*needs 12"):
        cut(scan((10, 10, 1)))


def test_detail_that_is_right_half_right_and_wrong() -> None:
    """Adding the share s of the true detail has error |1 - s| and amplitude 1/s; other detail is no help."""
    maps = scan()
    halved = cut(maps)
    band = halved.reference - halved.detail(halved.reference, measured=True)
    true = halved.detail(halved.reference, measured=True)
    for share in (1.0, 0.5, 2.0, -0.5):
        for found in compare(halved, band + share * true):
            assert found.error == pytest.approx(abs(1 - share), abs=1e-5)
            assert found.amplitude == pytest.approx(1 / share, rel=1e-5)
            low, high = found.amplitude_interval
            assert low == pytest.approx(1 / share) and high == pytest.approx(1 / share)
    other = halved.detail(2 * np.random.default_rng(9).normal(size=maps.maps.shape), measured=True)
    for found in compare(halved, band + other):
        assert found.error > 1.1
        assert found.amplitude_interval[0] < 0.2 and found.amplitude_interval[1] > -0.2
    nothing = compare(halved, band)
    assert all(found.error == pytest.approx(1) and np.isnan(found.amplitude) for found in nothing)


def test_noise_floor_is_the_error_of_the_true_detail() -> None:
    """The noise-free detail against noisy maps: its error is the floor, up to chance."""
    clean = scan((48, 48, 4), crlb=None)
    rng = np.random.default_rng(5)
    sd = 0.8
    noisy = (clean.maps + sd * rng.normal(size=clean.maps.shape)).astype(np.float32)
    with np.errstate(divide="ignore"):
        maps = MapSet(noisy, clean.affine, clean.names, crlb=(100 * sd / np.abs(noisy)).astype(np.float32))
    halved = cut(maps)
    for found in compare(halved, clean.maps):
        assert found.error == pytest.approx(found.noise_floor, rel=0.05)
    no_bound = MapSet(noisy, clean.affine, clean.names)
    assert all(np.isnan(found.noise_floor) for found in compare(cut(no_bound), clean.maps))
