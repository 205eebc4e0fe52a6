"""Small networks and jobs for tests of engines: every kind of layer, weights that hide no mistake."""

from __future__ import annotations

import torch

from mrsi_fast.config import ModelConfig
from mrsi_fast.diffusion.denoiser import Denoiser
from mrsi_fast.diffusion.schedules import karras
from mrsi_fast.diffusion.solvers import Solver, make_steps
from mrsi_fast.engine.job import SamplingJob
from mrsi_fast.models.condition import Condition, vector_width
from mrsi_fast.models.unet import SelfAttentionUNet
from mrsi_fast.mrsi.forward import Acquisition

SMALL = ModelConfig(
    channels=("tNAA", "tCr", "tCho"),
    widths=(32, 64),
    encoder_blocks=(1, 1),
    decoder_blocks=(2, 1),
    encoder_attention=(False, True),
    decoder_attention=(True, False),
    embedding_width=16,
)
"""Skips with and without a convolution, attention on both sides, one downsampling."""
SIGMA_MIN, SIGMA_MAX = 0.02, 20.0


def random_denoiser(config: ModelConfig = SMALL, seed: int = 0) -> Denoiser:
    """A denoiser in evaluation mode; layers that start at zero are filled, or they would hide faults."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SelfAttentionUNet(config)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.5 / parameter[0].numel() ** 0.5)
    return Denoiser(network, sigma_max=SIGMA_MAX, sigma_min=SIGMA_MIN).eval().requires_grad_(False)


def random_job(
    seed: int,
    solver: Solver = "dpmpp_2m",
    steps: int = 8,
    batch: int = 2,
    maps: int = 3,
    acquisition: Acquisition | None = None,
    grid: tuple[int, int] = (16, 16),
) -> SamplingJob:
    """A sampling job on the CPU, the last map absent; ``acquisition`` gives its projection, and then the grid."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    grid = grid if acquisition is None else acquisition.hr_shape
    vector = 0.3 * normal(batch, vector_width(maps))
    vector[:, :maps] = 1.0
    vector[:, maps - 1] = 0.0
    shape = (batch, maps, *grid)
    return SamplingJob(
        cond=Condition(normal(*shape), (normal(*shape) > -1).float(), normal(batch, 1, *grid), vector),
        initial=SIGMA_MAX * normal(*shape),
        steps=make_steps(solver, karras(steps, SIGMA_MIN, SIGMA_MAX)),
        projection=acquisition,
        step_noise=lambda index: torch.randn(shape, generator=torch.Generator().manual_seed(1000 * seed + index)),
    )
