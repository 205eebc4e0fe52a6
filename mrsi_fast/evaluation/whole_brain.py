"""Whole brains, refined along all three axes: ours, ours in plane with cubic interpolation through it, and baselines.

Subjects are simulated as volumes of 5 mm voxels with a truth of 2.5 mm (``SimulationConfig.whole_brain``). PSNR and
SSIM are three-dimensional, inside the brain where the data are trusted, relative to the truth's range there, as means
over maps without 2HG. LPIPS is that of planes of each direction. These rows are a track of their own.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.evaluation import metrics, perceptual
from mrsi_fast.evaluation import volume_baselines as base
from mrsi_fast.evaluation.ridge import Ridge
from mrsi_fast.evaluation.rows import APART, markdown_table
from mrsi_fast.evaluation.volume_baselines import VolumeProblem
from mrsi_fast.resolver import SuperResolver
from mrsi_fast.result import Result
from mrsi_fast.simulation.config import SimulationConfig
from mrsi_fast.simulation.volume import simulate_subject
from mrsi_fast.three_planes import AXIAL, CORONAL, SAGITTAL, planes_last

Float32 = NDArray[np.float32]
Row = dict[str, Any]
Progress = Callable[[int, int, str], None]

SCALE = (2, 2, 2)
OURS, IN_PLANE = "mrsi_fast", "mrsi_fast in plane, cubic through it"
STEPS = 9
"""Solver steps of the sample: each direction three times."""

SAMPLE = f"mrsi_fast, one sample, {STEPS} steps"
TRAIN_HEADS = 3
"""Train heads that ridge regression and total variation learn from."""

TRAIN_SEED_OFFSET = 1_000_003
PLANES_APART = 4
"""LPIPS is that of every so many planes."""

DIRECTIONS = {"axial": AXIAL, "coronal": CORONAL, "sagittal": SAGITTAL}
Z90 = 1.6449


def whole_brain_rows(
    resolver: SuperResolver, preset: str, heads: int, seed: int, anatomy: bool, progress: Progress | None = None
) -> list[Row]:
    """Scores of val heads.

    Args:
        resolver: The model.
        preset: Where concentrations, variation, noise and acquisition come from.
        heads: How many of the val heads.
        seed: Of the subjects.
        anatomy: Also with the T1 image.
        progress: Called with (done, all, message).

    Raises:
        ConfigError: There is no such preset, or its heads are missing.
    """
    report = progress or (lambda *_: None)
    report(0, heads, "simulating train heads for the baselines")
    ridge, fidelity = _learned(preset, seed)
    rows = []
    for number in range(heads):
        report(number, heads, f"{preset}, head {number}")
        problem = _problem(preset, number, seed)
        facts = {"preset": preset, "head": str(problem.subject.provenance["head"])}
        for method, with_t1, make in _methods(resolver, problem, ridge, fidelity, anatomy):
            started = time.monotonic()
            found, extra = make()
            seconds = time.monotonic() - started
            about = facts | {"method": method, "T1": with_t1, "seconds": seconds, "peak_MiB": _peak_mib()}
            rows.append(about | extra | score(problem, found))
            report(number, heads, f"{preset}, head {number}, {method}: {rows[-1]['psnr']:.2f} dB")
    report(heads, heads, "done")
    return rows


def _problem(preset: str, number: int, seed: int, split: str | None = None) -> VolumeProblem:
    config = SimulationConfig.preset(preset).whole_brain()
    if split is not None:
        config = config.model_copy(update={"anatomy": config.anatomy.model_copy(update={"split": split})})
    return VolumeProblem.of(simulate_subject(config, number, seed, [SCALE]), SCALE)


def _learned(preset: str, seed: int) -> tuple[Ridge, float | None]:
    problems = [_problem(preset, number, seed + TRAIN_SEED_OFFSET, "train") for number in range(TRAIN_HEADS)]
    return base.fit_volume_ridge(problems), base.tuned_fidelity(problems[0])


def _methods(
    resolver: SuperResolver, problem: VolumeProblem, ridge: Ridge, fidelity: float | None, anatomy: bool
) -> Iterator[tuple[str, bool, Callable[[], tuple[Float32, Row]]]]:
    """Name, whether guided, and what makes the estimate with facts about it."""

    def plain(make: Callable[[], NDArray]) -> Callable[[], tuple[Float32, Row]]:
        return lambda: (problem.held(make()), {})

    yield "zero-fill", False, plain(lambda: problem.prepared.zero_fill())
    yield "cubic", False, plain(lambda: base.cubic_everywhere(problem))
    yield "TV", False, plain(lambda: base.total_variation(problem, fidelity))
    yield "ridge", False, plain(lambda: base.ridge_estimate(problem, ridge))
    for with_t1 in (False, True) if anatomy else (False,):

        def in_plane(guided: bool = with_t1) -> tuple[Float32, Row]:
            found = _run(resolver, problem, (*SCALE[:2], 1), guided).mean
            return problem.held(base.cubic(found, SCALE[2], 2)), {}

        def ours(guided: bool = with_t1) -> tuple[Float32, Row]:
            result = _run(resolver, problem, SCALE, guided)
            return result.mean, coverage(problem, result)

        yield IN_PLANE, with_t1, in_plane
        yield OURS, with_t1, ours
    yield SAMPLE, False, lambda: (_drawn(resolver, problem), {})


def _drawn(resolver: SuperResolver, problem: VolumeProblem) -> Float32:
    """One sample; its time includes that of the mean."""
    samples = _run(resolver, problem, SCALE, guided=False, samples=1, steps=STEPS).samples
    assert samples is not None
    return samples[0]


def _run(
    resolver: SuperResolver, problem: VolumeProblem, scale: tuple[int, int, int], guided: bool, **drawing: int
) -> Result:
    """One run with what is declared of the subject; its aligned T1 is believed, as in the planar evaluation."""
    subject = problem.subject
    options = base.call_options(subject, problem.scale) | {"keep_filled": True, "evidence": "off"}
    image = (subject.anatomy, subject.affine) if guided else None
    options |= drawing
    return resolver(problem.maps, scale=scale, anatomy=image, align="off", anatomy_trust="force", **options)


def score(problem: VolumeProblem, found: Float32) -> Row:
    """PSNR, SSIM, LPIPS by direction and the neighbour correlation of what was not measured."""
    truth, names = problem.subject.truth, problem.maps.names
    used = [index for index, name in enumerate(names) if name != APART and problem.prepared.volume.scale[index] > 0]
    values: dict[str, list[float]] = {"psnr": [], "ssim": []}
    for index in used:
        where = problem.subject.masks["brain"] & problem.prepared.volume.trusted[index]
        span = float(np.ptp(truth[index][where]))
        values["psnr"].append(metrics.psnr(truth[index][where], found[index][where], span))
        image = metrics.ssim_gaussian_map(truth[index], found[index], span)[1]
        values["ssim"].append(float(image[where].mean()))
    row: Row = {name: float(np.mean(each)) for name, each in values.items()}
    row["psnr_by_map"] = dict(zip([names[index] for index in used], values["psnr"], strict=True))
    if perceptual.lpips_reason() is None and min(truth.shape[1:]) >= perceptual.SMALLEST_SIDE:
        row |= {f"lpips_{name}": _lpips(problem, found, across, used) for name, across in DIRECTIONS.items()}
    for name, volume in (("", found), ("true_", truth)):
        row[f"{name}neighbour_correlation"] = neighbour_correlation(problem, volume, used)
    return row


def _lpips(problem: VolumeProblem, found: Float32, across: int, used: list[int]) -> float:
    """LPIPS inside the brain over planes across an axis that hold at least a tenth of the fullest one's brain."""
    brain = planes_last(problem.subject.masks["brain"], across)
    share = brain.sum(axis=(0, 1))
    chosen = np.flatnonzero(share > 0.1 * share.max())[::PLANES_APART]
    inside = brain[..., chosen]
    pairs = [
        np.moveaxis(np.where(inside, planes_last(volume[index], across)[..., chosen], 0.0), -1, 0)
        for index in used
        for volume in (problem.subject.truth, found)
    ]
    truth, estimate = np.concatenate(pairs[::2]), np.concatenate(pairs[1::2])
    high = np.maximum(truth.max(axis=(1, 2)), 1e-12)
    return float(perceptual.lpips_pairs(truth, estimate, np.zeros(len(truth)), high).mean())


def neighbour_correlation(problem: VolumeProblem, volume: NDArray, used: list[int]) -> float:
    """Correlation between neighbouring planes of what the acquisition did not see, in the brain; a mean over maps."""
    null = np.moveaxis(problem.operator.null(np.moveaxis(volume, -1, 0).astype(np.float64)), 0, -1)
    brain = problem.subject.masks["brain"]
    both = brain[..., 1:] & brain[..., :-1]
    return float(np.mean([np.corrcoef(null[m, ..., 1:][both], null[m, ..., :-1][both])[0, 1] for m in used]))


def coverage(problem: VolumeProblem, result: Result) -> Row:
    """Share of voxels whose truth lies within 1.645 SD of the mean, by tissue, and RMS error over RMS SD."""
    subject, row = problem.subject, {}
    used = [index for index, name in enumerate(problem.maps.names) if name != APART]
    error, sd = subject.truth - result.mean, result.std
    trusted = problem.prepared.volume.trusted & subject.masks["brain"]
    for tissue, share in subject.tissue.items():
        weights = [share * trusted[index] for index in used]
        hits = [np.abs(error[index]) <= Z90 * sd[index] for index in used]
        row[f"coverage_{tissue}"] = float(
            np.mean([np.average(h, weights=w) for h, w in zip(hits, weights, strict=True)])
        )
    ratios = [
        np.sqrt((error[index][trusted[index]] ** 2).mean() / (sd[index][trusted[index]] ** 2).mean()) for index in used
    ]
    return row | {"error_over_sd": float(np.mean(ratios)), "sd_source": result.provenance["standard_deviation"]}


def _peak_mib() -> float:
    """Largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


COLUMNS = (
    ("PSNR, dB", "psnr", "{:.2f}"),
    ("SSIM", "ssim", "{:.3f}"),
    ("LPIPS axial", "lpips_axial", "{:.4f}"),
    ("coronal", "lpips_coronal", "{:.4f}"),
    ("sagittal", "lpips_sagittal", "{:.4f}"),
    ("neighbour r", "neighbour_correlation", "{:.3f}"),
    ("GM in 90 %", "coverage_GM", "{:.2f}"),
    ("WM", "coverage_WM", "{:.2f}"),
    ("CSF", "coverage_CSF", "{:.2f}"),
    ("error/SD", "error_over_sd", "{:.2f}"),
    ("s", "seconds", "{:.1f}"),
)


def whole_brain_table(rows: list[Row]) -> str:
    """Markdown: one table a preset, means over heads, with what the truth's neighbour correlation is."""
    tables = []
    for preset in dict.fromkeys(row["preset"] for row in rows):
        own = [row for row in rows if row["preset"] == preset]
        heads = sorted({row["head"] for row in own})
        true = np.mean([row["true_neighbour_correlation"] for row in own])
        lines = []
        for method, guided in dict.fromkeys((row["method"], row["T1"]) for row in own):
            these = [row for row in own if (row["method"], row["T1"]) == (method, guided)]
            cells = [_cell(these, key, form) for _, key, form in COLUMNS]
            lines.append([method + (" + T1" if guided else ""), *cells])
        title = (
            f"**{preset}**, 5 to 2.5 mm in all directions, {len(heads)} val heads ({', '.join(heads)}); neighbouring "
            f"planes of the truth outside the measured band correlate by {true:.3f}; peak memory "
            f"{max(row['peak_MiB'] for row in own):.0f} MiB"
        )
        tables.append(markdown_table(title, ["method", *(name for name, _, _ in COLUMNS)], lines))
    return "\n\n".join(tables)


def _cell(rows: list[Row], key: str, form: str) -> str:
    values = [row[key] for row in rows if key in row]
    return form.format(np.mean(values)) if values else ""
