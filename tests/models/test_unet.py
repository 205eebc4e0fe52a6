"""The Self-Attention UNet: shapes, conditioning, where its arithmetic is."""

from __future__ import annotations

import pytest
import torch

from mrsi_fast.config import ConfigError, ModelConfig
from mrsi_fast.models.condition import Condition, batch_condition, residual_rms, vector_width
from mrsi_fast.models.unet import SelfAttentionUNet, flop_split

SMALL = ModelConfig(
    widths=(32, 64),
    encoder_blocks=(1, 1),
    decoder_blocks=(1, 1),
    encoder_attention=(False, True),
    decoder_attention=(False, False),
    embedding_width=32,
)


def make_network(seed: int = 0) -> SelfAttentionUNet:
    """A small network whose zero-initialised layers are woken up, so that every path carries signal."""
    torch.manual_seed(seed)
    network = SelfAttentionUNet(SMALL)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


def make_condition(batch: int, grid: tuple[int, int], channels: int = 8) -> Condition:
    vector = torch.randn(batch, vector_width(channels))
    vector[:, :channels] = 1.0
    return Condition(
        z=torch.randn(batch, channels, *grid),
        mask=torch.ones(batch, channels, *grid),
        anatomy=torch.randn(batch, 1, *grid),
        vector=vector,
    )


@pytest.mark.parametrize("grid", [(64, 64), (28, 28), (46, 46), (33, 47), (12, 18), (1, 3)])
def test_any_grid_in_same_grid_out(grid: tuple[int, int]) -> None:
    network, cond = make_network(), make_condition(2, grid)
    output = network(torch.randn(2, 8, *grid), torch.zeros(2), cond)
    assert output.shape == (2, 8, *grid)
    assert output.isfinite().all()


def test_empty_batch() -> None:
    output = make_network()(torch.randn(0, 8, 16, 16), torch.zeros(0), make_condition(0, (16, 16)))
    assert output.shape == (0, 8, 16, 16)


def test_slices_of_a_batch_do_not_see_each_other() -> None:
    network, cond = make_network().double(), make_condition(3, (20, 16)).map(lambda tensor: tensor.double())
    x, label = torch.randn(3, 8, 20, 16, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    together = network(x, label, cond)
    for index in range(3):
        alone = network(x[index : index + 1], label[index : index + 1], cond.map(lambda t, i=index: t[i : i + 1]))
        torch.testing.assert_close(alone[0], together[index], rtol=0, atol=1e-12)


def test_the_noisy_channel_of_an_absent_map_is_ignored() -> None:
    network, cond = make_network(), make_condition(1, (16, 16))
    cond.vector[:, 5] = 0.0
    x = torch.randn(1, 8, 16, 16)
    other = x.clone()
    other[:, 5] = torch.randn(16, 16)
    assert torch.equal(network(x, torch.zeros(1), cond), network(other, torch.zeros(1), cond))


@pytest.mark.parametrize("field", ["z", "mask", "anatomy", "vector"])
def test_every_condition_reaches_the_output(field: str) -> None:
    network, cond = make_network(), make_condition(1, (16, 16))
    changed = Condition(**{**vars(cond), field: getattr(cond, field) + 0.5})
    x, label = torch.randn(1, 8, 16, 16), torch.zeros(1)
    assert (network(x, label, cond) - network(x, label, changed)).abs().max() > 1e-4


def test_attention_reaches_across_the_whole_field_of_view() -> None:
    network, cond = make_network().double(), make_condition(1, (64, 64)).map(lambda tensor: tensor.double())
    x = torch.randn(1, 8, 64, 64, dtype=torch.float64, requires_grad=True)
    network(x, torch.zeros(1, dtype=torch.float64), cond)[0, 0, 0, 0].backward()
    assert x.grad is not None and x.grad[0, 0, 63, 63].abs() > 0


def test_most_arithmetic_is_in_stride_1_3x3_convolutions() -> None:
    network = SelfAttentionUNet(ModelConfig())
    split = flop_split(network)
    assert split["conv3x3"] / sum(split.values()) > 0.9
    assert sum(parameter.numel() for parameter in network.parameters()) <= 12e6
    # The stem, counted by hand: 26 input maps x 4 (unshuffled) -> 96 features, 3x3, on a 32x32 grid.
    stem = 2 * 26 * 4 * 96 * 9 * 32 * 32 / 1e9
    assert split["conv3x3"] > stem
    assert split["attention"] == pytest.approx(2 * 4 * 64 * 64 * 256 / 1e9 + 4 * 256 * 256 * 160 / 1e9)


def test_wrong_settings_are_refused_with_a_sentence() -> None:
    with pytest.raises(ConfigError, match="multiple of group_channels"):
        ModelConfig.parse({"widths": (90, 160, 256)})
    with pytest.raises(ConfigError, match="one value per level"):
        ModelConfig.parse({"encoder_blocks": (1, 2)})
    with pytest.raises(ConfigError, match="colour"):
        ModelConfig.parse({"colour": 1})


def make_batch(scale: float = 1.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 8, 12, 12, generator=generator) * scale
    return {
        "z": maps,
        "mask": torch.ones_like(maps),
        "presence": torch.tensor([[1.0] * 8, [1.0] * 3 + [0.0] * 5]),
        "scale": maps.amax((-2, -1)),
        "noise": torch.full((2, 8), 0.01 * scale),
        "factors": torch.tensor([[2.0, 2.0], [4.0, 2.0]]),
        "voxel_mm": torch.full((2, 2), 3.4),
        "anatomy": torch.randn(2, 1, 12, 12, generator=generator),
        "anatomy_present": torch.tensor([1.0, 0.0]),
    }


def test_condition_does_not_change_when_all_maps_are_scaled() -> None:
    small, large = batch_condition(make_batch(1.0)), batch_condition(make_batch(1000.0))
    for name in ("z", "mask", "anatomy", "vector"):
        torch.testing.assert_close(getattr(small, name), getattr(large, name), rtol=1e-5, atol=1e-5)


def test_absent_maps_and_absent_anatomy_leave_no_trace() -> None:
    batch = make_batch()
    cond = batch_condition(batch)
    assert not cond.z[1, 3:].any() and not cond.mask[1, 3:].any() and not cond.anatomy[1].any()
    batch["z"][1, 3:], batch["scale"][1, 3:], batch["noise"][1, 3:] = 7.0, 0.0, 9.0
    again = batch_condition(batch)
    for name in ("z", "mask", "anatomy", "vector"):
        assert torch.equal(getattr(cond, name)[1], getattr(again, name)[1])


def test_residual_rms_is_the_table_at_its_knots_and_geometric_between() -> None:
    table = {"2": (0.1, 0.2), "4": (0.4, 0.2), "8": (0.8, 0.2)}
    factors = torch.tensor([[2.0, 2.0], [4.0, 4.0], [8.0, 8.0], [4.0, 2.0], [1.0, 1.0]], dtype=torch.float64)
    rms = residual_rms(table, factors)
    expected = torch.tensor([[0.1, 0.2], [0.4, 0.2], [0.8, 0.2], [0.2, 0.2], [0.1, 0.2]], dtype=torch.float64)
    torch.testing.assert_close(rms, expected)


def make_two_headed(dtype: torch.dtype = torch.float64) -> SelfAttentionUNet:
    torch.manual_seed(3)
    network = SelfAttentionUNet(SMALL.model_copy(update={"spread": True}))
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return network.to(dtype).eval()


@pytest.mark.parametrize("grid", [(16, 24), (33, 47), (1, 3)])
def test_the_second_head_reads_what_the_first_one_reads(grid: tuple[int, int]) -> None:
    network, cond = make_two_headed(), make_condition(2, grid).map(lambda tensor: tensor.double())
    x, label = torch.randn(2, 8, *grid, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    with torch.no_grad():
        mean, log_sd = network.with_spread(x, label, cond)
        assert torch.allclose(mean, network(x, label, cond), rtol=1e-12, atol=1e-12)
        network.head.load_state_dict(network.spread.state_dict())
        assert torch.allclose(log_sd, network(x, label, cond), rtol=1e-12, atol=1e-12)
    assert log_sd.shape == x.shape


def test_both_heads_train_the_network_in_one_pass() -> None:
    network, cond = make_two_headed(torch.float32).train(), make_condition(2, (16, 16))
    weights = torch.randn(2, 2, 8, 16, 16)

    def gradients(separate: bool) -> dict[str, torch.Tensor]:
        network.zero_grad()
        mean, log_sd = network.with_spread(torch.zeros(2, 8, 16, 16), torch.ones(2), cond)
        if separate:
            mean = network(torch.zeros(2, 8, 16, 16), torch.ones(2), cond)
        ((mean * weights[0]).sum() + (log_sd * weights[1]).sum()).backward()
        return {name: parameter.grad.clone() for name, parameter in network.named_parameters()}

    together, apart = gradients(False), gradients(True)
    for name, gradient in together.items():
        assert torch.allclose(gradient, apart[name], rtol=1e-3, atol=1e-4 * apart[name].abs().max()), name
    assert together["spread.weight"].any() and together["stem.weight"].any()


def test_a_network_of_one_head_has_no_spread() -> None:
    network = make_network()
    assert not any(name.startswith("spread") for name in network.state_dict())
    with pytest.raises(ValueError, match="no head for the spread"):
        network.with_spread(torch.zeros(1, 8, 8, 8), torch.zeros(1), make_condition(1, (8, 8)))


def test_a_new_head_says_the_spread_of_the_residual() -> None:
    network = SelfAttentionUNet(SMALL.model_copy(update={"spread": True}))
    _, log_sd = network.with_spread(torch.randn(1, 8, 8, 8), torch.zeros(1), make_condition(1, (8, 8)))
    assert not log_sd.any()  # ln 1: the RMS of the residual, until it is trained
