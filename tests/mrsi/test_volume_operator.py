"""The operator of a volume against its definition, its geometry, and data consistency in three dimensions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from mrsi_fast.mrsi.consistency import DataConsistency
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.geometry import fov_corner_difference_mm, hr_affine
from mrsi_fast.mrsi.through_plane import SliceAxis
from mrsi_fast.mrsi.volume_operator import VolumeAcquisition
from support.volume_reference import encoded_axis, point_source, position_of, sliced_axis, volume_matrix

CASES = [
    (SliceAxis(5, 2), encoded_axis(5, 2)),
    (SliceAxis(6, 2), encoded_axis(6, 2)),
    (SliceAxis(6, 4, window="hamming"), encoded_axis(6, 4, "hamming")),
    (SliceAxis(4, 2, "slices"), sliced_axis(4, 2)),
    (SliceAxis(3, 4, "slices", thickness=0.75), sliced_axis(3, 4, 0.75)),
]


def _volume(axis: SliceAxis, window: str = "none") -> VolumeAcquisition:
    return VolumeAcquisition(Acquisition((5, 4), (2, 2), "square", window), axis)  # type: ignore[arg-type]


@pytest.mark.parametrize(("axis", "z"), CASES, ids=lambda v: str(v) if isinstance(v, SliceAxis) else "")
def test_forward_inverse_and_projection_are_those_of_the_dense_matrix(axis: SliceAxis, z: np.ndarray) -> None:
    operator = _volume(axis)
    dense = volume_matrix([z, encoded_axis(5, 2), encoded_axis(4, 2)])
    x = np.random.default_rng(0).standard_normal((axis.planes, 10, 8))
    y = np.random.default_rng(1).standard_normal((axis.count, 5, 4))
    inverse = np.linalg.pinv(dense)
    np.testing.assert_allclose(operator.forward(x).ravel(), dense @ x.ravel(), atol=1e-12)
    np.testing.assert_allclose(operator.pinv(y).ravel(), inverse @ y.ravel(), atol=1e-10)
    np.testing.assert_allclose(operator.measured(x).ravel(), inverse @ (dense @ x.ravel()), atol=1e-10)
    np.testing.assert_allclose(operator.null(x), x - operator.measured(x), atol=0)
    modes = operator.modes(torch.float64, "cpu")
    for name, given in (("forward", x), ("pinv", y), ("measured", x)):
        found = getattr(modes, name)(torch.from_numpy(given))
        np.testing.assert_allclose(found.numpy(), getattr(operator, name)(given), atol=1e-12)


def test_an_elliptic_support_in_the_plane_stays_one_in_the_volume() -> None:
    plane, axis = Acquisition((6, 5), (2, 2), "ellipse", "hamming"), SliceAxis(4, 2)
    operator = VolumeAcquisition(plane, axis)
    x = np.random.default_rng(2).standard_normal((8, 3, 12, 10))
    by_hand = plane.forward(np.einsum("nz,zmxy->nmxy", encoded_axis(4, 2), x))
    np.testing.assert_allclose(operator.forward(x), by_hand, atol=1e-12)
    assert operator.forward(torch.from_numpy(x).float()).dtype == torch.float32


@pytest.mark.parametrize("kind", ["encoded", "slices"])
@pytest.mark.parametrize("window", ["none", "hamming", "hann"])
@pytest.mark.parametrize("damping", [0.0, 0.2])
def test_a_constant_stays_the_constant(kind: str, window: str, damping: float) -> None:
    axis = SliceAxis(6, 2, kind, window if kind == "encoded" else "none")  # type: ignore[arg-type]
    operator = _volume(axis, window)
    np.testing.assert_allclose(operator.forward(np.ones((12, 10, 8))), 1.0, atol=1e-12)
    in_plane = 1.0 if damping == 0 else 1 / (1 + damping**2)  # what ``conditioning.estimate`` gives back
    for name in ("pinv", "smooth"):
        np.testing.assert_allclose(getattr(operator, name)(np.ones((6, 5, 4)), damping=damping), in_plane, atol=1e-12)
    np.testing.assert_allclose(operator.zero_fill(np.ones((6, 5, 4))), 1.0, atol=1e-12)


@pytest.mark.parametrize("factor", [2, 4])
def test_field_of_view_and_point_source_stay_where_they_are(factor: int) -> None:
    affine = np.diag([5.0, 5.0, 5.25, 1.0])
    affine[:3, 3] = (-80.0, -100.0, 12.3)
    fine = hr_affine(affine, (2, 2, factor))
    assert fov_corner_difference_mm(affine, (8, 9, 11), fine, (16, 18, 11 * factor)) < 1e-10
    axis = SliceAxis(11, factor)
    for slices in (3.0, 4.37, 7.81):  # a source at this place, in measured slices
        planes = (slices + 0.5) * factor - 0.5
        assert fine[2, 2] * planes + fine[2, 3] == pytest.approx(affine[2, 2] * slices + affine[2, 3], abs=1e-12)
        source = point_source(11, slices)
        assert position_of(axis.matrices().inverse @ source) == pytest.approx(planes, abs=1e-9)
        spread = np.exp(-0.5 * ((np.arange(11 * factor) - planes) / factor) ** 2)
        measured = axis.matrices().forward @ spread
        assert (position_of(measured) + 0.5) * factor - 0.5 == pytest.approx(position_of(spread), abs=1e-6)


@pytest.mark.parametrize(("axis", "z"), CASES, ids=lambda v: str(v) if isinstance(v, SliceAxis) else "")
def test_hard_consistency_reproduces_the_measured_volume(axis: SliceAxis, z: np.ndarray) -> None:
    operator = _volume(axis)
    dense = volume_matrix([z, encoded_axis(5, 2), encoded_axis(4, 2)])
    rng = np.random.default_rng(3)
    y = torch.from_numpy(rng.standard_normal((axis.count, 2, 5, 4)).astype(np.float32))
    consistency = DataConsistency("hard", operator, y)
    x = torch.from_numpy(rng.standard_normal((axis.planes, 2, 10, 8)).astype(np.float32))
    held = consistency.at_end(x)
    for index in range(2):
        found = dense @ held[:, index].double().numpy().ravel()
        wanted = y[:, index].double().numpy().ravel()
        assert np.linalg.norm(found - wanted) < 1e-5 * np.linalg.norm(wanted)
    assert float(consistency.residual(held, (0, -2, -1)).relative.max()) < 1e-5
    change = (held - x).double().numpy()[:, 0].ravel()
    np.testing.assert_allclose(change, np.linalg.pinv(dense) @ dense @ change, atol=1e-5)  # the smallest one


def test_soft_consistency_brings_a_volume_to_what_noise_explains() -> None:
    operator = VolumeAcquisition(Acquisition((12, 12), (2, 2)), SliceAxis(8, 2))
    rng = np.random.default_rng(4)
    truth = torch.from_numpy(rng.standard_normal((16, 1, 24, 24)))
    y = operator.forward(truth) + 0.1 * torch.from_numpy(rng.standard_normal((8, 1, 12, 12)))
    consistency = DataConsistency("soft", operator, y, torch.full_like(y, 0.1))
    far = truth + operator.pinv(torch.full_like(y, 0.3))
    held = consistency.at_end(far)
    before, after = (consistency.residual(x, (0, -2, -1)) for x in (far, held))
    assert float(before.whitened / before.expected) > 2.5
    assert 0.9 < float(after.whitened / after.expected) < 1.1
    np.testing.assert_allclose(operator.null(held - far).numpy(), 0, atol=1e-10)  # inside the measured band alone


def test_gaps_are_where_nothing_was_measured() -> None:
    axis = SliceAxis(3, 4, "slices", thickness=0.5)
    np.testing.assert_array_equal(axis.matrices().forward[0, :4], [0, 0.5, 0.5, 0])
    np.testing.assert_allclose(axis.matrices().measured.diagonal(), [0, 0.5, 0.5, 0] * 3)


def test_refusals_and_words() -> None:
    with pytest.raises(ValueError, match="choose 'encoded' or 'slices'"):
        SliceAxis(4, 2, "spiral")  # type: ignore[arg-type]
    for thickness in (0.0, 1.2, float("nan")):
        with pytest.raises(ValueError, match="at most the distance of slices"):
            SliceAxis(4, 2, "slices", thickness=thickness)
    operator = _volume(SliceAxis(4, 2, assumed=True))
    with pytest.raises(ValueError, match="8 planes along the first axis"):
        operator.forward(np.zeros((4, 10, 8)))
    assert operator.assumed
    assert "4 slices refined to 8 planes, phase-encoded along the third axis (assumed" in operator.describe()
    words = [SliceAxis(4, 2, "slices", thickness=t).describe() for t in (1.0, 0.8)]
    assert "adjacent" in words[0] and "80 %" in words[1]
    for kind, factor in itertools.product(("encoded", "slices"), (1, 2)):
        assert SliceAxis(4, factor, kind).matrices().forward.flags.writeable is False  # type: ignore[arg-type]


def test_what_soft_consistency_puts_back_in_one_slice_is_not_blown_up_by_undoing_a_window_along_the_slices() -> None:
    """A lone lesion that the estimate lost, in one of ten slices under a Hamming window along them."""
    plane = Acquisition((12, 12), (2, 2))
    rng = torch.Generator().manual_seed(0)
    changes = []
    for window in ("none", "hamming"):
        operator = VolumeAcquisition(plane, SliceAxis(10, 2, "encoded", window))
        truth = torch.zeros(20, 1, 24, 24, dtype=torch.float64)
        data = operator.forward(truth) + 0.1 * torch.randn(10, 1, 12, 12, generator=rng, dtype=torch.float64)
        data[5, 0, 4:7, 4:7] += 2.0
        held = DataConsistency("soft", operator, data, torch.full_like(data, 0.1))
        changes.append(float((held.at_end(truth) - truth).square().sum().sqrt()))
    assert changes[1] < 3 * changes[0]
