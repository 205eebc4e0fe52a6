"""When a fast result counts as right: judged against float64, PyTorch's own error in the same dtype as the yardstick.

The rule is flash-attention's: ``error(ours, float64) <= 2 error(PyTorch in our dtype, float64) + one rounding``. It has
no tolerance to tune, and it tightens by itself where the problem is well conditioned.
"""

from __future__ import annotations

import torch
from torch import Tensor


def max_error(value: Tensor, truth: Tensor) -> float:
    """Largest absolute difference, in float64; 0 for empty tensors."""
    return (value.double() - truth.double()).abs().max().item() if truth.numel() else 0.0


def relative_l2(value: Tensor, truth: Tensor) -> float:
    """``|value - truth| / |truth|`` in the 2-norm, in float64; 0 where both are zero."""
    difference = torch.linalg.vector_norm(value.double() - truth.double()).item()
    size = torch.linalg.vector_norm(truth.double()).item()
    return difference / size if size else (0.0 if difference == 0.0 else float("inf"))


def cosine(value: Tensor, truth: Tensor) -> float:
    """Cosine between two tensors taken as vectors, in float64."""
    return torch.nn.functional.cosine_similarity(
        value.double().flatten(), truth.double().flatten(), dim=0, eps=1e-300
    ).item()


def assert_as_accurate(
    ours: Tensor,
    peer: Tensor,
    truth: Tensor,
    what: str = "result",
    terms: Tensor | None = None,
    factor: float = 2.0,
    growth: tuple[float, float] = (1.0, 1.0),
) -> None:
    """Fail unless our error is at most ``factor`` times the peer's, plus one rounding of what was added up.

    Both the largest error and the 2-norm are judged: the first finds a single wrong voxel, the second a gradient that
    points the wrong way everywhere by a little.

    Args:
        ours: Result under test.
        peer: The same from plain PyTorch in the dtype of ``ours``.
        truth: The same in float64, from inputs that are exactly those of ``ours``.
        what: Name for the message.
        terms: For a result that is a sum, the sum of its terms' absolute values: a small sum of large terms is as exact
            as its terms are. Default: the absolute value of ``truth``.
        factor: How many times the peer's error is allowed.
        growth: How many times more an algorithm of another kind errs in theory, in its largest error and in the 2-norm;
            multiplies ``factor`` (``support.terms.winograd_growth``).
    """
    if ours.shape != truth.shape or peer.shape != truth.shape:
        raise AssertionError(f"{what}: shapes differ: {tuple(ours.shape)}, {tuple(peer.shape)}, {tuple(truth.shape)}.")
    if truth.dtype != torch.float64:
        raise AssertionError(f"{what}: truth must be float64, got {truth.dtype}.")
    rounding = torch.finfo(ours.dtype).eps * (truth.abs() if terms is None else terms.double())
    norms = ((float("inf"), "largest error", growth[0]), (2, "2-norm of the error", growth[1]))
    for order, name, grown in norms:
        if truth.numel() == 0:
            return
        got, reached, floor = (
            torch.linalg.vector_norm(one, order).item()
            for one in (ours.double() - truth, peer.double() - truth, rounding.expand(truth.shape))
        )
        allowed = factor * grown * reached + floor
        if not got <= allowed:  # NaN fails too
            raise AssertionError(f"{what}: {name} {got:.3g} is above {allowed:.3g} (PyTorch: {reached:.3g}).")
