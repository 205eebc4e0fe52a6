"""What is evaluated on what: the settings of an evaluation and the parts that they amount to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from mrsi_fast.config import ConfigError, Settings
from mrsi_fast.evaluation import baselines, cases
from mrsi_fast.mrsi.geometry import parse_factors
from mrsi_fast.posterior import SAMPLES_FOR_STD
from mrsi_fast.simulation.anatomy import head_paths
from mrsi_fast.simulation.config import SimulationConfig
from mrsi_fast.simulation.warp import PHANTOM_VARIANTS


class EvaluationConfig(Settings):
    """What to evaluate on what.

    Attributes:
        model: Model folder; None for the shipped weights, ``"none"`` for the baselines alone.
        preset: Simulation preset.
        scales: In-plane factors.
        split: ``val``, or ``test`` (once, at the end).
        held_out: Folder of label maps, or of pairs of measured and true maps, in place of the split's heads.
        subjects: Simulated subjects per head.
        slices: Slices per subject; None for the preset's.
        fit_slices: Slices of each train head that the baselines are fitted on.
        heads: ``phantom`` for the analytic head where there are no label maps; None for the preset's.
        seed: Of the simulated subjects and of the noise.
        samples: Posterior samples; at least 8, or 0 for the one-step mean alone.
        steps: Solver steps, one set of samples for each.
        anatomy: Also evaluate with the T1 image, in rows of their own.
        data_consistency: For every method alike; ``auto`` is hard on noise-free data and soft on noisy data.
        methods: Baselines.
    """

    model: str | None = None
    preset: str = "paper-like"
    scales: Annotated[tuple[Annotated[int, pydantic.Field(ge=2, le=8)], ...], pydantic.Field(max_length=3)] = (2, 4, 8)
    split: Literal["train", "val", "test"] = "val"
    held_out: str | None = None
    subjects: int = pydantic.Field(1, ge=1, le=1000)
    slices: int | None = pydantic.Field(None, ge=1, le=256)
    fit_slices: int = pydantic.Field(6, ge=1, le=256)
    heads: Literal["phantom"] | None = None
    seed: int = pydantic.Field(0, ge=0, lt=2**63)
    samples: int = pydantic.Field(16, ge=0, le=1024)
    steps: Annotated[tuple[Annotated[int, pydantic.Field(ge=1, le=1000)], ...], pydantic.Field(max_length=16)] = (8,)
    anatomy: bool = False
    data_consistency: Literal["auto", "off"] = "auto"
    methods: tuple[baselines.Baseline, ...] = baselines.BASELINES

    @pydantic.field_validator("samples")
    @classmethod
    def _enough(cls, value: int) -> int:
        if 0 < value < SAMPLES_FOR_STD:
            raise ValueError(f"give 0 or at least {SAMPLES_FOR_STD} samples")
        return value

    @pydantic.field_validator("scales")
    @classmethod
    def _offered(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        for scale in value:
            parse_factors(scale)
        return value

    def pairs(self) -> list[Path]:
        """Subjects of a held-out folder of measured and true maps; none if the folder holds label maps.

        Raises:
            ConfigError: The folder does not exist.
        """
        if self.held_out is None:
            return []
        folder = Path(self.held_out)
        if not folder.is_dir():
            raise ConfigError(
                f"{folder}: there is no such folder. Give a folder of label maps (sub-*_dseg.nii.gz) or "
                "of subjects with lr and hr inside."
            )
        return cases.pair_folders(folder)

    def simulation(self, part: Literal["evaluated", "train"]) -> SimulationConfig:
        """Settings of the simulated subjects that are evaluated, or of those that the baselines learn from."""
        config = SimulationConfig.preset(self.preset)
        anatomy: dict[str, Any] = {"split": "train" if part == "train" else self.split}
        if self.heads is not None:
            anatomy |= {"heads": self.heads, "tumour_masks": None}
        elif self.held_out is not None and part == "evaluated":
            anatomy |= {"heads": self.held_out, "split": "all"}
        count = self.slices or config.volume.slices
        span = config.volume.step_mm * (count - 1)
        volume = config.volume.model_copy(update={"slices": count})
        if part == "train" and self.fit_slices < count:
            step = span / max(self.fit_slices - 1, 1)
            volume = volume.model_copy(update={"slices": self.fit_slices, "step_mm": step})
        return config.model_copy(update={"anatomy": config.anatomy.model_copy(update=anatomy), "volume": volume})


@dataclass(frozen=True)
class Task:
    """One part: a simulated subject (its number) or a folder of pairs, at one factor."""

    subject: int | str
    factors: tuple[int, int]

    @property
    def name(self) -> str:
        """File name of the part without suffix."""
        label = f"{self.subject:03d}" if isinstance(self.subject, int) else Path(self.subject).name
        return f"{label}_x{self.factors[0]}" + (f"x{self.factors[1]}" if self.factors[0] != self.factors[1] else "")


def plan(config: EvaluationConfig) -> list[Task]:
    """All parts of a run, subjects in turn, so that an interrupted run has all factors of its first heads."""
    if pairs := config.pairs():
        return [Task(str(path), cases.read_pair(path).factors) for path in pairs]
    heads = head_count(config.simulation("evaluated"))
    return [Task(number, (scale, scale)) for number in range(heads * config.subjects) for scale in config.scales]


def head_count(simulation: SimulationConfig) -> int:
    """Number of heads that the simulation takes in turn.

    Raises:
        ConfigError: The folder of label maps does not exist or is empty.
    """
    anatomy = simulation.anatomy
    if anatomy.heads == "phantom":
        return len(PHANTOM_VARIANTS[anatomy.split])
    return len(head_paths(anatomy.heads, anatomy.split))
