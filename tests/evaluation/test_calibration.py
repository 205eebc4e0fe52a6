"""Interval coverage and CRPS against closed forms of the normal distribution."""

from __future__ import annotations

import numpy as np
import pytest

from mrsi_fast.evaluation.calibration import coverage, crps, interval_factor


def test_the_factor_for_sixteen_samples() -> None:
    assert interval_factor(16) == pytest.approx(1.807, abs=5e-4)
    with pytest.raises(ValueError, match="2 samples"):
        interval_factor(1)


@pytest.mark.parametrize("samples", [8, 16])
def test_calibrated_samples_cover_ninety_percent(samples: int) -> None:
    rng = np.random.default_rng(7)
    draws = rng.standard_normal((samples + 1, 60_000))
    assert coverage(draws[0], draws[1:], np.ones(60_000)) == pytest.approx(0.9, abs=0.005)


def test_samples_of_half_the_spread_cover_too_little() -> None:
    rng = np.random.default_rng(8)
    draws = rng.standard_normal((17, 20_000))
    assert coverage(draws[0], 0.5 * draws[1:], np.ones(20_000)) < 0.7


def test_coverage_is_weighted_by_tissue() -> None:
    truth, samples = np.array([0.0, 100.0]), np.array([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]])
    assert coverage(truth, samples, np.array([0.75, 0.25])) == pytest.approx(0.75)
    assert np.isnan(coverage(truth, samples, np.zeros(2)))


def test_crps_equals_the_double_sum_and_the_normal_closed_form() -> None:
    rng = np.random.default_rng(9)
    draws, truth = rng.standard_normal((6, 5)), rng.standard_normal(5)
    pairs = np.abs(draws[:, None] - draws[None]).sum(axis=(0, 1)) / (2 * 6 * 5)
    np.testing.assert_allclose(crps(truth, draws), np.abs(draws - truth).mean(0) - pairs, rtol=1e-12)
    # E CRPS of N(0,1) at its own draw is 1/sqrt(pi); Gneiting and Raftery 2007, Eq. 21
    many = rng.standard_normal((12, 40_000))
    assert crps(many[0], many[1:]).mean() == pytest.approx(1 / np.sqrt(np.pi), abs=0.01)
    np.testing.assert_array_equal(crps(truth, draws[:1]), np.abs(draws[0] - truth))
