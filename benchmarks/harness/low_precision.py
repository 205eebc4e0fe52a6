"""Peers that multiply with fewer bits than float32, each told with its error: what ``native-amx`` is compared with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from harness.onnx_peers import openvino
from harness.peers import Missing, PlainEvaluation, Runner, UNetCase, native_engine, plain_operations

BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16")
"""Names in /proc/cpuinfo of what multiplies bfloat16; oneDNN takes its own slow path without them."""


def bfloat16_obstacle() -> str | None:
    """Why this processor does not multiply bfloat16, as a clause, or None."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return "whether this processor multiplies bfloat16 cannot be found out"
    if any(flag in flags for flag in BFLOAT16_FLAGS):
        return None
    return f"this processor multiplies no bfloat16 (it has none of {', '.join(BFLOAT16_FLAGS)})"


def _needs_bfloat16() -> None:
    if (obstacle := bfloat16_obstacle()) is not None:
        raise Missing(obstacle)


def autocast(case: UNetCase, threads: int) -> Runner:
    """PyTorch, channels-last, under ``torch.autocast`` to bfloat16."""
    _needs_bfloat16()
    module, inputs = PlainEvaluation(case, torch.channels_last).eval(), case.inputs

    def run() -> Tensor:
        with torch.inference_mode(), plain_operations(), torch.autocast("cpu", dtype=torch.bfloat16):
            return module(*inputs).float()

    return run


@contextmanager
def _convolutions_in(precision: str) -> Iterator[None]:
    settings = getattr(torch.backends.mkldnn, "conv")  # noqa: B009 - unknown to type checkers
    before = settings.fp32_precision
    settings.fp32_precision = precision
    try:
        yield
    finally:
        settings.fp32_precision = before


def mkldnn(case: UNetCase, threads: int, precision: str) -> Runner:
    """PyTorch, channels-last, with ``torch.backends.mkldnn.conv.fp32_precision`` set: "bf16" or "tf32"."""
    if not hasattr(getattr(torch.backends.mkldnn, "conv", None), "fp32_precision"):
        raise Missing("this PyTorch has no torch.backends.mkldnn.conv.fp32_precision")
    _needs_bfloat16()
    module, inputs = PlainEvaluation(case, torch.channels_last).eval(), case.inputs

    def run() -> Tensor:
        with torch.inference_mode(), plain_operations(), _convolutions_in(precision):
            return module(*inputs)

    return run


LOW_PRECISION: dict[str, Callable[[UNetCase, int], Runner]] = {
    "native": native_engine,
    "native-amx": functools.partial(native_engine, pairs=True),
    "openvino-bf16": functools.partial(openvino, precision="bf16"),
    "autocast-bf16": autocast,
    "mkldnn-bf16": functools.partial(mkldnn, precision="bf16"),
    "mkldnn-tf32": functools.partial(mkldnn, precision="tf32"),
}
"""Peers by the label of their rows."""


def exact(case: UNetCase) -> Tensor:
    """The evaluation in float64."""
    double = UNetCase(
        case.network, case.diffusion, case.x.double(), case.sigma.double(), case.cond.map(lambda one: one.double())
    )
    module = PlainEvaluation(double, torch.contiguous_format).double().eval()
    with torch.inference_mode(), plain_operations():
        return module(*double.inputs)


def error_of(found: Tensor, truth: Tensor) -> float:
    """Largest difference over the largest value of the same channel (map), the largest over channels."""
    difference, size = (one.double().abs().amax(dim=(0, 2, 3)) for one in (found - truth, truth))
    return float((difference / size).max())
