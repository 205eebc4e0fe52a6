"""Keyed randomness and smooth fields: moments, correlation, and agreement between slices however they are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from mrsi_fast.simulation.fields import Axis, SmoothField, correlate
from mrsi_fast.simulation.keys import Key


def test_streams_depend_on_key_name_and_index_only() -> None:
    key = Key.of("subject", 3, 7)
    first = key.stream("texture", -2).random(4)
    key.stream("other").random(100)
    np.testing.assert_array_equal(Key.of("subject", 3, 7).stream("texture", -2).random(4), first)
    others = [
        Key.of("subject", 3, 8).stream("texture", -2),
        key.stream("texture", -1),
        key.stream("region", -2),
        key.child("texture").stream("texture", -2),
    ]
    assert all(not np.array_equal(other.random(4), first) for other in others)


def test_white_noise_is_the_same_plane_by_plane() -> None:
    key = Key.of(1)
    together = list(key.white_noise("n", [4, -3, 9], (2, 5), "float64"))
    alone = [next(iter(key.white_noise("n", [index], (2, 5), "float64"))) for index in (4, -3, 9)]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("width_mm", [3.0, 6.0, 20.0])
def test_field_has_unit_variance_and_its_stated_width(width_mm: float) -> None:
    """The correlation of a field smoothed by a kernel of SD w is 1/e^(1/4) at distance w if the kernel is Gaussian."""
    x = y = Axis.centred(0.0, 240.0, 80, "float64")
    samples = np.stack(
        [SmoothField(Key.of(seed), "f", 8, width_mm, "float64").slab(x, y, np.array([5.3])) for seed in range(24)]
    ).reshape(-1, 80, 80)
    cells = samples.shape[0] * (240.0 / width_mm) ** 2 / 12  # independent values, roughly
    assert samples.mean() == pytest.approx(0.0, abs=5 / np.sqrt(cells))
    assert samples.var() == pytest.approx(1.0, abs=8 / np.sqrt(cells))
    lag = width_mm / x.step
    lags = np.arange(0, int(lag) + 2)
    correlation = [np.mean(samples[:, : 80 - k] * samples[:, k:]) for k in lags]
    assert np.interp(lag, lags, correlation) == pytest.approx(np.exp(-0.25), abs=0.06 + 6 / np.sqrt(cells))


def test_slices_and_stacks_of_planes_are_one_field() -> None:
    field = SmoothField(Key.of("v"), "f", 3, 5.0, "float64")
    x, y = Axis.centred(2.0, 90.0, 31, "float64"), Axis.centred(-7.0, 70.0, 22, "float64")
    planes = np.array([-13.0, 0.4, 8.1, 21.0])
    alone = np.stack([field.lattice(np.array([z])) for z in planes])
    np.testing.assert_allclose(field.lattices(planes), alone, atol=1e-14)
    np.testing.assert_allclose(field.lattice(planes), alone.mean(0), atol=1e-14)
    part = field.slab(x.part(5, 20), y, planes)
    np.testing.assert_allclose(part, field.slab(x, y, planes)[:, 5:20], atol=1e-13)


def test_refined_and_merged_axes_cover_the_same_cells() -> None:
    axis = Axis.centred(3.0, 66.0, 11, "float64")
    fine = axis.refined(4)
    np.testing.assert_allclose(fine.points.reshape(11, 4).mean(1), axis.points, atol=1e-12)
    np.testing.assert_allclose(fine.merged(4).points, axis.points, atol=1e-12)
    assert fine.points[0] - fine.step / 2 == pytest.approx(3.0 - 33.0)


def test_correlated_channels() -> None:
    mixing = correlate(("a", "b", "c"), "a", "c", -0.5, "float64")
    np.testing.assert_allclose(mixing @ mixing.T, [[1, 0, -0.5], [0, 1, 0], [-0.5, 0, 1]], atol=1e-15)
    np.testing.assert_array_equal(correlate(("a", "b"), "a", "c", 0.5, "float64"), np.eye(2))
