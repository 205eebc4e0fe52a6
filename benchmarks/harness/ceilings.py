"""What the machine can do at best, measured beside every benchmark: matrix products and copying."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
import torch

from harness.records import COPY, COPY_FLOATS, GEMM_SIZE, OWN_GEMM, SGEMM, SGEMM_AGAIN
from mrsi_fast.ops import _native


def own_gemm(threads: int, size: int = GEMM_SIZE) -> tuple[Callable[[], object], torch.Tensor, torch.Tensor] | None:
    """A matrix product by the micro-kernel under all our convolutions: a 1x1 convolution of ``size`` pixels.

    Returns:
        The function, its right operand [size, size] and its result (pixels x channels, a view of the plan's arena whose
        left operand is random); None without the extension.
    """
    if _native.lacks("Plan") is not None:
        return None
    weight = torch.randn(size, size)  # [channels out, channels in]
    width = 32
    plan = _native.module().Plan(2 * size * size, 0, threads)
    source = _native.struct("SourceSpec", data=0, channels=size)
    image = {"batch": 1, "height": size // width, "width": width}
    product = {"kernel": 1, "out_channels": size, "weight": weight.data_ptr(), "out": size * size}
    plan.add_conv(_native.struct("ConvSpec", sources=[source], **image, **product))
    arena = torch.from_numpy(np.ctypeslib.as_array((ctypes.c_float * (2 * size * size)).from_address(plan.arena)))
    arena[: size * size].normal_()
    left, result = arena[: size * size].view(size, size), arena[size * size :].view(size, size)

    def run(keep: object = plan) -> torch.Tensor:
        plan.evaluate(0)
        return result

    return run, left @ weight.T, result


def ceilings(threads: int) -> dict[str, Callable[[], object]]:
    """The anchors of a round: PyTorch's matrix product twice, ours where there is an extension, and a copy.

    The second product is the control of every contest: one function under two labels.

    Args:
        threads: Those of PyTorch, which are set already; our product takes as many.
    """
    a, b = torch.randn(2, GEMM_SIZE, GEMM_SIZE)
    out = torch.empty(GEMM_SIZE, GEMM_SIZE)
    source, target = torch.ones(COPY_FLOATS), torch.empty(COPY_FLOATS)

    def product() -> torch.Tensor:
        return torch.mm(a, b, out=out)

    anchors: dict[str, Callable[[], object]] = {
        SGEMM: product,
        SGEMM_AGAIN: product,
        COPY: lambda: target.copy_(source),
    }
    ours = own_gemm(threads)
    if ours is not None:
        anchors[OWN_GEMM] = ours[0]
    return anchors
