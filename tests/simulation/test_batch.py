"""Training batches: shapes, meaning of every entry, determinism, independence of the batch size."""

from __future__ import annotations

import numpy as np
import pytest

from mrsi_fast.simulation import SimulationConfig, Simulator
from mrsi_fast.simulation.config import BatchConfig


def phantom_config(**batch: object) -> SimulationConfig:
    config = SimulationConfig.preset("training")
    anatomy = config.anatomy.model_copy(update={"heads": "phantom", "tumour_masks": None})
    return config.model_copy(update={"anatomy": anatomy, "batch": BatchConfig(**batch)})


@pytest.fixture(scope="module")
def batch() -> dict[str, np.ndarray]:
    return Simulator(phantom_config(main_grid_share=1.0)).batch(3, 0, 12)


def test_shapes_and_types(batch: dict[str, np.ndarray]) -> None:
    shapes = {"hr": (12, 8, 64, 64), "z": (12, 8, 64, 64), "mask": (12, 8, 64, 64), "presence": (12, 8),
              "scale": (12, 8), "noise": (12, 8), "factors": (12, 2), "voxel_mm": (12, 2),
              "anatomy": (12, 1, 64, 64), "anatomy_present": (12,), "brain": (12, 64, 64)}
    assert {name: value.shape for name, value in batch.items()} == shapes
    assert all(v.dtype == np.float32 and v.flags.c_contiguous and np.isfinite(v).all() for v in batch.values())


def test_a_batch_is_a_function_of_seed_step_and_place() -> None:
    simulator = Simulator(phantom_config())
    five, two = simulator.batch(1, 7, 5), Simulator(phantom_config()).batch(1, 7, 2)
    other = simulator.batch(1, 8, 2)
    for name in five:
        np.testing.assert_array_equal(five[name][:2], two[name])
    assert other["hr"].shape != two["hr"].shape or not np.array_equal(other["hr"], two["hr"])


def test_grids_factors_and_voxels_stay_in_their_ranges() -> None:
    simulator = Simulator(phantom_config(main_grid_share=0.0))
    odd = False
    for step in range(25):
        batch = simulator.batch(0, step, 1)
        size, factors = np.array(batch["hr"].shape[2:]), batch["factors"][0].astype(int)
        lr = size // factors
        assert (size % factors == 0).all() and set(factors) <= {2, 4, 8} and lr.min() >= 6 and size.max() <= 96
        assert 99.9 <= (size * batch["voxel_mm"][0]).max() <= 260.1
        odd |= bool((lr % 2).any())
    assert odd
