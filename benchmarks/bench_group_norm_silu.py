"""``group_norm_silu`` at the shapes of the network, batch 8: our operation and eager PyTorch, channels-last."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from harness.contest import Entry
from mrsi_fast import ops
from support.shapes import MapShape, model_maps

THREADS = (1, 2)
SHAPES = {shape.name: shape for shape in model_maps(batch=8)}
KINDS = ("forward", "training")


def arguments(shape: MapShape, requires_grad: bool) -> tuple:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(shape.size, generator=draw).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(2, shape.channels, generator=draw)
    return tuple(one.requires_grad_(requires_grad) for one in (x, weight, bias))


def ours(x, weight, bias, groups):
    return ops.group_norm_silu(x, weight, bias, groups)


def eager(x, weight, bias, groups):
    return F.silu(F.group_norm(x, groups, weight, bias))


PEERS = {"ours": ours, "eager": eager}


def build(kind: str, label: str, shape: MapShape) -> Callable[[], object]:
    inputs = arguments(shape, requires_grad=kind == "training")
    call = functools.partial(PEERS[label], *inputs, shape.groups)
    if kind == "forward":
        run = torch.inference_mode()(call)
    else:
        grad = torch.randn(shape.size, generator=torch.Generator().manual_seed(1))
        grad = grad.contiguous(memory_format=torch.channels_last)
        run = lambda: torch.autograd.grad(call(), inputs, grad)
    if label == "ours":
        run.backend = ops.explain("group_norm_silu", *inputs, shape.groups, None, None, 1e-5).backend
    return run


def entries(kind: str, threads: int) -> list[Entry]:
    # Least traffic: forward reads x once and writes y; the step also reads x and grad, and writes grad_x.
    passes = {"forward": 2, "training": 5}[kind]
    return [
        Entry(
            label,
            functools.partial(build, kind, label, shape),
            f"{kind}-{name}",
            bytes=4 * passes * math.prod(shape.size),
            ours=label == "ours",
        )
        for name, shape in SHAPES.items()
        for label in PEERS
    ]


@pytest.mark.parametrize("threads", THREADS, ids="t{}".format)
@pytest.mark.parametrize("case", [f"{kind}-{name}" for kind in KINDS for name in SHAPES])
@pytest.mark.parametrize("label", PEERS)
def bench_group_norm_silu(row, contest, label, case, threads):
    kind = case.split("-")[0]
    row(contest(f"group_norm_silu-{kind}", threads, functools.partial(entries, kind), budget_s=4.0), label, case)
