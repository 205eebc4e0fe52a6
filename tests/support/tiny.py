"""A network of one level: a model folder with random weights, and a training run of seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mrsi_fast.config import DiffusionConfig, ModelConfig
from mrsi_fast.models.pretrained import FolderConfig, save_pretrained
from mrsi_fast.models.unet import SelfAttentionUNet

FULL_RATE = "warmup_steps = 4\ncooldown_steps = 4"

_SHAPE: dict[str, Any] = {
    "widths": (32,),
    "encoder_blocks": (1,),
    "decoder_blocks": (1,),
    "encoder_attention": (True,),
    "decoder_attention": (False,),
}

_TRAINING = """
[loss]
spread = {spread}

[diffusion.residual_rms]
2 = [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
4 = [0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]
8 = [0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]

[model]
widths = [32]
encoder_blocks = [1]
decoder_blocks = [1]
encoder_attention = [true]
decoder_attention = [false]
embedding_width = 16
spread = {head}

[optimiser]
{optimiser}

[simulation]
object_voxel_mm = 3.0
object_plane_mm = 6.0

[simulation.anatomy]
heads = "phantom"

[simulation.batch]
main_grid = 32
"""


def tiny_model(folder: Path, factors: tuple[str, ...] = ("2", "4", "8"), spread: bool = False) -> Path:
    """Writes a model folder whose maps mean nothing; all else is as with trained weights."""
    torch.manual_seed(0)
    shape = ModelConfig(**_SHAPE, embedding_width=32, spread=spread)
    config = FolderConfig(
        name="random",
        model=shape,
        diffusion=DiffusionConfig(residual_rms={factor: (0.1,) * len(shape.channels) for factor in factors}),
        trained_voxel_mm=(3.0, 20.0),
        trained_grid=(12, 128),
    )
    save_pretrained(folder, config, SelfAttentionUNet(shape).state_dict(), "Random weights for tests.\n")
    return folder


def tiny_training(output: Path, steps: int, spread: float = 0.0, optimiser: str = FULL_RATE, **changes: Any) -> str:
    """TOML text of a training run on the analytic head.

    Args:
        output: The run folder.
        steps: Optimiser steps.
        spread: Weight of the second head's likelihood; 0 for a network without one.
        optimiser: Lines of the section ``[optimiser]``.
        **changes: Other keys of the first level, as TOML takes their ``repr``.
    """
    first = {"output": str(output), "steps": steps, "batch_size": 2, "workers": 0, "log_steps": 1}
    first |= {"validation_steps": steps, "validation_batches": 1} | changes
    lines = "\n".join(f"{key} = {value!r}" for key, value in first.items())
    return f"{lines}\n{_TRAINING.format(spread=spread, head=str(spread > 0).lower(), optimiser=optimiser)}"
