"""Self-attention over the positions of a map (Vaswani et al. 2017, equation 1), from the packed projection.

The specification of the operation, the oracle of its tests, and what runs where no kernel does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mrsi_fast.ops.reference.layout import memory_format_of


def self_attention(
    qkv: Tensor,  # [B, T, 3, H, D]
    scale: float,
) -> Tensor:
    """``softmax(scale q k') v`` for each head: [B, T, H, D], contiguous."""
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    return F.scaled_dot_product_attention(query, key, value, scale=scale).transpose(1, 2).contiguous()


def self_attention_backward(
    grad: Tensor,  # [B, T, H, D]
    qkv: Tensor,
    scale: float,
) -> tuple[Tensor]:
    """Gradient of qkv.

    With weights ``p = softmax(scale q k')`` and output o: ``dv = p' do``, ``ds = p (do v' - sum(do o))``,
    ``dq = scale ds k``, ``dk = scale ds' q``.
    """
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # [B, H, T, D]
    grad_out = grad.transpose(1, 2)
    weights = (scale * query @ key.transpose(-1, -2)).softmax(-1)
    grad_weights = grad_out @ value.transpose(-1, -2)
    grad_scores = weights * (grad_weights - (grad_weights * weights).sum(-1, keepdim=True))
    gradients = (
        scale * grad_scores @ key,
        scale * grad_scores.transpose(-1, -2) @ query,
        weights.transpose(-1, -2) @ grad_out,
    )
    packed = torch.empty_like(qkv, memory_format=memory_format_of(qkv))
    for part, gradient in enumerate(gradients):
        packed[:, :, part] = gradient.transpose(1, 2)
    return (packed,)
