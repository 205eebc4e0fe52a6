"""Run a test on each implementation of an operation: the reference, and the CPU kernel of each instruction set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from mrsi_fast import ops
from mrsi_fast.ops import _native


def usable_isas() -> list[str]:
    """Instruction sets of the extension that this processor runs, the best last; empty without the extension."""
    extension = _native.module()
    return extension.usable_isas() if extension else []


@contextmanager
def using(how: str) -> Iterator[None]:
    """Pin ``reference``, or the CPU kernels with one instruction set, for a block of code."""
    if how == "reference":
        with ops.override("reference"):
            yield
        return
    extension = _native.module()
    if extension is None:
        raise RuntimeError(f"{how} cannot be tested: {_native.reason()}.")
    before = extension.use_isa(how)
    try:
        with ops.override("native"):
            yield
    finally:
        extension.use_isa(before)


def mapped(inputs: Sequence[Any], change: Callable[[Tensor], Tensor]) -> list[Any]:
    """The inputs of an operation with every tensor changed."""
    return [change(one) if isinstance(one, Tensor) else one for one in inputs]


def with_gradients(
    function: Callable[..., Tensor], inputs: Sequence[Any], grad: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Result of a function, and its gradients for all tensors among the inputs.

    Args:
        function: Called with the inputs.
        inputs: Tensors of any layout, which is kept, and other values.
        grad: Gradient of the result.
    """
    leaves = mapped(inputs, lambda one: one.detach().clone(memory_format=torch.preserve_format).requires_grad_())
    result = function(*leaves)
    return result.detach(), torch.autograd.grad(result, [one for one in leaves if isinstance(one, Tensor)], grad)
