"""Small networks and jobs on which tests compare engines: every kind of layer, weights that hide no mistake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from mrsi_fast import SuperResolver
from mrsi_fast.config import DiffusionConfig, ModelConfig
from mrsi_fast.diffusion.denoiser import Denoiser
from mrsi_fast.diffusion.schedules import karras
from mrsi_fast.diffusion.solvers import Solver, make_steps
from mrsi_fast.engine.job import SamplingJob
from mrsi_fast.models.condition import Condition, vector_width
from mrsi_fast.models.pretrained import FolderConfig, save_pretrained
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
"""Skips with and without a convolution, attention on both sides, two downsamplings."""
SIGMA_MIN, SIGMA_MAX, SIGMA_START = 0.02, 20.0, 30.0
"""Jobs start above the range of noise levels that the denoiser is made for."""

CASES: list[tuple[Solver, int, tuple[int, int], Acquisition | None]] = [
    ("dpmpp_2m", 2, (16, 16), None),
    ("ddim", 3, (8, 24), Acquisition((4, 6), (2, 4))),
    ("heun", 1, (13, 22), None),
    ("ddpm", 2, (20, 28), Acquisition((5, 7), (4, 4), support="ellipse")),
    ("dpmpp_2m", 1, (15, 9), Acquisition((5, 3), (3, 3), window="hamming")),
]
"""Solver, batch, grid and projection of runs that cover what the engines distinguish."""


def random_network(config: ModelConfig = SMALL, seed: int = 0) -> SelfAttentionUNet:
    """A network in which no parameter has its initial value: layers that start at zero would hide most mistakes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SelfAttentionUNet(config).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.5 / parameter[0].numel() ** 0.5)
    return network


def random_denoiser(config: ModelConfig = SMALL, seed: int = 0) -> Denoiser:
    """A denoiser around it, in evaluation mode and without gradients."""
    return Denoiser(random_network(config, seed), SIGMA_MAX, SIGMA_MIN).eval().requires_grad_(False)


def random_job(
    seed: int,
    solver: Solver = "dpmpp_2m",
    steps: int = 8,
    batch: int = 2,
    maps: int = 3,
    projection: Acquisition | None = None,
    grid: tuple[int, int] = (16, 16),
    on_step: Callable[[int, int], None] | None = None,
) -> SamplingJob:
    """A run on the CPU with random conditions; the last slice lacks its last map.

    Args:
        seed: Of conditions, start and noise.
        solver: Its kind.
        steps: Noise levels; Heun evaluates at all but the last twice.
        batch: Slices.
        maps: Channels of the network.
        projection: Data consistency; it then gives the grid too.
        grid: [X, Y].
        on_step: Passed on.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    grid = grid if projection is None else projection.hr_shape
    vector = 0.3 * normal(batch, vector_width(maps))
    vector[:, :maps] = 1.0
    vector[-1:, maps - 1] = 0.0
    shape = (batch, maps, *grid)
    return SamplingJob(
        cond=Condition(normal(*shape), (normal(*shape) > -1).float(), normal(batch, 1, *grid), vector),
        initial=SIGMA_START * normal(*shape),
        steps=make_steps(solver, karras(steps, SIGMA_MIN, SIGMA_START)),
        projection=projection,
        step_noise=lambda index: torch.randn(shape, generator=torch.Generator().manual_seed(1000 * seed + index)),
        on_step=on_step,
    )


def random_resolver(folder: Path, **model_settings: bool) -> SuperResolver:
    """A resolver around a very small network of random weights, saved in ``folder``; it runs eagerly on the CPU."""
    torch.manual_seed(3)
    model = ModelConfig(
        widths=(32, 64),
        encoder_blocks=(1, 1),
        decoder_blocks=(1, 1),
        encoder_attention=(False, True),
        decoder_attention=(False, False),
        embedding_width=32,
        **model_settings,
    )
    network = SelfAttentionUNet(model)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    rms = {"2": (0.1,) * 8, "4": (0.2,) * 8, "8": (0.3,) * 8}
    config = FolderConfig(
        name="random",
        model=model,
        diffusion=DiffusionConfig(residual_rms=rms),
        trained_voxel_mm=(4.0, 20.0),
        trained_grid=(16, 96),
    )
    save_pretrained(folder, config, network.state_dict(), "# random\n")
    return SuperResolver.from_pretrained(folder, device="cpu", engine="eager")
