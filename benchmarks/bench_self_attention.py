"""Self-attention at the shapes of the network, batch 8: the plan's kernel, our operation and PyTorch's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from harness.contest import Entry
from harness.plan_parts import OneAttention
from mrsi_fast import ops

THREADS = (1, 2)
SHAPES = {"16x16-5x32": (8, 256, 3, 5, 32), "8x8-8x32": (8, 64, 3, 8, 32)}  # [B, T, 3, heads, channels of a head]


def native(qkv: torch.Tensor, threads: int) -> Callable[[], torch.Tensor]:
    return OneAttention(qkv, threads)


def ours(qkv: torch.Tensor, threads: int) -> Callable[[], torch.Tensor]:
    run = torch.inference_mode()(lambda: ops.self_attention(qkv))
    run.backend = ops.explain("self_attention", qkv, qkv.shape[-1] ** -0.5).backend
    return run


def eager(qkv: torch.Tensor, threads: int) -> Callable[[], torch.Tensor]:
    @torch.inference_mode()
    def run() -> torch.Tensor:
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).contiguous()

    return run


PEERS = {"native": native, "ours": ours, "eager": eager}


def entries(threads: int) -> list[Entry]:
    rows = []
    for case, (batch, tokens, _, heads, head) in SHAPES.items():
        qkv = torch.randn(SHAPES[case], generator=torch.Generator().manual_seed(0))
        flops, moved = 4 * batch * heads * tokens**2 * head, 4 * 4 * batch * tokens * heads * head
        for label, build in PEERS.items():
            make = lambda build=build, qkv=qkv: build(qkv, threads)  # noqa: E731
            backend = {"native": "native", "ours": "ours", "eager": "PyTorch"}[label]
            rows.append(Entry(label, make, case, flops, moved, backend, ours=label != "eager"))
    return rows


@pytest.mark.parametrize("threads", THREADS, ids="t{}".format)
@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("label", PEERS)
def bench_self_attention(row, contest, label, case, threads):
    row(contest("self_attention", threads, entries, budget_s=4.0), label, case)
