"""The network's 3x3 convolutions of stride 1, with GroupNorm-SiLU in front and alone, for batches of 8 and 1.

``share_of_gemm`` counts the operations of the direct method, so Winograd can pass 1. The cases "all" add up
what one evaluation has.
"""

from __future__ import annotations

import functools

import pytest

from harness.contest import Entry
from harness.convolutions import ALONE, FUSED, ConvInputs, ConvShape, model_convolutions

THREADS = (1, 2)
BATCHES = (8, 1)
PEERS = {"onednn": "oneDNN", "ncnn": "ncnn", "mnn": "MNN", "eager": "PyTorch"}
SHAPES = {shape.name: shape for batch in BATCHES for shape in model_convolutions(batch)}


def entry(kind: str, label: str, shape: ConvShape, threads: int) -> Entry:
    peers = {"fused": FUSED, "alone": ALONE}[kind]
    return Entry(
        label,
        lambda: peers[label](ConvInputs.of(shape), threads),
        shape.name,
        shape.flops,
        shape.bytes,
        PEERS.get(label, label),
        ours=label not in PEERS,
    )


def entries(kind: str, threads: int) -> list[Entry]:
    peers = {"fused": FUSED, "alone": ALONE}[kind]
    shapes = [shape for shape in SHAPES.values() if shape.fused or kind == "alone"]
    return [entry(kind, label, shape, threads) for shape in shapes for label in peers]


def sums(kind: str) -> dict[str, dict[str, int]]:
    return {
        f"b{batch}-all": {one.name: one.count for one in model_convolutions(batch) if one.fused or kind == "alone"}
        for batch in BATCHES
    }


ALL = tuple(sums("alone"))


@pytest.mark.parametrize("threads", THREADS, ids="t{}".format)
@pytest.mark.parametrize("case", [*ALL, *(name for name, shape in SHAPES.items() if shape.fused)])
@pytest.mark.parametrize("label", FUSED)
def bench_conv3x3_gn_silu(row, contest, label, case, threads):
    build = functools.partial(entries, "fused")
    row(contest("conv3x3_gn_silu", threads, build, budget_s=8.0, sums=sums("fused")), label, case)


@pytest.mark.parametrize("threads", THREADS, ids="t{}".format)
@pytest.mark.parametrize("case", [*ALL, *SHAPES])
@pytest.mark.parametrize("label", ALONE)
def bench_conv3x3(row, contest, label, case, threads):
    build = functools.partial(entries, "alone")
    held = contest("conv3x3", threads, build, than="onednn", budget_s=16.0, sums=sums("alone"))
    row(held, label, case, than="onednn")
