"""What is compared with what: one case is the same work done by several peers, checked, then timed together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from gpu.target import Peer, Target
from harness.records import COPY, COPY_FLOATS, GEMM_SIZE, SGEMM, SGEMM_AGAIN
from harness.timing import interleave

OWN = ("cuda", "triton", "reference")
"""Labels of what the dispatch can choose between."""
CACHE_BYTES = 256 << 20
"""Inputs of a kernel are taken from so much memory in turn: more than any L2 holds."""
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 8e-2}
"""Allowed difference of two peers, of the largest value; the numbers proper are the business of tests/gpu."""


@dataclass(frozen=True)
class Case:
    """The same work for several peers.

    Attributes:
        name: Operation and shape.
        dtype: Of the inputs.
        peers: Label -> builder; a builder gets the target and the number of input sets.
        than: Label that the others are compared with.
        flops: Of one call, 2 per multiply-add.
        bytes: Least traffic of one call.
        op: Operation whose choice this case decides, "" for none.
        backward: Whether it is the backward form.
        elements: Size of the operation's first input.
        kernel: A kernel, timed in a graph on inputs out of cache; else a call as the user makes it.
    """

    name: str
    dtype: torch.dtype
    peers: dict[str, Callable[[Target, int], Peer]]
    than: str
    flops: float
    bytes: float
    op: str = ""
    backward: bool = False
    elements: int = 0
    kernel: bool = True


@dataclass
class Timed:
    """What a case gave: seconds of one call per round by label, those of the ceilings, and why a peer is missing."""

    case: Case
    seconds: dict[str, list[float]] = field(default_factory=dict)
    anchors: dict[str, list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def matmul(dtype: torch.dtype) -> str:
    """Name of the matrix-product ceiling of a type."""
    return f"matmul-{str(dtype).removeprefix('torch.')}"


def matmul_size(target: Target) -> int:
    """Rows and columns of the matrices of that ceiling: large enough to fill a GPU."""
    return 64 if target.dry else 8192


def ceilings(target: Target, dtype: torch.dtype) -> dict[str, Callable[[], None]]:
    """The copy and the matrix products that rows are shares of, one of them twice as the control."""
    floats = COPY_FLOATS // (1 << 12) if target.dry else COPY_FLOATS
    size = 64 if target.dry else GEMM_SIZE
    source = torch.randn(floats, device=target.device)
    copy = torch.empty_like(source)
    small = torch.randn(size, size, device=target.device)
    large = torch.randn(matmul_size(target), matmul_size(target), device=target.device, dtype=dtype)
    products = {name: target.queued(lambda index: small @ small, 8) for name in (SGEMM, SGEMM_AGAIN)}
    return {
        COPY: target.queued(lambda index: copy.copy_(source), 8),
        **products,
        matmul(dtype): target.queued(lambda index: large @ large, 1),
    }


CALLS = {COPY: 8, SGEMM: 8, SGEMM_AGAIN: 8}
"""Calls in one run of a ceiling; 1 for the others."""


def hold(target: Target, case: Case, rounds: int | None) -> Timed:
    """Builds the peers of a case, compares their results and times them and the ceilings in shuffled turns."""
    timed, functions = Timed(case), {}
    sets = 1 if target.dry or not case.kernel else max(1, min(64, round(CACHE_BYTES / max(case.bytes, 1))))
    wanted: torch.Tensor | None = None
    for label in sorted(case.peers, key=lambda label: label != case.than):  # what the others have to equal comes first
        try:
            peer = case.peers[label](target, sets)
            result = peer(0).float().cpu()
            wanted = result if wanted is None else wanted
            difference, largest = ((one.abs().max().item()) for one in (result - wanted, wanted))
            if not difference <= TOLERANCE[case.dtype] * largest:
                raise ValueError(f"its result differs by {difference:.3g} of {largest:.3g}; its time means nothing")
            functions[label] = target.queued(peer, sets) if case.kernel else target.called(peer)
        except Exception as error:  # of any library: the row says why it is not there
            timed.missing[label] = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
    seconds = interleave({**functions, **ceilings(target, case.dtype)}, rounds, at_least_s=2e-3)
    for label, values in seconds.items():
        if label in functions:
            timed.seconds[label] = [value / (sets if case.kernel else 1) for value in values]
        else:
            timed.anchors[label] = [value / CALLS.get(label, 1) for value in values]
    return timed
