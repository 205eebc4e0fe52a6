"""``self_attention``: attention over the positions of a map, from the packed projection, forward and backward."""

from __future__ import annotations

import torch
from torch import Tensor

from mrsi_fast.ops import _cuda, _native
from mrsi_fast.ops._dispatch import Implementation
from mrsi_fast.ops._register import Operation, register
from mrsi_fast.ops.reference import self_attention as reference

HEAD_SIZES = (32, 64)
"""Channels of a head that the kernels are compiled for."""


def self_attention(
    qkv: Tensor,  # [B, T, 3, H, D]
    scale: float | None = None,
) -> Tensor:
    """``softmax(scale q k') v`` for each head (Vaswani et al. 2017, equation 1).

    Args:
        qkv: [B, T, 3, H, D] queries, keys and values of T positions and H heads, as a 1x1 convolution on a
            channels-last map lays them out. Kernels take float32 (CPU), float16 and bfloat16 (Triton), contiguous.
        scale: Factor of the scores; 1/sqrt(D) by default.

    Returns:
        [B, T, H, D], contiguous, in the dtype of qkv.

    Raises:
        ValueError: qkv has another shape, or is not floating point.

    Differentiable once, in qkv.
    """
    if scale is None:
        scale = qkv.shape[-1] ** -0.5 if qkv.dim() == 5 and qkv.shape[-1] else 1.0
    return torch.ops.mrsi_fast.self_attention.default(qkv, scale)


def _check(qkv: Tensor, scale: float) -> None:
    """Raises ValueError where qkv has another shape, or is not floating point."""
    if qkv.dim() != 5 or qkv.shape[2] != 3 or not qkv.is_floating_point():
        raise ValueError(f"qkv must be floating point with shape [B, T, 3, H, D], got {qkv.dtype} {tuple(qkv.shape)}.")


def _allocate(qkv: Tensor, scale: float, device: str | None = None) -> Tensor:
    batch, tokens, _, heads, head_size = qkv.shape
    return qkv.new_empty(batch, tokens, heads, head_size, device=device or qkv.device)


# ---- C++ on the CPU --------------------------------------------------------------------------------------------------


def _refuse_native(qkv: Tensor, scale: float) -> str | None:
    if qkv.dtype != torch.float32:
        return f"the CPU kernel takes float32, got {qkv.dtype}"
    if not qkv.is_contiguous():
        return f"qkv is not contiguous (strides {qkv.stride()})"
    return None


def _native_out(qkv: Tensor, scale: float, out: Tensor) -> None:
    if out.numel() > 0:
        batch, tokens, _, heads, head_size = qkv.shape
        request = _native.struct(
            "Attention",
            qkv=qkv.data_ptr(),
            out=out.data_ptr(),
            batch=batch,
            tokens=tokens,
            heads=heads,
            head_channels=head_size,
            scale=scale,
        )
        _native.module().self_attention(request, torch.get_num_threads())


# ---- Triton ----------------------------------------------------------------------------------------------------------


def _refuse_triton(qkv: Tensor, scale: float) -> str | None:
    if qkv.dtype not in (torch.float16, torch.bfloat16):
        return f"the kernels take float16 and bfloat16, got {qkv.dtype}; float32 stays IEEE float32 in the reference"
    if qkv.shape[-1] not in HEAD_SIZES:
        return f"the kernels take heads of {HEAD_SIZES} channels, got {qkv.shape[-1]}"
    if not qkv.is_contiguous():
        return f"qkv is not contiguous (strides {qkv.stride()})"
    return _cuda.misaligned(qkv=qkv)


def _triton_out(qkv: Tensor, scale: float, out: Tensor) -> None:
    from mrsi_fast.kernels import self_attention as kernels
    from mrsi_fast.kernels.configs import configuration

    config = configuration("self_attention", _cuda.architecture(qkv.device), qkv.shape[1])
    with torch.cuda.device(qkv.device):
        kernels.forward(qkv, scale, out, config)


def _triton_backward(grad: Tensor, qkv: Tensor, scale: float) -> tuple[Tensor]:
    from mrsi_fast.kernels import self_attention as kernels
    from mrsi_fast.kernels.configs import configuration

    config = configuration("self_attention_backward", _cuda.architecture(qkv.device), qkv.shape[1])
    with torch.cuda.device(qkv.device):
        return (kernels.backward(grad.to(qkv.dtype).contiguous(), qkv, scale, config),)


register(
    Operation(
        name="self_attention",
        reference=reference.self_attention,
        reference_backward=reference.self_attention_backward,
        allocate=_allocate,
        check=_check,
        differentiable=(0,),
        preference=_cuda.preference("self_attention"),
        implementations=(
            Implementation(
                backend="native",
                lacks=lambda: _native.lacks("self_attention"),
                refuse=_refuse_native,
                out=_native_out,
            ),
            Implementation(
                backend="triton",
                lacks=_cuda.triton_lacks,
                refuse=_refuse_triton,
                out=_triton_out,
                backward=_triton_backward,
            ),
        ),
    )
)
