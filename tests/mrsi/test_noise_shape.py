"""Noise that went through a window or was interpolated: its correlation, its level in a residual, its local size."""

from __future__ import annotations

import pytest
import torch

from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.noise_shape import NoiseShape, noise_shape
from mrsi_fast.mrsi.residuals import noise_factor, products, supported_sd, unexplained

HAMMING = Acquisition((24, 24), (2, 2), "ellipse", "hamming")
ZERO_FILLED = Acquisition((32, 32), (2, 2), acquired=(16, 16))


def noise(operator: Acquisition, slices: int = 60) -> torch.Tensor:
    """[Z, M, nx, ny] noise that is white in k-space, after the operator, of unit variance."""
    white = torch.randn(slices, 2, *operator.lr_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kernel = Acquisition(operator.lr_shape, (1, 1), operator.support, operator.window, acquired=operator.acquired)
    found = kernel.forward(white)
    return found / found.std()


def test_all_lines_without_a_window_leave_noise_white() -> None:
    assert noise_shape(Acquisition((24, 21), (2, 2))) == NoiseShape() and NoiseShape().white == 1.0
    assert noise_shape(Acquisition((4, 4), (2, 2), "ellipse", "hamming")) == NoiseShape()  # too few voxels to tell


@pytest.mark.parametrize("operator", [HAMMING, ZERO_FILLED, Acquisition((24, 20), (4, 4), "ellipse")])
def test_correlations_are_those_of_noise(operator: Acquisition) -> None:
    shape, drawn = noise_shape(operator), noise(operator)
    for lag, expected in ((1, shape.one), (2, shape.two)):
        along = (drawn[..., lag:, :] * drawn[..., :-lag, :]).mean() + (drawn[..., lag:] * drawn[..., :-lag]).mean()
        assert float(along) / 2 == pytest.approx(expected, abs=0.02)
    nine = (drawn[..., :9, :9] ** 2).unfold(-2, 3, 3).unfold(-2, 3, 3).mean((-2, -1))
    assert float(2 / (9 * nine.var())) == pytest.approx(shape.independent, rel=0.15)


@pytest.mark.parametrize("operator", [HAMMING, ZERO_FILLED])
def test_correlated_noise_is_found_and_sets_off_no_alarm(operator: Acquisition) -> None:
    """Three times the stated noise: as white noise it passes for half of that, and the rest of it for signal."""
    shape, whitened = noise_shape(operator), 3.0 * noise(operator)
    known = torch.ones_like(whitened)
    found = supported_sd(whitened, known, shape)
    torch.testing.assert_close(found, torch.full_like(found, 3.0), rtol=0.05, atol=0)
    assert float(supported_sd(whitened, known).max()) < 1.7

    def alarms(*shape: NoiseShape) -> float:
        """Share of the voxels that are pulled further than their slice as a whole."""
        pull, _ = unexplained(whitened / found, known, *shape)
        return float((pull > pull.flatten(-2).median(-1).values[..., None, None] + 1e-9).double().mean())

    assert alarms(shape) < 0.03 and alarms() > 2 * alarms(shape)


@pytest.mark.parametrize("operator", [HAMMING, ZERO_FILLED, Acquisition((24, 20), (2, 2))])
def test_the_estimate_of_noise_spreads_as_stated(operator: Acquisition) -> None:
    """Relative variance of the unshared part of the covariance over 400 maps; edges add up to a quarter."""
    drawn, shape = noise(operator, 200), noise_shape(operator)
    whole, one, two = (products(drawn, torch.ones_like(drawn))[:, lag] for lag in range(3))
    white = whole[:, 0] / whole[:, 1] - (4 * one[:, 0] / one[:, 1] - two[:, 0] / two[:, 1]) / 3
    voxels = drawn.shape[-2] * drawn.shape[-1]
    assert float(white.var() / white.mean() ** 2) == pytest.approx(2 * shape.spread / voxels, rel=0.35)


@pytest.mark.parametrize("operator", [HAMMING, Acquisition((24, 24), (2, 2))])
def test_noise_as_stated_stays_as_stated_in_few_voxels_and_thrice_the_noise_is_found(operator: Acquisition) -> None:
    """Of 120 maps of 8x8 voxels none is doubted, though the estimate alone exceeds the stated level in many."""
    drawn, shape = noise(operator)[..., :8, :8], noise_shape(operator)
    known = torch.ones_like(drawn[:1])
    factors = torch.cat([noise_factor(products(one, known[0]), shape) for one in drawn])
    assert (factors == 1).all()
    assert float(torch.cat([supported_sd(one[None], known, shape) for one in drawn]).max()) > 1.1
    thrice = noise_factor(products(3.0 * drawn, known.expand_as(drawn)).sum(0), shape)
    torch.testing.assert_close(thrice, torch.full_like(thrice, 3.0), rtol=0.06, atol=0)


def test_a_lesion_comes_back_under_a_window_too() -> None:
    """4x4 voxels at 12 SD of correlated noise: pulled back there, and little of it elsewhere."""
    whitened = noise(HAMMING)[:1]
    whitened[..., 8:12, 8:12] += 12.0
    pull, held = unexplained(whitened, torch.ones_like(whitened), noise_shape(HAMMING))
    assert held[..., 8:12, 8:12].all() and float(pull[..., 9:11, 9:11].min()) > 0.7
    assert float(pull[..., :6, :].max()) < 0.3
