"""Model folders survive a round trip and refuse every kind of damage with a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mrsi_fast.config import DiffusionConfig, ModelConfig
from mrsi_fast.models.pretrained import FolderConfig, ModelFolderError, load_pretrained, save_pretrained
from mrsi_fast.models.unet import SelfAttentionUNet

SMALL = ModelConfig(
    widths=(32,), encoder_blocks=(1,), decoder_blocks=(1,), encoder_attention=(False,), decoder_attention=(False,)
)


def write_model(folder: Path, half: bool = False, shape: ModelConfig = SMALL) -> SelfAttentionUNet:
    torch.manual_seed(1)
    network = SelfAttentionUNet(shape)
    rms = {key: (0.1,) * 8 for key in ("2", "4", "8")}
    config = FolderConfig(
        name="small",
        model=shape,
        diffusion=DiffusionConfig(residual_rms=rms),
        trained_voxel_mm=(4.0, 20.0),
        trained_grid=(16, 96),
    )
    save_pretrained(folder, config, network.state_dict(), "# small\n", half=half)
    return network


def test_round_trip_is_exact(tmp_path: Path) -> None:
    network = write_model(tmp_path / "model")
    loaded = load_pretrained(tmp_path / "model")
    assert loaded.config.name == "small" and loaded.config.diffusion.residual_rms["4"] == (0.1,) * 8
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor)
    assert not any(parameter.requires_grad for parameter in loaded.network.parameters())


def test_a_folder_tells_whether_its_network_has_the_second_head(tmp_path: Path) -> None:
    network = write_model(tmp_path / "two", shape=SMALL.model_copy(update={"spread": True}))
    loaded = load_pretrained(tmp_path / "two").network
    assert loaded.spread is not None and torch.equal(loaded.spread.weight, network.spread.weight)
    write_model(tmp_path / "old")
    config = json.loads((tmp_path / "old" / "config.json").read_text())
    del config["model"]["spread"]  # as folders were written before there was such a head
    assert FolderConfig.parse(config).model == SMALL
    assert load_pretrained(tmp_path / "old").network.spread is None


def test_half_storage_is_widened_and_close(tmp_path: Path) -> None:
    network = write_model(tmp_path / "model", half=True)
    loaded = load_pretrained(tmp_path / "model").network.state_dict()
    for name, tensor in network.state_dict().items():
        assert loaded[name].dtype == torch.float32
        torch.testing.assert_close(loaded[name], tensor, rtol=2**-11, atol=2**-24)


def test_weights_are_readable_by_colleagues(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").stat().st_mode & 0o444 == 0o444


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda folder: flip_bit(folder / "model.safetensors"), "model.safetensors is damaged"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"<html>not found</html>"), "is damaged"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json is missing or damaged"),
        (lambda folder: flip_bit(folder / "config.json"), "config.json is damaged"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage, message: str) -> None:
    write_model(tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(ModelFolderError, match=message):
        load_pretrained(tmp_path / "model")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["model"]["widths"] = [64]
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    from mrsi_fast.models.pretrained import sha256_of

    manifest["sha256"]["config.json"] = sha256_of(tmp_path / "model" / "config.json")
    (tmp_path / "model" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelFolderError, match="does not hold the network"):
        load_pretrained(tmp_path / "model")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    write_model(tmp_path / "model")
    good = load_pretrained(tmp_path / "model")
    weights = good.network.state_dict()
    name = next(iter(weights))
    weights[name] = weights[name].clone()
    weights[name].view(-1)[0] = value
    save_pretrained(tmp_path / "bad", good.config, weights, "card")
    with pytest.raises(ModelFolderError, match=f"NaN or infinite .{name}.. The training diverged"):
        load_pretrained(tmp_path / "bad")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="there is no such model folder"):
        load_pretrained(tmp_path / "nothing")
