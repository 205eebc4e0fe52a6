"""GroupNorm (Wu & He 2018), optional scale-shift (FiLM, Perez et al. 2018), then SiLU, in plain PyTorch.

The specification of the operation, the oracle of its tests, and what runs where no kernel does. Statistics and
arithmetic are at least float32; the result is rounded once, to the dtype of x.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mrsi_fast.ops.reference.layout import memory_format_of


def _per_channel(v: Tensor, x: Tensor) -> Tensor:
    """[C] or [B, C] as something that broadcasts against [B, C, *spatial]."""
    rows = v.shape[0] if v.dim() == 2 else 1
    return v.reshape(rows, x.shape[1], *(1,) * (x.dim() - 2)).to(x.dtype)


def group_norm_silu(
    x: Tensor,  # [B, C, *spatial]
    weight: Tensor,  # [C]
    bias: Tensor,  # [C]
    num_groups: int,
    scale: Tensor | None = None,  # [B, C]
    shift: Tensor | None = None,  # [B, C]
    eps: float = 1e-5,
    conv_bias: Tensor | None = None,  # [C]
    embedding: Tensor | None = None,  # [B, C]
) -> Tensor:
    """``silu(group_norm(x + conv_bias + embedding) * (1 + scale) + shift)``, contiguous or channels-last as x is."""
    if x.numel() == 0:  # which torch.group_norm refuses
        return torch.empty_like(x, memory_format=memory_format_of(x))
    work = x.to(torch.promote_types(x.dtype, torch.float32))
    for addend in (conv_bias, embedding):
        if addend is not None:
            work = work + _per_channel(addend, work)
    y = torch.group_norm(work, num_groups, weight.to(work.dtype), bias.to(work.dtype), eps)
    if scale is not None:
        y = y * (1 + _per_channel(scale, y))
    if shift is not None:
        y = y + _per_channel(shift, y)
    return F.silu(y).to(x.dtype).contiguous(memory_format=memory_format_of(x))


def group_norm_silu_backward(
    grad: Tensor,  # [B, C, *spatial]
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    num_groups: int,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias, scale and shift; an absent scale or shift has an empty one.

    With ``xhat = (x - mean) / std``, ``v = (xhat weight + bias) (1 + scale) + shift``, ``dv = grad silu'(v)``,
    ``k = weight (1 + scale)``, the gradient of x is ``(k dv - mean(k dv) - xhat mean(k dv xhat)) / std``, means over
    the group.
    """
    work = x.to(torch.promote_types(x.dtype, torch.float32))
    batch, channels = x.shape[:2]
    spatial = tuple(range(2, x.dim()))

    def over_group(t: Tensor) -> Tensor:  # mean over each group, spread over its members
        groups = t.reshape(batch, num_groups, channels // num_groups, *x.shape[2:])
        return groups.mean(tuple(range(2, groups.dim())), keepdim=True).expand_as(groups).reshape(t.shape)

    def over_space(t: Tensor) -> Tensor:  # [B, C, *spatial] -> [B, C]
        return t.sum(spatial) if spatial else t

    centred = work - over_group(work)
    inverse = torch.rsqrt(over_group(centred.square()) + eps)
    xhat = centred * inverse
    film = 1 + _per_channel(scale, xhat) if scale is not None else torch.ones_like(xhat[:1, :1])
    normal = xhat * _per_channel(weight, xhat) + _per_channel(bias, xhat)
    v = normal * film + (_per_channel(shift, xhat) if shift is not None else 0)

    sigmoid = torch.sigmoid(v)
    dv = grad.to(work.dtype) * sigmoid * (1 + v * (1 - sigmoid))
    kdv = dv * film * _per_channel(weight, xhat)
    grad_x = inverse * (kdv - over_group(kdv) - xhat * over_group(kdv * xhat))
    return (
        grad_x.to(x.dtype).contiguous(memory_format=memory_format_of(x)),
        over_space(dv * film * xhat).sum(0).to(weight.dtype),
        over_space(dv * film).sum(0).to(bias.dtype),
        x.new_empty(0) if scale is None else over_space(dv * normal).to(scale.dtype),
        x.new_empty(0) if shift is None else over_space(dv).to(shift.dtype),
    )
