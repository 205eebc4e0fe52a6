"""A trainer and a batch for benchmarks of a training step, on the analytic head, so that no data are needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from harness.peers import Missing
from mrsi_fast.config import DiffusionConfig, ModelConfig
from mrsi_fast.simulation import Simulator
from mrsi_fast.simulation.config import SimulationConfig
from mrsi_fast.training.config import Precision, TrainConfig
from mrsi_fast.training.data import Batch
from mrsi_fast.training.loop import Trainer, wants_bfloat16


def phantom_simulation(main_grid: int) -> SimulationConfig:
    """The simulation of the shipped training on the analytic head, every batch on the main grid."""
    preset = SimulationConfig.preset("training")
    anatomy = preset.anatomy.model_copy(update={"heads": "phantom", "tumour_masks": None})
    batch = preset.batch.model_copy(update={"main_grid": main_grid, "main_grid_share": 1.0})
    return preset.model_copy(update={"anatomy": anatomy, "batch": batch})


def fixed_batch(size: int, main_grid: int) -> Batch:
    """The first batch of seed 0."""
    batch = Simulator(phantom_simulation(main_grid)).batch(0, 0, size)
    return {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in batch.items()}


def trainer(folder: Path, model: ModelConfig, diffusion: DiffusionConfig, precision: Precision = "float32") -> Trainer:
    """At its first step, with new weights.

    Args:
        folder: Created; for its log.
        model: Shape of the network.
        diffusion: Noise levels and residual scales.
        precision: Of the network's arithmetic.

    Raises:
        Missing: Training would not take bfloat16 on this processor.
    """
    if precision == "bfloat16" and not wants_bfloat16("auto", torch.device("cpu")):
        raise Missing("this processor does not multiply bfloat16 faster than float32")
    config = TrainConfig(
        output=folder,
        steps=100_000,
        model=model,
        diffusion=diffusion,
        simulation=phantom_simulation(64),
        device="cpu",
        precision=precision,
    )
    return Trainer(config)
