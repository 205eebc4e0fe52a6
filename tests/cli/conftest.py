"""A model small enough for tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights: its maps mean nothing, all else is as with trained ones."""
    import torch

    from mrsi_fast.config import DiffusionConfig, ModelConfig
    from mrsi_fast.models.pretrained import FolderConfig, save_pretrained
    from mrsi_fast.models.unet import SelfAttentionUNet

    torch.manual_seed(0)
    shape = ModelConfig(
        widths=(32,),
        encoder_blocks=(1,),
        decoder_blocks=(1,),
        encoder_attention=(True,),
        decoder_attention=(False,),
        embedding_width=32,
    )
    rms = {factor: (0.1,) * len(shape.channels) for factor in ("2", "4", "8")}
    config = FolderConfig(
        name="random",
        model=shape,
        diffusion=DiffusionConfig(residual_rms=rms),
        trained_voxel_mm=(3.0, 20.0),
        trained_grid=(12, 128),
    )
    folder = tmp_path_factory.mktemp("model") / "random"
    save_pretrained(folder, config, SelfAttentionUNet(shape).state_dict(), "Random weights for tests.\n")
    return folder
