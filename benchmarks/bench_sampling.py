"""A sampling run: 8 steps of DPM-Solver++(2M) for 8 slices of 8 maps of 64x64, hard data consistency included."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch

from harness.contest import Entry
from harness.peers import PlainUNet, UNetCase, native_or_missing, plain_operations, shipped_case
from mrsi_fast.engine.eager import EagerEngine
from mrsi_fast.engine.job import SamplingJob
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.sampling import solver_steps

THREADS = (1, 2)
STEPS = 8
CPU = torch.device("cpu")


@functools.cache
def case() -> UNetCase:
    return shipped_case(batch=8, grid=(64, 64))


def job() -> SamplingJob:
    steps = solver_steps("dpmpp_2m", STEPS, case().diffusion)
    return SamplingJob(case().cond, steps[0].sigma * case().x, steps, Acquisition((16, 16), (4, 4)))


def native(threads: int, pairs: bool = False) -> Callable[[], torch.Tensor]:
    return functools.partial(native_or_missing(case().denoiser(), threads, pairs).run, job())


def fused_eager(threads: int) -> Callable[[], torch.Tensor]:
    return functools.partial(EagerEngine(case().denoiser(), CPU, "benchmark").run, job())


def eager(threads: int) -> Callable[[], torch.Tensor]:
    denoiser = case().denoiser(PlainUNet(case().network, torch.channels_last))
    engine, work = EagerEngine(denoiser, CPU, "benchmark"), job()

    def run() -> torch.Tensor:
        with plain_operations():
            return engine.run(work)

    return run


PEERS = {
    "native": native,
    "native-amx": functools.partial(native, pairs=True),
    "fused-eager": fused_eager,
    "eager": eager,
}


def entries(threads: int) -> list[Entry]:
    backends = {"fused-eager": "our operations one by one", "eager": "PyTorch, channels-last"}
    return [
        Entry(
            label,
            functools.partial(build, threads),
            flops=STEPS * case().flops,
            backend=backends.get(label, label),
            ours=label != "eager",
        )
        for label, build in PEERS.items()
    ]


@pytest.mark.parametrize("threads", THREADS, ids="t{}".format)
@pytest.mark.parametrize("label", PEERS)
def bench_sampling(row, contest, label, threads):
    row(contest("sampling", threads, entries, budget_s=20.0), label, steps=STEPS, slices=8)
