"""Kernels per sampling step of the shipped network, fused and eager, counted from the calls that a step makes."""

from __future__ import annotations

import pytest
import torch

from mrsi_fast.config import ModelConfig
from mrsi_fast.diffusion.denoiser import Denoiser
from mrsi_fast.diffusion.schedules import karras
from mrsi_fast.diffusion.solvers import make_steps, sample
from mrsi_fast.engine.cuda_graph import CapturedLoop, DirectCalls
from mrsi_fast.engine.job import SamplingJob
from mrsi_fast.models.condition import Condition, vector_width
from mrsi_fast.models.unet import SelfAttentionUNet
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.testing.launches import count_kernels


@pytest.fixture(scope="module")
def loop() -> CapturedLoop:
    config = ModelConfig()
    maps, grid = len(config.channels), (64, 64)
    network = SelfAttentionUNet(config).to(memory_format=torch.channels_last)
    denoiser = Denoiser(network, sigma_max=20.0).eval().requires_grad_(False)
    cond = Condition(*(torch.zeros(1, n, *grid) for n in (maps, maps, 1)), torch.ones(1, vector_width(maps)))
    steps = make_steps("dpmpp_2m", karras(8, 0.01, 20.0))
    job = SamplingJob(cond, torch.randn(1, maps, *grid), steps, projection=Acquisition((16, 16), (4, 4)))
    loop = CapturedLoop(denoiser, job, DirectCalls())
    loop.fill(job)
    return loop


# The goal is a half. Of the fused kernels 39 add biases of convolutions and 14 are FiLM layers: a plan that folds the
# former into group_norm_silu (the launcher takes conv_bias) and computes the latter once for all steps gets there.
SHARE = 0.6


def test_a_fused_step_launches_fewer_kernels_than_an_eager_one(loop):
    projection, (step,) = Acquisition((16, 16), (4, 4)), make_steps("dpmpp_2m", karras(8, 0.01, 20.0))[3:4]

    def eager_step() -> None:  # as mrsi_fast.engine.eager runs it
        sample(lambda x, sigma: projection.null(loop.denoiser(x, sigma, loop.cond)), loop.state, (step,))

    columns = {"fused": count_kernels(loop.step, eager=False), "eager": count_kernels(eager_step, eager=True)}
    report = {name: (sum(c.calls.values()), sum(c.kernels.values())) for name, c in columns.items()}
    print("(calls, kernels) of a step:", report)
    fused, eager = (columns[name].kernels for name in ("fused", "eager"))
    assert fused["mrsi_fast.solver_step_out"] == 1 and fused["mrsi_fast.group_norm_silu"] > 10
    assert columns["eager"].calls["aten.group_norm"] == fused["mrsi_fast.group_norm_silu"]
    assert fused["aten.convolution"] == eager["aten.convolution"]
    assert report["fused"][1] <= SHARE * report["eager"][1], report
