"""Where the native engine's time goes: ``python -m harness times [batch] [size] [engine]``.

A table for 1 and one for 2 threads (docs/cpu_engine.md). Operations of one kind (grid, channels, kernel) share a row.
Times are medians over several evaluations; R is the better of PyTorch's and our own matrix product in the same process.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from harness.ceilings import own_gemm
from mrsi_fast.engine.native import NativePlan
from mrsi_fast.engine.plan import ConvOp, Operation
from mrsi_fast.engine.profile import profile
from mrsi_fast.models.pretrained import load_pretrained

EVALUATIONS = 15
WINOGRAD_SHARE = 0.85 * 4
"""Of R, in the model: Winograd F(4x4,3x3) multiplies a quarter as often, and its transforms take what they take."""
GEMM_SIZE = 1024


@dataclass
class Kind:
    """Operations that do the same: how many, their time, FLOPs of the direct method, bytes and least time at R."""

    count: int = 0
    seconds: float = 0.0
    gflops: float = 0.0
    megabytes: float = 0.0
    model: float = 0.0


def is_winograd_case(operation: Operation) -> bool:
    """Whether an operation is a convolution that Winograd can compute: 3x3 with stride 1."""
    return isinstance(operation, ConvOp) and operation.conv.kernel_size == (3, 3) and operation.conv.stride == (1, 1)


def describe(operation: Operation, method: str) -> str:
    """What a row calls an operation."""
    if not isinstance(operation, ConvOp):
        return f"attention, {operation.out.height * operation.out.width} tokens, {operation.heads} heads"
    (height, width), kernel = operation.grid, operation.conv.kernel_size[0]
    stride = f" stride {operation.conv.stride[0]}" if operation.conv.stride[0] > 1 else ""
    channels = "+".join(str(source.value.channels) for source in operation.sources)
    return f"{kernel}x{kernel}{stride} {channels} -> {operation.out.channels}, {height}x{width}, {method}"


def best_product(threads: int) -> float:
    """R in GFLOP/s."""
    square = torch.randn(GEMM_SIZE, GEMM_SIZE)
    ours, rate = own_gemm(threads), 0.0
    for function in (lambda: square @ square, *([ours[0]] if ours else [])):
        for _ in range(EVALUATIONS):
            started = time.perf_counter()
            function()
            rate = max(rate, 2e-9 * GEMM_SIZE**3 / (time.perf_counter() - started))
    return rate


def measure(batch: int, size: int, threads: int, pairs: bool = False) -> tuple[dict[str, Kind], float]:
    """Kinds of operation in the order of the plan, and R in GFLOP/s."""
    plan = NativePlan(load_pretrained().network, batch, (size, size), threads, pairs=pairs)
    film = torch.zeros(batch, plan.film.width)
    plan.native.evaluate(film.data_ptr())
    plan.native.take_seconds()
    rows = [list(profile(plan, 1)) for _ in range(EVALUATIONS) if plan.native.evaluate(film.data_ptr()) is None]
    rate = best_product(threads)
    kinds: dict[str, Kind] = {}
    for operation, times in zip(plan.plan.operations, zip(*rows, strict=True), strict=True):
        kind = kinds.setdefault(describe(operation, times[0].method), Kind())
        kind.count += 1
        kind.seconds += statistics.median(one.seconds for one in times)
        kind.gflops += times[0].gflops
        kind.megabytes += times[0].megabytes
        kind.model += times[0].gflops / rate / (WINOGRAD_SHARE if is_winograd_case(operation) else 1.0)
    return kinds, rate


def lines(batch: int, size: int, threads: int, pairs: bool = False) -> Iterator[str]:
    """The table as Markdown."""
    torch.set_num_threads(threads)
    kinds, rate = measure(batch, size, threads, pairs)
    total = Kind(*(sum(values) for values in zip(*(vars(kind).values() for kind in kinds.values()), strict=True)))
    yield (
        f"Batch {batch}, {size}x{size}, {threads} thread{'s' * (threads > 1)}, R = {rate:.0f} GFLOP/s: "
        f"{total.seconds * 1e3:.1f} ms,\n"
        f"{total.seconds / total.model:.2f} of the model F(stride-1 3x3)/(0.85 x 4R) + F(rest)/R.\n"
    )
    yield "| operations | count | ms | share | GFLOP | MB | of R | over the model (ms) |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, kind in sorted([*kinds.items(), ("all", total)], key=lambda item: -item[1].seconds):
        shares = f"{kind.seconds / total.seconds:.1%} | {kind.gflops:.2f} | {kind.megabytes:.1f}"
        over = f"{kind.gflops / kind.seconds / rate:.2f} | {(kind.seconds - kind.model) * 1e3:.2f}"
        yield f"| {name} | {kind.count} | {kind.seconds * 1e3:.2f} | {shares} | {over} |"
