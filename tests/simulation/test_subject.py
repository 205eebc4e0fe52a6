"""A subject's object: tissue values, variation, B1 field, the head's deformation, and slices against volumes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq

from mrsi_fast.config import ConfigError
from mrsi_fast.simulation.anatomy import CLASSES, Head, head_from_labels
from mrsi_fast.simulation.config import AnatomyConfig, SimulationConfig
from mrsi_fast.simulation.fields import Axis
from mrsi_fast.simulation.keys import Key
from mrsi_fast.simulation.phantom import phantom_head
from mrsi_fast.simulation.subject import draw_concentrations, draw_subject
from mrsi_fast.simulation.warp import VENTRICLE_REACH_MM, WarpedHead, draw_head

from .conftest import NO_TUMOUR, NO_VARIATION, phantom_settings

NAMES = ("tNAA", "tCho", "Ins")
STILL = {"rotation_deg": 0.0, "scale": (1.0, 1.0), "elastic_mm": 0.0, "ventricle_scale": 0.0, "flip": False}


def grid(count: int = 110, extent: float = 220.0) -> tuple[Axis, Axis]:
    return Axis.centred(0.0, extent, count, "float64"), Axis.centred(0.0, extent, count, "float64")


def ball(centre: tuple[float, float, float], radius: float) -> Head:
    """White matter with a ball of grey matter in it, 121 mm wide."""
    x, y, z = (axis - 60.0 - c for axis, c in zip(np.ogrid[:121, :121, :121], centre, strict=True))
    classes = np.where(x**2 + y**2 + z**2 < radius**2, 2, 1).astype(np.uint8)
    return Head("ball", np.ascontiguousarray(classes.transpose(2, 0, 1)), (60.0, 60.0, 60.0), (0.0, 0.0, 0.0))


def test_an_undeformed_head_is_read_voxel_by_voxel() -> None:
    head = phantom_head(0)
    warped = draw_head(AnatomyConfig(**STILL, split="all"), Key.of(0), 0, "float64")
    x, y = (Axis(-30.0 - c % 1, 1.0, 61, "float64") for c in head.centre[:2])
    z = 7.0 - head.centre[2] % 1
    shares = warped.fractions(x, y, np.array([z]), 1)
    ix, iy, iz = int(round(head.centre[0] + x.start)), int(round(head.centre[1] + y.start)), round(head.centre[2] + z)
    np.testing.assert_array_equal(shares.argmax(0), head.classes[int(iz), ix : ix + 61, iy : iy + 61])


def test_shares_are_exact_block_means_of_the_labels() -> None:
    warped = draw_head(AnatomyConfig(split="all"), Key.of(5), 1, "float64")
    x, y = grid(40)
    planes = np.linspace(10.0, 21.0, 12)
    coarse = warped.fractions(x, y, planes, 3)
    fine = warped.fractions(x.refined(3), y.refined(3), planes, 1)
    np.testing.assert_allclose(coarse, fine.reshape(len(CLASSES), 40, 3, 40, 3).mean((2, 4)), atol=1e-12)
    np.testing.assert_allclose(coarse.sum(0), 1.0, atol=1e-12)


def test_rotation_and_scaling_are_those_of_the_matrix() -> None:
    """A ball of one class off the centre lands where the inverse matrix says, with its size scaled."""
    head = ball((25.0, 10.0, 0.0), 8.0)
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    warped = WarpedHead(head, turn / 1.1, None, 0.0, 0.0)
    x, y = grid(200, 100.0)
    disc = warped.fractions(x, y, np.array([0.0]), 1)[2]
    centre = [(disc.sum(1) * x.points).sum() / disc.sum(), (disc.sum(0) * y.points).sum() / disc.sum()]
    np.testing.assert_allclose(centre, (1.1 * turn.T @ [25, 10, 0])[:2], atol=0.3)
    area_of_labels = (head.classes[60] == 2).sum()
    assert disc.sum() * 0.25 == pytest.approx(1.1**2 * area_of_labels, rel=0.01)


@pytest.mark.parametrize("scale", [-0.25, 0.25])
def test_ventricles_grow_and_shrink(scale: float) -> None:
    """A ball of radius 9 mm at their place: its edge comes from where r (1 - s exp(-r^2 / reach^2)) = 9."""
    head = replace(ball((12.0, -8.0, 5.0), 9.0), ventricles=(12.0, -8.0, 5.0))
    x, y = grid(240, 120.0)
    disc = WarpedHead(head, np.eye(3), None, 0.0, scale).fractions(x, y, np.array([5.0]), 1)[2]
    radius = brentq(lambda r: r * (1 - scale * np.exp(-((r / VENTRICLE_REACH_MM) ** 2))) - 9.0, 1, 30)
    assert np.sqrt(disc.sum() * 0.25 / np.pi) == pytest.approx(radius, abs=0.4)
    assert (disc.sum(1) * x.points).sum() / disc.sum() == pytest.approx(12.0, abs=0.2)


def test_elastic_deformation_is_smooth_and_keeps_the_tissue() -> None:
    still, moved = (
        draw_head(AnatomyConfig(**(STILL | {"elastic_mm": mm}), split="all"), Key.of(9), 0, "float64")
        for mm in (0.0, 1.6)
    )
    before, after = (head.fractions(*grid(), np.array([12.0]), 1) for head in (still, moved))
    assert 0.02 < np.abs(before - after).sum(0).mean() / 2 < 0.25
    np.testing.assert_allclose(after.sum((1, 2))[[1, 2]], before.sum((1, 2))[[1, 2]], rtol=0.12)


def test_without_variation_tissue_values_are_the_table_s() -> None:
    config = phantom_settings(variation=NO_VARIATION, tumour=NO_TUMOUR)
    values = draw_concentrations(config.variation, Key.of(0), NAMES)
    np.testing.assert_allclose(values[:, CLASSES.index("GM")], [9.3, 1.17, 4.35])
    np.testing.assert_allclose(values[:, CLASSES.index("WM")], [10.0, 1.70, 3.7])
    np.testing.assert_allclose(values[:, CLASSES.index("brain stem")], [10.0, 1.70, 3.7])
    assert not values[:, [CLASSES.index(name) for name in ("air", "bone", "soft tissue", "scalp", "CSF")]].any()


def test_variation_between_subjects_regions_and_points_has_its_size() -> None:
    config = phantom_settings(tumour=NO_TUMOUR, signal={"bias": 0.0}, anatomy=STILL)
    draws = np.stack([draw_concentrations(config.variation, Key.of(seed), NAMES) for seed in range(400)])
    assert np.log(draws[:, 0, 1]).std() == pytest.approx(0.10, rel=0.12)
    assert np.log(draws[:, 0, 4] / draws[:, 0, 2]).std() == pytest.approx(0.05, rel=0.12)
    spread = []
    for seed in range(12):
        subject = draw_subject(config, Key.of(seed), NAMES, head=0)
        slab = subject.slab(*grid(), np.array([20.0]))
        white = slab.fractions[CLASSES.index("WM")] == 1
        relative = slab.maps[0, white] / subject.concentrations[0, 1]
        spread.append(np.log(relative).var())
    expected = 0.05**2 + 0.03**2 + (0.08 / 90) ** 2 / 3 * 40**2
    assert np.mean(spread) == pytest.approx(expected, rel=0.5)


def test_the_b1_field_is_common_to_all_metabolites_and_bounded() -> None:
    extremes = []
    for seed in range(30):
        config = phantom_settings(tumour=NO_TUMOUR, variation=NO_VARIATION, signal={"bias": 0.15})
        with_field = draw_subject(config, Key.of(seed), NAMES, head=0)
        without = draw_subject(
            phantom_settings(tumour=NO_TUMOUR, variation=NO_VARIATION, signal={"bias": 0.0}),
            Key.of(seed),
            NAMES,
            head=0,
        )
        a, b = (s.slab(*grid(30), np.array([15.0])).maps for s in (with_field, without))
        brain = b[0] > 5
        field = a[:, brain] / b[:, brain]
        np.testing.assert_allclose(field, np.broadcast_to(field[:1], field.shape), rtol=1e-12)
        extremes.append(np.abs(np.log(field[0])).max())
    assert max(extremes) < 2 * np.log(1.15) and np.mean(extremes) > 0.02


def test_thin_slices_add_up_to_a_thick_one() -> None:
    config = phantom_settings(tumour={"probability": 1.0, "t1_only": 0.0})
    subject = draw_subject(config, Key.of(3), NAMES, head=0)
    planes = 8.0 + np.arange(8.0)
    thick = subject.slab(*grid(55), planes)
    thin = [subject.slab(*grid(55), planes[k : k + 1]) for k in range(8)]
    np.testing.assert_allclose(thick.fractions, np.mean([s.fractions for s in thin], axis=0), atol=1e-12)
    mean = np.mean([s.maps for s in thin], axis=0)
    inside = mean[0] > 2
    assert np.median(np.abs(thick.maps - mean)[:, inside] / mean[:, inside]) < 0.002
    assert np.quantile(np.abs(thick.maps - mean)[:, inside] / mean[:, inside], 0.99) < 0.05


def test_a_label_map_becomes_a_head() -> None:
    labels = np.zeros((60, 64, 50), np.int32)
    labels[10:50, 10:54, 8:42] = 3
    labels[14:46, 14:50, 12:38] = 2
    labels[25:35, 28:36, 22:28] = 4
    labels[5:8, 30:34, 20:24] = 511
    labels[52:55, 30:34, 20:24] = 12345
    head = head_from_labels(labels, "made")
    assert head.classes.shape == (50 + 2, 62, 66) or head.classes.shape[0] <= 52
    np.testing.assert_allclose(head.centre[:2], [29.5 + 1, 31.5 + 1], atol=0.3)
    np.testing.assert_allclose(head.ventricles[:2], [0.0, 0.0], atol=0.3)
    names = {CLASSES[c] for c in np.unique(head.classes)}
    assert names == {"air", "GM", "WM", "CSF", "scalp", "soft tissue"}
    with pytest.raises(ConfigError, match="no cerebral white matter"):
        head_from_labels(np.where(labels == 2, 3, labels), "grey")


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="paper-like.*realistic-3T"):
        SimulationConfig.preset("paper")
    with pytest.raises(ConfigError, match="wrong"):
        SimulationConfig.parse({"anatomy": {"wrong": 1}})
    for name in ("training", "paper-like", "yale", "realistic-3T", "realistic-7T", "stress"):
        assert SimulationConfig.preset(name).name == name
