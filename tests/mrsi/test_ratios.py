"""Ratio maps: per sample, floored, summarised; against NumPy on plain arrays and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from mrsi_fast.mrsi.ratios import ratio_maps

SHAPE = (5, 4, 3)


def samples(count: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    top = 2 + 0.3 * rng.standard_normal((count, *SHAPE))
    bottom = 10 + rng.standard_normal((count, *SHAPE))
    return top.astype(np.float32), bottom.astype(np.float32)


def test_summary_is_of_the_ratios_of_each_sample() -> None:
    top, bottom = samples()
    maps = ratio_maps(top, bottom, threshold=0.2)
    ratio = top.astype(np.float64) / bottom
    np.testing.assert_allclose(maps.median, np.median(ratio, 0), rtol=1e-6)
    np.testing.assert_allclose(maps.mean, ratio.mean(0), rtol=1e-6)
    np.testing.assert_allclose(maps.sd, ratio.std(0, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(maps.probability, (ratio > 0.2).mean(0), rtol=1e-6)
    assert np.abs(maps.mean - top.mean(0) / bottom.mean(0)).max() > 1e-4  # which a ratio of means is not
    assert maps.floored.max() == 0 and maps.threshold == 0.2


def test_what_both_maps_share_cancels() -> None:
    """A gain common to both maps of a sample (a coherent draw) leaves no spread in the ratio."""
    gain = np.exp(0.2 * np.random.default_rng(1).standard_normal((12, *SHAPE)))
    maps = ratio_maps(3 * gain, 10 * gain)
    np.testing.assert_allclose(maps.median, 0.3, rtol=1e-6)
    assert maps.sd.max() < 1e-12


def test_units_cancel() -> None:
    top, bottom = samples()
    first, second = ratio_maps(top, bottom, threshold=0.2), ratio_maps(8 * top, 8 * bottom, threshold=0.2)
    for name in ("median", "mean", "sd", "probability", "floored"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert second.floor == pytest.approx(8 * first.floor)


def test_denominator_is_floored_and_marked() -> None:
    top, bottom = np.full((8, *SHAPE), 3.0), np.full((8, *SHAPE), 10.0)
    bottom[:, 0, 0, 0] = 0.5
    bottom[:4, 1, 1, 1] = -2.0
    maps = ratio_maps(top, bottom)
    assert maps.floor == pytest.approx(3.0)
    assert maps.median[0, 0, 0] == 1.0 and maps.floored[0, 0, 0] == 1.0
    assert maps.mean[1, 1, 1] == pytest.approx(0.65) and maps.floored[1, 1, 1] == 0.5
    assert maps.floored.sum() == 1.5


def test_reference_region_sets_floor_and_threshold() -> None:
    top, bottom = np.full((8, *SHAPE), 2.0), np.full((8, *SHAPE), 10.0)
    top[:, 4], bottom[:, 4] = 5.0, 4.0
    nawm = np.zeros(SHAPE, dtype=bool)
    nawm[0] = True
    maps = ratio_maps(top, bottom, reference=nawm, times_reference=2.0)
    assert maps.reference == pytest.approx(0.2) and maps.threshold == pytest.approx(0.4)
    assert maps.probability is not None
    assert (maps.probability[4] == 1).all() and (maps.probability[:4] == 0).all()
    assert ratio_maps(top, bottom, reference=nawm).probability is None


def test_invalid_voxels_are_nan_and_do_not_matter() -> None:
    top, bottom = samples()
    valid = np.ones(SHAPE, dtype=bool)
    valid[2] = False
    spoiled = bottom.copy()
    spoiled[:, 2] = 1e9
    spoiled[3, 4, 0, 0] = np.nan
    maps, clean = ratio_maps(top, spoiled, valid), ratio_maps(top, bottom, valid)
    assert np.isnan(maps.median[2]).all() and np.isnan(maps.sd[2]).all() and np.isnan(maps.floored[2]).all()
    assert np.isnan(maps.median[4, 0, 0])
    np.testing.assert_array_equal(maps.median[:2], clean.median[:2])


@pytest.mark.parametrize("count", [1, 7])
def test_too_few_samples_have_no_sd(count: int) -> None:
    top, bottom = samples(count)
    maps = ratio_maps(top, bottom, threshold=0.2)
    assert np.isnan(maps.sd).all()
    np.testing.assert_allclose(maps.median, np.median(top / bottom, 0), rtol=1e-6)
    assert np.isfinite(maps.probability).all()


def test_refusals_are_sentences() -> None:
    top, bottom = samples(8)
    with pytest.raises(ValueError, match="same samples"):
        ratio_maps(top[:4], bottom)
    with pytest.raises(ValueError, match="same samples"):
        ratio_maps(top[:0], bottom[:0])
    with pytest.raises(ValueError, match="not both"):
        ratio_maps(top, bottom, threshold=1.0, times_reference=2.0)
    with pytest.raises(ValueError, match="no positive median"):
        ratio_maps(top, -bottom)
    with pytest.raises(ValueError, match="no positive median"):
        ratio_maps(top, bottom, reference=np.zeros(SHAPE, dtype=bool))
