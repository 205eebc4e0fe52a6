"""mrsi-sim v2: what measured scans have and tidy simulations lack, each effect held to its definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mrsi_fast.simulation import SimulationConfig, Simulator
from mrsi_fast.simulation.config import GuidanceConfig, SignalConfig, VariationConfig
from mrsi_fast.simulation.fields import Axis
from mrsi_fast.simulation.guidance import lifelike_image
from mrsi_fast.simulation.imperfections import Mismatch, draw_mismatch, excess_noise
from mrsi_fast.simulation.keys import Key
from mrsi_fast.simulation.slices import Geometry, blurred, pool, render
from mrsi_fast.simulation.subject import draw_subject
from mrsi_fast.simulation.texture import Rim, draw_textures
from mrsi_fast.simulation.volume import simulate_subject
from mrsi_fast.simulation.warp import AXES_OF, rotation_matrix

from .conftest import phantom_settings

LR_AXES = (Axis(-60.0, 10.0, 12, "float64"), Axis(-60.0, 10.0, 12, "float64"))
PLANES = np.array([0.0])


def whole_number_shift(shape: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2, *shape))


@pytest.mark.parametrize("shape", [(12, 12), (11, 9), (7, 14)])
def test_a_mismatch_without_strength_changes_nothing(shape: tuple[int, int]) -> None:
    maps = whole_number_shift(shape, 0)
    np.testing.assert_allclose(Mismatch(0.0, (0.0, 0.0)).apply(maps), maps, atol=1e-13)


@pytest.mark.parametrize("shape", [(12, 12), (11, 9)])
def test_a_shift_of_whole_voxels_moves_the_maps(shape: tuple[int, int]) -> None:
    maps = whole_number_shift(shape, 1)
    moved = Mismatch(0.0, (2.0, -1.0)).apply(maps)
    np.testing.assert_allclose(moved, np.roll(maps, (2, -1), (-2, -1)), atol=1e-12)


def test_damping_acts_on_the_edge_of_k_space_as_stated() -> None:
    wave = np.cos(np.pi * np.arange(12))[:, None] * np.ones(10)  # the line at radius 1 of the first axis
    np.testing.assert_allclose(Mismatch(0.4, (0.0, 0.0)).apply(wave[None])[0], np.exp(-0.4) * wave, atol=1e-12)
    np.testing.assert_allclose(Mismatch(0.4, (0.0, 0.0)).apply(np.ones((1, 8, 8))), 1.0, atol=1e-12)


def test_the_share_of_mismatched_acquisitions() -> None:
    rng, settings = np.random.default_rng(0), SignalConfig(mismatch=0.5)
    drawn = [draw_mismatch(rng, settings) for _ in range(400)]
    assert 160 < sum(one is not None for one in drawn) < 240
    assert all(abs(s) <= 0.5 for one in drawn if one is not None for s in one.shift)


def excess(level: float, tail: float, largest: float, maps: int = 400) -> np.ndarray:
    clean = np.full((maps, 12, 12), 10.0)
    settings = SignalConfig(noise_tail=tail, excess_largest=largest)
    support = np.ones((12, 12), bool)
    return excess_noise(clean, np.full_like(clean, 0.5), support, LR_AXES, PLANES, level, settings, Key.of("e", 1))


def test_excess_noise_is_never_below_the_bound_and_never_above_the_cap() -> None:
    free = excess(4.0, 0.0, 10.0)
    assert free.min() >= 1.0 and np.exp(np.log(free).mean()) == pytest.approx(4.0, rel=0.1)
    assert excess(9.0, 0.0, 0.3).max() <= 0.3 * 10 / 0.5 + 1e-9


def test_heavy_tails_leave_the_noise_power_alone() -> None:
    plain, heavy = excess(3.0, 0.0, 10.0), excess(3.0, 0.4, 10.0)
    assert (heavy**2).mean() == pytest.approx((plain**2).mean(), rel=0.03)
    assert heavy.std() > 1.2 * plain.std()


def test_texture_has_the_stated_spread_in_every_map() -> None:
    config = VariationConfig(texture_sd=(0.2, 0.2), texture_tail=0.3, texture_shared=0.0)
    (texture,) = draw_textures(config, Key.of("texture", 3), 6, "float64")
    values = texture.field.spacing, texture.lattice(PLANES)
    # Lattice values of one plane mix four lattice planes with unit norm, so their SD is the texture's.
    assert values[1].std(axis=(1, 2)) == pytest.approx(np.full(6, 0.2), rel=0.1)


def test_a_second_texture_comes_only_if_asked_for() -> None:
    assert len(draw_textures(VariationConfig(), Key.of(0), 3, "float64")) == 1
    assert len(draw_textures(VariationConfig(patch_sd=(0.1, 0.1)), Key.of(0), 3, "float64")) == 2
    assert draw_textures(VariationConfig(texture_sd=(0.0, 0.0)), Key.of(0), 3, "float64") == ()


def test_a_rim_changes_the_edge_and_leaves_the_middle() -> None:
    maps, depth = np.ones((2, 1, 5)), np.array([[0.0, 1.0, 5.0, 10.0, 100.0]])
    Rim(np.array([-0.3, 0.2]), 5.0).apply(maps, depth)
    np.testing.assert_allclose(maps[0, 0], [1, 1 - 0.3 * np.exp(-0.2), 1 - 0.3 * np.exp(-1), 1 - 0.3 * np.exp(-2), 1])
    np.testing.assert_allclose(maps[1, 0, 1], 1 + 0.2 * np.exp(-0.2))


def test_a_blur_acts_on_object_and_truth_alike_and_keeps_what_is_constant() -> None:
    geometry = Geometry((16, 12), (4.0, 4.0), (0.0, 0.0), 0.0, 5.0, 3, 1, 5.0, "float64")
    subject = draw_subject(phantom_settings("training"), Key.of("blur", 1), ("tNAA", "tCr"))
    part = blurred(render(subject, geometry, None), geometry, 0.71)
    np.testing.assert_allclose(part.truth, pool(part.slab.maps, 3), rtol=1e-12)
    flat = replace(part, slab=replace(part.slab, maps=np.ones((2, 480, 360))))
    middle = blurred(flat, replace(geometry, matrix=(160, 120)), 0.71).truth[:, 5:-5, 5:-5]
    np.testing.assert_allclose(middle, 1.0, rtol=1e-12)


def test_a_blur_of_0_71_voxels_resembles_a_hamming_window() -> None:
    wave = np.cos(np.pi * np.arange(64))[:, None] * np.ones(32)  # the HR grid's k-space edge
    fine = np.repeat(np.repeat(wave, 3, 0), 3, 1)[None]
    geometry = Geometry((64, 32), (4.0, 4.0), (0.0, 0.0), 0.0, 5.0, 3, 1, 5.0, "float64")
    subject = draw_subject(phantom_settings("training"), Key.of("blur", 2), ("tNAA",))
    part = render(subject, geometry, None)
    edge = blurred(replace(part, slab=replace(part.slab, maps=fine)), geometry, 0.71).truth[0, 8:-8, 8:-8]
    assert 0.05 < np.abs(edge).max() < 0.12  # 0.54 - 0.46 = 0.08


@pytest.mark.parametrize("orientation", ["coronal", "sagittal"])
def test_a_reoriented_head_is_the_same_head(orientation: str) -> None:
    head = draw_subject(phantom_settings("training"), Key.of("head", 5), ("tNAA",)).anatomy
    turned = head.reoriented(orientation)  # type: ignore[arg-type]
    point = np.array([20.0, -14.0, 9.0])  # in the turned frame
    straight = np.zeros(3)
    straight[list(AXES_OF[orientation])] = point  # type: ignore[index]
    assert turned.class_near(tuple(point)) == head.class_near(tuple(straight))
    np.testing.assert_allclose(turned.matrix @ point, head.matrix @ straight)


def test_a_displaced_head_shows_what_lies_elsewhere() -> None:
    head = draw_subject(phantom_settings("training"), Key.of("head", 6), ("tNAA",)).anatomy
    rotation, shift = rotation_matrix(np.array([0.05, -0.02, 0.1])), np.array([3.0, -4.0, 5.0])
    moved = head.displaced(rotation, shift)
    for point in np.random.default_rng(0).uniform(-60, 60, (50, 3)):
        assert moved.class_near(tuple(point)) == head.class_near(tuple(rotation @ point + shift))


def guided(**changes: float) -> tuple[np.ndarray, np.ndarray]:
    """A guiding image and the white-matter share of the maps' slice."""
    tidy = {"aligned": 1.0, "wrong": 0.0, "contrasts": (1.0, 0, 0, 0, 0), "partial": 0.0, "noise": (0.005, 0.005)}
    tidy |= {"bias": 1.0, "distortion_mm": 0.0, "shift_mm": 0.0, "turn_deg": 0.0}
    guidance = GuidanceConfig(lifelike=True, **(tidy | changes))
    config = phantom_settings("training", tumour={"probability": 0.0, "t1_only": 0.0})
    config = config.model_copy(update={"guidance": guidance})
    subject = draw_subject(config, Key.of("guided", 2), ("tNAA",))
    geometry = Geometry((64, 64), (3.4, 3.4), (0.0, 0.0), 5.0, 4.0, 2, 1, 2.5, "float32")
    image = lifelike_image(config, subject, geometry, "axial", Key.of("slice", 1))
    part = subject.slab(*geometry.axes, geometry.planes).fractions[1]
    return image, part.reshape(64, 2, 64, 2).mean(axis=(1, 3))


def test_an_aligned_t1_shows_the_tissue_and_a_displaced_one_less_of_it() -> None:
    def fit(image: np.ndarray, white: np.ndarray) -> float:
        inside = image != 0
        return float(np.corrcoef(image[inside], white[inside])[0, 1])

    aligned = fit(*guided())
    assert aligned > 0.6
    assert fit(*guided(aligned=0.0, shift_mm=50.0)) < aligned - 0.15  # cut at 6 mm


def test_partial_coverage_blanks_one_side() -> None:
    image, _ = guided(partial=1.0)
    rows, columns = (image == 0).all(axis=1), (image == 0).all(axis=0)
    assert max(rows[:12].all(), rows[-12:].all(), columns[:12].all(), columns[-12:].all())


def test_training_v2_batches_are_whole_and_reproducible() -> None:
    config = phantom_settings("training-v2")
    for step in range(6):
        batch, again = (Simulator(config).batch(4, step, 3) for _ in range(2))
        for name, value in batch.items():
            assert np.isfinite(value).all() and value.dtype == np.float32
            np.testing.assert_array_equal(value, again[name])


def test_unequal_voxels_and_small_grids_occur() -> None:
    batches = [Simulator(phantom_settings("training-v2")).batch(9, step, 2) for step in range(30)]
    sizes = np.concatenate([b["voxel_mm"] for b in batches])
    assert (np.abs(np.log(sizes[:, 0] / sizes[:, 1])) > 0.1).any() and np.isclose(sizes[:, 0], sizes[:, 1]).any()
    assert min(b["hr"].shape[2] for b in batches) <= 24


def test_the_stated_bound_understates_the_noise_of_measured_3t() -> None:
    config = phantom_settings("measured-3T", volume={"slices": 2}, tumour={"probability": 0.0})
    config = config.model_copy(update={"signal": config.signal.model_copy(update={"lipid": 0.0, "mismatch": 0.0})})
    subject = simulate_subject(config, 0, 0, [(2, 2)])
    low = subject.measured[(2, 2)]
    good = np.isfinite(low.maps[0]) & ~low.failed[0] & (low.mask if low.mask is not None else True)
    error = (low.maps[0] - low.clean[0] * np.median((low.maps[0] / low.clean[0])[good]))[good]
    ratio = 1.4826 * np.median(np.abs(error)) / np.median(low.noise_sd[0][good])
    assert subject.provenance["noise_excess"] > 4 and 2.5 < ratio < 14


def test_v1_presets_state_no_v2_effect() -> None:
    for name in ("training", "realistic-3T", "paper-like", "stress", "yale"):
        config = SimulationConfig.preset(name)
        assert config.signal.excess == (1.0, 1.0) and not config.guidance.lifelike and config.variation.rim == 0
