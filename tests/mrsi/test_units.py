"""Units of quality maps: each way of writing the same bounds gives the same noise, and doubt is said or refused."""

from __future__ import annotations

import numpy as np
import pytest

from mrsi_fast.mrsi.io import read_maps
from mrsi_fast.mrsi.mapset import MapInputError, MapSet
from mrsi_fast.mrsi.quality import assess
from mrsi_fast.mrsi.units import check_mhz, judge_crlb, judge_fwhm
from support.data import data_dir

AFFINE = np.diag([10.0, 10, 12, 1])
SHAPE = (16, 16, 3)
LEVELS = {"tNAA": 10.0, "tCho": 2.0, "Ins": 6.0}
UNITS = ("percent", "fraction", "absolute")


def head(scale=1.0, share=0.12, spread=0.0, seed=0):
    """Maps of a head with noise of ``share`` of their level (varying by ``spread``), and that noise in every unit."""
    generator = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    inside = (x / 0.8) ** 2 + (y / 0.9) ** 2 < 1
    maps, noise = {}, {}
    for name, level in LEVELS.items():
        sd = np.where(inside, share * level * scale * np.exp(spread * generator.normal(size=SHAPE)), 0.0)
        true = np.where(inside, scale * level * (1 + 0.25 * np.cos(3 * x + 0.3) * np.cos(2.5 * y)), 0.0)
        maps[name], noise[name] = true + sd * generator.normal(size=SHAPE), sd
    percent = {n: np.where(inside, 100 * noise[n] / np.maximum(np.abs(maps[n]), 1e-3 * scale), 0) for n in maps}
    return maps, {"percent": percent, "fraction": {n: p / 100 for n, p in percent.items()}, "absolute": noise}, inside


def read(maps, crlb, **options):
    return read_maps({name: (values, AFFINE) for name, values in maps.items()}, crlb=crlb, **options)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(("scale", "share", "spread"), [(1, 0.12, 0), (1, 0.05, 0.3), (30, 0.07, 0.3), (400, 0.03, 0.2),
                                                        (1e4, 0.2, 0.3), (0.01, 0.1, 0.3)])  # fmt: skip
def test_every_unit_gives_the_same_noise(unit, scale, share, spread):
    maps, bounds, inside = head(scale, share, spread)
    read_in = read(maps, bounds[unit])
    expected = np.stack(list(bounds["absolute"].values()))
    trust = assess(read_in)
    known = np.isfinite(trust.sigma) & inside
    assert known.sum() > 0.97 * 3 * inside.sum()
    np.testing.assert_allclose(trust.sigma[known], expected[known], rtol=2e-3)
    told = [warning for warning in read_in.warnings if warning.startswith("crlb")]
    assert len(told) == (unit != "percent")
    if told:
        assert "not percent" in told[0] and "tNAA" in told[0] and "state the unit" in told[0]


@pytest.mark.parametrize("mark", [1000.0, 5000.0, 12345.6])
def test_marks_of_failed_fits_do_not_decide_the_unit(mark):
    maps, _, inside = head()
    crlb = {name: np.where(inside, 6.0, 0.0).astype(np.float32) for name in maps}
    for name in maps:
        for voxel in ((7, 7), (9, 6), (5, 10), (8, 9)):  # the fit blew up, and its bound says so
            maps[name][voxel] *= 2.6
            crlb[name][voxel] = mark
    read_back = read(maps, crlb)
    assert read_back.crlb_unit == "percent" and not any("crlb:" in warning for warning in read_back.warnings)
    trust = assess(read_back)
    assert not trust.trusted[:, 7, 7].any() and trust.trusted[:, inside & (crlb["tNAA"] == 6)].all()


@pytest.mark.parametrize("unit", UNITS)
def test_a_stated_unit_is_obeyed(unit):
    maps, bounds, inside = head()
    for stored in UNITS:
        read_in = read(maps, bounds[stored], crlb_unit=unit)
        assert read_in.crlb_unit == ("absolute" if unit == "absolute" else "percent")
        factor = 100 if unit == "fraction" else 1
        np.testing.assert_allclose(read_in.crlb[0], factor * bounds[stored]["tNAA"], rtol=1e-6)
        assert not any(warning.startswith("crlb") for warning in read_in.warnings)


def test_percent_in_whole_numbers_and_a_constant_stand_in_are_percent():
    maps, bounds, inside = head(scale=200)
    whole = {name: np.round(values) for name, values in bounds["percent"].items()}
    assert judge_crlb(*stacks(maps, whole)) == ("percent", None)
    maps, _, _ = head(share=0.03)
    constant = {name: np.full(SHAPE, 6.0) for name in maps}
    assert judge_crlb(*stacks(maps, constant)) == ("percent", None)


def stacks(maps, crlb):
    pair = (np.stack([table[name] for name in maps]).astype(np.float32) for table in (maps, crlb))
    return (*pair, tuple(maps))


def test_what_fits_several_units_is_taken_as_percent_and_said():
    maps, _, _ = head(scale=10, share=0.05)
    unit, told = judge_crlb(*stacks(maps, {name: np.full(SHAPE, 5.0) for name in maps}))
    assert unit == "percent" and "absolute is as plausible" in told and "5 % as percent" in told


@pytest.mark.parametrize("value", [1e-5, 1e-7, 3e6])
def test_what_no_unit_explains_is_refused_with_the_figures(value):
    maps, bounds, _ = head()
    odd = {name: values * value for name, values in bounds["percent"].items()}
    with pytest.raises(
        MapInputError, match=r"crlb: the median .* of tNAA would be a noise of .* % as percent.* % as abs"
    ):
        read(maps, odd)


def test_maps_of_one_set_in_two_units_are_refused():
    maps, bounds, _ = head()
    with pytest.raises(
        MapInputError, match="crlb of tCho: .* plausible as fraction, those of the other maps as percent"
    ):
        read(maps, {**bounds["percent"], "tCho": bounds["fraction"]["tCho"]})


def test_bounds_that_cannot_tell_are_percent():
    few = np.zeros((1, *SHAPE), np.float32)
    few[0, 8, 8, :] = 3.0
    assert judge_crlb(few, 0.05 * few, ("tNAA",)) == ("percent", None)
    assert judge_crlb(few, np.full_like(few, np.nan), ("tNAA",)) == ("percent", None)


def test_the_real_scans_bounds_in_every_unit():
    root = data_dir()
    if root is None or not (root / "mrsi_oryx2_mit/K_01").is_dir():
        pytest.skip("needs the real scan mrsi_oryx2_mit/K_01: set MRSI_FAST_DATA")
    scan = read_maps(root / "mrsi_oryx2_mit/K_01")
    assert scan.crlb_unit == "percent" and not any("crlb" in warning for warning in scan.warnings)
    marked = scan.crlb == 999
    fraction = np.where(marked, 999, scan.crlb / 100).astype(np.float32)
    absolute = np.where(marked, 0, scan.crlb / 100 * scan.maps).astype(np.float32)
    for one in range(5):
        pick = slice(one, one + 1)
        assert judge_crlb(scan.maps[pick], scan.crlb[pick], scan.names[pick]) == ("percent", None)
        assert judge_crlb(scan.maps[pick], fraction[pick], scan.names[pick])[0] == "fraction"
        assert judge_crlb(scan.maps[pick], absolute[pick], scan.names[pick])[0] == "absolute"
    everything = read_maps(root / "mrsi_oryx2_mit/K_01", metabolites="all")
    for one, name in enumerate(everything.names):  # maps of which hardly a voxel is fitted well among them
        assert judge_crlb(everything.maps[one : one + 1], everything.crlb[one : one + 1], (name,))[0] == "percent"


def test_absolute_bounds_hold_where_the_concentration_vanishes():
    maps, bounds, inside = head()
    maps["Ins"][8, 8, 1] = 1e-4  # above a millionth of the map, so no trace
    trust = assess(read(maps, bounds["absolute"]))
    assert trust.sigma[2, 8, 8, 1] == pytest.approx(bounds["absolute"]["Ins"][8, 8, 1])
    assert trust.trusted[2, 8, 8, 1]


@pytest.mark.parametrize(("median", "unit"), [(0.05, "ppm"), (0.3, "ppm"), (2.5, "Hz"), (7.5, "Hz"), (40.0, "Hz")])
@pytest.mark.parametrize("layout", [None, "ppm", "Hz"])
def test_linewidths_tell_their_unit(median, unit, layout):
    widths = np.full((1, 4, 4, 4), median, np.float32)
    widths[0, 0] = 0.0
    judged, told = judge_fwhm(widths, None, layout)
    assert judged == unit and (told is None) == (unit == (layout or "ppm"))
    assert judge_fwhm(widths, "Hz", layout) == ("Hz", None)


@pytest.mark.parametrize("median", [0.0005, 400.0, 1e9])
def test_implausible_linewidths_are_refused(median):
    with pytest.raises(MapInputError, match="fwhm: its median is .* neither in ppm .* nor in Hz"):
        judge_fwhm(np.full((1, 4, 4, 4), median, np.float32), None, None)


def test_linewidths_in_two_units_are_refused():
    widths = np.stack([np.full((4, 4, 1), 0.05), np.full((4, 4, 1), 6.0)]).astype(np.float32)
    with pytest.raises(MapInputError, match="0.05 to 6, linewidths in ppm and in Hz"):
        judge_fwhm(widths, None, None)
    assert judge_fwhm(widths, "Hz", None) == ("Hz", None)


def test_linewidth_in_hz_is_judged_with_the_frequency():
    maps, _, inside = head(share=0.03)
    width = np.where(inside, 7.5, 0.0)
    width[8, 8, 1] = 14.0
    unknown = assess(read(maps, None, fwhm=width))
    assert unknown.trusted[:, inside].all() and any("--mhz" in warning for warning in unknown.warnings)
    known = assess(read(maps, None, fwhm=width, mhz=123.2))
    assert np.argwhere(~known.trusted[0] & inside).tolist() == [[8, 8, 1]] and known.counts["fwhm"] == (1, 1, 1)


@pytest.mark.parametrize(
    ("mhz", "words"), [(3.0, "3 T is 127.7 MHz"), (0.0, "no spectrometer"), (1e8, "no spectrometer")]
)
def test_a_frequency_that_is_none_is_refused(mhz, words):
    with pytest.raises(MapInputError, match=words):
        check_mhz(mhz)


def as_mapset(maps, crlb, **fields):
    stack = np.stack(list(maps.values())).astype(np.float32)
    return MapSet(stack, AFFINE, tuple(maps), crlb=np.stack(list(crlb.values())).astype(np.float32), **fields)


@pytest.mark.parametrize("unit", UNITS)
def test_a_mapset_built_by_hand_is_judged_as_files_are(unit):
    maps, bounds, inside = head()
    found, plain = read_maps(as_mapset(maps, bounds[unit])), read(maps, bounds[unit])
    assert found.judged and found.crlb_unit == plain.crlb_unit
    np.testing.assert_allclose(assess(found).sigma, assess(plain).sigma, rtol=1e-6)
    assert [w for w in found.warnings if "crlb" in w] == [w for w in plain.warnings if "crlb" in w]
    assert read_maps(found) is found, "once is enough"


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda maps, crlb: as_mapset(maps, {name: 1e-4 * one for name, one in crlb.items()}), "crlb: the median"),
        (lambda maps, crlb: as_mapset({name: 1e20 * one for name, one in maps.items()}, crlb), "its values reach"),
        (lambda maps, crlb: as_mapset({name: np.nan * one for name, one in maps.items()}, crlb), "no valid voxel"),
    ],
)
def test_an_implausible_mapset_is_refused_in_words(build, words):
    maps, bounds, _ = head()
    with pytest.raises(MapInputError, match=words):
        read_maps(build(maps, bounds["percent"]))


def test_marks_and_infinities_of_a_mapset_count_as_missing():
    maps, bounds, inside = head()
    maps["tNAA"][8, 8, 1], maps["tNAA"][0, 0] = np.inf, -999.0
    given = as_mapset(maps, bounds["percent"])
    found = read_maps(given)
    assert np.isnan(found.maps[0, 8, 8, 1]) and not np.isnan(given.maps[0, 8, 8, 1]), "the caller's array stays"
    assert any("infinite" in warning for warning in found.warnings)


def test_a_stated_absolute_bound_of_a_mapset_is_obeyed():
    maps, bounds, _ = head()
    assert read_maps(as_mapset(maps, bounds["percent"], crlb_unit="absolute")).crlb_unit == "absolute"
