"""Volumes refined in all directions: the baselines against closed forms, the scores, and the track as a whole."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mrsi_fast.evaluation import tracks, whole_brain
from mrsi_fast.evaluation import volume_baselines as base
from mrsi_fast.evaluation.ridge import Ridge, fit_ridge
from mrsi_fast.mrsi.total_variation import gradient as planar_gradient
from mrsi_fast.simulation.config import SimulationConfig
from mrsi_fast.simulation.volume import simulate_subject
from support.networks import random_resolver

SCALE = (2, 2, 2)


def settings(preset: str, split: str = "val") -> SimulationConfig:
    config = SimulationConfig.preset(preset).whole_brain()
    anatomy = config.anatomy.model_copy(update={"heads": "phantom", "split": split, "tumour_masks": None})
    small = {"matrix": (16, 20), "slices": 8, "step_mm": 10.0, "first_mm": -35.0, "excited_mm": None}
    volume = config.volume.model_copy(update=small | {"metabolites": ("tNAA", "tCho")})
    return config.model_copy(
        update={"anatomy": anatomy, "volume": volume, "object_voxel_mm": 11.0, "object_plane_mm": 5.0}
    )


def posed(preset: str, number: int = 0, split: str = "val") -> base.VolumeProblem:
    return base.VolumeProblem.of(simulate_subject(settings(preset, split), number, 1, [SCALE]), SCALE)


@pytest.fixture(scope="module")
def clean() -> base.VolumeProblem:
    return posed("paper-like")


def test_the_gradient_has_three_components_and_divergence_is_minus_its_transpose() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(5, 2, 6, 7, generator=rng, dtype=torch.float64)
    p = torch.randn(3, 5, 2, 6, 7, generator=rng, dtype=torch.float64)
    assert float((base.gradient(x) * p).sum() + (x * base.divergence(p)).sum()) == pytest.approx(0, abs=1e-10)
    torch.testing.assert_close(base.gradient(x)[1:], planar_gradient(x))
    torch.testing.assert_close(base.gradient(x)[0, :-1], x[1:] - x[:-1])


def test_total_variation_reproduces_noise_free_data_with_less_variation(clean: base.VolumeProblem) -> None:
    found = base.total_variation(clean, None, 60)
    seen = clean.operator.forward(np.moveaxis(found, -1, 0))
    np.testing.assert_allclose(seen, np.moveaxis(clean.low, -1, 0), atol=1e-4 * clean.low.max())

    def variation(maps: np.ndarray) -> float:
        steps = base.gradient(torch.from_numpy(np.moveaxis(maps, -1, 0)) / torch.from_numpy(clean.unit[:, 0]))
        return float(steps.square().sum(0).sqrt().sum())

    assert variation(found) < 0.95 * variation(clean.prepared.volume.z)


def test_total_variation_of_noisy_data_is_the_minimum_of_its_objective() -> None:
    problem = posed("realistic-3T")
    unit = problem.unit

    def objective(maps: np.ndarray) -> float:
        planes = torch.from_numpy(np.moveaxis(maps / unit, -1, 0))
        misfit = problem.operator.forward(planes) - torch.from_numpy(np.moveaxis(problem.low / unit, -1, 0))
        return float(base.gradient(planes).square().sum(0).sqrt().sum() + 15.0 * misfit.square().sum())

    found = base.total_variation(problem, 30.0, 150).astype(np.float64)
    best = objective(found)
    rng = np.random.default_rng(0)
    assert best < objective(problem.prepared.volume.z.astype(np.float64))
    for _ in range(5):
        assert best < objective(found + 0.02 * unit * rng.standard_normal(found.shape))
    assert base.tuned_fidelity(problem) in base.FIDELITIES


def test_cubic_is_exact_on_ramps_and_centred() -> None:
    ramp = np.arange(8.0)
    for axis in range(3):
        maps = np.moveaxis(np.broadcast_to(ramp, (1, 5, 6, 8)), -1, axis + 1)
        fine = np.moveaxis(base.cubic(maps, 2, axis), axis + 1, -1)
        inside = (np.arange(16) + 0.5) / 2 - 0.5
        np.testing.assert_allclose(fine[..., 4:12], np.broadcast_to(inside[4:12], (*fine.shape[:-1], 8)), atol=1e-12)


def test_ridge_finds_a_linear_rule_of_three_dimensions() -> None:
    rng = np.random.default_rng(2)
    problems = [posed("paper-like", number, "train") for number in range(2)]
    ridge = base.fit_volume_ridge(problems)
    assert ridge.weights.shape == (2, 75, 8) and ridge.factors == SCALE
    rule = Ridge(rng.standard_normal((1, 75, 8)), SCALE, np.zeros(1))
    low = rng.standard_normal((1, 8, 10, 8))
    z = np.zeros((1, 16, 20, 16))
    pairs = [(f"h{k}", one, rule.estimate(one, z)) for k in range(2) for one in [rng.standard_normal(low.shape)]]
    np.testing.assert_allclose(fit_ridge(pairs, SCALE).estimate(low, z), rule.estimate(low, z), atol=2e-3)
    error = [
        float(((one - problems[0].subject.truth) ** 2).mean())
        for one in (base.ridge_estimate(problems[0], ridge), problems[0].prepared.volume.z)
    ]
    assert error[0] < error[1]


def test_scores_know_the_truth_and_a_known_error(clean: base.VolumeProblem) -> None:
    truth = clean.subject.truth
    best = whole_brain.score(clean, truth)
    assert best["psnr"] == np.inf and best["ssim"] == pytest.approx(1.0)
    assert best["neighbour_correlation"] == best["true_neighbour_correlation"]
    brain = clean.subject.masks["brain"]
    spans = np.array([np.ptp(one[brain]) for one in truth])[:, None, None, None]
    off = whole_brain.score(clean, (truth + 0.1 * spans).astype(np.float32))
    assert off["psnr"] == pytest.approx(20.0, abs=0.01)
    rng = np.random.default_rng(3)
    noise = rng.standard_normal(truth.shape)
    white = whole_brain.neighbour_correlation(clean, noise, [0, 1])
    smooth = whole_brain.neighbour_correlation(clean, noise.cumsum(axis=-1), [0, 1])
    assert abs(white) < 0.15 and smooth > white + 0.2


def test_the_track_writes_every_method_of_every_head(tmp_path, monkeypatch) -> None:
    small = settings("measured-3T")
    monkeypatch.setattr(SimulationConfig, "whole_brain", lambda self: self)
    monkeypatch.setattr(SimulationConfig, "preset", lambda name: small)
    monkeypatch.setattr(base, "ITERATIONS", 5)
    monkeypatch.setattr(whole_brain, "TRAIN_HEADS", 2)
    monkeypatch.setattr(whole_brain, "STEPS", 3)
    resolver = random_resolver(tmp_path / "model", spread=True)
    text = tracks.evaluate_whole_brains(tmp_path, resolver, "measured-3T", 2, 0, True)
    rows = json.loads((tmp_path / "whole_brain_measured-3T.json").read_text())["rows"]
    methods = [(row["method"], row["T1"]) for row in rows]
    assert len(methods) == 2 * 9 and len(set(methods)) == 9
    ours = [row for row in rows if row["method"] == whole_brain.OURS]
    assert len(ours) == 4 and all(0 <= row["coverage_WM"] <= 1 and row["error_over_sd"] > 0 for row in ours)
    assert "| mrsi_fast + T1 |" in text and "| ridge |" in text
    assert (tmp_path / "whole_brain_measured-3T.md").read_text().endswith(text.splitlines()[-1] + "\n")
