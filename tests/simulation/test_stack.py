"""Volumes refined through the plane: truth, measurement and affine of three dimensions."""

from __future__ import annotations

import numpy as np
import pytest

from mrsi_fast.config import ConfigError
from mrsi_fast.mrsi.geometry import fov_corner_difference_mm, hr_affine
from mrsi_fast.mrsi.io import read_maps
from mrsi_fast.simulation import simulate, write_subject
from mrsi_fast.simulation.config import SimulationConfig
from mrsi_fast.simulation.stack import plane_heights, slab_profile
from support.volume_reference import encoded_axis, sliced_axis, volume_matrix

from .conftest import phantom_settings

SMALL = {"matrix": (16, 16), "slices": 6, "first_mm": -25.0, "step_mm": 10.0, "thickness_mm": 10.0}
COARSE = {"object_voxel_mm": 14.0, "object_plane_mm": 5.0}


def one(preset: str = "paper-like", scales=((2, 2, 2),), **volume):
    return next(simulate(phantom_settings(preset, volume=SMALL | volume, **COARSE), [0], 0, scales))


@pytest.mark.parametrize(
    ("settings", "factor", "z"),
    [
        ({}, 2, encoded_axis(6, 2)),
        ({}, 4, encoded_axis(6, 4)),
        ({"through_plane": "slices"}, 2, sliced_axis(6, 2)),
        ({"through_plane": "slices", "thickness_mm": 7.5}, 4, sliced_axis(6, 4, 0.75)),
    ],
)
def test_paper_like_maps_are_the_operator_of_the_truth(settings, factor, z) -> None:
    subject = one(scales=((2, 2, factor),), **settings)
    low = subject.measured[(2, 2, factor)]
    assert subject.truth.shape[1:] == (16, 16, 6 * factor) and low.maps.shape[1:] == (8, 8, 6)
    dense = volume_matrix([z, encoded_axis(8, 2), encoded_axis(8, 2)])
    seen = dense @ np.moveaxis(subject.truth[0], -1, 0).astype(np.float64).ravel()
    np.testing.assert_allclose(np.moveaxis(low.maps[0], -1, 0).ravel(), seen, atol=1e-5)
    np.testing.assert_allclose(
        low.operator.forward(np.moveaxis(subject.truth, -1, 0)), np.moveaxis(low.maps, -1, 0), atol=1e-5
    )


def test_grids_share_their_field_of_view_and_planes_lie_inside_their_slices() -> None:
    subject = one(scales=((2, 2, 2), (4, 4, 2)))
    for factors, low in subject.measured.items():
        np.testing.assert_allclose(hr_affine(low.affine, factors), subject.affine, atol=1e-9)
        corners = (low.affine, low.maps.shape[1:], subject.affine, subject.truth.shape[1:])
        assert fov_corner_difference_mm(*corners) < 1e-9
    heights = plane_heights(SimulationConfig.parse({"volume": SMALL}, "test").volume, 2)
    np.testing.assert_allclose(subject.affine[2, 2] * np.arange(12) + subject.affine[2, 3], heights)
    np.testing.assert_allclose(heights.reshape(6, 2).mean(axis=1), -25.0 + 10.0 * np.arange(6))


def test_two_planes_of_the_truth_make_the_slice_that_is_simulated_alone() -> None:
    fine, flat = one(), one(scales=(2,))
    np.testing.assert_allclose(
        fine.truth.reshape(6, 16, 16, 6, 2).mean(axis=4), flat.truth, atol=0.05 * flat.truth.max()
    )
    assert np.corrcoef(fine.truth.reshape(6, 16, 16, 6, 2).mean(axis=4).ravel(), flat.truth.ravel())[0, 1] > 0.999


def test_noise_of_a_windowed_volume_is_what_the_quality_maps_say() -> None:
    subject = one("realistic-3T", slices=12, step_mm=5.0, source="object")
    low = subject.measured[(2, 2, 2)]
    assert low.operator.axis.window == low.operator.plane.window == "hamming"
    away = np.isfinite(low.maps) & ~low.failed & ~low.lipid
    error = ((low.maps - low.clean) / low.noise_sd)[away]
    assert 0.85 < np.sqrt(np.median(error**2) / 0.4549) < 1.2  # of a normal distribution the median square is 0.4549
    whitened = np.where(away, (low.maps - low.clean) / low.noise_sd, 0.0)[:, 2:6, 2:6]
    beside = (whitened[..., 1:] * whitened[..., :-1]).mean() / (whitened**2).mean()
    assert beside > 0.3  # the window along the third axis correlates neighbouring slices


def test_the_excited_slab_ends_inside_the_volume() -> None:
    settings = SimulationConfig.parse({"volume": SMALL | {"excited_mm": 40.0}}, "test").volume
    heights = plane_heights(settings, 2)
    profile = slab_profile(settings, heights)
    np.testing.assert_allclose(profile, profile[::-1])
    assert profile[np.abs(heights) < 15].min() > 0.8 and profile[np.abs(heights) > 25].max() < 0.15
    subject = one(excited_mm=40.0)
    assert not subject.masks["brain"][..., [0, -1]].any() and subject.masks["brain"].any()


def test_scales_of_different_through_plane_factors_are_refused() -> None:
    with pytest.raises(ConfigError, match="refine the slices by different factors"):
        one(scales=((2, 2, 2), (2, 2, 4)))


def test_the_whole_brain_is_measured_at_5_mm_in_all_directions(tmp_path) -> None:
    volume = SimulationConfig.preset("measured-3T").whole_brain().volume
    lr = (volume.matrix[0] // 2, volume.matrix[1] // 2, volume.slices)
    assert lr == (32, 42, 22) and volume.step_mm == volume.fov_mm[0] / lr[0] == volume.fov_mm[1] / lr[1] == 5.0
    subject = one()
    folder = write_subject(subject, tmp_path)[0]
    assert folder.name.endswith("acq-x2x2x2")
    np.testing.assert_array_equal(read_maps(folder).maps, subject.mapset((2, 2, 2)).maps)
