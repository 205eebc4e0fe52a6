"""What is learned from the train heads before anything is evaluated: the baselines' fits, the memorisation library."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from mrsi_fast.evaluation import baselines, cases, memorisation, scoring
from mrsi_fast.evaluation.plan import EvaluationConfig, head_count
from mrsi_fast.files import write_text
from mrsi_fast.simulation.volume import simulate_subject

Progress = Callable[..., None]

FIT_SEED_OFFSET = 1_000_003
"""The train heads that baselines are fitted on are drawn with a seed of their own."""

_CONTROL_SUBJECTS = 4


def load_fits(parts: Path, factors: tuple[int, int]) -> baselines.Fits | None:
    """The baselines' fits at one factor, or None where there were no train heads to fit them on."""
    file = _fits(parts, factors)
    return baselines.Fits.load(file) if file.is_file() else None


def _fits(parts: Path, factors: tuple[int, int]) -> Path:
    return parts / f"fits_x{factors[0]}.npz"


def _control(parts: Path, factors: tuple[int, int]) -> Path:
    return parts / f"control_x{factors[0]}.json"


def prepare_fits(config: EvaluationConfig, parts: Path, factors: Sequence[tuple[int, int]], report: Progress) -> None:
    """Fits the baselines and collects the train heads' slices, unless that lies in ``parts`` already.

    Raises:
        ConfigError: There are no train heads.
    """
    missing = [pair for pair in factors if not _fits(parts, pair).is_file()]
    if not missing:
        return
    simulation = config.simulation("train")
    heads = head_count(simulation)
    plain = memorisation.plain_heads(simulation)
    subjects, library = [], []
    for number in range(heads):
        report(number, heads, "simulating the train heads for the baselines")
        subjects.append(simulate_subject(simulation, number, config.seed + FIT_SEED_OFFSET, missing))
        library.append(simulate_subject(plain, number, config.seed, []).truth[0])
    memorisation.Library.of(library).save(parts / "train_slices.npz")
    for pair in missing:
        report(0, 1, f"fitting the baselines at x{pair[0]}")
        problems = []
        for subject in subjects:
            case = cases.simulated_case(subject, pair)
            problems.append(cases.pose(case, case.mode if config.data_consistency == "auto" else "off"))
        stored = _library(str(parts / "train_slices.npz"))
        control = [
            value
            for problem in problems[:_CONTROL_SUBJECTS]
            for value in stored.nearest(problem.case.truth[0], problem.prepared.plane)
        ]
        write_text(_control(parts, pair), json.dumps(control))
        baselines.fit(problems).save(_fits(parts, pair))


def nearest_rows(problem: cases.Problem, estimate: scoring.Estimate, parts: Path) -> Iterator[scoring.Row]:
    """Correlation of a sample's detail with the train heads', the truth's, and the control's; medians over slices."""
    file, control = parts / "train_slices.npz", _control(parts, problem.case.factors)
    if estimate.operating_point != "sample" or not file.is_file() or not control.is_file():
        return
    library, operator = _library(str(file)), problem.prepared.plane
    found = {
        "sample": library.nearest(estimate.images[0][0], operator),
        "truth": library.nearest(problem.case.truth[0], operator),
        "control": json.loads(control.read_text()),
    }
    for name, values in found.items():
        if values:
            yield {
                **estimate.label,
                "convention": "",
                "metabolite": problem.case.measured.names[0],
                "metric": f"nearest_train_{name}",
                "value": sorted(values)[len(values) // 2],
            }


@lru_cache(maxsize=2)
def _library(path: str) -> memorisation.Library:
    return memorisation.Library.load(Path(path))
