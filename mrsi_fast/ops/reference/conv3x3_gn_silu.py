"""GroupNorm, scale-shift and SiLU, then a 3x3 convolution and a residual, in plain PyTorch: a residual block's half.

The specification of the operation, the oracle of its tests, and what runs where no kernel does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mrsi_fast.ops.reference.group_norm_silu import group_norm_silu, group_norm_silu_backward
from mrsi_fast.ops.reference.layout import memory_format_of


def conv3x3_gn_silu(
    x: Tensor,  # [B, C, H, W]
    norm_weight: Tensor,  # [C]
    norm_bias: Tensor,  # [C]
    num_groups: int,
    weight: Tensor,  # [K, C, 3, 3]
    bias: Tensor | None = None,  # [K]
    scale: Tensor | None = None,  # [B, C]
    shift: Tensor | None = None,  # [B, C]
    residual: Tensor | None = None,  # [B, K, H, W]
    eps: float = 1e-5,
) -> Tensor:
    """``conv3x3(group_norm_silu(x)) + bias + residual``, zero padding, contiguous or channels-last as x is."""
    activated = group_norm_silu(x, norm_weight, norm_bias, num_groups, scale, shift, eps)
    y = F.conv2d(activated, weight, bias, padding=1)
    return (y if residual is None else y + residual).contiguous(memory_format=memory_format_of(x))


def conv3x3_gn_silu_backward(
    grad: Tensor,  # [B, K, H, W]
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    num_groups: int,
    weight: Tensor,
    bias: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, ...]:
    """Gradients of x, norm_weight, norm_bias, weight, bias, scale, shift and residual; empty where one is absent."""
    norm = (norm_weight, norm_bias, num_groups, scale, shift, eps)
    activated = group_norm_silu(x, *norm)
    grad_activated, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        grad, activated, weight, [weight.shape[0]], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, True]
    )
    grad_x, grad_gamma, grad_beta, grad_scale, grad_shift = group_norm_silu_backward(grad_activated, x, *norm)
    absent = x.new_empty(0)
    return (
        grad_x,
        grad_gamma,
        grad_beta,
        grad_weight,
        absent if bias is None else grad_bias,
        grad_scale,
        grad_shift,
        absent if residual is None else grad.clone(),
    )
