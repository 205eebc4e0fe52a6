"""Stages of preparation that a second pass must not lose."""

from __future__ import annotations

import numpy as np

from mrsi_fast.mrsi.mapset import MapSet
from mrsi_fast.preparation import prepare, without


def test_the_factor_on_the_noise_level_outlives_voxels_that_turn_out_to_be_no_data() -> None:
    """It is what the network is told, before and after outliers are taken out; data consistency keeps its own."""
    maps = MapSet(
        np.random.default_rng(0).uniform(5, 6, (2, 12, 12, 2)).astype(np.float32), np.eye(4), ("tNAA", "tCho")
    )
    plain, scaled = (prepare(maps, 2, noise=0.1, noise_scale=scale) for scale in (1.0, 4.0))
    outliers = np.zeros(maps.maps.shape, bool)
    outliers[:, 5, 6, 1] = True
    for one in (scaled, without(scaled, outliers)):
        np.testing.assert_allclose(one.volume.noise, 0.4)
        np.testing.assert_array_equal(one.consistency.weight[0], plain.consistency.weight[0])
    assert without(scaled, outliers).trust.counts["outlier"] == (1, 1)
