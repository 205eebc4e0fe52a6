"""Marks of failed fits: each way of writing "no fit" costs that voxel, and ordinary values cost nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mrsi_fast.mrsi.io import read_maps
from mrsi_fast.mrsi.mapset import MapInputError, MapSet
from mrsi_fast.mrsi.marks import cap_of, shared_values
from mrsi_fast.mrsi.quality import TrustRules, assess
from support.data import data_dir

AFFINE = np.diag([10.0, 10, 12, 1])
SHAPE = (16, 16, 3)
BAD = ((7, 7, 1), (9, 6, 0), (5, 10, 2), (8, 9, 1))


def brain():
    x, y = np.indices(SHAPE[:2])
    return np.repeat((((x - 7.5) / 6.5) ** 2 + ((y - 7.5) / 7) ** 2 < 1)[..., None], SHAPE[2], axis=2)


def scan(background=0.0):
    """tNAA and tCr with 5 % noise and its bound in percent."""
    generator = np.random.default_rng(0)
    level = np.array([10.0, 8.0])[:, None, None, None]
    noise = 0.05 * level * generator.normal(size=(2, *SHAPE))
    maps = np.where(brain(), level * (1 + 0.2 * np.cos(np.linspace(0, 3, 16)))[:, None, None] + noise, background)
    crlb = np.where(brain(), 5 * level / np.maximum(np.abs(maps), 1e-3), 0.0)
    return MapSet(maps.astype(np.float32), AFFINE, ("tNAA", "tCr"), crlb=crlb.astype(np.float32))


def put(array, value, index=0):
    for place in BAD:
        array[(index, *place)] = value


@pytest.mark.parametrize("mark", [0.0, -1.0, np.nan, np.inf, -np.inf, 999.0, 9999.0, 1e10, 1e30])
def test_every_mark_in_the_bounds_is_no_fit(mark):
    maps = scan()
    put(maps.maps, 26.0)
    put(maps.crlb, mark)
    trust = assess(maps)
    assert sorted(np.argwhere(~trust.trusted[0] & brain()).tolist()) == sorted(map(list, BAD))
    assert trust.trusted[1][brain()].all() and trust.counts["no fit"][0] == len(BAD)
    assert np.isnan(trust.sigma[0][~trust.trusted[0]]).all()


@pytest.mark.parametrize("mark", [-1.0, -99.0, -9999.0, 9999.0, 1e10, np.nan, np.inf, -np.inf])
def test_every_mark_in_the_concentrations_is_missing(mark):
    maps = scan()
    values = {name: one.copy() for name, one in zip(maps.names, maps.maps, strict=True)}
    for place in BAD:
        values["tNAA"][place] = mark
    read = read_maps({name: (one, AFFINE) for name, one in values.items()})
    trust = assess(read)
    assert sorted(np.argwhere(~trust.trusted[0] & brain()).tolist()) == sorted(map(list, BAD))
    assert trust.trusted[1].all()
    if np.isfinite(mark):
        assert any(f"4 voxels hold {mark:g}, a mark" in warning for warning in read.warnings)


def test_a_mark_in_a_large_share_of_the_head_moves_neither_level_nor_support():
    maps = scan()
    clean = assess(maps)
    values = maps.maps.copy()
    lost = brain() & (np.random.default_rng(1).random(SHAPE) < 0.4)
    values[0][lost] = 9999.0
    read = read_maps({"tNAA": (values[0], AFFINE), "tCr": (values[1], AFFINE)})
    trust = assess(read)
    np.testing.assert_array_equal(trust.support, clean.support)
    assert not trust.trusted[0][lost].any() and trust.trusted[0][brain() & ~lost].all()
    assert trust.level[0] == pytest.approx(clean.level[0], rel=0.05)


def test_ordinary_negative_values_and_ties_are_no_marks():
    noise = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    assert shared_values(noise) == []
    assert shared_values(np.round(20 * noise)) == [], "whole numbers share values by nature"
    assert shared_values(np.where(brain(), 3.0, 0.0).astype(np.float32)) == []
    assert shared_values(np.where(brain(), 3.0, 1.0).astype(np.float32)) == []
    assert shared_values(np.full(SHAPE, -2.0, np.float32)) == []
    assert shared_values(np.full(SHAPE, np.nan, np.float32)) == []
    assert shared_values(np.where(brain(), 10 + noise, -1).astype(np.float32)) == [(-1.0, int((~brain()).sum()))]


@pytest.mark.parametrize("cap", [30.0, 100.0, 300.0])
def test_a_cap_that_many_voxels_reach_is_no_bound(cap):
    maps = scan()
    rough = brain() & (np.random.default_rng(2).random(SHAPE) < 0.1)
    maps.crlb[0][rough] = cap
    maps.maps[0][rough] *= 0.1  # little of the metabolite: its absolute bound alone would pass
    trust = assess(maps)
    assert not trust.trusted[0][rough].any() and trust.trusted[0][brain() & ~rough].all()
    assert any(
        f"tNAA: {rough.sum()} voxels have the largest CRLB of the map, {cap:g} %" in text for text in trust.warnings
    )


def test_a_largest_value_that_is_no_cap():
    generator = np.random.default_rng(0)
    assert cap_of(generator.lognormal(1.5, 0.5, 500).astype(np.float32)) is None
    assert cap_of(np.round(generator.lognormal(1.5, 0.5, 500)).astype(np.float32) + 1) is None
    assert cap_of(np.full(500, 6.0, np.float32)) is None
    assert cap_of(np.where(generator.random(500) < 0.3, 20.0, 5.0).astype(np.float32)) is None, "two values: a toy"
    assert cap_of(np.zeros(0, np.float32)) is None


def test_a_value_near_zero_has_a_large_relative_bound_and_stays():
    maps = scan()
    maps.maps[0, 8, 8, 1], maps.crlb[0, 8, 8, 1] = 0.02, 100 * 0.5 / 0.02  # 2500 %
    assert assess(maps).trusted[0, 8, 8, 1]


def test_bounds_of_zero_throughout_say_nothing():
    maps = replace(scan(), crlb=np.zeros((2, *SHAPE), np.float32))
    trust = assess(maps)
    assert trust.trusted.all() and np.isnan(trust.noise).all()
    assert sum("CRLB is zero or less in every voxel" in warning for warning in trust.warnings) == 2


def test_zeros_in_all_maps_within_tissue_are_failed_fits():
    maps = replace(scan(), crlb=None)
    put(maps.maps, 0.0, 0), put(maps.maps, 0.0, 1)
    trust = assess(maps)
    assert trust.counts["no fit"] == (4, 4) and trust.trusted[:, ~brain()].all()


@pytest.mark.parametrize("with_mask", [False, True])
def test_a_head_without_a_usable_voxel_is_refused_with_the_reason(with_mask):
    mask = brain() if with_mask else None
    quiet = replace(scan(), mask=mask, snr=np.where(brain(), 3.0, 0.0).astype(np.float32) * np.ones((2, 1, 1, 1), "f4"))
    with pytest.raises(
        MapInputError, match=r"no voxel of the head .* snr in 100 % of the head \(median SNR 3; limit 4.0, --min"
    ):
        assess(quiet)
    assert assess(quiet, TrustRules(min_snr=2.0)).trusted[:, brain()].all()
    broad = replace(scan(), mask=mask, fwhm=np.full((2, *SHAPE), 0.2, np.float32))
    with pytest.raises(MapInputError, match="median linewidth 0.2 ppm; limit 0.1 ppm, --max-fwhm"):
        assess(broad)


def test_background_that_alone_was_fitted_is_no_head():
    maps = scan(background=0.01)
    maps.crlb[:] = np.where(brain(), 999.0, 5.0)
    with pytest.raises(MapInputError, match="no voxel of the head passes the quality limits.*no fit"):
        assess(maps)


def test_rejected_garbage_around_the_head_does_not_make_the_head_unusable():
    maps = scan()
    outside = ~brain() & (np.random.default_rng(3).random(SHAPE) < 0.7)
    maps.maps[:, outside] = 400.0
    maps.crlb[:, outside] = 999.0
    assert assess(maps).trusted[:, brain()].all()


def test_the_real_scan_with_its_marks_written_otherwise():
    """%SD 999 and exact zeros of K_01 as NaN, 0, -1 or 9999: the same voxels are trusted."""
    root = data_dir()
    if root is None or not (root / "mrsi_oryx2_mit/K_01").is_dir():
        pytest.skip("needs the real scan mrsi_oryx2_mit/K_01: set MRSI_FAST_DATA")
    maps = read_maps(root / "mrsi_oryx2_mit/K_01")
    before = assess(maps)
    marked = maps.crlb == 999
    for mark in (np.nan, np.inf, 0.0, -1.0, 9999.0):
        other = replace(maps, crlb=np.where(marked, np.float32(mark), maps.crlb))
        np.testing.assert_array_equal(assess(other).trusted, before.trusted)
    zero = maps.maps == 0
    for mark in (np.nan, -1.0):
        values = np.where(zero, np.float32(mark), maps.maps)
        crlb = {name: one for name, one in zip(maps.names, maps.crlb, strict=True)}
        again = read_maps({n: (v, maps.affine) for n, v in zip(maps.names, values, strict=True)}, crlb=crlb,
                          snr=maps.snr, fwhm=maps.fwhm)  # fmt: skip
        np.testing.assert_array_equal(assess(again).trusted, before.trusted)
