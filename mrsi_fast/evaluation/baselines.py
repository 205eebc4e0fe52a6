"""The methods that ours is compared with, in the same harness: same input, same operator, same data consistency."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mrsi_fast.evaluation.cases import Problem
from mrsi_fast.evaluation.interpolation import interpolate
from mrsi_fast.evaluation.ridge import Ridge, fit_ridge
from mrsi_fast.evaluation.texture import Texture, fit_texture
from mrsi_fast.files import atomic_path
from mrsi_fast.mrsi.slabs import to_slices, to_volume
from mrsi_fast.mrsi.total_variation import ITERATIONS, total_variation

Float32 = NDArray[np.float32]
Baseline = Literal["zero-fill", "bicubic", "lanczos", "TV", "ridge", "zero-fill + texture"]

BASELINES: tuple[Baseline, ...] = ("zero-fill", "bicubic", "lanczos", "TV", "ridge", "zero-fill + texture")

FITTED: tuple[Baseline, ...] = ("TV", "ridge", "zero-fill + texture")
"""Those that learn something from the train heads."""

FIDELITIES: tuple[float, ...] = (3.0, 10.0, 30.0, 100.0, 300.0)
"""Weights of the data term that are tried for total variation on noisy data; maps are divided by their scale."""

_TUNING_ITERATIONS = 100
_TUNING_CASES = 3


@dataclass(frozen=True, eq=False)
class Fits:
    """What the baselines learned from the train heads at one factor of one preset.

    Attributes:
        ridge: The regression.
        texture: The spectrum of lost detail.
        fidelity: Weight of total variation's data term, or None for noise-free data.
    """

    ridge: Ridge
    texture: Texture
    fidelity: float | None

    def save(self, path: Path) -> None:
        """Writes the fits as ``.npz``, whole or not at all."""
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(
                stream,
                weights=self.ridge.weights,
                factors=np.array(self.ridge.factors),
                strengths=self.ridge.strengths,
                amplitude=self.texture.amplitude,
                rms=self.texture.rms,
                fidelity=np.array(np.nan if self.fidelity is None else self.fidelity),
            )

    @classmethod
    def load(cls, path: Path) -> Fits:
        """Reads what :meth:`save` wrote."""
        with np.load(path) as stored:
            factors = tuple(int(f) for f in stored["factors"])
            fidelity = float(stored["fidelity"])
            return cls(
                Ridge(stored["weights"], (factors[0], factors[1]), stored["strengths"]),
                Texture(stored["amplitude"], stored["rms"]),
                None if np.isnan(fidelity) else fidelity,
            )


def fit(problems: Sequence[Problem]) -> Fits:
    """Fits ridge regression, texture and the weight of total variation.

    Args:
        problems: Simulated subjects of the train heads, all of one preset and factor.

    Raises:
        ValueError: Fewer than two heads.
    """

    def detail(problem: Problem) -> NDArray:
        return (problem.case.truth - problem.prepared.volume.z) / problem.scale

    ridge = fit_ridge(((p.case.head, p.low / p.scale, detail(p)) for p in problems), problems[0].case.factors)
    texture = fit_texture((p.prepared.zero_fill() / p.scale, p.case.truth / p.scale) for p in problems)
    fidelity = None if problems[0].case.noise_free else _tune(problems[:_TUNING_CASES])
    return Fits(ridge, texture, fidelity)


def _tune(problems: Iterable[Problem]) -> float:
    """The weight of the data term with the least error inside the brain, data consistency included."""
    errors = np.zeros(len(FIDELITIES))
    for problem in problems:
        brain = problem.case.brain
        for index, fidelity in enumerate(FIDELITIES):
            found = _held(problem, _total_variation(problem, fidelity, _TUNING_ITERATIONS))
            errors[index] += float((((found - problem.case.truth) / problem.scale)[:, brain] ** 2).sum())
    return FIDELITIES[int(np.argmin(errors))]


def _total_variation(problem: Problem, fidelity: float | None, iterations: int) -> NDArray:
    scale = torch.from_numpy(problem.scale[:, 0]).float()
    start = to_slices(problem.prepared.volume.z) / scale
    found = total_variation(to_slices(problem.low) / scale, problem.prepared.plane, fidelity, start, iterations)
    return to_volume(found * scale)


def estimate(name: Baseline, problem: Problem, fits: Fits | None, seed: int = 0) -> Float32:
    """Runs one baseline and holds it to the data like every other method.

    Args:
        name: One of :data:`BASELINES`.
        problem: What every method receives.
        fits: From :func:`fit`; only zero-fill and interpolation do without.
        seed: Of the texture.

    Returns:
        [M, X, Y, Z] in the maps' units.

    Raises:
        ValueError: The baseline is unknown, or needs fits and has none.
    """
    prepared, scale = problem.prepared, problem.scale
    if name == "zero-fill":
        found: NDArray = prepared.zero_fill()
    elif name in ("bicubic", "lanczos"):
        found = interpolate(problem.low, problem.case.factors, name)
    elif name not in BASELINES:
        raise ValueError(f"There is no baseline {name!r}; choose from {', '.join(BASELINES)}.")
    elif fits is None:
        raise ValueError(f"The baseline {name!r} is fitted on train heads, and there were none.")
    elif name == "TV":
        found = _total_variation(problem, fits.fidelity, ITERATIONS)
    elif name == "ridge":
        found = fits.ridge.estimate(problem.low / scale, prepared.volume.z / scale) * scale
    else:
        found = fits.texture.draw(prepared.zero_fill() / scale, seed) * scale
    return _held(problem, found)


def _held(problem: Problem, found: NDArray) -> Float32:
    """The estimate after the data consistency that every method gets."""
    slices = to_slices(np.asarray(found, np.float32))
    held = problem.prepared.consistency.supported_by(slices).at_end(slices)
    return to_volume(held).astype(np.float32, copy=False)
