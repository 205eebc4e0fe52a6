"""``group_norm_silu``: GroupNorm, scale-shift and SiLU as one operation, forward and backward."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mrsi_fast.ops import _cuda, _native
from mrsi_fast.ops._dispatch import Implementation
from mrsi_fast.ops._register import Operation, floating_point, register, same_device
from mrsi_fast.ops.reference import group_norm_silu as reference
from mrsi_fast.ops.reference.layout import memory_format_of


def group_norm_silu(
    x: Tensor,  # [B, C, *spatial]
    weight: Tensor,  # [C]
    bias: Tensor,  # [C]
    num_groups: int,
    scale: Tensor | None = None,  # [B, C]
    shift: Tensor | None = None,  # [B, C]
    eps: float = 1e-5,
) -> Tensor:
    """``silu(group_norm(x) * (1 + scale) + shift)`` (Wu & He 2018; scale-shift as in Dhariwal & Nichol 2021).

    Args:
        x: [B, C, *spatial], floating point. Kernels take float32 (CPU) that is contiguous or channels-last.
        weight: [C] gain of the normalisation.
        bias: [C] offset of the normalisation.
        num_groups: Number of channel groups; divides C.
        scale: [B, C] modulation of the normalised value, or None.
        shift: [B, C] offset after the modulation, or None.
        eps: Added to the variance of a group.

    Returns:
        A tensor of the shape and dtype of x, channels-last where x is, contiguous otherwise.

    Raises:
        ValueError: A shape or the number of groups does not fit x.

    Differentiable once, in x, weight, bias, scale and shift.

    A plan calls ``torch.ops.mrsi_fast.group_norm_silu_out``, which also takes ``conv_bias`` [C] and ``embedding``
    [B, C] by keyword: they are added to x before the normalisation, so that the convolution before it need not.
    """
    return torch.ops.mrsi_fast.group_norm_silu.default(x, weight, bias, num_groups, scale, shift, eps)


def check_inputs(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    num_groups: int,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float = 1e-5,
    *,
    conv_bias: Tensor | None = None,
    embedding: Tensor | None = None,
) -> None:
    """Raises ValueError where a shape, a device or the number of groups does not fit x."""
    same_device(x=x, weight=weight, bias=bias, scale=scale, shift=shift, conv_bias=conv_bias, embedding=embedding)
    if x.dim() < 2 or not x.is_floating_point():
        raise ValueError(f"x must be floating point with shape [B, C, *spatial], got {x.dtype} {tuple(x.shape)}.")
    batch, channels = x.shape[:2]
    if num_groups < 1 or channels % num_groups:
        raise ValueError(f"num_groups must divide the {channels} channels of x, got {num_groups}.")
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps must be a number of at least 0, got {eps}.")
    floating_point(weight=weight, bias=bias, scale=scale, shift=shift, conv_bias=conv_bias, embedding=embedding)
    for name, v in (("weight", weight), ("bias", bias), ("conv_bias", conv_bias)):
        if v is not None and v.shape != (channels,):
            raise ValueError(f"{name} must have shape [C] = [{channels}], got {list(v.shape)}.")
    for name, film in (("scale", scale), ("shift", shift), ("embedding", embedding)):
        if film is not None and film.shape != (batch, channels):
            raise ValueError(f"{name} must have shape [B, C] = [{batch}, {channels}], got {list(film.shape)}.")


def _allocate(x: Tensor, *others: Any, device: str | None = None) -> Tensor:
    return torch.empty_like(x, memory_format=memory_format_of(x), device=device)


# ---- C++ on the CPU --------------------------------------------------------------------------------------------------


def _refuse(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    num_groups: int,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
    conv_bias: Tensor | None = None,
    embedding: Tensor | None = None,
) -> str | None:
    if conv_bias is not None or embedding is not None:
        return "the CPU kernel adds no conv_bias and no embedding: the native engine's convolutions do"
    for one in (x, weight, bias, scale, shift):
        if one is not None and one.dtype != torch.float32:
            return f"the CPU kernel takes float32, got {one.dtype}"
    if not x.is_contiguous() and memory_format_of(x) == torch.contiguous_format:
        return f"x is neither contiguous nor channels-last (shape {tuple(x.shape)}, strides {x.stride()})"
    return None


def _request(inputs: tuple[Any, ...], channels_last: bool) -> tuple[Any, list[Tensor | None]]:
    """Arguments of the kernels, and the tensors that must outlive them."""
    x, weight, bias, num_groups, scale, shift, eps, *_ = inputs
    # Rows of a chunked embedding are strided; copying [B, C] is cheaper than strides in the kernel.
    kept = [None if one is None else one.contiguous() for one in (weight, bias, scale, shift)]
    batch, channels = x.shape[:2]
    request = _native.struct(
        "GroupNormSilu",
        x=x.data_ptr(),
        **{name: _native.address(one) for name, one in zip(VECTORS, kept, strict=True)},
        batch=batch,
        channels=channels,
        spatial=x.numel() // (batch * channels),
        groups=num_groups,
        channels_last=channels_last,
        eps=eps,
        threads=torch.get_num_threads(),
    )
    return request, kept


VECTORS = ("weight", "bias", "scale", "shift")


def _native_out(*arguments: Any) -> None:
    *inputs, out = arguments
    if out.numel():
        request, _kept = _request(tuple(inputs), not out.is_contiguous())
        _native.module().group_norm_silu(request, out.data_ptr())


def _native_backward(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    x, weight, bias, _, scale, shift, _ = inputs
    if x.numel() == 0:
        return reference.group_norm_silu_backward(grad, *inputs)
    grad = grad.to(x.dtype).contiguous(memory_format=memory_format_of(x))
    gradients = [_allocate(x)]
    for one in (weight, bias, scale, shift):
        gradients.append(x.new_empty(0) if one is None else one.new_empty(one.shape))
    request, _kept = _request(inputs, not gradients[0].is_contiguous())
    addresses = {name: one.data_ptr() for name, one in zip(("x", *VECTORS), gradients, strict=True)}
    _native.module().group_norm_silu_backward(
        request, _native.struct("GroupNormSiluGradients", out=grad.data_ptr(), **addresses)
    )
    return tuple(gradients)


# ---- CUDA C++ and Triton ---------------------------------------------------------------------------------------------


def _rows(x: Tensor) -> Tensor | None:
    """The map as [B, positions, C] without a copy, or None where channels are not last in memory."""
    last = x.movedim(1, -1)
    return last.reshape(x.shape[0], x.shape[2:].numel(), x.shape[1]) if last.is_contiguous() else None


def _refuse_triton(x: Tensor, *others: Any) -> str | None:
    if x.dtype not in _cuda.DTYPE_CODES:
        return f"the kernel takes float32, float16 and bfloat16, got {x.dtype}"
    if _rows(x) is None:
        return f"x is not channels-last (shape {tuple(x.shape)}, strides {x.stride()})"
    return None


def _refuse_cuda(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    num_groups: int,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
    conv_bias: Tensor | None = None,
    embedding: Tensor | None = None,
) -> str | None:
    reason = _refuse_triton(x)
    if reason:
        return reason
    tensors = {"weight": weight, "bias": bias, "scale": scale, "shift": shift}
    tensors |= {"conv_bias": conv_bias, "embedding": embedding}
    for name, one in tensors.items():
        if one is not None and one.dtype != x.dtype:
            return f"{name} is {one.dtype} and x is {x.dtype}; cast the weights once"
    if _cuda_workspace(x, num_groups) < 0:
        return f"the kernel does not take {x.shape[1]} channels in {num_groups} groups of this size"
    return _cuda.misaligned(x=x, **tensors)


def _cuda_request(x: Tensor, num_groups: int) -> Any:
    """The structure of a call with its type and sizes, which decide how it runs."""
    batch, channels = x.shape[:2]
    pixels = x[0, 0].numel() if batch else 0
    sizes = {"samples": batch, "channels": channels, "pixels": pixels, "groups": num_groups}
    return _native.struct("CudaGroupNormSilu", dtype=_cuda.DTYPE_CODES[x.dtype], **sizes)


def _cuda_workspace(x: Tensor, num_groups: int) -> int:
    return _native.module().cuda_group_norm_silu_workspace(_cuda_request(x, num_groups))


def _cuda_out(*arguments: Any) -> None:
    x, weight, bias, num_groups, scale, shift, eps, *folded, out = arguments
    if x.numel() == 0:
        return
    conv_bias, embedding = folded or (None, None)  # the plain form has none
    vectors = {"weight": weight, "bias": bias, "scale": scale, "shift": shift}
    vectors |= {"conv_bias": conv_bias, "embedding": embedding}
    dense = {name: one.contiguous() for name, one in vectors.items() if one is not None}
    request = _cuda_request(x, num_groups)
    scratch = _cuda.workspace(_native.module().cuda_group_norm_silu_workspace(request), x.device)
    request.eps = eps
    for name, one in (dense | {"x": x, "y": out, "workspace": scratch}).items():
        setattr(request, name, one.data_ptr())
    with _cuda.launching(x.device) as stream:
        _native.module().cuda_group_norm_silu(request, stream)


def _triton_inputs(inputs: tuple[Any, ...]) -> list[Any]:
    """The inputs with x as [B, positions, C] and everything else dense."""
    x, *others = inputs
    return [_rows(x), *(one.contiguous() if isinstance(one, Tensor) else one for one in others)]


def _triton_out(*arguments: Any) -> None:
    from mrsi_fast.kernels import group_norm_silu as kernels
    from mrsi_fast.kernels.configs import configuration

    *inputs, out = arguments
    prepared = _triton_inputs(tuple(inputs))
    prepared += [None] * (9 - len(prepared))  # the plain form has no conv_bias and no embedding
    prepared += [_rows(out), configuration("group_norm_silu", _cuda.architecture(out.device), prepared[0].shape[1])]
    with torch.cuda.device(out.device):
        kernels.forward(*prepared)


def _triton_backward(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    from mrsi_fast.kernels import group_norm_silu as kernels
    from mrsi_fast.kernels.configs import configuration

    x = inputs[0]
    if x.numel() == 0:
        return reference.group_norm_silu_backward(grad, *inputs)
    prepared = _triton_inputs(inputs)
    rows = prepared[0]
    grad_rows = grad.movedim(1, -1).contiguous().reshape(rows.shape)
    prepared += [configuration("group_norm_silu_backward", _cuda.architecture(x.device), rows.shape[1])]
    with torch.cuda.device(x.device):
        grad_x, *rest = kernels.backward(grad_rows, *prepared)
    spatial = grad_x.reshape(x.shape[0], *x.shape[2:], x.shape[1])
    return spatial.movedim(-1, 1).contiguous(memory_format=memory_format_of(x)), *rest


register(
    Operation(
        name="group_norm_silu",
        reference=reference.group_norm_silu,
        reference_backward=reference.group_norm_silu_backward,
        allocate=_allocate,
        check=check_inputs,
        differentiable=(0, 1, 2, 4, 5),
        folded=("conv_bias", "embedding"),
        preference=_cuda.preference("group_norm_silu"),
        implementations=(
            Implementation(
                backend="native",
                lacks=lambda: _native.lacks("group_norm_silu"),
                refuse=_refuse,
                out=_native_out,
                backward=_native_backward,
            ),
            Implementation(
                backend="cuda",
                lacks=lambda: _native.lacks("cuda_group_norm_silu"),
                refuse=_refuse_cuda,
                out=_cuda_out,
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
