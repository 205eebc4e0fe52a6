"""Volumes worked on a few slices at a time give what they give as a whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mrsi_fast.agreement import departure
from mrsi_fast.mrsi.consistency import DataConsistency
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.residuals import gross_outliers, supported_sd
from mrsi_fast.mrsi.slabs import SLAB, hold, slabs, supported_by, to_slices
from mrsi_fast.mrsi.slabs import gross_outliers as slab_outliers
from mrsi_fast.mrsi.through_plane import SliceAxis
from mrsi_fast.mrsi.volume_operator import VolumeAcquisition

SLICES = 2 * SLAB + 3


@pytest.fixture(params=["soft", "hard", "off", "volume"])
def case(request):
    """Data consistency and an estimate [M, X, Y, Z]."""
    rng = np.random.default_rng(3)
    plane = Acquisition((8, 7), (2, 2), window="hamming", assumed=False)
    operator = VolumeAcquisition(plane, SliceAxis(SLICES, 2, "encoded")) if request.param == "volume" else plane
    planes = 2 * SLICES if request.param == "volume" else SLICES
    y = torch.from_numpy(rng.normal(size=(SLICES, 2, 8, 7)).astype(np.float32))
    trusted = torch.from_numpy(rng.random(tuple(y.shape)) > 0.1)
    mode = "soft" if request.param == "volume" else request.param
    limit = torch.tensor([4.0, 4.0])
    consistency = DataConsistency(mode, operator, y, torch.full_like(y, 0.2), trusted, largest_factor=limit)
    return consistency, rng.normal(size=(2, 16, 14, planes)).astype(np.float32)


def test_slabs_are_whole_where_the_operator_mixes_slices(case):
    consistency, estimate = case
    count = estimate.shape[-1]
    found = list(slabs(consistency.acquisition, count))
    assert len(found) == (1 if isinstance(consistency.acquisition, VolumeAcquisition) else 3)
    assert [index for one in found for index in range(count)[one]] == list(range(count))


def test_noise_outliers_and_correction(case):
    consistency, estimate = case
    estimate[0, 4:6, 6:8, :3] += 300.0
    slices = to_slices(estimate)
    scaled, expected = supported_by(consistency, estimate), consistency.supported_by(slices)
    torch.testing.assert_close(scaled.noise_factor, expected.noise_factor, rtol=1e-12, atol=0)
    torch.testing.assert_close(scaled.weight, expected.weight, rtol=1e-6, atol=0)
    np.testing.assert_array_equal(to_slices(slab_outliers(consistency, estimate)), consistency.gross_outliers(slices))
    expected = consistency.at_end(slices)
    held = hold(consistency, estimate)
    assert held is estimate
    torch.testing.assert_close(to_slices(held), expected, rtol=1e-5, atol=1e-4)


def test_departure(case):
    consistency, estimate = case
    slices = to_slices(estimate)
    found, expected = departure(consistency, estimate), consistency.residual(slices, (0, -2, -1))
    for name in ("relative", "absolute", "whitened", "expected", "outside_band"):
        torch.testing.assert_close(getattr(found.residual, name), getattr(expected, name), rtol=1e-6, atol=1e-12)
    u = consistency.whitened(slices).numpy()
    for index, place in enumerate(found.places):
        z, x, y = np.unravel_index(np.argmax(np.abs(u[:, index])), u[:, index].shape)
        facts = place.facts((0, 1, 2))
        assert facts["voxel"] == [x, y, z] and facts["noise_sd"] == pytest.approx(u[z, index, x, y], rel=1e-9)
        near = (u[z, index, max(x - 1, 0) : x + 2, max(y - 1, 0) : y + 2] ** 2).sum()
        assert facts["share_of_residual"] == pytest.approx(near / (u[:, index] ** 2).sum(), rel=1e-9)


def test_statistics_of_slices_do_not_depend_on_their_number():
    u = torch.from_numpy(np.random.default_rng(5).standard_t(2, size=(SLICES, 2, 9, 8)))
    known = torch.ones_like(u)
    u[4, 1, 3, 3] = 300.0
    every = gross_outliers(u, known)
    assert every[4, 1, 3, 3]
    for z in range(SLICES):
        assert torch.equal(every[z], gross_outliers(u[z], known[z]))
    order = torch.randperm(SLICES, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(supported_sd(u, known), supported_sd(u[order], known), rtol=1e-12, atol=0)
