"""group_norm_silu at the shapes of the network: our operation, its `_out` form and eager PyTorch, channels last."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F

from mrsi_fast import ops
from mrsi_fast.testing.shapes import MapShape, model_maps
from mrsi_fast.testing.timing import interleave

LABELS = {"forward": ("ours", "ours-out", "eager", "eager-again"), "training": ("ours", "eager", "eager-again")}
SHAPES = {shape.name: shape for shape in model_maps(batch=8)}


def forward_peers(shape: MapShape) -> dict:
    x = torch.randn(shape.size).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(2, shape.channels)
    out = torch.empty_like(x)
    arguments = (x, weight, bias, shape.groups, None, None, 1e-5)

    def eager() -> torch.Tensor:
        return F.silu(F.group_norm(x, shape.groups, weight, bias))

    torch.testing.assert_close(ops.group_norm_silu(*arguments), eager(), rtol=1e-4, atol=1e-5)
    return {
        "ours": lambda: ops.group_norm_silu(*arguments),
        "ours-out": lambda: torch.ops.mrsi_fast.group_norm_silu_out(*arguments, out),
        "eager": eager,
        "eager-again": eager,  # the control: the same function under another label must give a ratio of 1
    }


def training_peers(shape: MapShape) -> dict:
    x = torch.randn(shape.size).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, bias = (v.requires_grad_() for v in torch.randn(2, shape.channels))
    grad = torch.randn_like(x)

    def step(function) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(function(), (x, weight, bias), grad)

    ours = functools.partial(step, lambda: ops.group_norm_silu(x, weight, bias, shape.groups))
    eager = functools.partial(step, lambda: F.silu(F.group_norm(x, shape.groups, weight, bias)))
    for mine, theirs in zip(ours(), eager(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)
    return {"ours": ours, "eager": eager, "eager-again": eager}


@functools.cache
def timings(kind: str, name: str) -> dict[str, list[float]]:
    peers = {"forward": forward_peers, "training": training_peers}[kind]
    with torch.inference_mode(kind == "forward"):
        return interleave(peers(SHAPES[name]))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("kind", "label"), [(kind, label) for kind, labels in LABELS.items() for label in labels])
def bench_group_norm_silu(report, kind, label, name):
    shape = SHAPES[name]
    x = torch.empty(shape.size).contiguous(memory_format=torch.channels_last)
    weight = torch.empty(shape.channels)
    backend = ops.explain("group_norm_silu", x, weight, weight, shape.groups, None, None, 1e-5).backend
    # Least traffic: forward reads x once and writes y; the step also reads x and grad, and writes grad_x.
    moved = 4 * x.numel() * (2 if kind == "forward" else 5)
    seconds = timings(kind, name)
    rate = moved / sorted(seconds[label])[len(seconds[label]) // 2] / 1e9
    facts = {"backend": backend if label.startswith("ours") else "torch", "least_traffic_gb_per_s": round(rate, 2)}
    report(label, seconds, "eager", **facts)
