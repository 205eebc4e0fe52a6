"""A displaced image is found, its mirror image is told apart, and bad images are told."""

from __future__ import annotations

import numpy as np
import pytest

from mrsi_fast.evaluation.guided import rigid
from mrsi_fast.evidence.alignment import Placement, align
from mrsi_fast.evidence.fit import Fit
from support.displaced import head, maps


@pytest.mark.parametrize(("shift", "turn"), [((0, 0, 0), (0, 0, 0)), ((4, -3, 5), (0, 0, 0)), ((-3, 2, 2), (5, -3, 6))])
def test_a_displaced_image_is_found(shift: tuple[float, ...], turn: tuple[float, ...]) -> None:
    image, affine = head()
    values, valid, where = maps()
    moved = rigid(shift, turn)
    found = align(Fit(image, moved @ affine, values, valid, where))
    left = found.placement.matrix @ moved
    assert np.linalg.norm((left @ [0, 0, 0, 1])[:3]) < 0.5
    assert np.linalg.norm(left[:3, :3] - np.eye(3)) < 0.02  # about 0.8 degrees
    assert found.explained > found.explained_mirrored + 0.1 and found.own_share > 0.2
    assert found.advantage > 20 and found.advantage_flipped > 20


def test_a_mirrored_image_loses_against_its_mirror_image() -> None:
    image, affine = head()
    values, valid, where = maps()
    found = align(Fit(image[::-1].copy(), affine, values, valid, where))
    assert found.own_share < 0 and found.advantage < 0


@pytest.mark.parametrize("axis", [1, 2])
def test_an_image_upside_down_or_back_to_front_loses_against_the_upright_one(axis: int) -> None:
    image, affine = head()
    values, valid, where = maps()
    found = align(Fit(np.flip(image, axis).copy(), affine, values, valid, where))
    assert found.advantage_flipped < -20


def test_contrast_does_not_matter() -> None:
    """The negative of an image lies where the image lies."""
    image, affine = head()
    values, valid, where = maps()
    moved = rigid((3, 3, -2))
    negative = np.where(image > 0, image.max() + 0.5 - image, 0)
    left = align(Fit(negative, moved @ affine, values, valid, where)).placement.matrix @ moved
    assert np.linalg.norm((left @ [0, 0, 0, 1])[:3]) < 0.6


def test_a_placement_says_what_it_does() -> None:
    placement = Placement((1.0, 2.0, 2.0), (0.0, 0.0, 90.0), (10.0, 0.0, 0.0))
    np.testing.assert_allclose(placement.matrix @ [10, 0, 0, 1], [11, 2, 2, 1], atol=1e-12)  # the centre only shifts
    np.testing.assert_allclose(placement.matrix @ [11, 0, 0, 1], [11, 3, 2, 1], atol=1e-12)
    assert placement.distance_mm == pytest.approx(3.0) and placement.angle_deg == pytest.approx(90.0)


@pytest.mark.parametrize("coarse", [False, True])
def test_slope_is_that_of_the_fit(coarse: bool) -> None:
    """The slope that the search goes by is the one that the likelihood shows, weights following the place."""
    image, affine = head()
    values, valid, where = maps()
    fit = Fit(image, affine, values, valid, where)
    fit = fit.coarser() if coarse else fit
    at = np.array([0.7, -0.4, 0.5, 0.3, -0.6, 0.8])
    slope, curvature = fit.slopes(fit.at(at))
    for k in range(6):
        step = np.zeros(6)
        step[k] = 0.1
        seen = (fit.at(at + step).likelihood - fit.at(at - step).likelihood) / 0.2
        assert seen == pytest.approx(float(slope[k]), rel=0.15, abs=3.0)
    assert (np.linalg.eigvalsh(curvature) < 0).all()


def test_the_search_needs_few_evaluations_of_the_fine_model_and_a_hundred_in_all() -> None:
    """And counts each once: a control does not inherit the count of the search before it."""
    image, affine = head()
    values, valid, where = maps()
    fit = Fit(image, rigid((4, -3, 5), (3, -5, 2)) @ affine, values, valid, where)
    found = align(fit)
    assert fit.mirrored(found.placement.matrix).evaluations == 0 == fit.coarser().evaluations
    assert fit.evaluations <= 10 and fit.evaluations < found.evaluations <= 100


def test_of_an_image_that_is_too_far_away_no_mirror_image_is_tried() -> None:
    image, affine = head()
    values, valid, where = maps()
    found = align(Fit(image, rigid((13, -14, 0)) @ affine, values, valid, where))
    assert found.placement.too_far and found.placement.distance_mm == pytest.approx(np.hypot(13, 14), abs=0.5)
    assert np.isnan([found.explained_mirrored, found.advantage, found.advantage_flipped, found.own_share]).all()


def test_an_image_without_contrast_is_told() -> None:
    values, valid, where = maps()
    with pytest.raises(ValueError, match="no anatomy"):
        Fit(np.ones((8, 8, 8)), np.eye(4), values, valid, where)
