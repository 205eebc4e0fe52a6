"""The baselines against closed forms, and what they must not do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mrsi_fast.evaluation import baselines, cases
from mrsi_fast.evaluation.interpolation import interpolate, interpolation_matrix
from mrsi_fast.evaluation.ridge import fit_ridge
from mrsi_fast.evaluation.texture import fit_texture
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.total_variation import divergence, gradient, total_variation
from mrsi_fast.simulation.config import SimulationConfig
from mrsi_fast.simulation.volume import simulate_subject


def tiny(preset: str, split: str) -> SimulationConfig:
    """A preset on the analytic head with 24x24 voxels and two slices."""
    config = SimulationConfig.preset(preset)
    anatomy = config.anatomy.model_copy(update={"heads": "phantom", "split": split, "tumour_masks": None})
    volume = config.volume.model_copy(update={"matrix": (24, 24), "slices": 2, "metabolites": ("tNAA", "tCho")})
    return config.model_copy(
        update={"anatomy": anatomy, "volume": volume, "object_voxel_mm": 3.0, "object_plane_mm": 5.0}
    )


def posed(preset: str, split: str, number: int = 0) -> cases.Problem:
    subject = simulate_subject(tiny(preset, split), number, 1, [(2, 2)])
    case = cases.simulated_case(subject, (2, 2))
    return cases.pose(case, case.mode)


@pytest.fixture(scope="module")
def clean() -> cases.Problem:
    return posed("paper-like", "val")


@pytest.fixture(scope="module")
def fits() -> baselines.Fits:
    return baselines.fit([posed("paper-like", "train", number) for number in range(2)])


@pytest.mark.parametrize("kernel", ["bicubic", "lanczos"])
@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_interpolation_is_aligned(kernel: str, factor: int) -> None:
    count = 11
    matrix = interpolation_matrix(count, factor, kernel)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-14)
    inner = slice(3 * factor, (count - 3) * factor)
    position = (np.arange(count * factor) + 0.5) / factor - 0.5
    line = (matrix @ np.arange(count))[inner]
    np.testing.assert_allclose(line, position[inner], atol=1e-12 if kernel == "bicubic" else 0.03)
    if factor > 1:  # mirrored input, mirrored output: no shift
        values = np.random.default_rng(0).standard_normal(count)
        np.testing.assert_allclose((matrix @ values)[::-1], matrix @ values[::-1], atol=1e-13)


def test_bicubic_reproduces_quadratics() -> None:
    position = (np.arange(44) + 0.5) / 4 - 0.5
    values = interpolation_matrix(11, 4, "bicubic") @ np.arange(11.0) ** 2
    np.testing.assert_allclose(values[12:-12], position[12:-12] ** 2, atol=1e-12)


def test_interpolation_of_maps_follows_the_axes() -> None:
    maps = np.random.default_rng(1).standard_normal((2, 5, 7, 3)).astype(np.float32)
    found = interpolate(maps, (2, 4), "bicubic")
    assert found.shape == (2, 10, 28, 3)
    expected = interpolation_matrix(5, 2, "bicubic") @ maps[1, ..., 2] @ interpolation_matrix(7, 4, "bicubic").T
    np.testing.assert_allclose(found[1, ..., 2], expected, rtol=1e-5, atol=1e-6)


def test_divergence_is_minus_the_transpose_of_the_gradient() -> None:
    x, p = torch.randn(3, 9, 6, dtype=torch.float64), torch.randn(2, 3, 9, 6, dtype=torch.float64)
    assert torch.allclose((gradient(x) * p).sum(), -(x * divergence(p)).sum(), rtol=1e-12)


def test_total_variation_recovers_a_block_that_interpolation_cannot() -> None:
    truth = torch.zeros(32, 32, dtype=torch.float64)
    truth[8:20, 10:24] = 1.0
    operator = Acquisition((16, 16), (2, 2))
    y = operator.forward(truth)
    found = total_variation(y, operator, None, operator.pinv(y), 500)
    assert torch.linalg.norm(operator.forward(found) - y) < 1e-9 * torch.linalg.norm(y)
    assert torch.linalg.norm(found - truth) < 0.2 * torch.linalg.norm(operator.pinv(y) - truth)


@pytest.mark.parametrize("fidelity", [1.0, 5.0])
def test_total_variation_of_a_step_is_the_closed_form(fidelity: float) -> None:
    """Denoising a step of height 1 over n rows lowers it to 1 - 2 d: per column, 1 - 2 d + mu n d^2 / 2 is smallest."""
    rows = 16
    step = torch.zeros(rows, 9, dtype=torch.float64)
    step[rows // 2 :] = 1.0
    found = total_variation(step, Acquisition((rows, 9), (1, 1)), fidelity, step, 1500)
    moved = 2 / (fidelity * rows)
    assert torch.allclose(found, step + moved * (1 - 2 * step), atol=2e-3)


def test_ridge_finds_a_linear_rule() -> None:
    rng = np.random.default_rng(5)
    rule = rng.standard_normal((3, 3, 4))

    def example(seed: int) -> tuple[np.ndarray, np.ndarray]:
        low = np.random.default_rng(seed).standard_normal((1, 12, 11, 3))
        padded = np.pad(low, ((0, 0), (1, 1), (1, 1), (0, 0)))
        detail = np.zeros((1, 24, 22, 3))
        for phase in range(4):
            detail[:, phase // 2 :: 2, phase % 2 :: 2] = sum(
                rule[a, b, phase] * padded[:, a : a + 12, b : b + 11] for a in range(3) for b in range(3)
            )
        return low, detail

    ridge = fit_ridge([(f"h{k}", *example(k)) for k in range(4)], (2, 2))
    low, detail = example(99)
    assert ridge.strengths[0] == 1e-6
    np.testing.assert_allclose(ridge.estimate(low, np.ones_like(detail)), 1 + detail, atol=1e-4)
    with pytest.raises(ValueError, match="two heads"):
        fit_ridge([("h", *example(1)), ("h", *example(2))], (2, 2))


def test_texture_has_the_power_of_what_is_lost_and_depends_on_the_seed() -> None:
    rng = np.random.default_rng(6)
    spectrum = np.zeros((32, 32))
    spectrum[12:21, 12:21] = 1.0
    lost = np.fft.ifft2(np.fft.fft2(rng.standard_normal((1, 60, 32, 32))) * spectrum).real.transpose(0, 2, 3, 1)
    texture = fit_texture([(np.ones_like(lost), 1 + 0.1 * lost)])
    drawn = texture.draw(np.ones((1, 32, 32, 40), np.float32), 3) - 1
    assert drawn.std() == pytest.approx(0.1 * lost.std(), rel=0.05)
    power = (np.abs(np.fft.fft2(drawn, axes=(1, 2))) ** 2).mean(axis=3)[0]
    assert power[spectrum == 0].sum() < 1e-6 * power.sum()
    assert (
        texture.draw(np.ones((1, 32, 32, 1), np.float32), 3) != texture.draw(np.ones((1, 32, 32, 1), np.float32), 4)
    ).any()
    assert not texture.draw(np.zeros((1, 32, 32, 1), np.float32), 3).any()  # no texture where there is no signal


@pytest.mark.parametrize("name", baselines.BASELINES)
def test_every_baseline_keeps_declared_noise_free_data(name: str, clean, fits) -> None:
    found = baselines.estimate(name, clean, fits, seed=1)
    assert found.shape == clean.case.truth.shape and found.dtype == np.float32
    again = clean.prepared.acquisition.forward(np.moveaxis(found, -1, 1))
    measured = np.moveaxis(clean.low, -1, 1)
    assert np.linalg.norm(again - measured) < 1e-5 * np.linalg.norm(measured)


def test_every_method_gets_what_the_resolver_prepares(clean) -> None:
    np.testing.assert_array_equal(clean.low, clean.case.measured.maps)  # noise-free: all trusted, nothing filled
    assert clean.prepared.consistency.applied == "hard"
    assert clean.prepared.trust.trusted.all()


def test_the_fits_survive_a_file(fits, clean, tmp_path: Path) -> None:
    fits.save(tmp_path / "fits.npz")
    again = baselines.Fits.load(tmp_path / "fits.npz")
    assert again.fidelity is None and again.ridge.factors == (2, 2)
    for name in baselines.FITTED:
        np.testing.assert_array_equal(baselines.estimate(name, clean, again), baselines.estimate(name, clean, fits))


def test_fitted_baselines_refuse_without_fits(clean) -> None:
    with pytest.raises(ValueError, match="train heads"):
        baselines.estimate("ridge", clean, None)
    with pytest.raises(ValueError, match="no baseline"):
        baselines.estimate("magic", clean, None)


def test_noisy_data_get_the_soft_correction_and_a_tuned_weight(fits) -> None:
    train = [posed("realistic-3T", "train", number) for number in range(2)]
    noisy = baselines.fit(train)
    assert noisy.fidelity in baselines.FIDELITIES
    problem = posed("realistic-3T", "val")
    assert problem.prepared.consistency.applied == "soft"
    found = baselines.estimate("ridge", problem, noisy)
    assert np.isfinite(found).all()
