"""What an operating point reaches on the validation heads, beside which its latency means something.

``paper-like`` at x4, whole field times truth mask (convention ``yale``), means over heads and maps without 2HG, hard
data consistency for every method. Engines give the same numbers within a stated tolerance, so the fastest
computes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.peers import Missing
from mrsi_fast.evaluation import perceptual, scoring
from mrsi_fast.evaluation.cases import Case, Problem, pose, simulated_case
from mrsi_fast.evaluation.plan import EvaluationConfig, head_count
from mrsi_fast.resolver import SuperResolver
from mrsi_fast.simulation.volume import simulate_subject
from support.data import data_dir

FACTOR = 4
UNSCORED = ("", "2HG")
"""Rows of no one map, and the map that is 0 in most heads."""


@dataclass(frozen=True)
class Quality:
    """Means over heads and maps.

    Attributes:
        lpips: AlexNet; lower is better.
        psnr: In dB.
    """

    lpips: float
    psnr: float


def validation_problems(slices: int = 1) -> list[Problem]:
    """One subject of every validation head.

    Raises:
        Missing: The label maps or the weights of LPIPS are not here.
    """
    if data_dir() is None:
        raise Missing("the validation heads are not here (MRSI_FAST_DATA)")
    if (reason := perceptual.lpips_reason()) is not None:
        raise Missing(f"LPIPS is not available: {reason}")
    config = EvaluationConfig(preset="paper-like", scales=(FACTOR,), slices=slices).simulation("evaluated")
    subjects = (simulate_subject(config, number, 0, [(FACTOR, FACTOR)]) for number in range(head_count(config)))
    return [pose(simulated_case(subject, (FACTOR, FACTOR)), "hard") for subject in subjects]


def zero_fill_quality(problems: Sequence[Problem]) -> Quality:
    """Of the estimate that the measured data alone give."""
    return _mean([(problem, problem.prepared.zero_fill(), "point estimate") for problem in problems])


def quality(problems: Sequence[Problem], resolver: SuperResolver, steps: int, apart: bool = False) -> Quality:
    """Of the one-step mean (0 steps) or of one posterior sample.

    Args:
        problems: From ``validation_problems``.
        resolver: With its solver and engine.
        steps: Solver steps.
        apart: Each map that is scored by itself, as the seed-style chain has it, in place of all at once.
    """
    drawn = []
    for problem in problems:
        case = problem.case
        names = list(case.measured.names)
        image = np.zeros_like(case.truth)
        for group in [[name] for name in names if name not in UNSCORED] if apart else [names]:
            result = _resolved(case, group, resolver, steps)
            for name, values in zip(group, result, strict=True):
                image[names.index(name)] = values
        drawn.append((problem, image, "sample" if steps else "one-step mean"))
    return _mean(drawn)


def _resolved(case: Case, names: list[str], resolver: SuperResolver, steps: int) -> np.ndarray:
    maps = case.measured.select(names)
    if steps == 0:
        return resolver(maps, samples=0, data_consistency="hard", keep_filled=True, **case.arguments()).mean
    result = resolver(maps, samples=1, steps=steps, data_consistency="hard", keep_filled=True, **case.arguments())
    assert result.samples is not None
    return result.samples[0]


def _mean(images: Sequence[tuple[Problem, np.ndarray, str]]) -> Quality:
    rows = []
    for problem, image, point in images:
        estimate = scoring.Estimate("benchmark", point, 1, image)
        rows += [
            row
            for row in scoring.score(problem, estimate, with_lpips=True)
            if row["convention"] == "yale" and row["metabolite"] not in UNSCORED
        ]
    means = {name: np.mean([row["value"] for row in rows if row["metric"] == name]) for name in ("lpips", "psnr")}
    return Quality(float(means["lpips"]), float(means["psnr"]))
