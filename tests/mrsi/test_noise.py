"""Noise of measured maps: where it comes from, and that no voxel is too certain."""

from __future__ import annotations

import numpy as np
import pytest

from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.mapset import MapInputError, MapSet
from mrsi_fast.mrsi.noise import OTHER_TYPICAL_NOISE, SMALLEST_SHARE, TYPICAL_NOISE, noise_of
from mrsi_fast.mrsi.quality import assess

AFFINE = np.diag([10.0, 10.0, 10.0, 1.0])


def make(crlb: float | None = 10.0, names: tuple[str, ...] = ("tNAA", "Lac")) -> MapSet:
    maps = np.random.default_rng(0).uniform(8, 12, (len(names), 8, 8, 2)).astype(np.float32)
    return MapSet(maps, AFFINE, names, crlb=None if crlb is None else np.full_like(maps, crlb))


def test_a_bound_is_a_share_of_the_concentration_and_never_below_half_of_the_maps_noise() -> None:
    maps = make()
    maps.maps[0, 3, 3, 0] = 0.05  # 10 % of it would be 0.005
    noise = noise_of(maps, assess(maps))
    assert noise.source == ("crlb", "crlb")
    assert noise.sd[0, 3, 3, 0] == pytest.approx(SMALLEST_SHARE * noise.level[0])
    usual = np.ones((8, 8, 2), bool)
    usual[3, 3, 0] = False
    np.testing.assert_allclose(noise.sd[0][usual], 0.1 * maps.maps[0][usual], rtol=1e-6)
    assert noise.level[0] == pytest.approx(float(np.median(0.1 * maps.maps[0])), rel=0.02)


def test_the_floor_scales_with_the_maps() -> None:
    maps = make()
    maps.maps[0, 3, 3, 0] = 0.05
    scaled = MapSet(maps.maps * np.float32(1024), AFFINE, maps.names, crlb=maps.crlb)
    np.testing.assert_array_equal(noise_of(scaled, assess(scaled)).sd, 1024 * noise_of(maps, assess(maps)).sd)


def test_unknown_noise_is_a_typical_level_and_said_to_be_assumed() -> None:
    maps = make(None)
    trust = assess(maps)
    noise = noise_of(maps, trust)
    assert noise.source == ("assumed", "assumed") and np.isnan(noise.stated).all()
    wanted = np.array([TYPICAL_NOISE["tNAA"], OTHER_TYPICAL_NOISE]) * trust.level
    np.testing.assert_allclose(noise.level, wanted)
    np.testing.assert_allclose(noise.sd, np.broadcast_to(wanted[:, None, None, None], noise.sd.shape), rtol=1e-6)
    assert (noise.largest_factor == 2).all()


def test_what_the_user_states_stands() -> None:
    maps = make()
    noise = noise_of(maps, assess(maps), {"NAA+NAAG": 0.3, "Lac": 0})
    assert noise.source == ("given", "declared noise-free")
    assert (noise.sd[0] == np.float32(0.3)).all() and np.isnan(noise.sd[1]).all()
    assert noise.level.tolist() == [0.3, 0.0] and noise.largest_factor.tolist() == [1, 1]
    for bad, message in (({"Ins": 1.0}, "given for Ins"), (-1.0, "at least 0"), (float("nan"), "at least 0")):
        with pytest.raises(MapInputError, match=message):
            noise_of(maps, assess(maps), bad)


def test_a_trace_is_no_measurement() -> None:
    """1e-13 with 16 %SD: what a non-negative fit leaves where it finds nothing."""
    maps = make(16.0)
    maps.maps[0, 2, 5, 1] = 1e-13
    trust = assess(maps)
    assert not trust.trusted[0, 2, 5, 1] and trust.trusted.sum() == trust.trusted.size - 1
    assert np.isnan(noise_of(maps, trust).sd[0, 2, 5, 1])


def test_an_assumed_level_is_not_above_what_the_map_can_hold() -> None:
    """Smooth maps: less than the typical level; maps of noise: the typical one; what is stated stands."""
    plane = Acquisition.assume((8, 8), (2, 2))
    rough = make(None)
    np.testing.assert_array_equal(noise_of(rough, assess(rough), None, plane).sd, noise_of(rough, assess(rough)).sd)
    slope = np.linspace(8, 12, 8)[:, None, None] + np.zeros((2, 8, 8, 2))
    smooth = MapSet((slope + 0.01 * rough.maps).astype(np.float32), AFFINE, rough.names)
    found, typical = noise_of(smooth, assess(smooth), None, plane), noise_of(smooth, assess(smooth))
    assert found.source == ("assumed", "assumed")
    assert (found.level < 0.2 * typical.level).all() and (found.level >= 0.05 * typical.level).all()
    np.testing.assert_allclose(found.sd[0], found.level[0], rtol=1e-6)
    flat = MapSet(slope.astype(np.float32), AFFINE, rough.names)
    np.testing.assert_allclose(
        noise_of(flat, assess(flat), None, plane).level, 0.05 * noise_of(flat, assess(flat)).level
    )
    assert noise_of(smooth, assess(smooth), 0.3, plane).level.tolist() == [0.3, 0.3]
