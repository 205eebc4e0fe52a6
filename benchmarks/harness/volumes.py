"""Whole volumes for the benchmark of the claim: what one posterior sample of a volume costs, by engine.

The seed-style chain is the reference: one map at a time, ancestral sampling with 1000 steps (Ho et al. 2020), plain
PyTorch, on the same weights. Nobody waits for it to end: some steps are timed and multiplied, which rows say.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch

from harness.peers import PlainUNet, compiled_network, compiling, native_or_missing, plain_operations
from mrsi_fast.diffusion.denoiser import Denoiser
from mrsi_fast.engine.eager import EagerEngine
from mrsi_fast.engine.job import Engine, Estimate, SamplingJob
from mrsi_fast.models.pretrained import load_pretrained
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.sampling import Sampler, Volume, solver_steps

NAMES = ("tNAA", "tCr", "tCho", "Ins", "Glx", "2HG", "Lac", "Gln")
CHAIN_STEPS = 1000
SLICES, BATCH = 20, 10
"""Two equal batches: no engine has to prepare itself for a second shape."""

Runner = Callable[[], Any]


@cache
def volume(size: int, maps: int = len(NAMES), slices: int = SLICES) -> Volume:
    """Random maps on a ``size`` x ``size`` grid, all voxels trusted, noise-free, refined by 4."""
    shape = (maps, size, size, slices)
    return Volume(
        names=NAMES[:maps],
        z=np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32),
        trusted=np.ones(shape, dtype=np.bool_),
        scale=np.ones(maps),
        noise=np.zeros(maps),
        factors=(4, 4),
        voxel_mm=(220 / size, 220 / size),
        anatomy=None,
        slices=tuple(range(slices)),
    )


class _Plain(EagerEngine):
    """The eager engine on plain PyTorch operations."""

    def run(self, job: SamplingJob) -> torch.Tensor:
        with plain_operations():
            return super().run(job)

    def estimate(self, *arguments: Any, **named: Any) -> Estimate:
        with plain_operations():
            return super().estimate(*arguments, **named)


def engine(label: str, threads: int) -> Engine:
    """``native``, ``native-amx``, ``eager`` (plain PyTorch, channels-last) or ``compile`` (compiled, weights frozen).

    Raises:
        Missing: It cannot run here.
    """
    pretrained, cpu = load_pretrained(), torch.device("cpu")
    denoiser = Denoiser(pretrained.network, pretrained.config.diffusion.sigma_max).eval()
    if label.startswith("native"):
        return native_or_missing(denoiser, threads, pairs=label == "native-amx")
    network = PlainUNet(pretrained.network, torch.channels_last)
    plain = _Plain(Denoiser(network, denoiser.sigma_max).eval(), cpu, "benchmark")
    if label == "compile":
        plain.denoiser = Denoiser(compiled_network(network), denoiser.sigma_max).eval()
    return plain


def one_sample(label: str, threads: int, size: int, steps: int) -> Runner:
    """One posterior sample of a whole volume, hard data consistency, all maps of a slice at once."""
    diffusion = load_pretrained().config.diffusion
    sampler, maps = Sampler(engine(label, threads), diffusion, BATCH), volume(size)
    acquisition = Acquisition((size // 4, size // 4), (4, 4))
    plan = solver_steps("dpmpp_2m", steps, diffusion)
    run = lambda: list(sampler.draws(maps, [0], plan, 0, acquisition))
    if label == "compile":
        with compiling():
            run()
    return run


def chain_steps(threads: int, size: int, timed: int) -> Runner:
    """The first ``timed`` steps of the seed-style chain for one map of the volume; see ``chain_factor``."""
    diffusion = load_pretrained().config.diffusion
    sampler, maps = Sampler(engine("eager", threads), diffusion, BATCH), volume(size, maps=1)
    plan = solver_steps("ddpm", CHAIN_STEPS, diffusion)[:timed]
    return lambda: list(sampler.draws(maps, [0], plan, 0))


def chain_factor(timed: int) -> float:
    """How many times ``chain_steps`` makes the whole chain for all maps."""
    return CHAIN_STEPS / timed * len(NAMES)
