"""Fits the coefficients of a few solver steps to a model: few steps then sample as many do, without training.

    python training/fit_steps.py runs/stage6/model
    python training/fit_steps.py MODEL --write       # stores them in the model's config.json

Every solver here makes ``new = base x + now D + prev D_before``. Its coefficients come from theory, which assumes that
the denoiser hardly changes within a step; with four steps it does. So they are fitted: on batches of the training
preset, from the same noise, least squares make each new state that of a run of many steps at the same level. Errors of
one step are part of the next one's regressors. There is one set for all factors, maps and noise levels of the data.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mrsi_fast.config import DiffusionConfig
from mrsi_fast.diffusion.denoiser import Denoiser
from mrsi_fast.diffusion.solvers import Step, make_steps, sample
from mrsi_fast.models.pretrained import load_pretrained, save_config
from mrsi_fast.simulation.batch import Simulator
from mrsi_fast.simulation.config import SimulationConfig
from mrsi_fast.training.objective import residual_and_condition

LEVELS = (30.0, 5.0, 1.0, 0.15)
REFINED = 6  # steps of the long run within one of the few
SEED = 20261128


class Item(NamedTuple):
    """One batch: its denoiser, what counts [B, K, X, Y], and the noise that both runs start from."""

    denoise: Callable[[Tensor, float], Tensor]
    weight: Tensor
    noise: Tensor


def long_run(item: Item, levels: Sequence[float]) -> list[Tensor]:
    """States of DPM-Solver++(2M) with ``REFINED`` steps from each level to the next, at these levels and at 0."""
    fine: list[float] = []
    for high, low in pairwise((*levels, levels[-1] / 8)):
        fine += [high * (low / high) ** (part / REFINED) for part in range(REFINED)]
    states = []

    def watched(state: Tensor, sigma: float) -> Tensor:
        states.append(state)
        return item.denoise(state, sigma)

    last = sample(watched, levels[0] * item.noise, make_steps("dpmpp_2m", (*fine, 0.0)))
    return [*states[::REFINED], last]


@torch.no_grad()
def fit(items: Sequence[Item], levels: Sequence[float]) -> tuple[Step, ...]:
    """Coefficients of one step a level, the last one to 0.

    The first step is that of theory: from the largest level the estimate is the posterior mean, whatever the noise.
    """
    wanted = [long_run(item, levels) for item in items]
    states, before = [states[0] for states in wanted], [None] * len(items)
    steps = list(make_steps("dpmpp_2m", (*levels, 0.0))[:1])
    for index, level in enumerate(levels):
        now = [item.denoise(state, level) for item, state in zip(items, states, strict=True)]
        if index:
            columns = list(zip(states, now, before, strict=True))
            found = _least_squares(items, columns, [states[index + 1] for states in wanted])
            base, new, prev = (round(value, 5) for value in found)
            steps.append(Step(sigma=level, base=base, now=new, prev=prev))
        step = steps[-1]
        states = [
            step.base * state + step.now * estimate + (0.0 if old is None else step.prev * old)
            for state, estimate, old in zip(states, now, before, strict=True)
        ]
        before = now
        error = _rms(items, [a - b[index + 1] for a, b in zip(states, wanted, strict=True)])
        numbers = f"base {step.base:.5f} now {step.now:.5f} prev {step.prev:.5f}"
        print(f"{level:g}: {numbers}, off by {error:.4f}", flush=True)
    few, many = _rms(items, states), _rms(items, [states[-1] for states in wanted])
    print(f"RMS of samples in units of the residual's: {few:.4f}; of the long run {many:.4f}")
    return tuple(steps)


def _least_squares(items: Sequence[Item], columns: Sequence[Sequence[Tensor]], wanted: Sequence[Tensor]) -> list[float]:
    normal, right = np.zeros((3, 3)), np.zeros(3)
    for item, three, target in zip(items, columns, wanted, strict=True):
        stacked = torch.stack([one.double().flatten() for one in three])
        weighted = stacked * item.weight.double().flatten()
        normal += (weighted @ stacked.T).numpy()
        right += (weighted @ target.double().flatten()).numpy()
    return [float(value) for value in np.linalg.lstsq(normal, right)[0]]


def _rms(items: Sequence[Item], values: Sequence[Tensor]) -> float:
    squares = sum(float((item.weight * value**2).sum()) for item, value in zip(items, values, strict=True))
    return float(np.sqrt(squares / sum(float(item.weight.sum()) for item in items)))


def batches(network: torch.nn.Module, diffusion: DiffusionConfig, preset: str, count: int, size: int) -> list[Item]:
    """Batches of a simulation preset, as training sees them."""
    simulator = Simulator(SimulationConfig.preset(preset))
    denoiser = Denoiser(network, diffusion.sigma_max, diffusion.sigma_min).eval()
    items = []
    for number in range(count):
        batch = {key: torch.from_numpy(value) for key, value in simulator.batch(SEED, number, size).items()}
        clean, condition = residual_and_condition(batch, diffusion.residual_rms)
        weight = (batch["brain"][:, None] * condition.presence[:, :, None, None]).expand_as(clean)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(SEED + number))
        items.append(Item(lambda x, sigma, condition=condition: denoiser(x, sigma, condition), weight, noise))
    return items


def main() -> None:
    """Fits, and writes the coefficients into the model's folder where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--preset", default="training-v2")
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--size", type=int, default=12, help="slices of a batch")
    parser.add_argument("--levels", type=float, nargs="+", default=LEVELS)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    found = load_pretrained(asked.model)
    items = batches(found.network, found.config.diffusion, asked.preset, asked.batches, asked.size)
    steps = fit(items, asked.levels)
    if asked.write:
        rows = tuple((step.sigma, step.base, step.now, step.prev) for step in steps)
        diffusion = found.config.diffusion.model_copy(update={"fitted_steps": rows})
        config = found.config.model_copy(update={"diffusion": diffusion})
        save_config(asked.model, config)


if __name__ == "__main__":
    main()
