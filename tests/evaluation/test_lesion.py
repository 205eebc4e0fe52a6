"""Lesion metrics on a drawn lesion whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from mrsi_fast.evaluation import lesion as measures

VOXEL = (2.0, 2.0, 5.0)


@pytest.fixture
def scene() -> dict[str, np.ndarray]:
    """A round white-matter brain with a round lesion at one side: tCho doubled, tNAA halved, so the ratio is 4."""
    x = np.arange(48) - 23.5
    radius = np.hypot(x[:, None], x[None])[..., None] * np.ones(3)
    brain = radius < 20
    core = (np.hypot(x[:, None] + 9, x[None]) < 5)[..., None] * np.array([0, 1, 0.0]) * brain
    return {
        "brain": brain,
        "core": core,
        "white": brain.astype(float),
        "tCho": np.where(core > 0, 3.0, 1.5) * brain,
        "tNAA": np.where(core > 0, 5.0, 10.0) * brain,
    }


@pytest.fixture
def regions(scene) -> measures.LesionRegions:
    return measures.lesion_regions(scene["core"], scene["core"], scene["white"], scene["brain"], VOXEL, 6.0)


def relative(scene, cho: np.ndarray, naa: np.ndarray, regions) -> np.ndarray:
    return measures.relative_ratio(cho[None], naa[None], regions.nawm, scene["brain"])


def test_regions(scene, regions) -> None:
    area = scene["core"][..., 1].sum() * 4.0
    assert regions.diameter_mm == pytest.approx(2 * np.sqrt(area / np.pi))
    assert regions.nawm[:23].sum() == 0 and regions.nawm.sum() > 100  # the lesion lies at low x: the other half
    assert not (regions.away & (scene["core"] > 0)).any()
    assert not regions.rim.any()
    gap = np.hypot(*(VOXEL[0] * (np.argwhere(regions.away[..., 1])[:, k] - c) for k, c in ((0, 14.5), (1, 23.5))))
    assert gap.min() > 2 * 5 + 6.0 - 2 * VOXEL[0]


def test_no_lesion(scene) -> None:
    empty = np.zeros_like(scene["core"])
    regions = measures.lesion_regions(empty, empty, scene["white"], scene["brain"], VOXEL, 6.0)
    assert regions.diameter_mm == 0
    np.testing.assert_array_equal(regions.away, scene["brain"])
    assert np.isnan(measures.contrast_recovery(scene["tCho"], scene["tCho"], regions))
    flat = relative(scene, np.where(scene["brain"], 1.5, 0), np.where(scene["brain"], 10.0, 0), regions)
    assert measures.hotspot(flat, flat, scene["brain"], VOXEL) is None
    assert measures.detect(flat, flat, regions) == measures.Detection(
        0.0, pytest.approx(np.nan, nan_ok=True), (0,) * 60, 3
    )


def test_recovery_and_contrast(scene, regions) -> None:
    truth = scene["tCho"]
    half = np.where(scene["core"] > 0, 2.25, 1.5) * scene["brain"]
    assert measures.contrast_recovery(truth, truth, regions) == pytest.approx(1)
    assert measures.contrast_recovery(truth, half, regions) == pytest.approx(0.5)
    assert np.isnan(measures.contrast_recovery(scene["white"], half, regions))  # no contrast in the truth
    noise = 0.1 * np.random.default_rng(0).standard_normal(truth.shape)
    ratio = measures.contrast_to_noise(half + noise, regions) / measures.contrast_to_noise(truth + noise, regions)
    assert ratio == pytest.approx(0.5, abs=0.02)


def test_hotspot_of_the_truth_and_of_a_shift(scene, regions) -> None:
    truth = relative(scene, scene["tCho"], scene["tNAA"], regions)
    assert np.nanmax(truth) == pytest.approx(4)
    same = measures.hotspot(truth, truth, scene["brain"], VOXEL)
    assert same == measures.Hotspot(1.0, pytest.approx(1.0), 0.0, 0.0)
    moved = np.roll(truth, 2, axis=1)
    shifted = measures.hotspot(truth, moved, scene["brain"], VOXEL)
    hot, found = truth > 2, moved > 2
    assert shifted.dice == pytest.approx(2 * (hot & found).sum() / (hot.sum() + found.sum()))
    assert shifted.hd95_mm == pytest.approx(4.0)
    assert shifted.volume_error_percent == pytest.approx(0)
    missed = measures.hotspot(truth, np.where(scene["brain"], 1.0, np.nan), scene["brain"], VOXEL)
    assert missed.dice == 0 and np.isnan(missed.hd95_mm) and missed.volume_error_percent == -100


def test_the_denominator_is_floored(scene, regions) -> None:
    emptied = np.where(scene["core"] > 0, 0.0, scene["tNAA"])
    ratio = relative(scene, scene["tCho"], emptied, regions)
    assert np.nanmax(ratio) == pytest.approx(2 / 0.3, rel=1e-5)


def test_hausdorff_of_squares() -> None:
    first, second = np.zeros((2, 20, 20, 1), bool)
    first[4:8, 4:8], second[4:8, 9:13] = True, True
    assert measures.hausdorff95(first, second, (1.0, 3.0, 1.0)) == pytest.approx(15.0)
    assert measures.dice(first, second) == 0.0
    assert measures.dice(~(first | True), ~(first | True)) == 1.0


def test_detection_counts_bodies_away_from_the_lesion(scene, regions) -> None:
    truth = relative(scene, scene["tCho"], scene["tNAA"], regions)
    estimate = truth.copy()
    estimate[30:32, 20:22, 0] = 3.0
    estimate[34, 26, 0] = 2.5
    estimate[31, 30, 2] = 6.0
    found = measures.detect(truth, estimate, regions)
    assert found.peak == pytest.approx(4) and found.slices == 3
    counts = dict(zip(measures.THRESHOLDS, found.false, strict=True))
    assert [counts[t] for t in measures.THRESHOLDS if 1.6 < t < 2.4] == [3] * sum(1.6 < t < 2.4 for t in counts)
    assert [counts[t] for t in measures.THRESHOLDS if 3.1 < t < 5.9] == [1] * sum(3.1 < t < 5.9 for t in counts)


def test_recall_at_a_stated_rate() -> None:
    def case(diameter: float, peak: float, noise: float) -> measures.Detection:
        return measures.Detection(diameter, peak, tuple(int(t < noise) for t in measures.THRESHOLDS), 1)

    cases = [case(6, 1.5, 2.0), case(8, 3.0, 2.0), case(20, 4.0, 1.2), case(0, np.nan, 3.5)]
    # one false body in four slices is allowed: the threshold passes 2.0 (two cases) but not 3.5
    limit = measures.threshold_at_rate(cases, 0.25)
    assert limit == min(t for t in measures.THRESHOLDS if t >= 2.0)
    assert measures.recall_by_diameter(cases, 0.25, (4, 10)) == [(4.0, 10.0, 1, 2), (10.0, float("inf"), 1, 1)]
    assert measures.threshold_at_rate(cases, 10.0) == measures.THRESHOLDS[0]
    assert measures.false_at_recall(cases, 0.6) == pytest.approx(0.25)
    assert measures.false_at_recall(cases, 1.0) == pytest.approx(0.75)
    assert np.isnan(measures.false_at_recall(cases[3:], 0.5))
