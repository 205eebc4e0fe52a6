"""Small sampling runs on which the tests compare engines."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

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
    widths=(32, 64, 64),
    encoder_blocks=(1, 2, 1),
    decoder_blocks=(2, 1, 1),
    encoder_attention=(False, False, True),
    decoder_attention=(False, True, False),
    embedding_width=16,
)


def random_network(config: ModelConfig = SMALL, seed: int = 0) -> SelfAttentionUNet:
    """A network in which no parameter has its initial value: layers that start at zero would hide most mistakes."""
    torch.manual_seed(seed)
    network = SelfAttentionUNet(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5 / parameter[0].numel() ** 0.5)
    return network


def small_denoiser() -> Denoiser:
    """A denoiser around it."""
    return Denoiser(random_network(), sigma_max=20.0, sigma_min=0.02).eval()


def make_job(
    batch: int,
    grid: tuple[int, int],
    solver: Solver = "dpmpp_2m",
    evaluations: int = 4,
    projection: Acquisition | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> SamplingJob:
    """A run for ``small_denoiser``: random conditions, one map absent in the last slice."""
    generator = torch.Generator().manual_seed(7)
    maps, vector = len(SMALL.channels), torch.randn(batch, vector_width(3), generator=generator) * 0.3
    vector[:, :maps] = 1.0
    vector[-1, 1] = 0.0  # one absent map

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    z, mask, anatomy = normal(batch, maps, *grid), normal(batch, maps, *grid).sign(), normal(batch, 1, *grid)
    condition = Condition(z, mask, anatomy, vector)
    sigmas = karras(evaluations, 0.02, 30.0)  # starts above the trained range
    noise = [normal(batch, maps, *grid) for _ in range(evaluations)]
    initial = normal(batch, maps, *grid) * sigmas[0]
    return SamplingJob(condition, initial, make_steps(solver, sigmas), projection, noise.__getitem__, on_step)


CASES: list[tuple[Solver, int, tuple[int, int], Acquisition | None]] = [
    ("dpmpp_2m", 2, (16, 16), None),
    ("ddim", 3, (8, 24), Acquisition((4, 6), (2, 4))),
    ("heun", 1, (13, 22), None),
    ("ddpm", 2, (20, 28), Acquisition((5, 7), (4, 4), support="ellipse")),
    ("dpmpp_2m", 1, (15, 9), Acquisition((5, 3), (3, 3), window="hamming")),
]
"""Solver, batch, grid and projection of runs that cover what the engines distinguish."""
