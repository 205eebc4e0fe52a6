"""``group_norm_silu``: GroupNorm, scale-shift and SiLU as one operation, forward and backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mrsi_fast.ops import _native
from mrsi_fast.ops._dispatch import Implementation
from mrsi_fast.ops._register import Operation, register
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
    """
    _check(x, weight, bias, num_groups, scale, shift)
    return torch.ops.mrsi_fast.group_norm_silu.default(x, weight, bias, num_groups, scale, shift, eps)


def _check(x: Tensor, weight: Tensor, bias: Tensor, num_groups: int, scale: Tensor | None, shift: Tensor | None) -> None:
    if x.dim() < 2 or not x.is_floating_point():
        raise ValueError(f"x must be floating point with shape [B, C, *spatial], got {x.dtype} {tuple(x.shape)}.")
    batch, channels = x.shape[:2]
    if num_groups < 1 or channels % num_groups:
        raise ValueError(f"num_groups must divide the {channels} channels of x, got {num_groups}.")
    for name, v in (("weight", weight), ("bias", bias)):
        if v.shape != (channels,):
            raise ValueError(f"{name} must have shape [C] = [{channels}], got {list(v.shape)}.")
    for name, film in (("scale", scale), ("shift", shift)):
        if film is not None and film.shape != (batch, channels):
            raise ValueError(f"{name} must have shape [B, C] = [{batch}, {channels}], got {list(film.shape)}.")


def _allocate(x: Tensor, *others: Any, device: str | None = None) -> Tensor:
    return torch.empty_like(x, memory_format=memory_format_of(x), device=device)


# ---- C++ on the CPU ----------------------------------------------------------------------------------------------------


def _refuse(x: Tensor, weight: Tensor, bias: Tensor, num_groups: int, *others: Any) -> str | None:
    tensors = [one for one in (x, weight, bias, *others) if isinstance(one, Tensor)]
    if any(one.dtype != torch.float32 for one in tensors):
        return f"the CPU kernel takes float32, got {', '.join(sorted({str(one.dtype) for one in tensors}))}"
    if not x.is_contiguous(memory_format=memory_format_of(x)):
        return f"x is neither contiguous nor channels-last (shape {tuple(x.shape)}, strides {x.stride()})"
    return None


def _pointer(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _arguments(
    x: Tensor, weight: Tensor, bias: Tensor, num_groups: int, scale: Tensor | None, shift: Tensor | None, eps: float
) -> tuple[list[Tensor | None], tuple[Any, ...]]:
    """The tensors that must stay alive during the call, and the arguments after their addresses."""
    # Rows of a chunked embedding are strided; copying [B, C] is cheaper than strides in the kernel.
    tensors = [x, *(None if one is None else one.contiguous() for one in (weight, bias, scale, shift))]
    batch, channels = x.shape[:2]
    spatial = x[0, 0].numel() if x.numel() else 0
    channels_last = memory_format_of(x) != torch.contiguous_format
    return tensors, ((batch, channels, spatial, num_groups), channels_last, eps, torch.get_num_threads())


def _native_out(*arguments: Any) -> None:
    *inputs, out = arguments
    if out.numel() == 0:
        return
    tensors, rest = _arguments(*inputs)
    _native.module().group_norm_silu(*map(_pointer, tensors), *rest, out.data_ptr())  # type: ignore[union-attr]


def _native_backward(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    x, weight, bias, _, scale, shift, _ = inputs
    grad = grad.contiguous(memory_format=memory_format_of(x)).to(x.dtype)
    grad_x = _allocate(x)
    if x.numel() == 0:
        return reference.group_norm_silu_backward(grad, *inputs)
    films = [x.new_empty(0) if one is None else one.new_empty(one.shape) for one in (scale, shift)]
    gradients = (grad_x, weight.new_empty(weight.shape), bias.new_empty(bias.shape), *films)
    tensors, rest = _arguments(*inputs)
    pointers = [one.data_ptr() for one in gradients]
    _native.module().group_norm_silu_backward(  # type: ignore[union-attr]
        *map(_pointer, tensors), *rest, grad.data_ptr(), pointers
    )
    return gradients


register(
    Operation(
        name="group_norm_silu",
        reference=reference.group_norm_silu,
        reference_backward=reference.group_norm_silu_backward,
        allocate=_allocate,
        differentiable=(0, 1, 2, 4, 5),
        implementations=(
            Implementation(
                backend="native",
                lacks=lambda: _native.lacks("group_norm_silu"),
                refuse=_refuse,
                out=_native_out,
                backward=_native_backward,
            ),
        ),
    )
)
