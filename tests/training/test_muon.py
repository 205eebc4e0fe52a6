"""Muon in float32 against its definition in float64 and against PyTorch's own in bfloat16."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mrsi_fast.training.muon import COEFFICIENTS, ITERATIONS, Muon, orthogonalise


def by_definition(matrix: torch.Tensor) -> torch.Tensor:
    """The quintic iteration on the matrix itself, in float64."""
    x = matrix.double()
    x = x if x.shape[0] <= x.shape[1] else x.T
    x = x / x.norm()
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


@pytest.mark.parametrize("shape", [(16, 144), (96, 864), (40, 7), (1, 9), (32, 32)])
def test_orthogonalisation_agrees_with_float64(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    wanted = by_definition(matrix)
    error = (orthogonalise(matrix) - wanted).norm() / wanted.norm()
    assert error < 1e-4


def test_a_zero_gradient_moves_nothing() -> None:
    assert torch.equal(orthogonalise(torch.zeros(4, 6)), torch.zeros(4, 6))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon")
def test_three_steps_agree_with_pytorch_up_to_bfloat16() -> None:
    start = torch.randn(24, 54, generator=torch.Generator().manual_seed(2))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimisers = Muon([ours], lr=0.05, weight_decay=0.1), torch.optim.Muon([theirs], lr=0.05, weight_decay=0.1)
    for step in range(3):
        gradient = torch.randn(24, 54, generator=torch.Generator().manual_seed(10 + step))
        for parameter, optimiser in zip((ours, theirs), optimisers, strict=True):
            parameter.grad = gradient.clone()
            optimiser.step()
    moved = (theirs - start).norm()
    assert moved > 0 and (ours - theirs).norm() < 0.02 * moved
