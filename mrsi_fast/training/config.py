"""Settings of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import pydantic

from mrsi_fast.config import DiffusionConfig, ModelConfig, Settings
from mrsi_fast.simulation.config import SimulationConfig

Precision = Literal["auto", "float32", "bfloat16"]

MOST_STEPS = 10**9
"""Steps of a training run, and anything that is counted in them."""


class OptimiserConfig(Settings):
    """AdamW and Muon, their learning-rate schedule (warm-up, constant, linear cool-down to 0) and the weight average.

    Attributes:
        learning_rate: Peak learning rate of AdamW.
        filter_learning_rate: Peak learning rate of Muon, which takes the filters of all inner convolutions; 0 leaves
            them to AdamW.
        betas: Moment decay rates of AdamW.
        weight_decay: Decoupled weight decay.
        warmup_steps: Steps of linear warm-up.
        cooldown_steps: Steps over which the learning rate falls to 0 at the end.
        clip_norm: Gradients are scaled down to at most this global norm.
        ema_half_life: Half-life of the weight average, in slices.
    """

    learning_rate: float = pydantic.Field(5e-4, gt=0)
    filter_learning_rate: float = pydantic.Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = pydantic.Field(0.01, ge=0)
    warmup_steps: int = pydantic.Field(200, ge=0, le=MOST_STEPS)
    cooldown_steps: int = pydantic.Field(1000, ge=0, le=MOST_STEPS)
    clip_norm: float = pydantic.Field(1.0, gt=0)
    ema_half_life: float = pydantic.Field(2000.0, gt=0)


class ConditionDropout(Settings):
    """How often optional inputs of the network are withheld, so that none becomes a requirement.

    Attributes:
        all_maps: Share of examples that keep every map.
        named: Chance that a named map is kept in the other examples.
        other: Chance that an unnamed map is kept, in all examples.
        anatomy: Chance that the anatomical image is kept.
    """

    all_maps: float = pydantic.Field(0.5, ge=0, le=1)
    named: float = pydantic.Field(0.6, gt=0, le=1)
    other: float = pydantic.Field(0.5, ge=0, le=1)
    anatomy: float = pydantic.Field(0.5, ge=0, le=1)


class LossConfig(Settings):
    """Where on the noise axis and where in the picture the network is trained.

    Attributes:
        share_at_max: Share of draws at exactly sigma_max, where sampling and the one-step estimate start.
        blind: Share of these whose state is 0 in place of noise. The one-step estimate starts there: noise so strong
            carries no information on the maps, but its transmitted part would be an error.
        log_mean: Mean of ln(sigma) of the remaining draws.
        log_std: Standard deviation of ln(sigma) of the remaining draws.
        background: Weight of voxels outside the brain, relative to 1 inside.
        spread: Weight of the second head's likelihood; 0 for a network without one.
    """

    share_at_max: float = pydantic.Field(0.25, ge=0.1, le=1)
    blind: float = pydantic.Field(0.5, ge=0, le=1)
    log_mean: float = -0.6
    log_std: float = pydantic.Field(1.4, gt=0)
    background: float = pydantic.Field(0.25, ge=0)
    spread: float = pydantic.Field(0.0, ge=0)


class TrainConfig(Settings):
    """Everything that determines a training run; with the software and the machine it determines the weights.

    Attributes:
        name: Name of the resulting model.
        output: Run folder (checkpoint, log, and at the end the model folder).
        seed: Seed of initialisation, data, noise and dropout.
        initial: Model folder to start from (fine-tuning), its residual scales included; None starts from nothing.
        steps: Optimiser steps of the whole run.
        batch_size: Slices a step.
        passes: How often each simulated batch is trained on, each time under other noise and with other conditions
            withheld: more than once where the network is faster than the simulation (a GPU).
        spacing: Simulated batches between two passes of one; they are kept on the device meanwhile.
        model: Shape of the network.
        diffusion: Noise levels; residual scales are measured on the training data if not given.
        simulation: The training data: a section of settings, or the name of a preset.
        optimiser: Optimiser and weight average.
        dropout: Withholding of conditions.
        loss: Weighting over noise levels and voxels.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: Of the network's arithmetic in training; weights, optimiser and loss are float32 in any case. "auto"
            is bfloat16 where the device multiplies it faster (CUDA; CPUs with AMX), else float32.
        workers: Processes that simulate batches ahead of the optimiser; 0 simulates in between.
        checkpoint_minutes: Time between checkpoints.
        log_steps: Steps between log lines.
        validation_steps: Steps between validations.
        validation_batches: Batches of each validation.
    """

    name: str = pydantic.Field("mrsi_fast", min_length=1, max_length=64)
    output: Path
    seed: int = pydantic.Field(0, ge=0, lt=2**63)
    initial: Path | None = None
    steps: int = pydantic.Field(gt=0, le=MOST_STEPS)
    batch_size: int = pydantic.Field(8, gt=0, le=4096)
    passes: int = pydantic.Field(1, gt=0, le=1000)
    spacing: int = pydantic.Field(64, gt=0, le=100_000)
    model: ModelConfig = ModelConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    simulation: SimulationConfig = pydantic.Field(default_factory=lambda: SimulationConfig.preset("training-v2"))
    optimiser: OptimiserConfig = OptimiserConfig()
    dropout: ConditionDropout = ConditionDropout()
    loss: LossConfig = LossConfig()
    device: str = "auto"
    precision: Precision = "auto"
    workers: int = pydantic.Field(1, ge=0, le=1024)
    checkpoint_minutes: float = pydantic.Field(10.0, gt=0)
    log_steps: int = pydantic.Field(20, gt=0, le=MOST_STEPS)
    validation_steps: int = pydantic.Field(1000, gt=0, le=MOST_STEPS)
    validation_batches: int = pydantic.Field(8, gt=0, le=10_000)

    @pydantic.field_validator("simulation", mode="before")
    @classmethod
    def _preset_by_name(cls, value: Any) -> Any:
        return SimulationConfig.preset(value) if isinstance(value, str) else value

    @pydantic.field_validator("output", mode="before")
    @classmethod
    def _output_is_named(cls, value: Any) -> Any:
        if isinstance(value, str) and not value.strip():
            raise ValueError("the folder has no name; it is not the one that the command runs in")
        return value

    @pydantic.model_validator(mode="after")
    def _spread_has_a_head(self) -> Self:
        if (self.loss.spread > 0) != self.model.spread:
            raise ValueError("loss.spread and model.spread go together: the likelihood trains the second head")
        return self
