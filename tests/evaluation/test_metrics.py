"""PSNR, SSIM and NRMSE against closed forms and published values, and what each convention does to them."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from mrsi_fast.evaluation import metrics


@pytest.fixture
def pictures() -> tuple[np.ndarray, np.ndarray]:
    """scikit-image's photographer, and the same with noise (legacy generator, seed 5, SD 20), 8 bit."""
    clean = data.camera()
    noise = np.random.RandomState(5).normal(0, 20, clean.shape)
    return clean, np.clip(clean.astype(float) + noise, 0, 255).astype(np.uint8)


def test_golden_values(pictures) -> None:
    clean, noisy = pictures
    assert metrics.psnr(clean, noisy, 255) == pytest.approx(22.40935, abs=5e-6)
    assert metrics.ssim_gaussian_map(clean, noisy, 255)[0] == pytest.approx(0.357964, abs=5e-7)


def test_ssim_of_constant_images_is_the_luminance_term() -> None:
    a, b, span = 3.0, 5.0, 10.0
    c1 = (0.01 * span) ** 2
    expected = (2 * a * b + c1) / (a * a + b * b + c1)  # Wang et al. 2004, Eq. 6; the other factors are 1
    first, second = np.full((16, 17), a), np.full((16, 17), b)
    assert metrics.ssim_uniform(first, second, span) == pytest.approx(expected, rel=1e-12)
    mean, image = metrics.ssim_gaussian_map(first, second, span)
    assert mean == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(image, expected, rtol=1e-12)


def test_psnr_and_nrmse_closed_forms() -> None:
    truth = np.array([[0.0, 4.0], [3.0, 0.0]])
    assert metrics.psnr(truth, truth + 0.4, 4.0) == pytest.approx(20.0)
    assert metrics.psnr(truth, truth, 4.0) == np.inf
    assert metrics.nrmse(truth, truth + np.array([[3.0, 0], [0, -4.0]])) == pytest.approx(1.0)
    assert np.isnan(metrics.nrmse(np.zeros(3), np.ones(3)))


def disc(n: int = 24) -> tuple[np.ndarray, np.ndarray]:
    x = np.arange(n) - (n - 1) / 2
    brain = np.hypot(x[:, None], x[None]) < n / 3
    return np.where(brain, 2.0 + 0.1 * x[:, None], 0.0), brain


def test_yale_cleans_the_background_with_the_truth() -> None:
    truth, brain = disc()
    dirty = truth + np.where(truth == 0, 1.0, 0.0)
    scores = metrics.score_slice(truth, dirty, brain, "yale")
    assert scores == {"psnr": np.inf, "ssim": 1.0, "nrmse": 0.0}


def test_brain_ignores_what_lies_outside_even_nan() -> None:
    truth, brain = disc()
    estimate = np.where(brain, truth + 0.05, np.nan)
    scores = metrics.score_slice(truth, estimate, brain, "brain")
    values = truth[brain]
    assert scores is not None
    assert scores["psnr"] == pytest.approx(20 * np.log10((values.max() - values.min()) / 0.05))
    assert scores["nrmse"] == pytest.approx(0.05 * np.sqrt(brain.sum()) / np.linalg.norm(values))
    assert np.isfinite(scores["ssim"])


def test_the_conventions_differ_by_their_data_range_alone_where_the_error_is_inside() -> None:
    truth, brain = disc()
    estimate = truth + 0.1 * brain
    yale = metrics.score_slice(truth, estimate, brain, "yale")
    inside = metrics.score_slice(truth, estimate, brain, "brain")
    span = truth[brain].max() - truth[brain].min()
    expected = 20 * np.log10(truth.max() / span) + 10 * np.log10(brain.size / brain.sum())
    assert yale["psnr"] - inside["psnr"] == pytest.approx(expected)


def test_a_global_intensity_error_shows() -> None:
    truth, brain = disc()
    for name in metrics.CONVENTIONS:
        assert metrics.score_slice(truth, 0.8 * truth, brain, name)["nrmse"] == pytest.approx(0.2)


def test_what_cannot_be_scored() -> None:
    truth, brain = disc()
    assert metrics.score_slice(np.zeros_like(truth), truth, brain, "yale") is None
    assert metrics.score_slice(truth, truth, np.zeros_like(brain), "brain") is None
    with pytest.raises(ValueError, match="NaN"):
        metrics.score_slice(truth, np.full_like(truth, np.nan), brain, "brain")
    with pytest.raises(ValueError, match="shapes"):
        metrics.score_slice(truth, truth[:-1], brain, "brain")
    with pytest.raises(ValueError, match="no convention"):
        metrics.score_slice(truth, truth, brain, "whole")
    small = metrics.score_slice(truth[8:16, 7:17], truth[8:16, 7:17], brain[8:16, 7:17], "brain")
    assert small is not None and np.isnan(small["ssim"]) and small["psnr"] == np.inf


def test_non_contiguous_slices_score_the_same() -> None:
    truth, brain = disc(25)
    estimate = truth + 0.01 * np.cos(np.arange(25))
    wide = np.repeat(np.stack([truth, estimate], -1), 2, axis=0)
    assert metrics.score_slice(wide[::2, :, 0], wide[::2, :, 1], brain, "brain") == metrics.score_slice(
        truth, estimate, brain, "brain"
    )


def test_radial_spectrum_of_a_cosine_sits_in_its_ring() -> None:
    n, voxel, cycles = 48, 2.0, 9
    truth = np.cos(2 * np.pi * cycles * np.arange(n) / n)[:, None] * np.ones(n)
    spectrum = metrics.radial_spectrum(truth, np.zeros_like(truth), (voxel, voxel), bins=24)
    ring = int(np.nanargmax(spectrum.truth))
    frequency = cycles / (n * voxel)
    assert abs(spectrum.frequency[ring] - frequency) <= 0.25 / 24 / 2 + 1e-12
    np.testing.assert_allclose(spectrum.error, spectrum.truth, rtol=1e-12)
    assert np.nansum(np.delete(spectrum.truth, ring)) < 1e-20


def test_radial_spectrum_keeps_the_power_of_white_noise_on_odd_anisotropic_grids() -> None:
    rng = np.random.default_rng(3)
    noise = rng.standard_normal((400, 33, 48))
    spectrum = metrics.radial_spectrum(noise, noise, (3.0, 2.0), bins=8)
    # the inner ring holds 9 coefficients, 4 of them independent: 12 % are four standard deviations
    np.testing.assert_allclose(spectrum.truth, 1 / (33 * 48), rtol=0.12)
    assert not spectrum.error.any()
