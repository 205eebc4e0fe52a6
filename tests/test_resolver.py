"""SuperResolver: geometry, values, trust, randomness and operating points, with a small network of random weights."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from mrsi_fast import SuperResolver
from mrsi_fast.config import ConfigError
from mrsi_fast.engine.job import EngineError
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.mapset import MapInputError, MapSet
from mrsi_fast.mrsi.quality import TrustRules
from mrsi_fast.posterior import NotFinite
from mrsi_fast.report.html import write_report
from mrsi_fast.sampling import Sampler
from support.networks import random_resolver

AFFINE = np.array([[-10.0, 0.5, 0, 70], [0.5, 10.0, 0, -60], [0, 0, 12.0, 5], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def resolver(tmp_path_factory: pytest.TempPathFactory) -> SuperResolver:
    return random_resolver(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def resolver_with_spread(tmp_path_factory: pytest.TempPathFactory) -> SuperResolver:
    return random_resolver(tmp_path_factory.mktemp("spread"), spread=True)


def make_maps(shape: tuple[int, int, int] = (9, 8, 2), names: tuple[str, ...] = ("tNAA", "tCho"), **fields) -> MapSet:
    rng = np.random.default_rng(0)
    maps = (5 + rng.random((len(names), *shape))).astype(np.float32)
    return MapSet(maps, AFFINE, names, **fields)


@pytest.mark.parametrize("shape", [(7, 5, 3), (1, 3, 1), (1, 1, 1)])
def test_a_matrix_too_small_is_refused(resolver: SuperResolver, shape: tuple[int, int, int]) -> None:
    with pytest.raises(MapInputError, match="too few to super-resolve: at least 6x6"):
        resolver(make_maps(shape), samples=0)


@pytest.mark.parametrize("axis", [0, 1])
def test_slices_on_any_axis_give_the_same_values_in_the_same_places(resolver: SuperResolver, axis: int) -> None:
    usual = make_maps((9, 8, 3))
    order = [0, 1]
    order.insert(axis, 2)
    turned = MapSet(
        np.transpose(usual.maps, (0, *(1 + np.array(order)))), AFFINE[:, [*order, 3]], usual.names, slice_axis=axis
    )
    expected = resolver(usual, scale="2,4", samples=1, steps=1)
    result = resolver(turned, scale="2,4", samples=1, steps=1)
    for name in ("mean", "zero_fill", "lr"):
        np.testing.assert_array_equal(
            getattr(result, name), np.transpose(getattr(expected, name), (0, *(1 + np.array(order))))
        )
    np.testing.assert_array_equal(result.samples, np.transpose(expected.samples, (0, 1, *(2 + np.array(order)))))
    np.testing.assert_allclose(result.affine, expected.affine[:, [*order, 3]], atol=1e-12)
    factors, shape = [2, 4], list(expected.mean.shape[1:3])
    factors.insert(axis, 1), shape.insert(axis, 3)
    assert result.provenance["factors"] == factors and result.provenance["output_grid"]["shape"] == shape
    assert result.provenance["slice_axis"] == axis and result.stem("sr") == "res-x2x4_desc-sr_mrsi"


@pytest.mark.parametrize("axis", [0, 1])
def test_pictures_of_the_self_test_have_the_axes_of_the_measured_maps(
    resolver: SuperResolver, tmp_path, axis: int
) -> None:
    usual = make_maps((16, 16, 3))
    turned = MapSet(
        np.moveaxis(usual.maps, -1, 1 + axis), AFFINE[:, [*np.insert([0, 1], axis, 2), 3]], usual.names, slice_axis=axis
    )
    expected = resolver(usual, samples=0, evidence="on").evidence.pictures()
    result = resolver(turned, samples=0, evidence="on")
    for found in (result.evidence.pictures(), resolver.check(turned, evidence="on").pictures()):
        for name, pictures in expected.items():
            for key, picture in pictures.items():
                np.testing.assert_array_equal(found[name][key], np.moveaxis(picture, -1, axis))
    for path in result.save(tmp_path):
        if "selftest" in path.name:
            image = nib.load(path)
            assert image.shape == turned.shape
            np.testing.assert_allclose(image.affine, turned.affine, atol=1e-5)
    write_report(tmp_path, [*tmp_path.glob("*.json")], tmp_path / "report.html")


def fov_centre(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return affine[:3, :3] @ ((np.array(shape) - 1) / 2) + affine[:3, 3]


@pytest.mark.parametrize("scale, factors", [(2, (2, 2, 1)), ("4,2,1", (4, 2, 1)), ((1, 8), (1, 8, 1))])
def test_grid_is_finer_over_the_same_field_of_view(resolver: SuperResolver, scale, factors) -> None:
    result = resolver(make_maps(), scale=scale, samples=0, steps=2)
    shape = tuple(n * f for n, f in zip((9, 8, 2), factors, strict=True))
    assert result.mean.shape == (2, *shape) and result.mean.dtype == np.float32
    np.testing.assert_allclose(fov_centre(result.affine, shape), fov_centre(AFFINE, (9, 8, 2)), atol=1e-9)
    assert result.provenance["fov_corner_difference_mm"] < 1e-9


@pytest.mark.parametrize("shape", [(46, 46, 1), (33, 47, 1), (7, 6, 3), (6, 6, 1)])
def test_any_matrix(resolver: SuperResolver, shape: tuple[int, int, int]) -> None:
    result = resolver(make_maps(shape), scale=2, samples=1, steps=2)
    assert result.mean.shape[1:] == (2 * shape[0], 2 * shape[1], shape[2]) and np.isfinite(result.mean).all()


def test_scaling_all_maps_scales_the_result(resolver: SuperResolver) -> None:
    maps = make_maps(crlb=np.full((2, 9, 8, 2), 7.0, np.float32))
    scaled = MapSet(maps.maps * np.float32(1024), AFFINE, maps.names, crlb=maps.crlb)
    first = resolver(maps, samples=2, steps=3)
    second = resolver(scaled, samples=2, steps=3)
    for name in ("mean", "samples", "zero_fill"):
        np.testing.assert_allclose(getattr(second, name), getattr(first, name) * 1024, rtol=2e-5, atol=1e-2)


def test_same_seed_same_bits_whatever_the_batch_and_the_order(resolver: SuperResolver) -> None:
    maps = make_maps(names=("tNAA", "tCho", "Lac"))
    whole = resolver(maps, samples=3, steps=3, seed=11)
    again = resolver(maps, samples=3, steps=3, seed=11)
    assert np.array_equal(whole.samples, again.samples)
    backwards = resolver(maps.select(("Lac", "tCho", "tNAA")), samples=3, steps=3, seed=11)
    np.testing.assert_allclose(backwards.samples[:, ::-1], whole.samples, rtol=1e-5, atol=1e-5)
    fewer = resolver(maps, samples=2, steps=3, seed=11)
    np.testing.assert_allclose(fewer.samples, whole.samples[:2], rtol=1e-5, atol=1e-5)
    other = resolver(maps, samples=3, steps=3, seed=12)
    assert np.abs(other.samples - whole.samples).max() > 1e-3


def test_the_one_step_estimate_is_free_of_noise(resolver: SuperResolver) -> None:
    maps = make_maps()
    first, second = (resolver(maps, samples=0, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(first.mean, second.mean)


def test_the_mean_is_the_one_step_estimate_whatever_is_drawn_beside_it(resolver: SuperResolver) -> None:
    maps = make_maps()
    none, few, many = (resolver(maps, samples=count, steps=3) for count in (0, 2, 8))
    assert none.samples is None and few.samples.shape[0] == 2
    np.testing.assert_array_equal(none.mean, few.mean)
    np.testing.assert_array_equal(none.mean, many.mean)
    assert np.isnan(none.std).all() and np.isnan(few.std).all()
    np.testing.assert_allclose(many.std, many.samples.std(0, ddof=1), rtol=1e-3, atol=1e-5)
    assert {one.provenance["operating_point"] for one in (none, few, many)} == {"one-step posterior mean"}
    assert none.provenance["standard_deviation"].startswith("none: the model has no head")
    assert many.provenance["standard_deviation"] == "over 8 samples, each after data consistency"


def test_a_second_head_gives_the_deviation_with_the_mean(resolver_with_spread: SuperResolver) -> None:
    maps = make_maps(names=("tNAA", "tCho", "2HG"))
    maps.maps[2] = 0.0
    maps.maps[0, 3, 3, 0] = np.nan
    alone, drawn = (resolver_with_spread(maps, samples=count, steps=2) for count in (0, 8))
    np.testing.assert_array_equal(alone.std, drawn.std)
    np.testing.assert_array_equal(np.isnan(alone.std), np.isnan(alone.mean))
    assert (alone.std[:2][np.isfinite(alone.std[:2])] > 0).all() and not alone.std[2].any()
    assert np.abs(drawn.std - drawn.samples.std(0, ddof=1))[0, 0, 0].max() > 0
    assert "from the same evaluation" in alone.provenance["standard_deviation"]
    doubled = resolver_with_spread(MapSet(maps.maps * np.float32(2), AFFINE, maps.names), samples=0)
    np.testing.assert_allclose(doubled.std, 2 * alone.std, rtol=1e-5)
    ratio = alone.ratio("tCho", "tNAA", threshold=1.0)
    by_hand = np.hypot(alone.std[1] / alone.mean[0], alone.mean[1] * alone.std[0] / alone.mean[0] ** 2)
    held = alone.mean[0] > ratio.floor
    np.testing.assert_allclose(ratio.sd[held], by_hand[held], rtol=1e-4)
    above = ratio.median[held] > 1.0
    assert (ratio.probability[held][above] >= 0.5).all() and (ratio.probability[held][~above] <= 0.5).all()


def test_samples_of_different_subjects_are_independent(resolver: SuperResolver) -> None:
    """Deviations of samples from their mean, three subjects of one grid: no common part."""
    deviations = []
    for subject in range(3):
        maps = make_maps((16, 16, 2))
        maps.maps[:] = 5 + np.random.default_rng(subject).random(maps.maps.shape)
        drawn = resolver(maps, samples=6, steps=2, data_consistency="off").samples[:, 0].astype(np.float64)
        deviations.append((drawn - drawn.mean(axis=0)).ravel())
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(deviations[first], deviations[second])[0, 1]) < 0.05


def test_hard_consistency_reproduces_noise_free_data(resolver: SuperResolver) -> None:
    acquisition = Acquisition((9, 8), (4, 4), window="hamming")
    truth = torch.rand(2, 2, 36, 32, dtype=torch.float64) + 1
    measured = np.moveaxis(acquisition.forward(truth).numpy(), 1, -1).astype(np.float32)
    maps = MapSet(measured, AFFINE, ("tNAA", "tCho"))
    declared = {"support": "square", "window": "hamming"}
    result = resolver(maps, scale=4, samples=2, steps=4, data_consistency="hard", acquisition=declared)
    for volume in (result.mean, *result.samples):
        again = acquisition.forward(np.moveaxis(volume.astype(np.float64), -1, 1))
        misfit = again - np.moveaxis(measured, -1, 1)
        assert np.linalg.norm(misfit) / np.linalg.norm(measured) < 1e-5
    assert result.provenance["operator_assumed"] is False
    assert all(facts["residual_relative"] < 1e-5 for facts in result.provenance["maps"].values())


def test_soft_consistency_brings_the_residual_to_what_noise_explains(resolver: SuperResolver) -> None:
    result = resolver(make_maps(crlb=np.full((2, 9, 8, 2), 1.0, np.float32)), samples=0)
    assert result.provenance["data_consistency"]["applied"] == "soft"
    for facts in result.provenance["maps"].values():
        assert facts["noise_source"] == "crlb"
        assert facts["residual_whitened"] <= 1.001 * facts["residual_expected"]


def test_without_a_noise_level_a_typical_one_is_used_and_the_user_is_told(resolver: SuperResolver) -> None:
    result = resolver(make_maps(), samples=0)
    assert result.provenance["data_consistency"]["applied"] == "soft"
    for name, share in (("tNAA", 0.05), ("tCho", 0.06)):
        facts = result.provenance["maps"][name]
        assert facts["noise_source"] == "assumed" and facts["noise_factor"] <= 2
        assert facts["noise_sd"] == pytest.approx(share * 5.5, rel=0.03)
        assert facts["residual_whitened"] < 1.3 * facts["residual_expected"]
    assert any("noise level of tNAA, tCho is unknown" in sentence for sentence in result.warnings)


@pytest.mark.parametrize("value, percent", [(1e-13, 16.0), (200.0, 0.2)])
def test_one_false_voxel_moves_no_other(value: float, percent: float) -> None:
    """A trace with a small %SD, and a blow-up that no limit sees: with the shipped weights, as if not measured."""
    resolver = SuperResolver.from_pretrained(device="cpu", engine="eager")
    rules = TrustRules(blow_up_sd=1e9)
    x, y = np.meshgrid(np.linspace(-1, 1, 16), np.linspace(-1, 1, 16), indexing="ij")
    brain = 10 * np.exp(-((x**2 + y**2) ** 3))[..., None]
    noisy = brain + 0.4 * np.random.default_rng(0).standard_normal((2, 16, 16, 1))
    maps = MapSet(noisy.astype(np.float32), AFFINE, ("tNAA", "tCho"), crlb=np.full((2, 16, 16, 1), 4.0, np.float32))
    maps.maps[0, 8, 7, 0] = np.nan
    absent = resolver(maps, rules=rules, samples=0)
    maps.maps[0, 8, 7, 0], maps.crlb[0, 8, 7, 0] = value, percent
    false = resolver(maps, rules=rules, samples=0)
    far = np.ones((32, 32, 1), dtype=bool)
    far[12:22, 10:20] = False
    far &= np.isfinite(absent.mean).all(axis=0)
    noise = absent.provenance["maps"]["tNAA"]["noise_sd"]
    assert np.abs(false.mean - absent.mean)[:, far].max() < 0.01 * noise
    assert np.isnan(false.mean[0, 16:18, 14:16]).all()
    if value > 1:
        assert any("tNAA: one outlier" in line and "(8, 7, 0)" in line for line in false.warnings)


def test_a_residual_beyond_three_times_the_noise_is_a_warning_with_its_place(resolver: SuperResolver) -> None:
    maps = make_maps((12, 12, 2))
    maps.maps[0, 2:5, 7:10, 1] += 6.0  # no outlier: nine voxels agree
    result = resolver(maps, samples=0, data_consistency="off", noise={"tNAA": 0.05, "tCho": 50.0})
    facts = result.provenance["maps"]["tNAA"]
    assert facts["residual_whitened"] > 3 * facts["residual_expected"]
    assert abs(facts["largest_departure"]["noise_sd"]) > 5 and len(facts["largest_departure"]["voxel"]) == 3
    alarms = [sentence for sentence in result.warnings if "times the residual expected from noise" in sentence]
    assert len(alarms) == 1 and alarms[0].startswith("tNAA: the residual of the result")


@pytest.mark.parametrize("part", ["mean", "standard deviation"])
def test_a_network_that_makes_no_numbers_is_an_error(resolver: SuperResolver, monkeypatch, part: str) -> None:
    original = Sampler.mean

    def broken(*arguments: object) -> object:
        mean, sd = original(*arguments)
        sd = np.ones_like(mean) if sd is None else sd
        (mean if part == "mean" else sd)[0, 3, 2, 1] = np.nan
        return mean, sd

    monkeypatch.setattr(Sampler, "mean", broken)
    with pytest.raises(NotFinite, match="tNAA 1 of"):
        resolver(make_maps(), evidence="off")


def test_untrusted_voxels_become_nan_and_do_not_spread(resolver: SuperResolver) -> None:
    maps = make_maps()
    maps.maps[0, 2, 3, 1] = np.nan
    maps.maps[0, 5, 5, 0] = 5e4
    result = resolver(maps, scale=2, samples=2, steps=2)
    expected = np.zeros((2, 18, 16, 2), dtype=bool)
    expected[0, 4:6, 6:8, 1] = expected[0, 10:12, 10:12, 0] = True
    np.testing.assert_array_equal(np.isnan(result.mean), expected)
    assert np.nanmax(result.mean) < 100
    kept = resolver(maps, scale=2, samples=0, keep_filled=True)
    assert np.isfinite(kept.mean).all()


def test_an_empty_map_stays_empty_and_changes_no_other(resolver: SuperResolver) -> None:
    with_empty = make_maps(names=("tNAA", "tCho", "2HG"))
    with_empty.maps[2] = 0.0
    result = resolver(with_empty, samples=2, steps=3)
    assert not result.samples[:, 2].any() and not result.mean[2].any()
    alone = resolver(with_empty.select(("tNAA", "tCho")), samples=2, steps=3)
    np.testing.assert_allclose(result.samples[:, :2], alone.samples, rtol=1e-5, atol=1e-5)


def test_a_map_of_noise_is_returned_as_measured(resolver: SuperResolver) -> None:
    maps = make_maps((16, 16, 2), names=("tNAA", "2HG"))
    rng = np.random.default_rng(5)
    maps.maps[1] = 0.4 * rng.standard_normal(maps.maps[1].shape)
    result = resolver(maps, scale=4, samples=8, steps=3, noise={"tNAA": 0.3, "2HG": 0.4})
    acquisition = Acquisition((16, 16), (4, 4))
    outside = acquisition.null(np.moveaxis(result.mean[1], -1, 0).astype(np.float64))
    assert np.abs(outside).max() < 1e-5 * 0.4
    assert result.provenance["maps"]["2HG"]["content"] == "noise"
    assert any("2HG: has no signal above its noise" in sentence for sentence in result.warnings)


def test_progress_counts_to_the_end_and_can_cancel(resolver: SuperResolver) -> None:
    seen: list[tuple[int, int]] = []
    resolver(make_maps(), samples=3, steps=2, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1))

    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resolver(make_maps(), samples=1, steps=2, progress=cancel)


def test_save_writes_maps_spread_and_provenance(resolver: SuperResolver, tmp_path: Path) -> None:
    result = resolver(make_maps(), scale=4, samples=8, steps=2)
    written = result.save(tmp_path / "out", prefix="sub-01_")
    names = sorted(path.name for path in written)
    kinds = ("measured", "sr", "srstd", "zerofilled")
    assert names == [
        "sub-01_res-x4_desc-sr_mrsi.json",
        *(f"sub-01_res-x4_met-{met}_desc-{kind}_mrsi.nii.gz" for met in ("GPCPCh", "NAANAAG") for kind in kinds),
    ]
    image = nib.load(tmp_path / "out" / "sub-01_res-x4_met-NAANAAG_desc-sr_mrsi.nii.gz")
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), result.mean[0])
    np.testing.assert_allclose(image.affine, result.affine, atol=1e-4)
    record = json.loads((tmp_path / "out" / "sub-01_res-x4_desc-sr_mrsi.json").read_text())
    assert record["seed"] == 0 and record["samples"] == 8 and record["maps"]["tNAA"]["trusted_voxels"] == 144


def test_ratios_are_taken_sample_by_sample(resolver: SuperResolver) -> None:
    result = resolver(make_maps(), samples=8, steps=2)
    ratio = result.ratio("Cho", "tNAA")
    by_hand = np.median(result.samples[:, 1] / np.maximum(result.samples[:, 0], ratio.floor), axis=0)
    np.testing.assert_allclose(ratio.median, by_hand, rtol=1e-5)
    with pytest.raises(MapInputError, match="no map called Ins"):
        result.ratio("Ins", "tNAA")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"scale": 3}, "not offered"),
        ({"scale": (2, 2, 2)}, "too few to be refined through the plane"),
        ({"samples": -1}, "samples is -1"),
        ({"steps": 0}, "steps is 0"),
        ({"seed": 2**63}, "seed is"),
        ({"noise": {"Lac": 1.0}}, "noise level was given for Lac"),
        ({"noise": -1.0}, "must be a number of at least 0"),
        ({"acquisition": {"window": "kaiser"}}, "window"),
        ({"data_consistency": "firm"}, "firm"),
    ],
)
def test_bad_arguments_are_refused_with_a_sentence(resolver: SuperResolver, options, message: str) -> None:
    with pytest.raises((ValueError, MapInputError, ConfigError), match=message):
        resolver(make_maps(), **options)


def test_nothing_trusted_is_an_error(resolver: SuperResolver) -> None:
    maps = make_maps()
    maps.maps[:] = np.nan
    with pytest.raises(MapInputError, match="has no valid voxel"):
        resolver(maps)


def test_large_voxels_and_untrained_sizes_are_remarked(resolver: SuperResolver) -> None:
    maps = make_maps()
    wide = MapSet(maps.maps, np.diag([25.0, 25.0, 12.0, 1.0]), maps.names)
    sentences = " ".join(resolver(wide, samples=0).warnings)
    assert "above 15 mm" in sentences and "trained on 4.0 to 20.0 mm" in sentences


@pytest.mark.parametrize("device", ["cuda", "gpu", "tpu"])
def test_a_device_that_is_not_there_is_refused(resolver: SuperResolver, device: str) -> None:
    if torch.cuda.is_available() and device != "tpu":
        pytest.skip("this machine has CUDA")
    with pytest.raises(EngineError, match="not available|no device"):
        SuperResolver(resolver.pretrained, device=device)


def test_explain_names_model_device_and_engine(resolver: SuperResolver) -> None:
    text = resolver.explain()
    assert "model: random" in text and "device: cpu" in text and "engine: eager" in text


def test_anatomy_reaches_the_network_in_standard_units(resolver: SuperResolver) -> None:
    maps = make_maps()
    rng = np.random.default_rng(1)
    image = (500 + 100 * rng.random((90, 80, 24))).astype(np.float32)
    affine = AFFINE.copy()
    affine[:3, :3] = AFFINE[:3, :3] @ np.diag([0.1, 0.1, 1 / 12])
    affine[:3, 3] = AFFINE[:3, 3] - AFFINE[:3, :3] @ np.array([0.45, 0.45, 11 / 24])
    without = resolver(maps, samples=0)
    guided = resolver(maps, samples=0, anatomy=(image, affine), align="off")
    brighter = resolver(maps, samples=0, anatomy=(image * 40, affine), align="off")
    assert guided.provenance["anatomy_used"] and not without.provenance["anatomy_used"]
    assert np.abs(guided.mean - without.mean).max() > 1e-3
    np.testing.assert_allclose(brighter.mean, guided.mean, rtol=1e-4, atol=1e-4)
