"""GroupNorm, optional scale-shift (FiLM), then SiLU, in plain PyTorch: what the kernels must equal."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def group_norm_silu(
    x: Tensor,  # [B, C, *spatial]
    weight: Tensor,  # [C]
    bias: Tensor,  # [C]
    num_groups: int,
    scale: Tensor | None = None,  # [B, C]
    shift: Tensor | None = None,  # [B, C]
    eps: float = 1e-5,
) -> Tensor:
    """``silu(group_norm(x) * (1 + scale) + shift)`` in the memory format of x."""
    y = F.group_norm(x, num_groups, weight, bias, eps)
    per_channel = (*x.shape[:2], *(1,) * (x.dim() - 2))
    if scale is not None:
        y = y * (1 + scale.reshape(per_channel))
    if shift is not None:
        y = y + shift.reshape(per_channel)
    return F.silu(y)
