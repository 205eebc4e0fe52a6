"""Muon with the products of its orthogonalisation in float32, for processors that multiply bfloat16 slowly.

``torch.optim.Muon`` orthogonalises in bfloat16, which a CPU without bfloat16 units does some thirty times slower than
float32. Source of the method: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration (Jordan et al. 2024)
ITERATIONS = 5


def orthogonalise(matrix: Tensor) -> Tensor:
    """About the nearest orthogonal matrix: singular values between roughly 0.7 and 1.2.

    Each iteration multiplies X from the left by a polynomial of its Gram matrix X X'. The polynomials commute, so only
    the small Gram matrix is iterated, and X is multiplied once by their product.

    Args:
        matrix: [R, C], float32.

    Returns:
        [R, C].
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / wide.norm().clamp(min=1e-7)
    gram = wide @ wide.T
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    product = identity
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        polynomial = a * identity + torch.addmm(gram, gram, gram, beta=b, alpha=c)
        product = polynomial @ product
        gram = polynomial @ gram @ polynomial
    result = product @ wide
    return result if matrix.shape[0] <= matrix.shape[1] else result.T


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum; settings and scaling of ``torch.optim.Muon``.

    Args:
        matrices: Parameters [R, C].
        lr: Learning rate.
        weight_decay: Decoupled weight decay.
        momentum: Decay rate of the momentum.
    """

    def __init__(
        self, matrices: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.1, momentum: float = 0.95
    ) -> None:
        super().__init__(list(matrices), {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter.grad)
                buffer = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalise(parameter.grad.lerp(buffer, group["momentum"]))
                rows, columns = parameter.shape
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * math.sqrt(max(1.0, rows / columns)))
