"""Fitted solver steps: where a long run can be met they meet it, and a model that has some uses them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from mrsi_fast.config import ConfigError, DiffusionConfig
from mrsi_fast.diffusion.solvers import Step, make_steps, sample
from mrsi_fast.sampling import solver_steps

SCRIPT = Path(__file__).parents[2] / "training" / "fit_steps.py"
LEVELS = (30.0, 5.0, 1.0, 0.15)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fit_steps", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def normal(size: int, seed: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(mean: torch.Tensor, sd: torch.Tensor):
    """The exact denoiser of a normal distribution, whose flow is known: x - mean goes as sqrt(sd^2 + sigma^2)."""
    return lambda x, sigma: (sd**2 * x + sigma**2 * mean) / (sd**2 + sigma**2)


def test_steps_fitted_to_a_flow_follow_it_where_those_of_theory_do_not(script: ModuleType) -> None:
    """Two populations of voxels: of spread 0.7 and 1.3 times the residual's; unseen noise at the end."""
    sd = torch.where(normal(24, 5) > 0, 0.7, 1.3).double()
    mean = normal(24, 6)
    denoise = gaussian(mean, sd)
    weight = torch.ones_like(mean)
    steps = script.fit([script.Item(denoise, weight, normal(24, seed)) for seed in (1, 2)], LEVELS)
    assert [step.sigma for step in steps] == list(LEVELS) and steps[0] == make_steps("dpmpp_2m", (*LEVELS, 0.0))[0]

    noise = normal(24, 9)
    exact = mean + (30.0 * noise - mean) * sd / (sd**2 + 900.0).sqrt()

    def off(plan: tuple[Step, ...]) -> float:
        return float((sample(denoise, 30.0 * noise, plan) - exact).square().mean().sqrt())

    assert off(steps) < 0.05 and off(steps) < 0.4 * off(make_steps("dpmpp_2m", (*LEVELS, 0.0)))


def test_voxels_without_weight_do_not_count(script: ModuleType) -> None:
    mean, sd, noise = normal(12, 1), torch.ones(1, dtype=torch.float64), normal(12, 2)
    weight = torch.ones_like(mean)
    weight[..., :3] = 0
    spoilt = torch.where(weight > 0, mean, 1e3)
    plain = script.fit([script.Item(gaussian(mean, sd), weight, noise)], LEVELS)
    assert script.fit([script.Item(gaussian(spoilt, sd), weight, noise)], LEVELS) == plain


def test_a_model_with_fitted_steps_takes_them_for_as_many_and_no_other_number() -> None:
    rows = ((30.0, 0.2, 0.8, 0.0), (5.0, 0.2, 1.5, -0.7), (0.2, 0.0, 1.3, -0.3))
    fitted, plain = DiffusionConfig(fitted_steps=rows), DiffusionConfig()
    assert solver_steps("dpmpp_2m", 3, fitted) == tuple(Step(*row) for row in rows)
    for solver, count in (("dpmpp_2m", 4), ("dpmpp_2m", 8), ("ddim", 3), ("heun", 3), ("ddpm", 3)):
        assert solver_steps(solver, count, fitted) == solver_steps(solver, count, plain)


@pytest.mark.parametrize(
    "rows",
    [
        ((20.0, 0, 1, 0),),
        ((30.0, 0, 1, 0), (30.0, 0, 1, 0)),
        ((30.0, 0, 1, 0), (0.0, 0, 1, 0)),
        ((30.0, 0, float("nan"), 0),),
        ((30.0, 0, 1, 0),) * 40,
    ],
)
def test_levels_that_do_not_fall_and_coefficients_that_are_no_numbers_are_refused(rows: tuple) -> None:
    with pytest.raises(ConfigError, match="fitted_steps"):
        DiffusionConfig.parse({"fitted_steps": rows}, "config.json")
