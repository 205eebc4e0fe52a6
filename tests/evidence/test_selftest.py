"""What a scan says of itself, and the choices that follow, with models whose answers are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mrsi_fast.evidence.checks import Checks, disbelieved
from mrsi_fast.evidence.halving import Halved
from mrsi_fast.evidence.selftest import Options, testify
from mrsi_fast.evidence.testimony import FALSE_DETAIL, NOTHING, TRUE_DETAIL, Evidence
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.mapset import MapSet
from mrsi_fast.mrsi.quality import assess
from mrsi_fast.preparation import AcquisitionSettings
from support.displaced import head
from support.displaced import maps as head_maps

SHAPE = (24, 24, 3)


def scan(noise: float = 0.1) -> tuple[MapSet, NDArray]:
    rng = np.random.default_rng(0)
    true = rng.uniform(5, 10, (3, *SHAPE))
    noisy = (true + noise * rng.normal(size=true.shape)).astype(np.float32)
    crlb = (100 * noise / noisy).astype(np.float32)
    return MapSet(noisy, np.diag([8.0, 8.0, 8.0, 1.0]), ("tNAA", "tCr", "tCho"), crlb=crlb), true


def ask(maps: MapSet, predict: Any, anatomy: Any = None, **options: Any) -> tuple[Evidence, Any, tuple[str, ...]]:
    asked = Options(**options)
    return testify(maps, assess(maps), (True, True), AcquisitionSettings(), predict, None, anatomy, asked)


def detail(image: NDArray) -> NDArray:
    return np.moveaxis(Acquisition((12, 12), (2, 2)).null(np.moveaxis(image, -1, 0)), 0, -1)


def test_verdicts_follow_what_was_added() -> None:
    maps, true = scan()

    def predict(halved: Halved, image: Any, noise: Any, scale: float) -> NDArray:
        assert halved.maps.maps.shape == (3, 12, 12, 3) and halved.factors == (2, 2)
        wrong = np.random.default_rng(5).normal(size=SHAPE) * detail(true)[1].std()
        added = np.stack([detail(true)[0], np.zeros(SHAPE), detail(wrong)])
        return (true - detail(true) + added).astype(np.float32)

    evidence, _, warnings = ask(maps, predict)
    assert [one.verdict for one in evidence.maps] == [TRUE_DETAIL, NOTHING, FALSE_DETAIL] and not warnings
    first = evidence.maps[0].detail
    assert first.error == pytest.approx(first.noise_floor, rel=0.1) and first.amplitude == pytest.approx(1, abs=0.02)
    # What was added is kept, unknown amplitudes change nothing, detail of no use goes.
    np.testing.assert_allclose(evidence.amplitudes(), [1, 1, 0], atol=0.15)
    assert len(evidence.rows()) == 4 and "of total variation" in evidence.rows()[0]
    untried = replace(evidence, maps=tuple(replace(one, total_variation=float("nan")) for one in evidence.maps))
    assert "of total variation" not in untried.rows()[0] and {len(row) for row in untried.rows()} == {5}
    assert evidence.as_dict()["maps"]["tNAA"]["verdict"] == TRUE_DETAIL


def test_the_noise_level_that_errs_least_is_told() -> None:
    maps, true = scan()
    share = {1.0: 0.2, 2.0: 0.9, 4.0: 0.5}

    def predict(halved: Halved, image: Any, noise: Any, scale: float) -> NDArray:
        return (true - (1 - share[scale]) * detail(true)).astype(np.float32)

    assert ask(maps, predict, noise_scale=None)[0].noise_scale == 2.0
    assert ask(maps, predict)[0].noise_scale == 1.0


def guided(shares: tuple[float, float]) -> Any:
    """A model that adds one share of the true detail of the head's maps without an image, and another with one."""
    values = head_maps()[0]

    def predict(halved: Halved, image: Any, noise: Any, scale: float) -> NDArray:
        lost = (1 - shares[image is not None]) * detail(values)
        return (values - lost).astype(np.float32)

    return predict


def measured_head() -> MapSet:
    values, valid, affine = head_maps()
    return MapSet(values.astype(np.float32), affine, ("tNAA", "tCr"), mask=valid)


def test_an_image_is_used_where_it_fits_and_helps() -> None:
    image, affine = head()
    moved = affine.copy()
    moved[:3, 3] += [4, -3, 2]
    evidence, placed, _ = ask(measured_head(), guided((0.3, 0.8)), (image, moved))
    assert evidence.guidance is not None and evidence.guidance.used and "used (error" in evidence.guidance.reason
    np.testing.assert_allclose(placed[1], affine, atol=0.6)
    worse, nothing, warnings = ask(measured_head(), guided((0.8, 0.3)), (image, affine))
    assert worse.guidance is not None and not worse.guidance.used and nothing is None
    assert any("does not fit the maps" in text for text in warnings)
    forced, kept, _ = ask(measured_head(), guided((0.8, 0.3)), (image, moved), force_image=True, align=False)
    assert forced.guidance is not None and forced.guidance.used and kept[1] is not None
    np.testing.assert_array_equal(kept[1], moved)


def test_the_level_of_the_background_does_not_matter() -> None:
    image, affine = head()
    evidence, placed, _ = ask(measured_head(), guided((0.3, 0.8)), (image + 1000, affine))
    assert evidence.guidance is not None and evidence.guidance.used, evidence.guidance
    np.testing.assert_allclose(placed[1], affine, atol=0.6)


def test_mirrored_and_far_images_are_refused_whatever_the_test_says() -> None:
    image, affine = head()
    mirrored, nothing, warnings = ask(measured_head(), guided((0.3, 0.8)), (image[::-1].copy(), affine))
    assert nothing is None and any("mirror image" in text for text in warnings)
    assert mirrored.guidance is not None and not mirrored.guidance.used


def test_small_scans_and_switched_off_tests_say_so() -> None:
    maps, _ = scan()
    small = replace(maps, maps=maps.maps[:, :10, :10], crlb=None)
    evidence, _, _ = ask(small, None)
    assert not evidence.tested and "10 x 10 voxels" in evidence.reason and evidence.rows() == []
    assert not ask(maps, None, test=False)[0].tested


def test_shrinking_scales_added_detail_alone() -> None:
    rng = np.random.default_rng(2)
    operator = Acquisition((8, 8), (2, 2))
    mean = rng.normal(size=(2, 16, 16, 3)).astype(np.float32)
    samples = (mean + rng.normal(size=(4, *mean.shape))).astype(np.float32)

    def parts(image: NDArray) -> tuple[NDArray, NDArray]:
        slices = np.moveaxis(image.astype(np.float64), -1, 0)
        return operator.measured(slices), operator.null(slices)

    small = mean - disbelieved(mean, operator, np.array([0.25, 1.0]))
    np.testing.assert_allclose(parts(small)[0], parts(mean)[0], atol=1e-5)
    np.testing.assert_allclose(parts(small)[1][:, 0], 0.25 * parts(mean)[1][:, 0], atol=1e-5)
    np.testing.assert_allclose(small[1], mean[1], atol=1e-6)
    moved = samples - disbelieved(mean, operator, np.array([0.0, 1.0]))
    np.testing.assert_allclose(moved.std(axis=0), samples.std(axis=0), atol=1e-5)


def test_what_is_asked_follows_the_cost() -> None:
    assert not Checks().options((1, 2), 1, with_image=False).test  # half of the run is too much
    assert Checks().options((2, 2), 1, with_image=False) == Options(True, True, False, 1.0, compare=False)
    assert Checks().options((4, 4), 1, with_image=False).noise_scale is None  # three tries at a sixteenth
    assert Checks().options((2, 2), 1, with_image=True).test  # an image is never used unseen
    assert not Checks(evidence="off").options((4, 4), 64, with_image=True).test
    assert Checks(noise_scale=2.0).options((4, 4), 64, with_image=False).noise_scale == 2.0
    with pytest.raises(ValueError, match="align is 'yes'"):
        Checks(align="yes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs the self-test"):
        Checks(evidence="off", shrink="auto")
    with pytest.raises(ValueError, match="above 0"):
        Checks(noise_scale=0.0)
