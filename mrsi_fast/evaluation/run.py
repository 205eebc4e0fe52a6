"""``evaluate``: model x preset x factors x heads to scores on disk, resumable, parallel over subjects.

One part is one subject at one factor; a finished part is a JSON file and is never computed again. What the baselines
learn from the train heads is fitted once per factor and kept beside the parts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.config import ConfigError
from mrsi_fast.evaluation import baselines, cases, perceptual, scoring
from mrsi_fast.evaluation.fitting import Progress, load_fits, nearest_rows, prepare_fits
from mrsi_fast.evaluation.plan import EvaluationConfig, Task, plan
from mrsi_fast.evaluation.rows import Evaluation
from mrsi_fast.evaluation.tables import write_results
from mrsi_fast.files import atomic_path, write_text
from mrsi_fast.mrsi.consistency import Mode
from mrsi_fast.mrsi.geometry import voxel_sizes_mm
from mrsi_fast.pool import Workers, open_pool
from mrsi_fast.resolver import SuperResolver
from mrsi_fast.simulation.volume import SimulatedSubject, simulate_subject

OURS = "mrsi_fast"
OURS_T1 = "mrsi_fast + T1"
FORMAT = 3
"""Version of the parts; parts of another version are computed again."""


def evaluate(
    config: EvaluationConfig | None = None,
    output: str | Path = "evaluation",
    workers: Workers | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Evaluation:
    """Evaluates a model and the baselines, and writes CSV, JSON, Markdown into ``output``.

    The same settings give the same numbers; a run that was interrupted goes on where it stopped.

    Args:
        config: Settings; or give them by name (``preset="realistic-3T"``).
        output: Folder of this run; another run's parts in it are kept apart by a checksum of the settings.
        workers: Where to work, a part a task; None for this process.
        progress: Called with (done, all, message).
        **settings: Fields of :class:`EvaluationConfig` where ``config`` is None.

    Returns:
        All rows.

    Raises:
        ConfigError: Settings that do not fit, or missing label maps.
        ModelFolderError: The model folder cannot be used.
        MapInputError: A folder of pairs cannot be used.
        PoolError: The workers cannot be had, or are lost.
    """
    workers = workers or Workers()
    config = EvaluationConfig.parse(settings, "evaluate") if config is None else config
    config = _with_absolute_paths(config) if workers.scheduler is not None else config
    tasks = plan(config)
    folder = Path(output)
    facts = _facts(config)
    parts = folder / "parts" / _fingerprint(config, facts)
    parts.mkdir(parents=True, exist_ok=True)
    report = progress or (lambda *_: None)
    left = [task for task in tasks if _read_part(parts, task) is None]
    if left and not config.pairs():
        try:
            prepare_fits(config, parts, sorted({task.factors for task in left}), report)
        except ConfigError as error:
            report(0, len(tasks), f"no train heads, so fitted baselines are left out ({error})")
    done = len(tasks) - len(left)
    report(done, len(tasks))
    for task in _run_all(config, left, parts, workers, report):
        done += 1
        report(done, len(tasks), task.name)
    rows = [row for task in tasks for row in _read_part(parts, task) or []]
    evaluation = Evaluation(folder, parts, rows, facts)
    write_results(evaluation)
    return evaluation


def run_part(config: EvaluationConfig, task: Task, parts: Path, threads: int | None = None) -> None:
    """Computes one part and writes it; the train heads' fits must lie in ``parts``."""
    if isinstance(task.subject, str):
        case = cases.read_pair(Path(task.subject))
    else:
        case = cases.simulated_case(_subject(config, task.subject), task.factors)
    mode: Mode = case.mode if config.data_consistency == "auto" else "off"
    problem = cases.pose(case, mode)
    with_lpips = perceptual.lpips_reason() is None
    header = part_header(problem, config)
    rows, pictures = [], _Pictures(problem)
    for estimate in estimates(config, problem, mode, parts, threads):
        pictures.add(estimate)
        scores = [*scoring.score(problem, estimate, with_lpips), *nearest_rows(problem, estimate, parts)]
        rows += [{**header, **row} for row in scores]
    if task == next(t for t in plan(config) if t.factors == task.factors):
        pictures.save(_example_file(parts, header["factor"]))
    write_text(parts / f"{task.name}.json", json.dumps({"format": FORMAT, "rows": rows}))


class _Pictures:
    """One slice of every estimate, for the page of maps: the one with most of the lesion, else the middle one."""

    def __init__(self, problem: cases.Problem) -> None:
        case = problem.case
        core = np.zeros(case.brain.shape[2]) if case.regions is None else case.regions.core.sum(axis=(0, 1))
        self.z = int(core.argmax()) if core.any() else case.brain.shape[2] // 2
        self.arrays: dict[str, NDArray] = {"truth": case.truth[..., self.z]}
        self.facts = {
            "names": np.array(case.measured.names),
            "affine": case.affine,
            "head": np.array(case.head),
            "unit": np.array(case.measured.units),
            "brain": case.brain[..., self.z],
        }

    def add(self, estimate: scoring.Estimate) -> None:
        """Keeps the slice of an estimate."""
        point = {"point estimate": "", "random draw": ""}.get(estimate.operating_point, f" {estimate.operating_point}")
        steps = f", {estimate.steps} steps" if estimate.steps > 1 else ""
        self.arrays[f"{estimate.method}{point}{steps}"] = estimate.images[0][..., self.z]

    def save(self, path: Path) -> None:
        """Writes everything as ``.npz``."""
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            everything: dict[str, Any] = {**self.facts, **self.arrays, "order": np.array(list(self.arrays))}
            np.savez_compressed(stream, **everything)


def _example_file(parts: Path, factor: int | str) -> Path:
    return parts / f"example_x{factor}.npz"


def example(evaluation: Evaluation, factor: int | str) -> dict[str, NDArray] | None:
    """One slice of truth and estimates of the first subject at a factor, or None if none was kept.

    Returns:
        ``names``, ``affine``, ``head``, ``brain`` [X, Y], ``order``, and per name in ``order`` the maps [M, X, Y].
    """
    file = _example_file(evaluation.parts, factor)
    if not file.is_file():
        return None
    with np.load(file) as stored:
        return {name: stored[name] for name in stored.files}


def part_header(problem: cases.Problem, config: EvaluationConfig) -> dict[str, Any]:
    """What all rows of a part share: head, preset, grid, factor, data consistency."""
    case = problem.case
    shape, factors = case.truth.shape[1:3], case.factors
    return {
        "preset": case.facts["preset"],
        "split": case.facts["split"] if config.held_out is None else "held-out",
        "head": case.head,
        "subject": case.facts.get("subject", case.head),
        "N": str(shape[0]) if shape[0] == shape[1] else f"{shape[0]}x{shape[1]}",
        "factor": factors[0] if factors[0] == factors[1] else f"{factors[0]}x{factors[1]}",
        "voxel_mm": round(float(voxel_sizes_mm(case.affine)[0]), 4),
        "consistency": problem.prepared.consistency.applied,
    }


def estimates(
    config: EvaluationConfig, problem: cases.Problem, mode: Mode, parts: Path, threads: int | None
) -> Iterator[scoring.Estimate]:
    """All methods' answers to one problem: baselines first, then ours at every operating point."""
    fits = load_fits(parts, problem.case.factors)
    for name in config.methods:
        if fits is None and name in baselines.FITTED:
            continue
        point = "random draw" if name == "zero-fill + texture" else "point estimate"
        yield scoring.Estimate(name, point, 0, baselines.estimate(name, problem, fits, config.seed))
    if config.model == "none":
        return
    resolver = _resolver(config.model, threads)
    for method, anatomy in ((OURS, None), (OURS_T1, problem.case.anatomy)):
        if method == OURS_T1 and (not config.anatomy or anatomy is None):
            continue
        call = {
            **problem.case.arguments(),
            "data_consistency": mode,
            "anatomy": anatomy,
            "keep_filled": True,
            "evidence": "off",
            "align": "off",
            "seed": config.seed,
        }
        yield scoring.Estimate(method, "one-step mean", 1, resolver(problem.case.measured, samples=0, **call).mean)
        for steps in config.steps if config.samples else ():
            result = resolver(problem.case.measured, samples=config.samples, steps=steps, **call)
            assert result.samples is not None
            yield scoring.Estimate(method, "sample", steps, None, result.samples)
            mean = result.samples.mean(axis=0, dtype=np.float64).astype(np.float32)
            yield scoring.Estimate(method, f"mean of {config.samples} samples", steps, mean, result.samples)


def _run_all(
    config: EvaluationConfig, tasks: Sequence[Task], parts: Path, workers: Workers, report: Progress
) -> Iterator[Task]:
    if not workers.asked or not tasks:
        for task in tasks:
            run_part(config, task, parts)
            yield task
        return
    threads = workers.threads_of(os.cpu_count() or 1)
    calls = [(config, task, parts.absolute(), threads) for task in tasks]
    with open_pool(workers, lambda text: report(0, len(tasks), text)) as pool:
        for finished in pool.each(_part, calls, [task.name for task in tasks]):
            if finished.error is not None:
                raise finished.error
            yield tasks[finished.index]


def _part(call: tuple[EvaluationConfig, Task, Path, int]) -> None:
    run_part(*call)


def _with_absolute_paths(config: EvaluationConfig) -> EvaluationConfig:
    """The same settings for workers in other folders."""
    named = {"held_out": config.held_out, "model": None if config.model == "none" else config.model}
    return config.model_copy(update={key: os.path.abspath(value) for key, value in named.items() if value is not None})


@lru_cache(maxsize=2)
def _subject(config: EvaluationConfig, number: int) -> SimulatedSubject:
    """One subject at all factors: its parts follow each other."""
    return simulate_subject(config.simulation("evaluated"), number, config.seed, [(s, s) for s in config.scales])


@lru_cache(maxsize=2)
def _resolver(model: str | None, threads: int | None) -> SuperResolver:
    return SuperResolver.from_pretrained(model, threads=threads)


def _facts(config: EvaluationConfig) -> dict[str, Any]:
    facts: dict[str, Any] = {"settings": config.model_dump(mode="json"), "lpips": perceptual.lpips_reason()}
    if config.held_out is not None:  # the folder's name may identify, and moving it must not change anything
        facts["settings"]["held_out"] = Path(config.held_out).name
    if config.model != "none":
        pretrained = _resolver(config.model, None).pretrained
        facts["model"] = {"name": pretrained.config.name, "sha256": pretrained.sha256}
        facts["settings"]["model"] = pretrained.config.name
    return facts


def _fingerprint(config: EvaluationConfig, facts: dict[str, Any]) -> str:
    settings = {key: value for key, value in config.model_dump(mode="json").items() if key != "model"}
    text = json.dumps([FORMAT, settings, facts.get("model"), facts["lpips"] is None], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _read_part(parts: Path, task: Task) -> list[dict[str, Any]] | None:
    try:
        stored = json.loads((parts / f"{task.name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stored["rows"] if stored.get("format") == FORMAT else None
