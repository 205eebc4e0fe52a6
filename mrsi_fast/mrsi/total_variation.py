"""Total-variation super-resolution with the true acquisition operator (Rudin et al. 1992; Chambolle and Pock 2011).

``min_x TV(x) + mu/2 |A x - y|^2`` per map and slice, or ``min TV(x)`` subject to ``A x = y`` for noise-free data,
solved by the primal-dual algorithm (10.1007/s10851-010-0251-1, Algorithm 1). The proximal step of the data term is
exact: in the operator's modes it is diagonal.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mrsi_fast.mrsi.forward import Acquisition, Modes

ITERATIONS = 300
_STEP = 1 / math.sqrt(8.0)  # the discrete gradient has norm sqrt(8)


def gradient(x: Tensor) -> Tensor:
    """Forward differences ``[2, ..., X, Y]`` of ``[..., X, Y]``, 0 at the last row and column."""
    result = torch.zeros((2, *x.shape), dtype=x.dtype)
    result[0, ..., :-1, :] = x[..., 1:, :] - x[..., :-1, :]
    result[1, ..., :, :-1] = x[..., :, 1:] - x[..., :, :-1]
    return result


def divergence(p: Tensor) -> Tensor:
    """Minus the transpose of :func:`gradient`."""
    result = torch.zeros_like(p[0])
    result[..., :-1, :] += p[0, ..., :-1, :]
    result[..., 1:, :] -= p[0, ..., :-1, :]
    result[..., :, :-1] += p[1, ..., :, :-1]
    result[..., :, 1:] -= p[1, ..., :, :-1]
    return result


def total_variation(
    y: Tensor, acquisition: Acquisition, fidelity: float | None, start: Tensor, iterations: int = ITERATIONS
) -> Tensor:
    """Reconstructs maps of least total variation.

    Args:
        y: [..., nx, ny] LR maps divided by their scale, untrusted voxels filled.
        acquisition: The operator that made them.
        fidelity: ``mu``; None demands ``A x = y``.
        start: [..., X, Y] first estimate.
        iterations: Primal-dual steps.

    Returns:
        [..., X, Y], dtype of ``y``.
    """
    modes = acquisition.modes(y.dtype, y.device)
    data = _analyse(modes.lr_x, y, modes.lr_y)
    x, ahead = start.clone(), start.clone()
    dual = torch.zeros((2, *x.shape), dtype=x.dtype)
    for _ in range(iterations):
        dual += _STEP * gradient(ahead)
        dual /= torch.hypot(dual[0], dual[1]).clamp_min(1.0)
        new = _data_step(x + _STEP * divergence(dual), data, modes, fidelity)
        ahead = 2 * new - x
        x = new
    return x


def _data_step(x: Tensor, data: Tensor, modes: Modes[Tensor], fidelity: float | None) -> Tensor:
    """``argmin_u |u - x|^2 / (2 tau) + mu/2 |A u - y|^2``, or the projection onto ``A u = y``."""
    seen = _analyse(modes.hr_x, x, modes.hr_y)
    if fidelity is None:
        change = modes.inverse * data - seen
        change = change if modes.kept is None else modes.kept * change
    else:
        weight = _STEP * fidelity * modes.gains
        change = (weight * data - weight * modes.gains * seen) / (1 + weight * modes.gains)
    return x + modes.hr_x.T @ change @ modes.hr_y


def _analyse(rows_x: Tensor, image: Tensor, rows_y: Tensor) -> Tensor:
    return rows_x @ image @ rows_y.T
