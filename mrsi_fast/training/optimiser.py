"""The optimiser of a training run: Muon for the filters, AdamW for everything else, one learning-rate schedule.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) replaces each update of a matrix by the nearest
orthogonal one: ``torch.optim.Muon`` where the run multiplies in bfloat16, :mod:`mrsi_fast.training.muon` elsewhere. A
filter bank [K, C, 3, 3] is such a matrix, [K, 9 C]. Its gain over AdamW: training/README.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mrsi_fast.config import ConfigError
from mrsi_fast.training.config import OptimiserConfig
from mrsi_fast.training.muon import Muon

OUTER_LAYERS = ("stem", "head", "spread")
"""Filters that AdamW takes: their channels are quantities of different kinds, and the heads start at 0."""


def learning_rate_share(step: int, steps: int, optimiser: OptimiserConfig) -> float:
    """Share of the peak learning rate at a step (0-based): linear warm-up, constant, linear cool-down to 0."""
    rise = (step + 1) / (optimiser.warmup_steps + 1)
    fall = (steps - step) / (optimiser.cooldown_steps + 1)
    return min(1.0, rise, fall)


def _as_matrix(filters: Tensor) -> Tensor:
    """[K, C, h, w] channels-last -> [K, h w C], the same memory."""
    return filters.permute(0, 2, 3, 1).reshape(filters.shape[0], -1)


class Optimiser:
    """AdamW over one part of a network's parameters, Muon over matrix views of its filters.

    Args:
        network: On its device, channels-last.
        config: Learning rates and decay.
        bfloat16: Whether Muon multiplies in bfloat16.

    Raises:
        ConfigError: Muon is requested and this PyTorch is too old for it.
    """

    def __init__(self, network: nn.Module, config: OptimiserConfig, bfloat16: bool = False) -> None:
        self.config = config
        self.filters: list[Tensor] = self._filters(network) if config.filter_learning_rate > 0 else []
        taken = {id(parameter) for parameter in self.filters}
        others = [parameter for parameter in network.parameters() if id(parameter) not in taken]
        self.adamw = torch.optim.AdamW(others, lr=0.0, betas=config.betas, weight_decay=config.weight_decay, fused=True)
        self.muon: torch.optim.Optimizer | None = None
        self.matrices: list[nn.Parameter] = []
        if self.filters:
            if bfloat16 and not hasattr(torch.optim, "Muon"):
                raise ConfigError(
                    f"[optimiser] filter_learning_rate needs torch.optim.Muon, which PyTorch {torch.__version__} does "
                    "not have: install 2.9 or newer, train in float32, or set it to 0 (AdamW for all parameters)."
                )
            self.matrices = [nn.Parameter(_as_matrix(parameter.detach())) for parameter in self.filters]
            assert all(a.data_ptr() == b.data_ptr() for a, b in zip(self.filters, self.matrices, strict=True))
            muon = torch.optim.Muon if bfloat16 else Muon
            self.muon = muon(self.matrices, lr=0.0, weight_decay=config.weight_decay)

    @staticmethod
    def _filters(network: nn.Module) -> list[Tensor]:
        inner = (layer for name, layer in network.named_modules() if name not in OUTER_LAYERS)
        return [layer.weight for layer in inner if isinstance(layer, nn.Conv2d)]

    def step(self, share: float) -> None:
        """One update with ``share`` of the peak learning rates; the parameters' gradients stay as they are."""
        for group in self.adamw.param_groups:
            group["lr"] = share * self.config.learning_rate
        self.adamw.step()
        if self.muon is None:
            return
        for parameter, matrix in zip(self.filters, self.matrices, strict=True):
            matrix.grad = None if parameter.grad is None else _as_matrix(parameter.grad)
        for group in self.muon.param_groups:
            group["lr"] = share * self.config.filter_learning_rate
        self.muon.step()

    def parts(self) -> Iterator[tuple[str, torch.optim.Optimizer]]:
        """The optimisers behind it, by name, for a checkpoint."""
        yield "adamw", self.adamw
        if self.muon is not None:
            yield "muon", self.muon
