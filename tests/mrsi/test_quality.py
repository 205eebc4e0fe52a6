"""Trust: known faults are found and only they, lesions survive, nothing depends on units or on HR data; filling."""

from __future__ import annotations

import inspect
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrsi_fast.mrsi.io import read_maps
from mrsi_fast.mrsi.mapset import MapSet
from mrsi_fast.mrsi.quality import (
    TrustRules,
    assess,
    estimate_support,
    fill_untrusted,
    fill_volume,
    put_nan,
    upsample_nearest,
)
from support.data import data_dir

SHAPE = (20, 18, 2)
MEANS = {"tNAA": 10.0, "tCr": 6.0, "tCho": 1.5, "Ins": 4.0, "Glx": 9.0}
PERCENT = 5.0


def brain():
    x, y = np.indices(SHAPE[:2])
    return np.repeat((((x - 9.5) / 8) ** 2 + ((y - 8.5) / 7) ** 2 < 1)[..., None], SHAPE[2], axis=2)


def phantom(extra=(), **changes):
    """A well-measured brain: smooth maps, 5 % noise with its CRLB, good spectra; noise alone outside."""
    generator = np.random.default_rng(0)
    names = (*MEANS, *extra)
    inside = brain()
    level = np.array([MEANS.get(name, 0.0) for name in names])[:, None, None, None]
    sd = np.array([PERCENT / 100 * MEANS.get(name, 4.0) for name in names])[:, None, None, None]
    shading = 1 + 0.15 * np.cos(np.linspace(0, 3, SHAPE[0]))[:, None, None]
    maps = (level * shading * inside + sd * generator.normal(size=(len(names), *SHAPE))).astype(np.float32)
    crlb = (100 * sd / np.abs(maps)).astype(np.float32)
    quality_maps = {"crlb": crlb, "snr": np.full_like(maps, 15.0), "fwhm": np.full_like(maps, 0.05)}
    return replace(MapSet(maps, np.diag([10.0, 10, 12, 1]), names), **quality_maps, **changes)


def with_values(maps, name, where, value):
    """The maps with one map's voxels replaced; the absolute bound stays what it was."""
    index = maps.names.index(name)
    changed = maps.maps.copy()
    changed[(index, *where)] = value
    if maps.crlb is None:
        return replace(maps, maps=changed)
    return replace(maps, maps=changed, crlb=(maps.crlb * np.abs(maps.maps) / np.abs(changed)).astype(np.float32))


CENTRE = (slice(8, 11), slice(7, 10), slice(0, 1))


def test_a_good_scan_is_trusted_throughout_the_brain():
    trust = assess(phantom())
    assert trust.trusted[:, brain()].all() and trust.warnings == ()
    np.testing.assert_array_equal(trust.support, brain())
    np.testing.assert_allclose(trust.noise, [PERCENT / 100 * mean for mean in MEANS.values()], rtol=1e-5)
    assert all(sum(counts) == 0 for counts in trust.counts.values())


def test_noise_is_bound_times_concentration():
    maps = phantom()
    trust = assess(maps)
    for index, mean in enumerate(MEANS.values()):
        np.testing.assert_allclose(trust.sigma[index][brain()], PERCENT / 100 * mean, rtol=1e-4)
    np.testing.assert_allclose(trust.level, [np.median(one[brain()]) for one in maps.maps], rtol=1e-6)


FAULTS = {
    "missing": lambda maps, at: maps.maps.__setitem__(at, np.nan),
    "no fit": lambda maps, at: maps.crlb.__setitem__(at, 999.0),
    "snr": lambda maps, at: maps.snr.__setitem__(at, 3.9),
    "fwhm": lambda maps, at: maps.fwhm.__setitem__(at, 0.11),
    "crlb": lambda maps, at: maps.crlb.__setitem__(at, 40.0),
    "blow-up": lambda maps, at: (maps.maps.__setitem__(at, 500.0), maps.crlb.__setitem__(at, 0.1)),
}


@pytest.mark.parametrize("reason", FAULTS)
@pytest.mark.parametrize("index", range(len(MEANS)))
def test_one_fault_costs_one_voxel_of_one_map(reason, index):
    maps = phantom()
    before = assess(maps)
    at = (index, 9, 8, 1)
    FAULTS[reason](maps, at)
    trust = assess(maps)
    changed = np.argwhere(before.trusted != trust.trusted)
    assert changed.tolist() == [list(at)]
    assert trust.counts[reason][index] == 1


def test_limits_are_inclusive_where_the_defaults_say_so():
    maps = phantom()
    maps.snr[:], maps.fwhm[:] = 4.0, np.float32(0.1)
    assert assess(maps).trusted[:, brain()].all()
    assert TrustRules() == TrustRules(min_snr=4.0, max_fwhm_ppm=0.1, max_crlb_of_median=0.30,
                                      max_relative_crlb_percent=None)  # fmt: skip


def test_zero_with_a_bound_is_no_fit_and_has_no_noise():
    maps = phantom()
    maps.maps[0, 9, 8, 0] = 0.0
    maps.crlb[0, 9, 8, 0] = 12.0
    trust = assess(maps)
    assert not trust.trusted[0, 9, 8, 0] and np.isnan(trust.sigma[0, 9, 8, 0]) and trust.counts["no fit"][0] == 1


@pytest.mark.parametrize("factor", [1e-6, 0.37, 12.0, 1e6])
def test_multiplying_all_maps_changes_no_decision(factor):
    maps = phantom(extra=("2HG",))
    maps.maps[1, 5:7, 6, 0] = np.nan
    maps.maps[3, 9, 9, 1] = 400.0
    maps.crlb[2, 4, 8, :] = 35.0
    one, other = assess(maps), assess(replace(maps, maps=maps.maps * np.float32(factor)))
    np.testing.assert_array_equal(one.trusted, other.trusted)
    np.testing.assert_array_equal(one.support, other.support)
    assert one.counts == other.counts and len(one.warnings) == len(other.warnings)
    np.testing.assert_allclose(other.sigma, one.sigma * factor, rtol=1e-5)
    np.testing.assert_allclose(other.noise, one.noise * factor, rtol=1e-5)


def test_the_order_of_maps_and_axes_changes_no_decision():
    maps = phantom()
    maps.maps[3, 9, 9, 1] = 400.0
    trust = assess(maps)
    turned = assess(maps.select(maps.names[::-1]))
    np.testing.assert_array_equal(turned.trusted[::-1], trust.trusted)
    flipped = {name: getattr(maps, name)[:, ::-1] for name in ("maps", "crlb", "snr", "fwhm")}
    np.testing.assert_array_equal(assess(replace(maps, **flipped)).trusted[:, ::-1], trust.trusted)


def test_trust_is_decided_from_acquired_data_alone():
    """No function that decides takes anything on another grid: their only data are a MapSet of one grid."""
    assert list(inspect.signature(assess).parameters) == ["maps", "rules"]
    assert list(inspect.signature(estimate_support).parameters) == ["maps", "fitted"]


@pytest.mark.parametrize("low", [0.6, 1.0, 3.0])
def test_an_absolute_bound_keeps_a_tumour_that_a_relative_one_deletes(low):
    maps = with_values(phantom(), "tNAA", CENTRE, low)
    assert assess(maps).trusted[0][CENTRE].all()
    strict = assess(maps, TrustRules(max_relative_crlb_percent=20.0))
    lost = int((~strict.trusted[0][CENTRE]).sum())
    assert lost == (9 if low < 2.5 else 0), "the bound is 0.5: 20 % of 2.5"
    if lost:
        (warning,) = strict.warnings
        assert "tNAA: the relative CRLB limit of 20 % alone removes 9 of" in warning and "tumours first" in warning
        assert f"median is {low / strict.level[0]:.2f} of the map's" in warning


@pytest.mark.parametrize(("name", "value"), [("tCho", 6.5), ("tNAA", 2.0), ("Ins", 7.0), ("Glx", 13.0), ("tCr", 7.5)])
@pytest.mark.parametrize("with_crlb", [True, False])
def test_the_strongest_tumours_of_the_literature_are_not_blow_ups(name, value, with_crlb):
    maps = phantom() if with_crlb else replace(phantom(), crlb=None)
    assert assess(with_values(maps, name, CENTRE, value)).trusted[:, *CENTRE].all()


@pytest.mark.parametrize("value", [3.0, 12.0])
def test_a_lesion_metabolite_is_kept_where_it_is(value):
    """2HG is noise everywhere else, so its median says nothing: neither the bound nor the blow-up rule applies."""
    trust = assess(with_values(phantom(extra=("2HG",)), "2HG", CENTRE, value))
    assert trust.trusted[-1][CENTRE].all() and trust.trusted[-1][brain()].all()
    assert any(warning.startswith("2HG: most voxels are below twice the noise level") for warning in trust.warnings)
    assert trust.noise[-1] == pytest.approx(PERCENT / 100 * 4.0, rel=1e-4)


def test_a_lesion_metabolite_can_blow_up_all_the_same():
    level = np.nanmax(assess(phantom(extra=("2HG",))).level)
    trust = assess(with_values(phantom(extra=("2HG",)), "2HG", (9, 8, 0), 1.6 * level))
    assert trust.counts["blow-up"][-1] == 1 and not trust.trusted[-1, 9, 8, 0]


def test_without_quality_data_zeros_in_tissue_are_failed_fits_and_those_around_it_background():
    inside = brain()
    maps = replace(phantom(), crlb=None, snr=None, fwhm=None)
    maps.maps[:, ~inside] = 0.0
    maps.maps[:, 9, 8, 0] = 0.0
    maps.maps[2, 5, 8, 1] = 0.0
    trust = assess(maps)
    expected = [[map_, 9, 8, 0] for map_ in range(5)] + [[2, 5, 8, 1]]
    assert sorted(np.argwhere(~trust.trusted).tolist()) == sorted(expected)
    assert trust.sigma is None and np.isnan(trust.noise).all()


@pytest.mark.parametrize("names", [("tNAA", "2HG"), ("tNAA", "Ins")])
def test_an_empty_map_stays_trusted_and_empty(names):
    maps = replace(phantom(), crlb=None, snr=None, fwhm=None).select(["tNAA", "Ins"])
    maps.maps[1] = 0.0
    trust = assess(replace(maps, names=names))
    assert trust.trusted.all() and trust.warnings == ()


def test_a_map_without_any_trusted_voxel_is_named():
    maps = phantom()
    maps.crlb[4] = 999.0
    assert "Glx: no voxel is trusted" in assess(maps).warnings[-1]


def test_mask_and_lipid_flag_are_obeyed():
    inside = brain()
    inside[:4] = False
    lipid = np.zeros(SHAPE, bool)
    lipid[9, 8] = True
    trust = assess(phantom(mask=inside, lipid=lipid))
    np.testing.assert_array_equal(trust.support, inside)
    np.testing.assert_array_equal(trust.trusted, np.broadcast_to(inside & ~lipid, trust.trusted.shape))
    assert trust.counts["lipid"] == (2,) * 5


def test_linewidth_in_hz_needs_the_frequency():
    maps = replace(phantom(), fwhm_unit="Hz")
    maps.fwhm[:] = 0.1 * 123.2
    maps.fwhm[0, 9, 8, 0] = 13.0
    unknown = assess(maps)
    assert unknown.trusted[:, brain()].all() and "spectrometer frequency is unknown" in unknown.warnings[0]
    known = assess(maps, TrustRules(spectrometer_mhz=123.25))
    assert known.counts["fwhm"] == (1, 0, 0, 0, 0) and known.warnings == ()


def test_a_map_without_its_own_quality_data_is_not_judged_by_it():
    maps = phantom()
    maps.crlb[1], maps.snr[1], maps.fwhm[1] = np.nan, np.nan, np.nan
    trust = assess(maps)
    assert trust.trusted[1][brain()].all() and np.isnan(trust.noise[1]) and np.isnan(trust.sigma[1]).all()


def test_rules_can_be_switched_off():
    maps = phantom()
    maps.snr[:, 9, 8], maps.fwhm[:, 9, 9], maps.crlb[:, 9, 7] = 1.0, 0.3, 60.0
    off = TrustRules(min_snr=None, max_fwhm_ppm=None, max_crlb_of_median=None)
    assert assess(maps, off).trusted[:, brain()].all()
    assert (~assess(maps).trusted[:, brain()]).sum() == 5 * 3 * 2


def test_support_fills_holes_drops_islands_and_survives_blow_ups():
    maps = phantom()
    maps.maps[:, 8:11, 7:10] = 0.02
    maps.maps[:, 0, 0] = np.array(list(MEANS.values()))[:, None]
    maps.maps[3, 12:14, 4:6] = 1e5
    np.testing.assert_array_equal(estimate_support(maps), brain())


def test_support_where_no_map_can_tell():
    maps = phantom(extra=("2HG", "Lac")).select(["2HG", "Lac"])
    assert estimate_support(maps).all()
    assert estimate_support(replace(maps, maps=np.zeros_like(maps.maps), names=("tNAA", "tCr"))).all()


def test_the_real_scan():
    """Counts come from the files by independent arithmetic; the blow-up of 34,800 and its like are gone."""
    root = data_dir()
    if root is None or not (root / "mrsi_oryx2_mit/K_01").is_dir():
        pytest.skip("needs the real scan mrsi_oryx2_mit/K_01: set MRSI_FAST_DATA")
    folder = root / "mrsi_oryx2_mit/K_01"
    maps = read_maps(folder)
    trust = assess(maps)
    stored = {name: nib.load(folder / f"{name}.nii.gz").get_fdata() for name in ("snr", "fwhm")}
    good = (stored["snr"] >= 4) & (stored["fwhm"] <= np.float32(0.1))
    zeros = {"NAA-NAAG": 88, "Cr-PCr": 54, "GPC-PCh": 42, "Ins": 73, "Glu-Gln": 47}
    for index, (name, count) in enumerate(zeros.items()):
        conc = nib.load(folder / f"conc_{name}.nii.gz").get_fdata()
        percent = nib.load(folder / f"crlb_{name}.nii.gz").get_fdata()
        assert (conc == 0).sum() == count and not trust.trusted[index][conc == 0].any()
        assert not trust.trusted[index][percent == 999].any() and not trust.trusted[index][~good].any()
        fitted = good & (conc != 0) & (percent != 999)
        bound = percent / 100 * conc
        level = np.median(conc[fitted & trust.support])
        assert level == pytest.approx(trust.level[index])
        expected = fitted & (bound <= 0.3 * level) & (np.abs(conc - level) <= 7 * level)
        assert (expected & ~trust.trusted[index]).sum() <= 2, "beyond the rules above only blow-ups may go"
        assert not (trust.trusted[index] & ~expected).any()
    ins = maps.maps[3]
    assert ins.max() == 34800 and ins[trust.trusted[3]].max() < 4 * trust.level[3]
    assert 250 < trust.support.sum() < 400 and ((trust.trusted & trust.support).sum(axis=(1, 2, 3)) > 240).all()
    assert (trust.noise / trust.level < [0.05, 0.06, 0.06, 0.25, 0.2]).all()


def test_the_real_scans_blow_ups_are_found_without_its_quality_data():
    root = data_dir()
    if root is None or not (root / "mrsi_oryx2_mit/K_01").is_dir():
        pytest.skip("needs the real scan mrsi_oryx2_mit/K_01: set MRSI_FAST_DATA")
    maps = replace(read_maps(root / "mrsi_oryx2_mit/K_01"), crlb=None, snr=None, fwhm=None)
    trusted = assess(maps).trusted
    for name, blown_up in (("tNAA", [14500]), ("Ins", [34800, 19300, 15400, 11700]), ("Glx", [50200, 41900, 39200])):
        index = maps.names.index(name)
        for value in blown_up:
            assert not trusted[index][maps.maps[index] == value].any()
    assert trusted[0][maps.maps[0] == 4530].all(), "the highest plausible tNAA stays"


def reference_fill(values, trusted, width):
    """Normalised convolution written out for one map, float64: the weighted mean of every trusted voxel."""
    result = values.astype(float)
    known = np.argwhere(trusted)
    for place in np.argwhere(~trusted):
        weight = np.exp(-0.5 * ((known - place) ** 2).sum(axis=1) / width**2)
        result[tuple(place)] = (weight * values[trusted]).sum() / weight.sum()
    return result


@pytest.mark.parametrize("shape", [(32, 32), (7, 13), (1, 9), (2, 2)])
def test_fill_is_the_gaussian_weighted_mean_of_trusted_voxels(shape):
    generator = np.random.default_rng(3)
    values = generator.normal(5, 2, (8, *shape)).astype(np.float32)
    trusted = generator.random((8, *shape)) > 0.2
    trusted[:, 0, 0] = True
    filled = fill_untrusted(np.where(trusted, values, np.nan).astype(np.float32), trusted)
    assert filled.dtype == np.float32 and filled.shape == values.shape
    np.testing.assert_array_equal(filled[trusted], values[trusted])
    for index in range(8):
        near = reference_fill(values[index], trusted[index], 0.7)
        far = reference_fill(values[index], trusted[index], 2.8)
        known = np.argwhere(trusted[index])
        for x, y in np.argwhere(~trusted[index]):
            total = np.exp(-0.5 * ((known - (x, y)) ** 2).sum(axis=1) / 0.7**2).sum()
            assert filled[index, x, y] == pytest.approx((near if total > 1e-4 else far)[x, y], rel=2e-5)


def test_far_from_any_trusted_voxel_the_slice_mean_stands():
    values = np.zeros((1, 60, 60), np.float32)
    trusted = np.zeros((1, 60, 60), bool)
    values[0, 0, :2], trusted[0, 0, :2] = (2.0, 6.0), True
    filled = fill_untrusted(values, trusted)
    assert filled[0, 59, 59] == pytest.approx(4.0) and np.isfinite(filled).all()


def test_nothing_trusted_gives_zero_and_everything_trusted_changes_nothing():
    values = np.full((2, 6, 5), np.nan, np.float32)
    assert (fill_untrusted(values, np.zeros(values.shape, bool)) == 0).all()
    values = np.random.default_rng(0).normal(size=(2, 6, 5)).astype(np.float32)
    filled = fill_untrusted(values, np.ones(values.shape, bool))
    np.testing.assert_array_equal(filled, values)
    assert filled is not values
    assert fill_untrusted(values[:0], np.ones((0, 6, 5), bool)).shape == (0, 6, 5)


def test_fill_keeps_to_the_support_and_never_mixes_maps():
    generator = np.random.default_rng(0)
    values = generator.normal(5, 1, (2, 9, 8)).astype(np.float32)
    trusted = generator.random((2, 9, 8)) > 0.3
    support = np.zeros((9, 8), bool)
    support[2:7, 2:6] = True
    filled = fill_untrusted(values, trusted, support)
    assert (filled[:, ~support][~trusted[:, ~support]] == 0).all()
    np.testing.assert_array_equal(filled[trusted], values[trusted])
    other = values.copy()
    other[1] *= 100
    np.testing.assert_array_equal(fill_untrusted(other, trusted, support)[0], filled[0])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.floats(0, 1), st.floats(-1e6, 1e6), st.integers(0, 10**6))
def test_a_constant_map_is_filled_with_its_constant(nx, ny, share, constant, seed):
    """The two fallbacks included: whatever is trusted, nothing but the constant (or 0 without any) may appear."""
    trusted = np.random.default_rng(seed).random((3, nx, ny)) < share
    filled = fill_untrusted(np.full((3, nx, ny), constant, np.float32), trusted)
    expected = np.where(trusted.any(axis=(1, 2), keepdims=True), constant, 0.0)
    np.testing.assert_allclose(filled, np.broadcast_to(expected, filled.shape), rtol=1e-5, atol=1e-30)


def test_volumes_are_filled_slice_by_slice_from_any_memory_layout():
    generator = np.random.default_rng(0)
    values = generator.normal(5, 1, (3, 7, 6, 4)).astype(np.float32)
    trusted = generator.random(values.shape) > 0.3
    support = np.ones((7, 6, 4), bool)
    filled = fill_volume(np.asfortranarray(values)[:, ::-1], trusted[:, ::-1], support)
    assert filled.flags.c_contiguous
    for z in range(4):
        expected = fill_untrusted(values[:, ::-1, :, z], trusted[:, ::-1, :, z], support[..., z])
        np.testing.assert_allclose(filled[..., z], expected, rtol=1e-6)


def test_upsampling_puts_each_voxel_over_those_it_covers():
    mask = np.random.default_rng(0).random((2, 3, 5, 2)) > 0.5
    fine = upsample_nearest(mask, (4, 2, 1))
    assert fine.shape == (2, 12, 10, 2)
    for x, y in ((0, 0), (5, 3), (11, 9)):
        np.testing.assert_array_equal(fine[:, x, y], mask[:, x // 4, y // 2])


def test_nan_is_restored_where_the_data_were_not_trusted():
    trusted = np.random.default_rng(0).random((2, 3, 5, 2)) > 0.4
    maps = np.random.default_rng(1).normal(size=(2, 6, 20, 2)).astype(np.float32)
    restored = maps.copy()
    put_nan(restored, trusted, (2, 4, 1))
    fine = upsample_nearest(trusted, (2, 4, 1))
    np.testing.assert_array_equal(np.isnan(restored), ~fine)
    np.testing.assert_array_equal(restored[fine], maps[fine])
