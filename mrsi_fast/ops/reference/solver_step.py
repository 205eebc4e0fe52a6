"""One linear solver step with hard data consistency (``mrsi_fast.diffusion.solvers.Step``), in plain PyTorch.

The specification of the operation, the oracle of its tests, and what runs where no kernel does.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _term(coefficient: Tensor, tensor: Tensor) -> Tensor:
    """Coefficient times tensor, 0 where the coefficient is 0, whatever the tensor holds (it may not be filled yet)."""
    return torch.where(coefficient == 0, torch.zeros_like(tensor), coefficient * tensor)


def solver_step(
    base: Tensor,  # [..., X, Y]
    now: Tensor,
    prev: Tensor | None,
    noise: Tensor | None,
    coefficients: Tensor,  # [steps, 4]
    step: Tensor,  # [1]
    basis_x: Tensor | None = None,  # [rx, X]
    basis_y: Tensor | None = None,  # [ry, Y]
    kept: Tensor | None = None,  # [rx, ry]
) -> Tensor:
    """``c0 base + P(c1 now + c2 prev) + c3 noise``, P removing the measured band; contiguous."""
    c = coefficients.index_select(0, step)[0]
    estimate = _term(c[1], now)
    if prev is not None:
        estimate = estimate + _term(c[2], prev)
    if basis_x is not None and basis_y is not None:
        modes = basis_x @ estimate @ basis_y.T
        estimate = estimate - basis_x.T @ (modes if kept is None else kept * modes) @ basis_y
    new = estimate + _term(c[0], base)
    return (new if noise is None else new + _term(c[3], noise)).contiguous()
