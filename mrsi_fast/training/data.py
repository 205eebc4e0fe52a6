"""Training batches as a pure function of (seed, step): simulated ahead in worker processes, then partly withheld."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mrsi_fast.mrsi.names import OTHER_CHANNELS
from mrsi_fast.simulation import Simulator
from mrsi_fast.simulation.config import SimulationConfig
from mrsi_fast.training.config import ConditionDropout

Batch = dict[str, Tensor]

DROPOUT_STREAM, NOISE_STREAM = 1, 2
"""Independent random streams of one step."""


def step_generator(seed: int, step: int, stream: int) -> torch.Generator:
    """CPU generator of one random stream of one step."""
    state = np.random.SeedSequence((seed, step, stream)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))


class BatchStream(IterableDataset[Batch]):
    """Batches of steps ``first`` to ``last - 1``, dealt round-robin to the workers so that they come in order."""

    def __init__(self, simulation: SimulationConfig, seed: int, size: int, first: int, last: int) -> None:
        super().__init__()
        self.simulation, self.seed, self.size, self.first, self.last = simulation, seed, size, first, last

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        offset, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        simulator = Simulator(self.simulation)
        for step in range(self.first + offset, self.last, stride):
            batch = simulator.batch(self.seed, step, self.size)
            yield {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in batch.items()}


def _leave_signals_to_the_main_process(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def batches(stream: BatchStream, workers: int) -> Iterator[Batch]:
    """Iterates over a stream; with workers, up to four batches of each are ready ahead of the optimiser."""
    return iter(
        DataLoader(
            stream,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            worker_init_fn=_leave_signals_to_the_main_process if workers else None,
        )
    )


def withhold(batch: Batch, dropout: ConditionDropout, generator: torch.Generator) -> Batch:
    """Removes maps and the anatomical image at random; at least one map stays.

    Args:
        batch: As ``Simulator.batch`` gives it.
        dropout: The chances.
        generator: Source of the draw.
    """
    presence = batch["presence"]
    size, channels = presence.shape
    keep_all = torch.rand(size, 1, generator=generator) < dropout.all_maps
    chance = torch.full((channels,), dropout.named)
    others = torch.zeros(channels, dtype=torch.bool)
    others[list(OTHER_CHANNELS)] = True
    drawn = torch.rand(size, channels, generator=generator)
    keep = (keep_all & ~others) | (drawn < torch.where(others, torch.tensor(dropout.other), chance))
    favourite = torch.where(presence > 0, torch.rand(size, channels, generator=generator), torch.tensor(-1.0))
    keep |= torch.nn.functional.one_hot(favourite.argmax(1), channels).bool()
    anatomy = torch.rand(size, generator=generator) < dropout.anatomy
    return {
        **batch,
        "presence": presence * keep,
        "anatomy_present": batch["anatomy_present"] * anatomy,
    }
