"""The cases of the whole network: one evaluation, and one sampling run with everything that a user waits for."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator

import torch

from gpu.case import Case
from gpu.target import Peer, Target
from harness.peers import PlainEvaluation, UNetCase, plain_operations
from mrsi_fast.diffusion.schedules import karras
from mrsi_fast.diffusion.solvers import make_steps
from mrsi_fast.engine.cuda_graph import (
    CapturedLoop,
    CudaGraphEngine,
    DirectCalls,
    Graph,
    TorchCudaGraph,
    settled_convolutions,
)
from mrsi_fast.engine.eager import EagerEngine
from mrsi_fast.engine.job import SamplingJob

STEPS = 8


def cases(case: UNetCase) -> Iterator[Case]:
    """An evaluation in three precisions, a run of eight steps in float32."""
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        yield evaluation(case, dtype)
    yield sampling_run(case)


def autotuned(case: UNetCase) -> Case:
    """An evaluation by ``torch.compile`` after its longest search, which takes minutes: for the end of a session."""
    one = evaluation(case, torch.float16)
    compiled = _plain(case, torch.float16, torch.channels_last, compiled="max-autotune")
    peers = {label: one.peers[label] for label in (one.than, "cuda-graph")} | {"max-autotune": compiled}
    return dataclasses.replace(one, name=one.name.replace("unet[", "unet_autotuned["), peers=peers)


def _weights(case: UNetCase) -> float:
    return float(sum(parameter.numel() for parameter in case.network.parameters()))


def evaluation(case: UNetCase, dtype: torch.dtype) -> Case:
    """One evaluation; the captured one also does the solver step that follows."""
    batch, maps, width, height = case.x.shape
    return Case(
        name=f"unet[{batch}x{maps}x{width}x{height}-{str(dtype).removeprefix('torch.')}]",
        dtype=dtype,
        peers={
            "eager": _plain(case, dtype, torch.contiguous_format),
            "eager-channels": _plain(case, dtype, torch.channels_last),
            "compile": _plain(case, dtype, torch.channels_last, compiled="reduce-overhead"),
            "fused": _captured(case, dtype, lambda target: DirectCalls()),
            "cuda-graph": _captured(case, dtype, _graph),
        },
        than="eager-channels",
        flops=case.flops,
        bytes=dtype.itemsize * (_weights(case) + 2.0 * case.x.numel()),
        kernel=False,
    )


def _graph(target: Target) -> Graph:
    return DirectCalls() if target.dry else TorchCudaGraph()


def _plain(
    case: UNetCase, dtype: torch.dtype, layout: torch.memory_format, compiled: str = ""
) -> Callable[[Target, int], Peer]:
    def build(target: Target, sets: int) -> Peer:
        module = PlainEvaluation(case, layout).eval().to(target.device, dtype)
        embedding = module.denoiser.network.embedding  # phases of many turns: in float32, as the noise level comes
        embedding.rates = case.network.embedding.rates.to(target.device)
        embedding.layers.register_forward_pre_hook(lambda layers, inputs: (inputs[0].to(dtype),))
        inputs = [one.to(target.device, dtype) for one in case.inputs]
        function = target.compiled(module, compiled) if compiled else module

        def call(index: int) -> torch.Tensor:
            with torch.no_grad(), plain_operations():
                return function(*inputs)

        return call

    return build


def _captured(case: UNetCase, dtype: torch.dtype, graph: Callable[[Target], Graph]) -> Callable[[Target, int], Peer]:
    def build(target: Target, sets: int) -> Peer:
        denoiser = copy.deepcopy(case.denoiser()).to(target.device).to(memory_format=torch.channels_last)
        job = SamplingJob(case.cond, case.x, make_steps("ddim", [float(case.sigma[0]), 0.0]))
        with torch.inference_mode(), settled_convolutions():
            loop = CapturedLoop(denoiser, job, graph(target), dtype)
            loop.run(job)

        initial = case.x.to(target.device)

        def evaluate(index: int) -> torch.Tensor:
            with torch.inference_mode():
                loop.index.zero_()
                loop.state.copy_(initial)
                loop.graph.replay()
            return loop.estimate

        return evaluate

    return build


def sampling_run(case: UNetCase) -> Case:
    """Eight steps of a batch: tables, copies to and from the device, and the loop."""
    steps = make_steps("dpmpp_2m", karras(STEPS, case.diffusion.sigma_min, case.diffusion.sigma_max))
    job = SamplingJob(case.cond, case.diffusion.sigma_max * case.x, steps)

    def eager(target: Target, sets: int) -> Peer:
        engine = EagerEngine(copy.deepcopy(case.denoiser()), target.device, "benchmark")
        return lambda index: engine.run(job)

    def captured(target: Target, sets: int) -> Peer:
        make = DirectCalls if target.dry else TorchCudaGraph
        engine = CudaGraphEngine(copy.deepcopy(case.denoiser()), target.device, "benchmark", graph=make)
        return lambda index: engine.run(job)

    one = evaluation(case, torch.float32)
    return dataclasses.replace(
        one,
        name=one.name.replace("unet[", f"sampling_run[{STEPS}x"),
        peers={"eager": eager, "cuda-graph": captured},
        than="eager",
        flops=STEPS * one.flops,
        bytes=STEPS * one.bytes,
    )
