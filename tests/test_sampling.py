"""Mean and spread of a volume: the maps' units, and which voxels are left at 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mrsi_fast.config import DiffusionConfig
from mrsi_fast.diffusion.denoiser import Denoiser
from mrsi_fast.engine.eager import EagerEngine
from mrsi_fast.mrsi.names import assign_channels
from mrsi_fast.sampling import Sampler, Volume, solver_steps

RMS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
DIFFUSION = DiffusionConfig(residual_rms={"4": RMS})


class Constant(torch.nn.Module):
    """Says the same of every voxel: F = 1 and, with a second head, ln SD = ln 0.25."""

    def __init__(self, spread: bool) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(()))
        self.spread = torch.nn.Identity() if spread else None

    def forward(self, x: torch.Tensor, label: torch.Tensor, cond: object) -> torch.Tensor:
        return torch.ones_like(x)

    def with_spread(self, x: torch.Tensor, label: torch.Tensor, cond: object) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.ones_like(x), torch.full_like(x, 0.25).log()


def make_volume(names: tuple[str, ...], slices: tuple[int, ...]) -> Volume:
    shape = (len(names), 6, 5, 4)
    return Volume(
        names=names,
        z=np.random.default_rng(0).uniform(1, 2, shape).astype(np.float32),
        trusted=np.ones(shape, dtype=np.bool_),
        scale=np.array([10.0, 0.0, *range(1, len(names) - 1)]),
        noise=np.zeros(len(names)),
        factors=(4, 4),
        voxel_mm=(2.5, 2.5),
        anatomy=None,
        slices=slices,
    )


def sampler(spread: bool) -> Sampler:
    denoiser = Denoiser(Constant(spread), DIFFUSION.sigma_max)
    return Sampler(EagerEngine(denoiser, torch.device("cpu"), "test"), DIFFUSION, batch_size=2)


@pytest.mark.parametrize("names", [("tCr", "tNAA", "Ins"), ("tCr", "tNAA", "Lac", "Gln", "GABA")])
def test_mean_and_spread_are_in_the_units_of_each_map(names):
    volume = make_volume(names, (0, 1, 3))
    mean, sd = sampler(True).mean(volume)
    c_out = DIFFUSION.sigma_max / (DIFFUSION.sigma_max**2 + 1) ** 0.5
    for index in range(len(names)):
        channel = next(layout.index(index) for layout in assign_channels(names) if index in layout)
        for place in range(4):
            if place == 2 or volume.scale[index] == 0:
                assert not mean[index, ..., place].any() and not sd[index, ..., place].any()
                continue
            unit = RMS[channel] * volume.scale[index]
            np.testing.assert_allclose(sd[index, ..., place], 0.25 * unit, rtol=1e-6)
            np.testing.assert_allclose(mean[index, ..., place], volume.z[index, ..., place] + c_out * unit, rtol=1e-5)


@pytest.mark.parametrize("names", [("tCr", "tNAA", "Ins"), ("tCr", "tNAA", "Lac", "Gln", "GABA")])
@pytest.mark.parametrize("slices", [(1,), (0, 1, 3)])
def test_samples_come_one_after_the_other_and_as_if_drawn_alone(names, slices):
    volume, steps = make_volume(names, slices), solver_steps("dpmpp_2m", 2, DIFFUSION)
    passes, done = len(assign_channels(names)), []
    drawn = sampler(False).draws(volume, range(5), steps, 7, None, lambda: done.append(1))
    together = []
    for count, one in enumerate(drawn, start=1):
        together.append(one)
        batches = min(count * len(slices) // 2 + 1, -(-5 * len(slices) // 2))  # the next sample tells that one is whole
        assert len(done) == 2 * passes * batches
    assert len(together) == 5 and len(done) == sampler(False).evaluations(volume, 5, 2)
    for number, one in enumerate(together):
        np.testing.assert_allclose(one, *sampler(False).draws(volume, [number], steps, 7), rtol=1e-6)
    assert not np.allclose(together[0][0], together[1][0])


def test_a_model_without_the_head_gives_no_spread():
    volume = make_volume(("tCr", "tNAA", "Ins"), (0, 2))
    mean, sd = sampler(False).mean(volume)
    assert sd is None and np.array_equal(mean, sampler(True).mean(volume)[0])


def test_a_volume_without_slices_has_maps_of_0():
    steps = solver_steps("dpmpp_2m", 1, DIFFUSION)
    drawn = list(sampler(True).draws(make_volume(("tCr", "tNAA", "Ins"), ()), range(2), steps, 0))
    assert len(drawn) == 2 and not np.any(drawn)
    mean, sd = sampler(True).mean(make_volume(("tCr", "tNAA", "Ins"), ()))
    assert not mean.any() and not sd.any()
