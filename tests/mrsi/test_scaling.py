"""Scales of maps: closed forms, equivariance, empty and noise-only maps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.scaling import map_content, map_scale

SHAPE = (17, 16, 3)
ALL = np.ones(SHAPE, dtype=bool)


def signal_and_noise() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([10 + rng.standard_normal(SHAPE), 0.1 * rng.standard_normal(SHAPE)]).astype(np.float32)


def test_scale_is_the_percentile_or_five_sigma() -> None:
    ramp = np.arange(1001, dtype=np.float32).reshape(1, 1001, 1, 1)
    valid = np.ones((1001, 1, 1), dtype=bool)
    assert map_scale(ramp, valid)[0] == pytest.approx(990)
    assert map_scale(-ramp, valid, [100.0])[0] == pytest.approx(990)
    assert map_scale(ramp, valid, [300.0])[0] == 1500
    assert map_scale(ramp, valid, [np.nan])[0] == pytest.approx(990)
    assert map_scale(ramp, ramp[0] <= 500)[0] == pytest.approx(495)


def test_untrusted_voxels_do_not_matter() -> None:
    maps = signal_and_noise()
    valid = np.ones(maps.shape, dtype=bool)
    valid[:, 3:5] = False
    spoiled = np.where(valid, maps, np.float32(1e6))
    spoiled[:, 3, 0] = np.nan
    np.testing.assert_array_equal(map_scale(spoiled, valid), map_scale(maps, valid))
    holes = np.where(valid, maps, np.nan)
    np.testing.assert_array_equal(map_scale(holes, ALL), map_scale(maps, valid))
    assert map_content(spoiled, valid, np.full((2, 1, 1, 1), 0.1)) == ("signal", "noise")


@given(st.floats(1e-6, 1e6))
def test_scaling_maps_and_noise_scales_the_scale(constant: float) -> None:
    maps = signal_and_noise().astype(np.float64)
    noise = np.array([0.3, 0.1])
    np.testing.assert_allclose(
        map_scale(constant * maps, ALL, constant * noise), constant * map_scale(maps, ALL, noise)
    )
    sd = np.broadcast_to(noise[:, None, None, None], maps.shape)
    assert map_content(constant * maps, ALL, constant * sd) == map_content(maps, ALL, sd)


def test_an_empty_map_has_scale_zero() -> None:
    maps = np.stack([np.zeros(SHAPE), np.full(SHAPE, np.nan), np.ones(SHAPE), np.ones(SHAPE)])
    valid = np.ones(maps.shape, dtype=bool)
    valid[3] = False
    scale = map_scale(maps, valid, [0.1, 0.1, 0.1, 0.1])
    assert scale.tolist() == [0, 0, 1, 0]
    assert map_content(maps, valid) == ("empty", "empty", "constant", "empty")


def test_a_map_with_less_than_one_voxel_in_a_hundred_is_not_empty() -> None:
    maps = np.zeros((1, *SHAPE))
    maps[0, 4, 4, 1] = 2.0
    assert map_scale(maps, ALL)[0] == 2.0
    assert map_scale(maps, ALL, [0.5])[0] == 2.5


@pytest.mark.parametrize("window", ["none", "hamming", "hann"])
def test_noise_only_maps_are_told_from_signal(window: str) -> None:
    """Noise that passed support and window, 200 maps: at most 3 % pass for signal, no map with a lesion is lost."""
    acq = Acquisition((16, 17), (1, 1), "ellipse", window)  # type: ignore[arg-type]
    noise = acq.forward(np.random.default_rng(1).standard_normal((200, 16, 17)))
    noise /= noise.std()
    valid = np.ones((16, 17), dtype=bool)
    sd = np.ones((200, 1, 1))
    assert map_content(noise, valid, sd).count("noise") >= 194
    lesion = np.zeros((16, 17))
    lesion[5:8, 9:12] = 8.0
    assert set(map_content(noise + lesion, valid, sd)) == {"signal"}
    assert set(map_content(noise + 1.5, valid, sd)) == {"signal"}
    assert set(map_content(noise, valid)) == {"signal"}  # nothing is dismissed without a noise level
    assert set(map_content(noise, valid, np.full((200, 1, 1), np.nan))) == {"signal"}
