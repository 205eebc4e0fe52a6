"""Lesions: shapes, infiltration, what they change, and real masks brought to their true proportions."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mrsi_fast.simulation.anatomy import BRAIN_CLASSES, CLASSES
from mrsi_fast.simulation.concentrations import metabolite
from mrsi_fast.simulation.fields import Axis
from mrsi_fast.simulation.keys import Key
from mrsi_fast.simulation.subject import draw_subject
from mrsi_fast.simulation.tumour import TRUE_VOXEL_MM, Blob, MaskShape, mask_distance

from .conftest import NO_VARIATION, phantom_settings

NAMES = ("tNAA", "tCr", "tCho", "Ins", "Glx", "2HG", "Lac")
ALWAYS = {"probability": 1.0, "t1_only": 0.0, "single_metabolite": 0.0, "satellites": 0.0}


def subject_with(seed: int, **tumour: object):
    settings = phantom_settings(variation=NO_VARIATION, tumour=ALWAYS | tumour, signal={"bias": 0.0})
    return draw_subject(settings, Key.of("subject", seed), NAMES)


def slab_through(subject, count: int = 220):
    x = y = Axis.centred(0.0, 220.0, count, "float64")
    return subject.slab(x, y, np.array([subject.lesion.centre[2]]))


def test_a_regular_blob_is_a_sphere() -> None:
    blob = Blob((3.0, -4.0, 10.0), 12.0, np.zeros((8, 3)), np.zeros(8), 0.0)
    x, y = np.array([3.0, 15.0, 30.0]), np.array([-4.0, 8.0])
    expected = np.sqrt((x[:, None] - 3) ** 2 + (y[None] + 4) ** 2 + 25.0) - 12.0
    np.testing.assert_allclose(blob.distance(x, y, 15.0), expected, atol=2e-3)


def test_an_irregular_blob_keeps_its_size_and_reach() -> None:
    rng = np.random.default_rng(0)
    x = np.linspace(-40, 40, 161)
    volumes = []
    for _ in range(20):
        blob = Blob((0.0, 0.0, 0.0), 15.0, rng.normal(size=(8, 3)) * 1.5, rng.uniform(0, 6.28, 8), 0.15)
        inside = blob.distance(x, x, 0.0) < 0
        volumes.append(inside.sum() * 0.25)
        assert not inside[np.hypot(x[:, None], x[None]) > blob.reach].any()
    assert np.mean(volumes) == pytest.approx(np.pi * 15**2, rel=0.1)


def test_the_core_holds_the_tumour_s_concentrations_and_the_far_brain_the_tissue_s() -> None:
    subject = subject_with(4, idh_mutant=1.0, radius_mm=(22.0, 22.0), texture_sd=0.0, edge_mm=(1.5, 1.5))
    slab = slab_through(subject)
    core = slab.core > 0.999
    assert core.sum() > 100
    np.testing.assert_allclose(slab.maps[:, core].mean(1), subject.lesion.values, rtol=2e-3)
    far = (slab.lesion == 0) & (slab.fractions[CLASSES.index("WM")] == 1)
    white = [metabolite(name).cells["WM"].mean for name in NAMES]
    np.testing.assert_allclose(slab.maps[:, far], np.broadcast_to(np.array(white)[:, None], (7, far.sum())), rtol=1e-12)
    assert slab.maps[5, slab.lesion == 0].max() == 0.0


def test_infiltration_decays_and_prefers_white_matter() -> None:
    subject = subject_with(4, idh_mutant=1.0, radius_mm=(15.0, 15.0), infiltration_mm=(6.0, 6.0), edge_mm=(1.5, 1.5))
    slab = slab_through(subject)
    distance = subject.lesion.shapes[0].distance(slab.x.points, slab.y.points, subject.lesion.centre[2])
    ring = [(distance > low) & (distance < low + 1) for low in (8, 12, 16)]
    white, grey = (slab.fractions[CLASSES.index(name)] == 1 for name in ("WM", "GM"))
    levels = [slab.lesion[r & white].mean() for r in ring]
    assert levels[0] > levels[1] > levels[2] > 0
    assert slab.lesion[distance > 22].max() < 1e-6
    assert slab.lesion[ring[0] & grey].mean() == pytest.approx(0.25 * levels[0], rel=0.15)
    assert not slab.lesion[slab.fractions[BRAIN_CLASSES].sum(0) == 0].any()


def test_necrosis_empties_a_wild_type_core_but_not_its_lactate() -> None:
    settings = {"idh_mutant": 0.0, "radius_mm": (26.0, 26.0), "texture_sd": 0.0}
    subject = next(s for s in (subject_with(seed, **settings) for seed in range(20)) if s.lesion.necrosis_mm < 6)
    slab = slab_through(subject)
    distance = subject.lesion.shapes[0].distance(slab.x.points, slab.y.points, subject.lesion.centre[2])
    dead = (distance < -subject.lesion.necrosis_mm - 12) & (slab.core > 0.99)
    rim = (distance > -3) & (distance < -1) & (slab.core > 0.5)
    assert slab.maps[1, dead].mean() < 0.15 * slab.maps[1, rim].mean()
    assert slab.maps[6, dead].mean() > slab.maps[6, rim].mean()


def test_heterogeneity_of_tnaa_runs_against_tcho() -> None:
    products = []
    for seed in range(10):
        subject = subject_with(seed, idh_mutant=1.0, radius_mm=(25.0, 25.0))
        slab = slab_through(subject, 60)
        inside = np.log(slab.maps[:, slab.core > 0.98])
        if inside.shape[1] > 20:
            inside -= inside.mean(1, keepdims=True)
            products.append([inside[0] @ inside[2], inside[0] @ inside[0], inside[2] @ inside[2]])
    cross, first, second = np.sum(products, axis=0)
    assert cross / np.sqrt(first * second) == pytest.approx(-0.5, abs=0.2)


def test_a_real_rim_is_filled_and_brought_to_true_proportions(tmp_path: Path) -> None:
    """An ellipsoid of 18 x 14 x 20 mm semi-axes, drawn as a rim on the 0.9 x 0.9 x 6.5 mm grid with a 1 mm header."""
    grids = np.meshgrid(*(np.arange(n) for n in (80, 80, 12)), indexing="ij")
    radius = np.sqrt(
        sum(
            ((g - c) * v / half) ** 2
            for g, c, v, half in zip(grids, (41, 38, 6), TRUE_VOXEL_MM, (18, 14, 20), strict=True)
        )
    )
    mask = ((radius < 1) & (radius > 0.8)).astype(np.uint8)
    mask[2, 2, 2] = 1  # a stray voxel, not the largest body
    path = tmp_path / "sub-01_ses-pre_mask.nii.gz"
    nib.save(nib.Nifti1Image(mask, np.diag([-1.0, -1.0, 1.0, 1.0])), path)
    field, sphere, reach = mask_distance(str(path))
    assert sphere == pytest.approx((18 * 14 * 20) ** (1 / 3), rel=0.06)
    assert reach == pytest.approx(20, abs=4)
    shape = MaskShape(field, (1.0, 2.0, 3.0), ((1.0, 0.0), (0.0, 1.0)), 1.0, reach)
    x = np.linspace(-40, 40, 161)
    inside = shape.distance(x + 1.0, x + 2.0, 3.0) < 0
    assert (inside.any(1).sum() * 0.5, inside.any(0).sum() * 0.5) == pytest.approx((36, 28), abs=3)
    assert inside[80, 80]
    far = shape.distance(np.array([-300.0, 301.0]), np.array([2.0]), 3.0)
    assert far[:, 0] == pytest.approx([283, 282], abs=3)
    above = shape.distance(np.array([1.0]), np.array([2.0]), 203.0)
    assert above[0, 0] == pytest.approx(180, abs=6)
    larger = MaskShape(field, (1.0, 2.0, 3.0), ((0.0, 1.0), (1.0, 0.0)), 1.5, reach)
    turned = larger.distance(x + 1.0, x + 2.0, 3.0) < 0
    assert (turned.any(1).sum() * 0.5, turned.any(0).sum() * 0.5) == pytest.approx((42, 54), abs=4)
