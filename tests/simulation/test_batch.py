"""Training batches: shapes, meaning of every entry, determinism, independence of the batch size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.simulation import SimulationConfig, Simulator
from mrsi_fast.simulation.acquisition import _modes, noise_gain

from .conftest import phantom_settings

Batch = dict[str, np.ndarray]


def settings(batch: dict[str, Any] | None = None, **tables: Any) -> SimulationConfig:
    return phantom_settings("training", batch=batch or {}, **tables)


@pytest.fixture(scope="module")
def mixed() -> Batch:
    return Simulator(settings({"main_grid_share": 1.0})).batch(3, 0, 12)


@pytest.fixture(scope="module")
def noise_free() -> Batch:
    signal = {"press": 0.0}
    return Simulator(settings({"main_grid_share": 1.0, "paper_like": 1.0}, signal=signal)).batch(1, 0, 8)


@pytest.fixture(scope="module")
def noisy() -> Batch:
    return Simulator(settings({"main_grid_share": 1.0, "paper_like": 0.0, "noise_free": 0.0})).batch(2, 0, 10)


def test_shapes_and_types(mixed: Batch) -> None:
    shapes = {
        "hr": (12, 8, 64, 64),
        "z": (12, 8, 64, 64),
        "mask": (12, 8, 64, 64),
        "presence": (12, 8),
        "scale": (12, 8),
        "noise": (12, 8),
        "factors": (12, 2),
        "voxel_mm": (12, 2),
        "anatomy": (12, 1, 64, 64),
        "anatomy_present": (12,),
        "brain": (12, 64, 64),
    }
    assert {name: value.shape for name, value in mixed.items()} == shapes
    assert all(v.dtype == np.float32 and v.flags.c_contiguous and np.isfinite(v).all() for v in mixed.values())
    for name in ("mask", "presence", "anatomy_present", "brain"):
        assert set(np.unique(mixed[name])) <= {0.0, 1.0}


def test_a_batch_is_a_function_of_seed_step_and_place() -> None:
    simulator = Simulator(settings())
    five, two = simulator.batch(1, 7, 5), Simulator(settings()).batch(1, 7, 2)
    other = simulator.batch(1, 8, 2)
    for name in five:
        np.testing.assert_array_equal(five[name][:2], two[name])
    assert other["hr"].shape != two["hr"].shape or not np.array_equal(other["hr"], two["hr"])


def test_grids_factors_and_voxels_stay_in_their_ranges() -> None:
    simulator = Simulator(settings({"main_grid_share": 0.0}))
    odd = anisotropic = False
    for step in range(40):
        batch = simulator.batch(0, step, 1)
        size, factors = np.array(batch["hr"].shape[2:]), batch["factors"][0].astype(int)
        lr = size // factors
        assert (size % factors == 0).all() and set(factors) <= {2, 4, 8} and lr.min() >= 6 and size.max() <= 96
        assert 99.9 <= (size * batch["voxel_mm"][0]).max() <= 260.1
        odd |= bool((lr % 2).any())
        anisotropic |= factors[0] != factors[1]
    assert odd and anisotropic


def test_noise_free_items_carry_the_exact_estimate(noise_free: Batch) -> None:
    assert not noise_free["noise"].any()
    for item in range(8):
        factors = tuple(noise_free["factors"][item].astype(int))
        operator = Acquisition((64 // factors[0], 64 // factors[1]), factors)
        truth, z = noise_free["hr"][item], noise_free["z"][item]
        np.testing.assert_allclose(operator.forward(z), operator.forward(truth), atol=2e-5)
        np.testing.assert_allclose(operator.null(z), 0, atol=2e-5)
        present = noise_free["presence"][item] > 0
        assert noise_free["mask"][item, present].all() and not noise_free["mask"][item, ~present].any()


def test_scale_is_near_the_largest_measured_value(noise_free: Batch) -> None:
    for item in range(8):
        factors = tuple(noise_free["factors"][item].astype(int))
        low = np.abs(Acquisition((64 // factors[0], 64 // factors[1]), factors).forward(noise_free["hr"][item]))
        present = noise_free["presence"][item] > 0
        largest = low.max((1, 2))[present]
        assert (noise_free["scale"][item][present] <= largest * (1 + 1e-5)).all()
        assert (noise_free["scale"][item][present][:5] > 0.6 * largest[:5]).all()


def test_empty_maps_are_marked_absent(mixed: Batch, noise_free: Batch) -> None:
    for batch in (mixed, noise_free):
        absent = batch["presence"] == 0
        assert np.abs(batch["hr"][absent]).max(initial=0) < 0.1
        assert not batch["mask"][absent].any() and (batch["scale"][absent] == 1).all()
    assert (noise_free["presence"][:, 5] == 0).any() and (noise_free["presence"][:, :5] == 1).all()


def test_noisy_items_say_how_noisy_and_where_to_trust(noisy: Batch) -> None:
    assert (noisy["noise"] > 0).mean() > 0.95
    assert 0.05 < noisy["mask"].mean() < 0.98
    for item in range(10):
        fx, fy = noisy["factors"][item].astype(int)
        blocks = noisy["mask"][item].reshape(8, 64 // fx, fx, 64 // fy, fy)
        assert (blocks == blocks[:, :, :1, :, :1]).all()
    assert (noisy["scale"] >= 5 * noisy["noise"] * (1 - 1e-6))[noisy["presence"] > 0].all()


def test_the_t1_image_shows_the_anatomy(mixed: Batch) -> None:
    shown = mixed["anatomy_present"] > 0
    assert shown.any() and not shown.all()
    assert not mixed["anatomy"][~shown].any()
    inside = [np.std(a[0][b > 0]) for a, b in zip(mixed["anatomy"][shown], mixed["brain"][shown], strict=True)]
    assert min(inside) > 0.1 and np.abs(mixed["anatomy"]).max() < 12


def test_memory_for_operators_is_bounded() -> None:
    assert _modes.cache_info().maxsize is not None and noise_gain.cache_info().maxsize is not None
