"""Ratio maps: per sample, floored, summarised; against NumPy on plain arrays and closed forms."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from mrsi_fast.mrsi import ratios
from mrsi_fast.mrsi.ratios import cni_map, hotspot, ratio_maps

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


@pytest.mark.parametrize("samples", [1, 9])
def test_ratios_do_not_depend_on_how_many_voxels_are_divided_together(samples, monkeypatch, tmp_path) -> None:
    rng = np.random.default_rng(4)
    both = rng.uniform(1, 3, (2, samples, 6, 5, 4)).astype(np.float32)
    both[0, 0, 2] = np.nan  # a plane without any voxel
    both[0, :, 1, :2, :2] *= 4
    both.tofile(tmp_path / "samples")
    mapped = np.memmap(tmp_path / "samples", np.float32, "r", shape=both.shape)
    settings = {"times_reference": 1.5, "reference": "mirror", "affine": np.diag([2.0, 2, 2, 1])}
    settings["deviations"] = tuple(rng.uniform(0.1, 0.2, (2, 6, 5, 4)))
    whole = ratio_maps(*both, **settings)
    monkeypatch.setattr(ratios, "VALUES_AT_ONCE", 1)
    for field in fields(whole):
        np.testing.assert_array_equal(
            getattr(ratio_maps(*mapped, **settings), field.name), getattr(whole, field.name), err_msg=field.name
        )


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


def tumour(count: int = 16, lesion: slice = slice(2, 6)) -> tuple[np.ndarray, np.ndarray]:
    """Samples of two maps on 20x20x4: tCho 2 and tNAA 10 everywhere, a lesion of 4x4x4 voxels with a ratio of 1."""
    rng = np.random.default_rng(3)
    top, bottom = (level * (1 + 0.02 * rng.standard_normal((count, 20, 20, 4))) for level in (2.0, 10.0))
    top[:, lesion, 8:12], bottom[:, lesion, 8:12] = 2.5 * top[:, lesion, 8:12], 0.5 * bottom[:, lesion, 8:12]
    return top, bottom


AFFINE = np.array([[5.0, 0, 0, -47.5], [0, 5.0, 0, -47.5], [0, 0, 10.0, 0], [0, 0, 0, 1]])


def test_hotspot_has_a_volume_an_interval_and_a_peak() -> None:
    top, bottom = tumour()
    top[:8, 2, 8:12] = 1.0  # in half of the samples a quarter of the lesion is not there
    maps = ratio_maps(top, bottom, times_reference=2.0)
    found = hotspot(maps, AFFINE)
    voxel_ml = 0.25
    assert found.interval_ml == (48 * voxel_ml, 64 * voxel_ml)
    assert found.volume_ml == 56 * voxel_ml and found.likely_ml == 64 * voxel_ml == found.largest_ml
    assert found.certain_ml == 48 * voxel_ml
    assert found.peak == pytest.approx(np.nanmax(maps.median)) and found.peak_sd is not None
    place = np.argwhere(maps.median == maps.median[np.isfinite(maps.median)].max())[0]
    np.testing.assert_allclose(found.peak_mm, AFFINE[:3, :3] @ place + AFFINE[:3, 3])


def test_hotspot_of_mean_maps_has_no_interval() -> None:
    top, bottom = tumour(1)
    found = hotspot(ratio_maps(top, bottom, threshold=0.4), AFFINE)
    assert found.volume_ml == found.likely_ml == 16.0
    assert found.interval_ml is None and found.certain_ml is None and found.peak_sd is None
    with pytest.raises(ValueError, match="needs a threshold"):
        hotspot(ratio_maps(top, bottom), AFFINE)


def test_no_hotspot_is_a_volume_of_zero() -> None:
    top, bottom = tumour()
    found = hotspot(ratio_maps(top, bottom, threshold=9.0), AFFINE)
    assert found.volume_ml == 0 and found.interval_ml == (0.0, 0.0) and found.peak_mm is None


def test_mirrored_reference_lies_opposite_the_lesion() -> None:
    top, bottom = tumour()
    top[:, 10:], bottom[:, 10:] = 1.2 * top[:, 10:], 0.9 * bottom[:, 10:]  # the other hemisphere has another level
    maps = ratio_maps(top, bottom, reference="mirror", times_reference=2.0, affine=AFFINE)
    assert maps.reference_source == "mirror image of the hotspot (mid-plane at x = 0.0 mm)"
    opposite = np.median(np.median(top[:, 14:18, 8:12] / bottom[:, 14:18, 8:12], axis=0))
    assert maps.reference == pytest.approx(opposite, rel=1e-6) and maps.threshold == pytest.approx(2 * opposite)
    assert hotspot(maps, AFFINE).likely_ml == 16.0


@pytest.mark.parametrize("lesion", [slice(8, 12), slice(0, 0)], ids=["in the midline", "none"])
def test_without_a_mirror_image_all_voxels_are_the_reference(lesion: slice) -> None:
    maps = ratio_maps(*tumour(lesion=lesion), reference="mirror", times_reference=2.0, affine=AFFINE)
    assert maps.reference_source == "all valid voxels"
    assert maps.reference == pytest.approx(0.2, rel=0.02)


def test_cni_is_a_z_score_against_the_regression_line() -> None:
    rng = np.random.default_rng(4)
    naa = rng.uniform(6, 12, (20, 20, 4))
    cho = 0.5 + 0.15 * naa + 0.05 * rng.standard_normal(naa.shape)
    cho[2:6, 8:12] += 1.0
    naa[0, 0, 0] = np.nan
    index = cni_map(cho, naa)
    lesion = np.zeros(naa.shape, dtype=bool)
    lesion[2:6, 8:12] = True
    assert np.nanmean(index[lesion]) == pytest.approx(1.0 / 0.05, rel=0.1)
    assert abs(np.nanmean(index[~lesion])) < 0.15 and np.nanstd(index[~lesion]) == pytest.approx(1.0, rel=0.1)
    assert np.isnan(index[0, 0, 0])
    np.testing.assert_allclose(cni_map(7 * cho, 3 * naa), index, rtol=1e-3, atol=1e-3)


def test_cni_needs_tissue_to_fit() -> None:
    with pytest.raises(ValueError, match="at least 20 voxels"):
        cni_map(np.ones(SHAPE), np.ones(SHAPE))


def test_a_mirrored_reference_needs_a_grid() -> None:
    with pytest.raises(ValueError, match="affine"):
        ratio_maps(*tumour(), reference="mirror", times_reference=2.0)
