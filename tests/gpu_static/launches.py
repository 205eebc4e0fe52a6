"""Counts the GPU kernels of a piece of PyTorch code by the calls it makes, on CPU tensors.

PyTorch's kernels per call come from ``KERNELS``, written down from its CUDA sources; it names the fewest that a call
takes, so that eager is not counted worse than it is. Ours are counted by the launch macro (``tests/cudasim``), which
this table has to agree with. Numbers of launches, not of time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mrsi_fast.ops.reference.conv3x3_gn_silu import conv3x3_gn_silu
from mrsi_fast.ops.reference.group_norm_silu import group_norm_silu
from mrsi_fast.ops.reference.self_attention import self_attention

# Kernels of one call; what is not named is elementwise, a copy or a reduction: one.
KERNELS = {
    "aten.group_norm": 3,  # row moments, fused scale and offset per channel, apply
    "aten.promote_types": 0,
    "aten.empty": 0,
    "aten.empty_like": 0,
    "aten.new_empty": 0,
    "aten.empty_strided": 0,
    "aten.detach": 0,
    "aten._scaled_dot_product_flash_attention_for_cpu": 1,
    "mrsi_fast.group_norm_silu": 1,
    "mrsi_fast.group_norm_silu_out": 1,
    "mrsi_fast.self_attention": 1,
    "mrsi_fast.self_attention_out": 2,  # PyTorch's attention (what `PREFERRED` chooses), copied into the given buffer
    "mrsi_fast.solver_step_out": 1,
}
REFERENCES: dict[str, Callable[..., Any]] = {
    "mrsi_fast.conv3x3_gn_silu": conv3x3_gn_silu,
    "mrsi_fast.group_norm_silu": group_norm_silu,
    "mrsi_fast.self_attention": self_attention,
}


class KernelCounter(TorchDispatchMode):
    """Counts calls and kernels while active.

    Args:
        eager: Take our operations apart into the PyTorch calls of their references.

    Attributes:
        calls: Calls that run at least one kernel, by operation.
        kernels: Kernels, by operation.
    """

    def __init__(self, eager: bool) -> None:
        super().__init__()
        self.eager = eager
        self.calls: Counter[str] = Counter()
        self.kernels: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count and run one operation."""
        name = str(func.overloadpacket)
        if self.eager and name in REFERENCES:
            with self:
                return REFERENCES[name](*args)
        out = func(*args, **(kwargs or {}))
        schema = func._schema
        is_view = not schema.is_mutable and any(r.alias_info is not None for r in schema.returns)
        count = 0 if is_view else KERNELS.get(name, 1)
        if name == "aten.convolution":
            count = 1 + isinstance(args[2], Tensor)  # cuDNN adds no bias: PyTorch does, in a kernel of its own
        self.calls[name] += count > 0
        self.kernels[name] += count
        return out


def count_kernels(function: Callable[[], object], eager: bool) -> KernelCounter:
    """Run ``function`` once and return what it launches on a GPU."""
    counter = KernelCounter(eager)
    with torch.no_grad(), counter:
        function()
    return counter
