"""Calls and kernels of a sampling step of the shipped model, fused and eager; ours counted where they are launched."""

from __future__ import annotations

import pytest
import torch

from gpu_static.launches import count_kernels
from mrsi_fast import ops
from mrsi_fast.diffusion.denoiser import Denoiser
from mrsi_fast.diffusion.solvers import sample
from mrsi_fast.engine.cuda_graph import CapturedLoop, CudaGraphEngine, DirectCalls
from mrsi_fast.models.pretrained import load_pretrained
from mrsi_fast.mrsi.forward import Acquisition
from support.networks import random_denoiser, random_job

ACQUISITION = Acquisition((16, 16), (4, 4))
OURS = ("mrsi_fast.group_norm_silu_out", "mrsi_fast.solver_step_out")


@pytest.fixture(scope="module")
def loop() -> CapturedLoop:
    shipped = load_pretrained()
    diffusion = shipped.config.diffusion
    network = shipped.network.to(memory_format=torch.channels_last)
    denoiser = Denoiser(network, diffusion.sigma_max, diffusion.sigma_min).eval()
    job = random_job(1, batch=1, maps=8, projection=ACQUISITION)
    loop = CapturedLoop(denoiser, job, DirectCalls())
    loop.load(job.cond, job.steps)
    return loop


@pytest.fixture(autouse=True)
def _first_step(loop):
    loop.index.zero_()


def test_a_fused_step_launches_at_most_half_the_kernels_of_an_eager_one(loop, on_gpu):
    job = random_job(1, batch=1, maps=8, projection=ACQUISITION)
    step = job.steps[3]

    def eager_step() -> None:  # as mrsi_fast.engine.eager runs it
        sample(lambda x, sigma: ACQUISITION.null(loop.denoiser(x, sigma, job.cond)), job.initial, (step,))

    before = on_gpu.launches()
    fused = count_kernels(loop.step, eager=False)
    launched = on_gpu.launches() - before
    eager = count_kernels(eager_step, eager=True)
    for name, counted in (("fused", fused), ("eager", eager)):
        print(f"{name}: {sum(counted.calls.values())} calls, {sum(counted.kernels.values())} kernels")
    assert launched == sum(fused.kernels[name] for name in OURS)  # the table's share of ours is what was launched
    assert fused.calls["mrsi_fast.solver_step_out"] == 1
    assert eager.calls["aten.group_norm"] == fused.calls["mrsi_fast.group_norm_silu_out"] > 10
    assert sum(fused.calls.values()) <= sum(eager.calls.values()) / 2
    assert sum(fused.kernels.values()) <= sum(eager.kernels.values()) / 2


def test_what_only_the_condition_or_the_step_decides_is_not_computed_in_a_step(loop):
    fused = count_kernels(loop.step, eager=False)
    assert not {"aten.log", "aten.cos", "aten.rsqrt", "aten.silu", "aten.constant_pad_nd"} & set(fused.kernels)
    products = fused.calls["aten.convolution"] + fused.calls["aten.addmm"] + fused.calls["aten.mm"]
    planned = sum(hasattr(operation, "conv") for operation in loop.network.plan.operations)
    assert products == planned  # no FiLM layer, no embedding


@pytest.mark.parametrize("dtype, backend", [(torch.float32, "auto"), (torch.float16, "cuda")], ids=str)
def test_a_run_through_the_simulated_kernels_is_that_of_the_reference(on_gpu, dtype, backend):
    job = random_job(3, steps=2, projection=Acquisition((8, 8), (2, 2)))

    def run(pinned: str) -> torch.Tensor:
        engine = CudaGraphEngine(random_denoiser(), torch.device("cpu"), "test", graph=DirectCalls, dtype=dtype)
        with ops.override(pinned):
            return engine.run(job)[:, :-1]  # the last map is absent

    wanted, before = run("reference"), on_gpu.launches()
    result = run(backend)
    assert on_gpu.launches() > before
    bar = 2e-5 if dtype is torch.float32 else 8 * 2.0**-11
    assert (result - wanted).norm() <= bar * wanted.norm()
