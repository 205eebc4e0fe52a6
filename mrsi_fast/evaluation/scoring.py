"""All numbers of one estimate of one case, as self-describing rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.evaluation import calibration, lesion, metrics, perceptual, tissue
from mrsi_fast.evaluation.cases import Problem
from mrsi_fast.mrsi.geometry import voxel_sizes_mm
from mrsi_fast.mrsi.slabs import to_slices

Float32 = NDArray[np.float32]
Row = dict[str, Any]

SCORED_SAMPLES = 4
"""Single samples are scored one by one and averaged; so many of them, so that calibration alone costs more."""

INTERVAL = 0.9
TUMOUR_MAPS = ("tNAA", "tCr", "tCho", "Ins", "Glx", "2HG")


@dataclass(frozen=True, eq=False)
class Estimate:
    """Output of a method for a case.

    Attributes:
        method: Name in the tables.
        operating_point: ``point estimate``, ``random draw``, ``one-step mean``, ``mean of S samples`` or ``sample``.
        steps: Solver steps of a sample; 0 for methods without.
        image: [M, X, Y, Z] in the maps' units; None for ``sample``, which is scored from ``samples``.
        samples: [S, M, X, Y, Z] draws behind it, or None.
    """

    method: str
    operating_point: str
    steps: int
    image: Float32 | None
    samples: Float32 | None = None

    @property
    def label(self) -> Row:
        """Method and operating point, as every row of this estimate carries them."""
        return {
            "method": self.method,
            "operating_point": self.operating_point,
            "steps": self.steps,
            "samples": 0 if self.samples is None else len(self.samples),
        }

    @property
    def images(self) -> Sequence[Float32]:
        """What is scored as images: the estimate itself, or single samples one by one."""
        if self.image is not None:
            return [self.image]
        return [] if self.samples is None else list(self.samples[:SCORED_SAMPLES])

    @property
    def draws(self) -> Float32:
        """[S, M, X, Y, Z] joint draws for ratio maps."""
        if self.image is not None and self.samples is not None:
            return self.samples
        return np.stack(list(self.images))


def score(problem: Problem, estimate: Estimate, with_lpips: bool) -> list[Row]:
    """Scores an estimate.

    Args:
        problem: The case and how it was prepared.
        estimate: On the grid of the truth.
        with_lpips: Whether LPIPS can be computed here.

    Returns:
        Rows with ``convention``, ``metabolite``, ``metric`` and ``value``; tissue and tumour rows have ``true`` too.
    """
    rows: list[Row] = []
    for name in metrics.CONVENTIONS:
        rows += _image_rows(problem, estimate, name, with_lpips)  # type: ignore[arg-type]
    rows += _spectrum_rows(problem, estimate)
    rows += _consistency_rows(problem, estimate)
    rows += _tissue_rows(problem, estimate)
    if estimate.image is not None and estimate.samples is not None:
        rows += _calibration_rows(problem, estimate.samples)
    if problem.case.regions is not None:
        rows += _lesion_rows(problem, estimate)
    return [{**estimate.label, **row} for row in rows]


def region(problem: Problem, index: int) -> NDArray[np.bool_]:
    """[X, Y, Z] voxels of one map that count under ``brain``: inside the brain, measured, and trusted there."""
    return problem.case.brain & problem.prepared.volume.trusted[index]


def _holds_signal(problem: Problem, index: int, z: int) -> bool:
    """Whether a true slice holds more than noise: a score relative to an empty slice's range has no meaning.

    2HG is absent without a mutation; its slices count where it reaches the noise of a voxel and 2 % of its scale.
    """
    volume = problem.prepared.volume
    largest = float(problem.case.truth[index, ..., z].max())
    return problem.prepared.content[index] != "empty" and largest > max(
        volume.noise[index], 0.02 * volume.scale[index], 0.0
    )


def _row(metric: str, value: float, metabolite: str = "", convention: str = "", **more: Any) -> Row:
    return {"convention": convention, "metabolite": metabolite, "metric": metric, "value": float(value), **more}


def _image_rows(
    problem: Problem, estimate: Estimate, convention: metrics.ConventionName, with_lpips: bool
) -> Iterator[Row]:
    truth, names = problem.case.truth, problem.case.measured.names
    big_enough = min(truth.shape[1:3]) >= perceptual.SMALLEST_SIDE
    for index, name in enumerate(names):
        scores: list[dict[str, float]] = []
        pairs: list[metrics.Prepared] = []
        where = region(problem, index)
        shown = [z for z in range(truth.shape[3]) if _holds_signal(problem, index, z)]
        for image in estimate.images:
            for z in shown:
                arguments = truth[index, ..., z], image[index, ..., z], where[..., z], convention
                found = metrics.score_slice(*arguments)
                pair = metrics.under_convention(*arguments)
                if found is not None and pair is not None:
                    scores.append(found)
                    pairs.append(pair)
        for metric in ("psnr", "ssim", "nrmse") if scores else ():
            values = np.array([score[metric] for score in scores])
            values = values[~np.isnan(values)]  # SSIM of grids that are too small for its window
            yield _row(
                metric,
                values.mean() if len(values) else np.nan,
                name,
                convention,
                slices=len(scores) // len(estimate.images),
            )
        if with_lpips and big_enough and pairs:
            inside = [np.where(pair.region, (pair.truth, pair.estimate), 0.0) for pair in pairs]
            high = np.array([max(pair.truth[pair.region].max(), 1e-12) for pair in pairs])
            distances = perceptual.lpips_pairs(
                np.stack([p[0] for p in inside]), np.stack([p[1] for p in inside]), np.zeros(len(pairs)), high
            )
            yield _row("lpips", distances.mean(), name, convention, slices=len(scores) // len(estimate.images))


def _spectrum_rows(problem: Problem, estimate: Estimate) -> Iterator[Row]:
    """Error power by spatial frequency, over all maps that hold signal but 2HG, each divided by its scale."""
    case = problem.case
    used = [
        index
        for index, name in enumerate(case.measured.names)
        if name != "2HG" and problem.prepared.volume.scale[index] > 0
    ]
    if not used:
        return
    truth, image = (np.moveaxis((maps / problem.scale)[used], -1, 1) for maps in (case.truth, estimate.images[0]))
    found = metrics.radial_spectrum(truth, image, voxel_sizes_mm(case.affine)[:2])
    curves = ("frequency", "truth", "estimate", "error")
    power: Row = {name: [float(v) for v in getattr(found, name)] for name in curves}
    yield _row("spectrum", metrics.nrmse(truth, image), **power)


def _consistency_rows(problem: Problem, estimate: Estimate) -> Iterator[Row]:
    residual = problem.prepared.consistency.residual(to_slices(estimate.images[0]), over=(0, -2, -1))
    for index, name in enumerate(problem.case.measured.names):
        yield _row("residual_relative", float(residual.relative[index]), name)
        if np.isfinite(float(residual.expected[index])):
            yield _row("residual_over_noise", float(residual.whitened[index] / residual.expected[index]), name)


def _tissue_rows(problem: Problem, estimate: Estimate) -> Iterator[Row]:
    """Levels on the fine grid, where lack of resolution is bias, and in the measured band, where only errors are."""
    case = problem.case
    if case.tissue is None:
        return

    def band(image: NDArray) -> NDArray:
        return np.moveaxis(problem.prepared.acquisition.measured(np.moveaxis(image, -1, 0)), 0, -1)

    blurred = {label: band(share) for label, share in case.tissue.items()}
    for index, name in enumerate(case.measured.names):
        where = region(problem, index)
        if case.regions is not None:
            where = where & case.regions.away
        truth, image = case.truth[index], estimate.images[0][index]
        for prefix, shares, pair in (("", case.tissue, (truth, image)), ("band_", blurred, (band(truth), band(image)))):
            true, found = (tissue.tissue_levels(one, shares, where) for one in pair)
            for label in true:
                yield _row(f"{prefix}level_{label}", found[label], name, true=true[label])


def _calibration_rows(problem: Problem, samples: Float32) -> Iterator[Row]:
    case = problem.case
    for index, name in enumerate(case.measured.names):
        if not problem.prepared.volume.scale[index] > 0:
            continue  # an empty map is passed on as it is: nothing is drawn, so nothing can be calibrated
        where = region(problem, index)
        truth, draws = case.truth[index], samples[:, index]
        shares = {"brain": where.astype(np.float32)}
        shares |= {label: share * where for label, share in (case.tissue or {}).items()}
        for label, share in shares.items():
            yield _row(f"coverage_{label}", calibration.coverage(truth, draws, share, INTERVAL), name)
        yield _row("crps", calibration.crps(truth, draws)[where].mean() if where.any() else np.nan, name)
        spread = draws.astype(np.float64).std(axis=0, ddof=1)[where]
        error = (draws.mean(axis=0, dtype=np.float64) - truth)[where]
        if spread.size and (error**2).sum() > 0:
            # 1 for calibrated draws: the error of a mean of S draws has variance sd^2 (1 + 1/S).
            ratio = np.sqrt((spread**2).mean() * (1 + 1 / len(draws)) / (error**2).mean())
            yield _row("spread_over_error", ratio, name)


def _lesion_rows(problem: Problem, estimate: Estimate) -> Iterator[Row]:
    case, regions = problem.case, problem.case.regions
    names = case.measured.names
    assert regions is not None
    size: Row = {"diameter_mm": regions.diameter_mm}
    if regions.core.any():
        for name in (n for n in TUMOUR_MAPS if n in names):
            index = names.index(name)
            truth, image = case.truth[index], estimate.images[0][index]
            parts = {"core": regions.core, "rim": regions.rim, "NAWM": regions.nawm}
            for label, mask in parts.items():
                if mask.any():
                    yield _row(
                        f"mean_{label}",
                        float(image[mask].mean(dtype=np.float64)),
                        name,
                        true=float(truth[mask].mean(dtype=np.float64)),
                        **size,
                    )
            yield _row("recovery", lesion.contrast_recovery(truth, image, regions), name, **size)
            true_cnr = lesion.contrast_to_noise(truth, regions)
            yield _row(
                "cnr_ratio",
                lesion.contrast_to_noise(image, regions) / true_cnr if abs(true_cnr) > 0.1 else np.nan,
                name,
                **size,
            )
    if not {"tCho", "tNAA"} <= set(names) or not regions.nawm.any():
        return
    above, below = names.index("tCho"), names.index("tNAA")
    valid = region(problem, above) & region(problem, below)
    true_ratio = lesion.relative_ratio(case.truth[None, above], case.truth[None, below], regions.nawm & valid, valid)
    draws = estimate.draws
    ratio = lesion.relative_ratio(draws[:, above], draws[:, below], regions.nawm & valid, valid)
    found = lesion.hotspot(true_ratio, ratio, valid, voxel_sizes_mm(case.affine))
    for metric, value in ({} if found is None else asdict(found)).items():
        yield _row(f"hotspot_{metric}", value, "tCho/tNAA", **size)
    seen = lesion.detect(true_ratio, ratio, regions)
    yield _row(
        "detection_peak",
        seen.peak,
        "tCho/tNAA",
        diameter_mm=seen.diameter_mm,
        false=list(seen.false),
        slices=seen.slices,
    )
