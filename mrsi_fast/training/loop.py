"""The training loop: resumable, interruptible, every random number a function of (seed, step).

On one machine with one number of threads a resumed run equals an uninterrupted one to the bit.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from mrsi_fast.config import ConfigError
from mrsi_fast.diffusion.denoiser import Denoiser
from mrsi_fast.diffusion.losses import SigmaDistribution
from mrsi_fast.files import write_text
from mrsi_fast.models.pretrained import FolderConfig, load_pretrained, save_pretrained
from mrsi_fast.models.unet import SelfAttentionUNet
from mrsi_fast.simulation.config import BatchConfig
from mrsi_fast.training.checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from mrsi_fast.training.config import Precision, TrainConfig
from mrsi_fast.training.data import (
    DROPOUT_STREAM,
    NOISE_STREAM,
    Batch,
    BatchStream,
    batches,
    revisited,
    step_generator,
    visits,
    withhold,
)
from mrsi_fast.training.folder import alone_in
from mrsi_fast.training.objective import measure_residual_rms, training_loss, validate
from mrsi_fast.training.optimiser import Optimiser, learning_rate_share
from mrsi_fast.training.ranks import ALONE, Ranks, local_device, open_ranks

VALIDATION_SIGMAS = (0.1, 0.5, 2.0)
RMS_BATCHES = 64
RESUMABLE_CHANGES = {"steps", "output", "device", "workers", "checkpoint_minutes", "log_steps", "validation_steps"}
"""Settings that may differ between a checkpoint and the run that resumes it."""


class Interrupted(SystemExit):
    """Training stopped by a signal after saving; the exit code is 128 + the signal's number."""


class Diverged(RuntimeError):
    """A loss or its gradient is no number any more; the last checkpoint is from before."""


@dataclass
class _StopFlag:
    """Notes the first SIGINT or SIGTERM; the second acts at once."""

    received: int = 0
    previous: dict[int, Any] = field(default_factory=dict)

    def __enter__(self) -> _StopFlag:
        for number in (signal.SIGINT, signal.SIGTERM):
            self.previous[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = number
        signal.signal(number, self.previous[number])

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


def weight_average(network: nn.Module, half_life_steps: float) -> AveragedModel:
    """Exponential moving average whose memory grows from nothing, so that the initial weights do not linger."""
    decay = 0.5 ** (1.0 / half_life_steps)

    def update(averages: Any, current: Any, count: Tensor | int) -> None:
        memory = min(decay, (1.0 + float(count)) / (10.0 + float(count)))
        torch._foreach_lerp_(averages, current, 1.0 - memory)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=False)


def choose_device(name: str) -> torch.device:
    """Turns "auto" into the best device there is.

    Raises:
        ConfigError: CUDA was requested and is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device = '{name}': CUDA is not available here; use device = 'cpu' or 'auto'.")
    return torch.device(name)


def wants_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether the network's products are made in bfloat16."""
    if precision == "auto":
        if device.type == "cuda":
            return torch.cuda.is_bf16_supported()
        return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())  # not a public name
    return precision == "bfloat16"


def trained_voxel_mm(batch: BatchConfig) -> tuple[float, float]:
    """Smallest and largest low-resolution voxel size (mm) that training batches can have."""
    finest, coarsest = 2 * batch.fov_mm[0] / batch.main_grid, 8 * batch.fov_mm[1] / batch.main_grid
    return min(batch.lr_voxel_mm[0], finest), max(batch.lr_voxel_mm[1], coarsest)


def trained_grid(batch: BatchConfig) -> tuple[int, int]:
    """Smallest and largest high-resolution matrix size that training batches can have."""
    return min(2 * batch.lr_matrix[0], batch.main_grid), max(batch.largest_hr, batch.main_grid)


class Trainer:
    """One training run: state, one step, and what is written when."""

    def __init__(self, config: TrainConfig, ranks: Ranks = ALONE) -> None:
        self.config, self.folder, self.ranks = config, config.output, ranks
        if config.batch_size % ranks.count:
            raise ConfigError(
                f"batch_size = {config.batch_size} cannot be dealt out evenly to {ranks.count} processes: choose a "
                "multiple of their number."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self.device = choose_device(config.device)
        if ranks.count > 1:
            self.device = local_device(self.device)
        self.half = wants_bfloat16(config.precision, self.device)
        torch.manual_seed(config.seed)
        network = SelfAttentionUNet(config.model).to(self.device).to(memory_format=torch.channels_last)
        self.denoiser = Denoiser(network, config.diffusion.sigma_max)
        self.average = weight_average(network, config.optimiser.ema_half_life / config.batch_size)
        self.optimiser = Optimiser(network, config.optimiser, self.half)
        self.step, self.seconds, self.cpu_seconds = 0, 0.0, 0.0
        self.rms = dict(config.diffusion.residual_rms)
        self._mark = (time.monotonic(), time.process_time())
        self._losses: list[Tensor] = []
        self._stop, self._heard = _StopFlag(), 0

    @property
    def network(self) -> nn.Module:
        """The network under training."""
        network = self.denoiser.network
        assert isinstance(network, nn.Module)
        return network

    def log(self, **facts: Any) -> None:
        """Appends one line to log.jsonl."""
        if not self.ranks.first:
            return
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": self.step, "slices": self.step * self.config.batch_size, **facts}) + "\n")

    def prepare(self) -> str:
        """Resumes the folder's checkpoint, or starts anew (from ``initial`` if given); writes config.toml.

        Returns:
            A sentence for the user if the last checkpoint could not be resumed and the one before was.
        """
        comparable, remark = self.config.model_dump(mode="json", exclude=RESUMABLE_CHANGES), ""
        if self.ranks.of_first(has_checkpoint(self.folder)):
            states = {"network": self.network, "average": self.average}
            meta, remark = load_checkpoint(self.folder, states, self.optimiser)
            if meta["config"] != comparable:
                changed = sorted(key for key in comparable if comparable[key] != meta["config"].get(key))
                raise ConfigError(
                    f"{self.folder.name}: the checkpoint there was trained with other settings ({', '.join(changed)}). "
                    "Choose another output folder, or restore the settings to resume."
                )
            self.step, self.rms = meta["step"], {key: tuple(row) for key, row in meta["residual_rms"].items()}
            self.seconds, self.cpu_seconds = meta["seconds"], meta["cpu_seconds"]
        elif self.config.initial is not None:
            self._start_from(self.config.initial)
        elif not self.rms:
            self.rms = self.ranks.of_first(self._measured_rms() if self.ranks.first else {})
        if self.ranks.first:
            write_text(self.folder / "config.toml", self.config.to_toml())
        return remark

    def _measured_rms(self) -> dict[str, tuple[float, ...]]:
        stream = BatchStream(self.config.simulation, self.config.seed, 8, 0, RMS_BATCHES)
        return measure_residual_rms(batches(stream, 0), len(self.config.model.channels))

    def _start_from(self, folder: Path) -> None:
        """Takes weights and residual scales of a trained model."""
        pretrained = load_pretrained(folder)
        if pretrained.config.model.model_copy(update={"spread": self.config.model.spread}) != self.config.model:
            raise ConfigError(
                f"initial: the network in {folder.name} has another shape than [model] asks for. Copy the [model] "
                "section of its card, or choose another folder."
            )
        for module in (self.network, self.average.module):  # a second head may be new; it starts at 0
            module.load_state_dict(pretrained.network.state_dict(), strict=pretrained.config.model.spread)
        self.rms = dict(pretrained.config.diffusion.residual_rms)

    def save(self) -> None:
        """Writes the checkpoint.

        Raises:
            Diverged: A loss since the last look was not finite; nothing is written.
        """
        self._check(self._losses)
        self._count_time()
        if not self.ranks.first:
            return
        meta = {
            "config": self.config.model_dump(mode="json", exclude=RESUMABLE_CHANGES),
            "step": self.step,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "residual_rms": self.rms,
        }
        save_checkpoint(self.folder, {"network": self.network, "average": self.average}, self.optimiser, meta)

    def _check(self, losses: list[Tensor]) -> float:
        """Mean of some losses: the only place that waits for a GPU.

        Raises:
            Diverged: It is not finite.
        """
        mean = float(torch.stack(losses).mean()) if losses else 0.0
        if not math.isfinite(mean):
            raise Diverged(
                f"{self.folder.name}: the loss or its gradient was not finite in one of the {len(losses)} steps up to "
                f"{self.step}. The last checkpoint is from before that: lower the learning rates and start anew, or "
                "resume it to see whether it happens again."
            )
        return mean

    def _count_time(self) -> None:
        now = (time.monotonic(), time.process_time())
        self.seconds += now[0] - self._mark[0]
        self.cpu_seconds += now[1] - self._mark[1]
        self._mark = now

    def batches(self) -> Iterator[Batch]:
        """Batches of the steps from the present one on, on the device."""
        config = self.config
        order = visits(config.steps, config.passes, config.spacing)[self.step :]
        first, last = min(order, default=0), max(order, default=-1) + 1
        stream = BatchStream(config.simulation, config.seed, config.batch_size, first, last, self.ranks)
        on_device = (
            {key: value.to(self.device, non_blocking=True) for key, value in batch.items()}
            for batch in batches(stream, config.workers, pinned=self.device.type == "cuda")
        )
        return revisited(on_device, first, order)

    def update(self, simulated: Batch) -> Tensor:
        """One optimiser step on one batch on the device.

        Returns:
            The loss, for which nothing waits yet; NaN where its gradient is not finite.
        """
        config = self.config
        generator = step_generator(config.seed, self.step, DROPOUT_STREAM)
        batch = withhold(simulated, config.dropout, generator, self.ranks)
        sigmas = SigmaDistribution(
            config.diffusion.sigma_min,
            config.diffusion.sigma_max,
            config.loss.share_at_max,
            config.loss.log_mean,
            config.loss.log_std,
        )
        self.network.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16) if self.half else nullcontext():
            generator = step_generator(config.seed, self.step, NOISE_STREAM, self.device)
            loss = training_loss(self.denoiser, batch, self.rms, sigmas, config.loss, generator, self.ranks)
        loss.backward()
        loss, self._heard = self.ranks.reduce(self.network, loss, self._stop.received)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), config.optimiser.clip_norm)
        self.optimiser.step(learning_rate_share(self.step, config.steps, config.optimiser))
        self.average.update_parameters(self.network)
        self.step += 1
        return torch.where(norm.isfinite(), loss, torch.nan)  # such a gradient has reached the weights

    def validate(self) -> dict[str, float]:
        """Validates the averaged weights on the validation heads, always on the same batches and noise."""
        anatomy = self.config.simulation.anatomy.model_copy(update={"split": "val"})
        simulation = self.config.simulation.model_copy(update={"anatomy": anatomy})
        stream = BatchStream(simulation, self.config.seed, 8, 0, self.config.validation_batches)
        denoiser = Denoiser(self.average.module, self.config.diffusion.sigma_max)
        return validate(denoiser, batches(stream, 0), self.rms, VALIDATION_SIGMAS)

    def run(self, report: Callable[[int, int, str], None]) -> Path:
        """Trains to the configured step and writes the model folder.

        Args:
            report: Called with (step, steps, message) at each message.

        Raises:
            Interrupted: SIGINT or SIGTERM arrived; the checkpoint is complete.
            Diverged: The loss was not finite.
        """
        config = self.config
        report = report if self.ranks.first else lambda step, steps, message: None
        if remark := self.prepare():
            self.log(remark=remark)
            report(self.step, config.steps, remark)
        saved = time.monotonic()
        with self._stop:
            for batch in self.batches():
                self._losses.append(self.update(batch))
                if self.step % config.log_steps == 0 or self.step == config.steps:
                    self._count_time()
                    loss, self._losses = self._check(self._losses), []
                    self.log(loss=loss, seconds=round(self.seconds, 1), cpu_seconds=round(self.cpu_seconds, 1))
                    report(self.step, config.steps, f"loss {loss:.4f}")
                if self.step % config.validation_steps == 0 or self.step == config.steps:
                    self._compare()
                    figures = self.validate() if self.ranks.first else {}
                    self.log(**figures)
                    report(self.step, config.steps, ", ".join(f"{key} {value:.3f}" for key, value in figures.items()))
                if number := self._signal():
                    self.save()
                    raise Interrupted(128 + number)
                if time.monotonic() - saved > 60 * config.checkpoint_minutes:
                    self.save()
                    saved = time.monotonic()
        self.save()
        return self.export()

    def _signal(self) -> int:
        """Number of the signal to stop at, or 0; several processes stop at the step in which all have heard of it."""
        return self._stop.received if self.ranks.count == 1 else self._heard

    def _compare(self) -> None:
        """Makes sure that all processes still train the same network.

        Raises:
            Diverged: They do not.
        """
        checksum = torch.stack([parameter.detach().double().sum() for parameter in self.network.parameters()]).sum()
        if not self.ranks.agree(checksum):
            raise Diverged(
                f"{self.folder.name}: the processes hold different weights at step {self.step}. Use equal machines and "
                "versions of PyTorch for all of them, and resume the last checkpoint."
            )

    def export(self) -> Path:
        """Writes the averaged weights as a model folder that ``SuperResolver.from_pretrained`` reads."""
        config = self.config
        folder = self.folder / "model"
        if not self.ranks.first:
            return folder
        settings = FolderConfig(
            name=config.name,
            model=config.model,
            diffusion=config.diffusion.model_copy(update={"residual_rms": self.rms}),
            trained_voxel_mm=trained_voxel_mm(config.simulation.batch),
            trained_grid=trained_grid(config.simulation.batch),
        )
        card = (
            f"# {config.name}\n\nTrained by `mrsi-fast train` for {self.step} steps of {config.batch_size} slices "
            f"({self.seconds / 3600:.2f} h wall, {self.cpu_seconds / 3600:.2f} h CPU of the training process).\n\n"
            f"Research use only.\n\n```toml\n{config.to_toml()}```\n"
        )
        save_pretrained(folder, settings, self.average.module.state_dict(), card)
        return folder


def train(config: TrainConfig | str | Path, report: Callable[[int, int, str], None] | None = None) -> Path:
    """Trains a model, or resumes the run whose checkpoint lies in the output folder.

    Started by ``torchrun``, this process is one of several, each with a share of every batch (:mod:`~.ranks`).

    Args:
        config: The settings, or the path of a TOML file with them.
        report: Called with (step, steps, message) at every log line; None is silent (the log is in ``log.jsonl``).

    Returns:
        The model folder, ready for ``SuperResolver.from_pretrained``.

    Raises:
        ConfigError: The settings do not fit, or differ from the checkpoint's, or another training runs in the folder.
        ModelFolderError: The folder to start from cannot be used.
        CheckpointError: The checkpoint and the one before it are damaged.
        Interrupted: SIGINT or SIGTERM arrived; the checkpoint was written first.
        Diverged: The loss was not finite; the last checkpoint is from before that.
        RankLost: Another process of the run died.
    """
    settings = config if isinstance(config, TrainConfig) else TrainConfig.load(config)
    with open_ranks(choose_device(settings.device)) as ranks, alone_in(settings.output, ranks):
        return Trainer(settings, ranks).run(report or (lambda step, steps, message: None))
