"""What noise explains of a residual: closed forms, counts of noise, and the one voxel that must not move a slice."""

from __future__ import annotations

import pytest
import torch

from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.noise_shape import noise_shape
from mrsi_fast.mrsi.residuals import gross_outliers, room_for_noise, supported_sd, unexplained


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_noise_alone_is_explained() -> None:
    """Slices of pure noise: the size is right in the mean, so what is left to pull is a few percent."""
    whitened = randn(400, 1, 16, 16)
    pull, held = unexplained(whitened, torch.ones_like(whitened))
    assert float(pull.mean()) < 0.03 and float((held == 0).double().mean()) < 1e-3


def test_an_even_residual_is_the_discrepancy_principle() -> None:
    """|u| = c everywhere: 1 - 1/c of it is unexplained, whatever the mask."""
    known = (randn(3, 2, 12, 9, seed=1) > -1).double()
    for size in (0.5, 1.0, 4.0, 40.0):
        pull, held = unexplained(size * torch.sign(randn(3, 2, 12, 9)) * known, known)
        torch.testing.assert_close(pull, max(0.0, 1 - 1 / size) * known, rtol=0, atol=1e-12)
        assert torch.equal(held, known)


@pytest.mark.parametrize("size", [10.0, 1e3, 1e6])
def test_one_outlier_pulls_less_the_further_it_lies_and_moves_no_other_voxel(size: float) -> None:
    whitened = randn(1, 1, 14, 14)
    known = torch.ones_like(whitened)
    pull, _ = unexplained(whitened, known)
    disturbed = whitened.clone()
    disturbed[..., 6, 7] = size
    after, held = unexplained(disturbed, known)
    assert held[..., 6, 7] == 0 and held.sum() == held.numel() - 1
    moved = (after * disturbed - pull * whitened).abs()
    assert float(moved[..., 6, 7]) < 12.0 * 3 / size * 9 + 3.0  # its own pull: at most (bound/size)^2 size
    elsewhere = moved.clone()
    elsewhere[..., 5:8, 6:9] = 0
    assert float(elsewhere.max()) < 0.1


def test_what_departs_together_is_held_and_pulled_where_it_lies() -> None:
    """A lesion that the estimate lost, 3x3 voxels at 12 SD: pulled back there, and not a tenth of it elsewhere."""
    whitened = randn(1, 1, 20, 20)
    whitened[..., 8:11, 8:11] += 12.0
    whitened[..., 9, 9] += 12.0  # its peak
    pull, held = unexplained(whitened, torch.ones_like(whitened))
    assert held[..., 8:11, 8:11].all()
    assert float((pull * whitened)[..., 9, 9]) > 18.0
    assert float(pull[..., :6, :].max()) < 0.25


def test_outliers_are_found_alone_and_not_in_clusters_nor_in_noise() -> None:
    whitened = randn(50, 2, 16, 16)
    known = torch.ones_like(whitened)
    assert not gross_outliers(whitened, known).any()
    whitened[3, 1, 0, 0] = -25.0  # at a corner
    whitened[7, 0, 4:7, 4:7] = 25.0
    found = gross_outliers(whitened, known)
    assert found.sum() == 1 and found[3, 1, 0, 0]
    known[3, 1, 0, 0] = 0
    assert not gross_outliers(whitened * known, known).any()


def test_white_part_of_a_residual() -> None:
    """White noise of 3 SD plus a smooth field of 4 SD: the field's length is several voxels, so 3 is what is white."""
    white = 3.0 * randn(30, 2, 24, 24)
    rough = torch.nn.functional.pad(randn(60, 1, 24, 24, seed=1), (6, 6, 6, 6), mode="circular")
    taps = torch.exp(-0.5 * (torch.arange(-6, 7, dtype=torch.float64) / 2.5) ** 2)
    kernel = torch.outer(taps, taps)[None, None]
    smooth = torch.nn.functional.conv2d(rough, kernel / kernel.norm()).reshape(30, 2, 24, 24)
    known = (randn(30, 2, 24, 24, seed=2) > -1).double()
    found = supported_sd((white + 4.0 * smooth) * known, known)
    assert found.shape == (2, 1, 1)
    torch.testing.assert_close(found, torch.full_like(found, 3.0), rtol=0.1, atol=0)
    alone = supported_sd(white * known, known)
    torch.testing.assert_close(alone, torch.full_like(alone, 3.0), rtol=0.03, atol=0)


def test_outliers_do_not_count_as_noise() -> None:
    white = randn(10, 1, 16, 16)
    white[:, :, ::5, ::5] = 100.0
    found = supported_sd(white, torch.ones_like(white))
    torch.testing.assert_close(found, torch.ones_like(found), rtol=0.1, atol=0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2)])
def test_tiny_grids_and_nothing_known(shape: tuple[int, int]) -> None:
    whitened = 5.0 * torch.ones(2, 3, *shape, dtype=torch.float64)
    for known in (torch.ones_like(whitened), torch.zeros_like(whitened)):
        pull, held = unexplained(whitened * known, known)
        assert torch.isfinite(pull).all() and torch.isfinite(held).all()
        assert torch.isfinite(supported_sd(whitened * known, known)).all()
    assert pull.abs().max() == 0


@pytest.mark.parametrize(("window", "support"), [("none", "square"), ("hamming", "square"), ("hann", "ellipse")])
def test_room_for_noise_is_the_deviation_of_noise_whatever_the_acquisition_made_of_it(
    window: str, support: str
) -> None:
    """Noise that passed the window: its own deviation; a smooth object below it adds a little, an edge more."""
    acquisition = Acquisition((24, 20), (1, 1), support=support, window=window)
    noise = acquisition.forward(randn(40, 2, 24, 20))
    known = torch.ones_like(noise)
    known[:, 1, 5:9, 5:9] = 0.0
    shape = noise_shape(acquisition)
    deviation = noise.std(dim=(0, 2, 3))
    torch.testing.assert_close(room_for_noise(noise, known, shape), deviation, rtol=0.03, atol=0)
    smooth = torch.cos(torch.linspace(0, 3, 24, dtype=torch.float64))[:, None] * torch.linspace(1, 2, 20).double()
    found = room_for_noise(noise + 50 * deviation[0] * smooth, known, shape)
    assert bool(((found > deviation * 0.97) & (found < deviation * 12)).all())
    hidden = known * (torch.arange(20) % 2)  # no two neighbours
    assert bool(room_for_noise(noise, hidden, shape).isnan().all())
