"""The measurement against closed forms: sampling of the object, noise, failures, excitation box, fit errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.simulation.acquisition import (
    LIPID_LEAK,
    SHIFT_PPM,
    PressBox,
    Protocol,
    measure,
    noise_gain,
    sample,
)
from mrsi_fast.simulation.anatomy import CLASSES
from mrsi_fast.simulation.config import SignalConfig
from mrsi_fast.simulation.fields import Axis
from mrsi_fast.simulation.keys import Key
from mrsi_fast.simulation.slices import pool
from mrsi_fast.simulation.subject import Slab

NAMES = ("tNAA", "tCho", "2HG", "Glx")
QUIET = SignalConfig(spikes=0.0, noise_inhomogeneity=0.0, poor_b0_ppm=0.0)


def white_matter_slab(size: int, maps: np.ndarray) -> Slab:
    """A slice that is white matter everywhere, with a ring of scalp at its border."""
    x = y = Axis.centred(0.0, 220.0, size, "float64")
    fractions = np.zeros((len(CLASSES), size, size))
    fractions[CLASSES.index("WM")] = 1.0
    fractions[:, :3], fractions[CLASSES.index("scalp"), :3] = 0.0, 1.0
    return Slab(x, y, np.array([40.0]), fractions, maps, *np.zeros((3, size, size)))


def measured(protocol: Protocol, settings: SignalConfig = QUIET, maps: np.ndarray | None = None, seed: int = 0):
    size = protocol.operator.hr_shape[0] * 2
    maps = np.zeros((len(NAMES), size, size)) if maps is None else maps
    slab = white_matter_slab(size, maps)
    table = np.array([0.5, 0.1, 0.5, 1.0])
    return measure(slab, pool(maps, 2), NAMES, table, protocol, settings, Key.of("subject"), Key.of("slice", seed))


@pytest.mark.parametrize(("support", "window"), [("square", "none"), ("square", "hann"), ("ellipse", "hamming")])
def test_sampling_the_object_equals_the_truncated_fourier_integral(support: str, window: str) -> None:
    """A Gaussian's spectrum is known; its LR map is the finite sum of the sampled lines (64-bit, 21 x 16 voxels)."""
    nx, ny, fine, sd = 21, 16, 12, 1.2  # sd in LR voxels
    operator = Acquisition((nx, ny), (fine, fine), support, window)
    centre = (9.3, 7.1)
    px, py = ((np.arange(n * fine) + 0.5) / fine - 0.5 for n in (nx, ny))
    bell = [
        np.exp(-(((p - c + n / 2) % n - n / 2) ** 2) / 2 / sd**2)
        for p, c, n in zip((px, py), centre, (nx, ny), strict=True)
    ]
    low = sample(operator, bell[0][:, None] * bell[1][None, :])
    kx, ky = np.arange(-(nx // 2), nx // 2 + 1), np.arange(-(ny // 2), ny // 2 + 1)
    half = np.where(np.abs(ky) * 2 == ny, 0.5, 1.0)  # the lines +-n/2 of an even n share one sample
    radius_x, radius_y = 2 * kx[:, None] / nx, 2 * ky[None, :] / ny
    radius = np.sqrt(radius_x**2 + radius_y**2)
    a, b = {"none": (1.0, 0.0), "hamming": (0.54, 0.46), "hann": (0.5, 0.5)}[window]
    if support == "ellipse":
        weight = np.where(radius <= 1 + 1e-12, a + b * np.cos(np.pi * radius), 0.0)
    else:
        weight = (a + b * np.cos(np.pi * radius_x)) * (a + b * np.cos(np.pi * radius_y))
    spectrum = [sd * np.sqrt(2 * np.pi) / n * np.exp(-2 * (np.pi * sd * k / n) ** 2) for k, n in ((kx, nx), (ky, ny))]
    wave_x = np.exp(2j * np.pi * kx[None, :] * (np.arange(nx)[:, None] - centre[0]) / nx)
    wave_y = np.exp(2j * np.pi * ky[None, :] * (np.arange(ny)[:, None] - centre[1]) / ny)
    expected = wave_x @ (weight * half * spectrum[0][:, None] * spectrum[1][None, :]) @ wave_y.T
    np.testing.assert_allclose(low, expected.real, atol=1e-9)


@pytest.mark.parametrize(("support", "window"), [("square", "none"), ("square", "hamming"), ("ellipse", "hamming")])
def test_noise_has_the_table_s_size_before_the_window(support: str, window: str) -> None:
    operator = Acquisition((32, 32), (2, 2), support, window)
    errors = np.stack([(m := measured(Protocol(operator, "object", noise=1.0), seed=seed)).maps for seed in range(12)])
    assert operator.window != "none" or noise_gain(Acquisition((32, 32), (1, 1))) == pytest.approx(1.0, abs=1e-12)
    expected = np.array([0.5, 0.1, 0.5, 1.0]) * noise_gain(Acquisition((32, 32), (1, 1), support, window))
    independent = errors[:, 0].size / 4  # at worst, neighbours share one value
    np.testing.assert_allclose(errors.std(axis=(0, 2, 3)), expected, rtol=4 / np.sqrt(2 * independent))
    np.testing.assert_allclose(m.noise_sd[:, 3, 5], expected, rtol=1e-12)
    np.testing.assert_allclose(m.noise, expected, rtol=1e-12)


def test_truncation_keeps_the_mean_of_a_map() -> None:
    maps = np.random.default_rng(0).random((len(NAMES), 128, 128))
    for source in ("truth", "object"):
        for support, window in (("square", "none"), ("ellipse", "hamming")):
            protocol = Protocol(Acquisition((16, 16), (4, 4), support, window), source)
            np.testing.assert_allclose(measured(protocol, maps=maps).maps.mean((1, 2)), maps.mean((1, 2)), rtol=1e-12)


def test_noise_free_maps_are_the_operator_s() -> None:
    maps = np.random.default_rng(0).random((len(NAMES), 64, 64))
    operator = Acquisition((8, 8), (4, 4), "ellipse", "hamming")
    m = measured(Protocol(operator), maps=maps)
    np.testing.assert_allclose(m.maps, operator.forward(pool(maps, 2)), atol=1e-12)
    assert not m.failed.any() and (m.noise_sd == 0).all() and m.trusted.all()
    magnitude = measured(Protocol(operator, magnitude=True), maps=maps - 0.5)
    np.testing.assert_allclose(magnitude.maps, np.abs(operator.forward(pool(maps - 0.5, 2))), atol=1e-12)


def test_failures_hit_their_share_and_are_remembered() -> None:
    settings = replace_settings(spikes=0.05)
    protocol = Protocol(Acquisition((32, 32), (2, 2)), "object", noise=1.0, missing=0.1)
    m = measured(protocol, settings, maps=np.full((len(NAMES), 128, 128), 3.0))
    missing = np.isnan(m.maps)
    assert (missing == missing[0]).all()
    assert missing[0].mean() == pytest.approx(0.1, abs=0.02)
    assert (m.failed | (np.abs(m.maps - m.clean) < 6 * m.noise_sd)).all()
    assert not m.trusted[missing].any()
    spikes = m.failed & ~missing
    assert spikes.mean() == pytest.approx(0.05 * 0.9, abs=0.015)
    assert m.trusted[spikes].mean() == pytest.approx(0.1, abs=0.1)


def replace_settings(**changes: float) -> SignalConfig:
    return QUIET.model_copy(update=changes)


def test_fit_errors_are_a_gain_per_map_and_glx_in_2hg() -> None:
    maps = np.stack([np.full((64, 64), level) for level in (10.0, 2.0, 0.0, 8.0)])
    protocol = Protocol(Acquisition((8, 8), (4, 4)), "object", noise=1e-6)
    gained = measured(protocol, replace_settings(fit_gain_sd=0.02), maps).maps.mean((1, 2))
    gains = gained[[0, 1, 3]] / [10.0, 2.0, 8.0]
    assert len(set(np.round(gains, 6))) == 3 and np.abs(np.log(gains)).max() < 0.08
    crossed = measured(protocol, replace_settings(cross_talk=0.03), maps).maps.mean((1, 2))
    np.testing.assert_allclose(crossed, [10.0, 2.0, 0.24, 8.0], atol=1e-5)


def test_the_press_box_moves_with_the_chemical_shift() -> None:
    box = PressBox((5.0, -10.0), (80.0, 60.0), 2.0, (3.0, -1.0))
    x = y = np.linspace(-100, 100, 2001)
    for name in ("tNAA", "Lac", "Ins"):
        profile = box.profile(x, y, SHIFT_PPM[name])
        inside_x, inside_y = x[profile.max(1) > 0.5], y[profile.max(0) > 0.5]
        assert np.ptp(inside_x) == pytest.approx(80.0, abs=0.3) and np.ptp(inside_y) == pytest.approx(60.0, abs=0.3)
        assert inside_x.mean() == pytest.approx(5.0 + 3.0 * (SHIFT_PPM[name] - 2.35), abs=0.11)
        assert inside_y.mean() == pytest.approx(-10.0 - (SHIFT_PPM[name] - 2.35), abs=0.11)


def test_lipid_follows_the_scalp_and_is_flagged_there() -> None:
    protocol = Protocol(Acquisition((32, 32), (2, 2)), "object", noise=1e-9, lipid=20.0)
    m = measured(protocol)
    assert m.lipid[0].all() and not m.lipid[4:].any()
    assert not m.trusted[:, 0].any() and m.trusted[:, 6:28].all()
    leak = np.array([LIPID_LEAK.get(name, 0.05) for name in NAMES])
    np.testing.assert_allclose(m.maps[:, 0, 7] / m.maps[0, 0, 7], leak / leak[0], rtol=1e-6)
    assert np.abs(m.maps[0, 4:16]).max() > 0.01  # the ring's side lobes reach into the brain


def test_noise_and_lines_grow_where_b0_is_poor() -> None:
    protocol = Protocol(Acquisition((32, 32), (2, 2)), "object", noise=1.0)
    slab = replace(white_matter_slab(128, np.zeros((len(NAMES), 128, 128))), planes=np.array([-32.0]))
    settings = SignalConfig(spikes=0.0)
    m = measure(slab, pool(slab.maps, 2), NAMES, np.ones(4), protocol, settings, Key.of("s"), Key.of("t"))
    x = y = slab.x.merged(4).points
    sinus = (np.abs(x)[:, None] < 10) & (np.abs(y - 60)[None, :] < 10)
    assert m.noise_sd[0][sinus].mean() == pytest.approx(1.4, abs=0.1)
    assert m.fwhm_ppm[sinus].mean() > 0.1 and not m.trusted[0][sinus].all()
    back = (y < -60)[None, :] & (x > -100)[:, None]
    assert m.noise_sd[0][back].mean() < 1.2
