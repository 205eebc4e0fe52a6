"""Muon takes the inner filters and nothing else, through views of the same memory; AdamW takes the rest."""

from __future__ import annotations

import pytest
import torch

from mrsi_fast.config import ConfigError, ModelConfig
from mrsi_fast.models.unet import SelfAttentionUNet
from mrsi_fast.training.config import OptimiserConfig
from mrsi_fast.training.optimiser import Optimiser

SMALL = ModelConfig(
    widths=(32,), encoder_blocks=(1,), decoder_blocks=(1,), encoder_attention=(True,), decoder_attention=(False,)
)


def small_network() -> SelfAttentionUNet:
    torch.manual_seed(0)
    network = SelfAttentionUNet(SMALL).to(memory_format=torch.channels_last)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
        parameter.grad = torch.randn_like(parameter)
    return network


def test_every_parameter_belongs_to_one_optimiser() -> None:
    network = small_network()
    optimiser = Optimiser(network, OptimiserConfig(filter_learning_rate=0.1))
    adamw = [p for group in optimiser.adamw.param_groups for p in group["params"]]
    assert sorted(map(id, [*adamw, *optimiser.filters])) == sorted(map(id, network.parameters()))
    assert {id(network.stem.weight), id(network.head.weight)} <= set(map(id, adamw))


def test_a_step_of_muon_turns_a_filter_bank_by_an_orthogonal_matrix() -> None:
    network = small_network()
    optimiser = Optimiser(network, OptimiserConfig(filter_learning_rate=0.1, weight_decay=0.0))
    before = [filters.detach().clone() for filters in optimiser.filters]
    optimiser.step(0.5)
    for filters, old in zip(optimiser.filters, before, strict=True):
        outputs, inputs = filters.shape[0], filters[0].numel()
        update = ((filters.detach() - old) / (0.5 * 0.1)).reshape(outputs, -1) / max(1.0, outputs / inputs) ** 0.5
        # Five Newton-Schulz steps bring every singular value to about 0.7 to 1.2, wherever it was.
        values = torch.linalg.svdvals(update)
        assert 0.5 < values.min() and values.max() < 1.5


def test_without_a_rate_for_filters_adamw_takes_all() -> None:
    network = small_network()
    optimiser = Optimiser(network, OptimiserConfig())
    assert [name for name, _ in optimiser.parts()] == ["adamw"]
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimiser.step(1.0)
    assert all(not torch.equal(parameter, before[name]) for name, parameter in network.named_parameters())


def test_an_old_torch_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ConfigError, match="2.9 or newer"):
        Optimiser(small_network(), OptimiserConfig(filter_learning_rate=0.1), bfloat16=True)
