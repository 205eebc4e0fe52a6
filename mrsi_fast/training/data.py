"""Training batches as a pure function of (seed, step): simulated ahead in worker processes, then partly withheld."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mrsi_fast.mrsi.names import OTHER_CHANNELS
from mrsi_fast.simulation import Simulator
from mrsi_fast.simulation.config import SimulationConfig
from mrsi_fast.training.config import ConditionDropout
from mrsi_fast.training.ranks import ALONE, Ranks

Batch = dict[str, Tensor]

DROPOUT_STREAM, NOISE_STREAM = 1, 2
"""Independent random streams of one step."""


def step_generator(seed: int, step: int, stream: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Generator of one random stream of one step."""
    state = np.random.SeedSequence((seed, step, stream)).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state) & (2**63 - 1))


class BatchStream(IterableDataset[Batch]):
    """Batches of steps ``first`` to ``last - 1``, dealt round-robin to the workers so that they come in order."""

    def __init__(
        self, simulation: SimulationConfig, seed: int, size: int, first: int, last: int, ranks: Ranks = ALONE
    ) -> None:
        super().__init__()
        self.simulation, self.seed, self.first, self.last = simulation, seed, first, last
        self.rows = ranks.rows(size)

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        offset, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        simulator = Simulator(self.simulation)
        for step in range(self.first + offset, self.last, stride):
            batch = simulator.batch(self.seed, step, self.rows.stop - self.rows.start, self.rows.start)
            yield {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in batch.items()}


def _leave_signals_to_the_main_process(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def batches(stream: BatchStream, workers: int, pinned: bool = False) -> Iterator[Batch]:
    """Iterates over a stream; with workers, up to four batches of each are ready ahead of the optimiser.

    ``pinned`` has a thread copy each to page-locked memory, from which a GPU fetches it by itself.
    """
    return iter(
        DataLoader(
            stream,
            batch_size=None,
            num_workers=workers,
            pin_memory=pinned,
            prefetch_factor=4 if workers else None,
            worker_init_fn=_leave_signals_to_the_main_process if workers else None,
        )
    )


def visits(steps: int, passes: int, spacing: int) -> list[int]:
    """Number of the simulated batch that each step trains on, when each is used ``passes`` times.

    After every new batch come those simulated ``spacing``, 2 ``spacing``, ... batches before it: a network that trains
    faster than slices can be simulated sees each again when many others have passed, under noise of its own.
    """
    order = (old for new in count() for old in range(new, max(-1, new - passes * spacing), -spacing))
    return list(islice(order, steps))


def revisited(simulated: Iterable[Batch], first: int, order: Sequence[int]) -> Iterator[Batch]:
    """The batches of ``order``, each kept until its last visit.

    Args:
        simulated: Batches ``first``, ``first + 1``, ...
        first: Number of the first of them.
        order: Numbers as ``visits`` gives them, from any step on.
    """
    left, kept, source = Counter(order), dict[int, Batch](), enumerate(simulated, first)
    for number in order:
        while number not in kept:
            new, batch = next(source)
            kept[new] = batch
        yield kept[number]
        left[number] -= 1
        if not left[number]:
            del kept[number]


def withhold(batch: Batch, dropout: ConditionDropout, generator: torch.Generator, ranks: Ranks = ALONE) -> Batch:
    """Removes maps and the anatomical image at random; at least one map stays.

    Args:
        batch: As ``Simulator.batch`` gives it.
        dropout: The chances.
        generator: Source of the draw, on the CPU.
        ranks: The processes among which the batch is dealt out; this one's rows are in ``batch``.
    """
    presence = batch["presence"]
    size, channels = ranks.count * presence.shape[0], presence.shape[1]
    keep_all = torch.rand(size, 1, generator=generator) < dropout.all_maps
    chance = torch.full((channels,), dropout.named)
    others = torch.zeros(channels, dtype=torch.bool)
    others[list(OTHER_CHANNELS)] = True
    drawn = torch.rand(size, channels, generator=generator)
    keep = (keep_all & ~others) | (drawn < torch.where(others, torch.tensor(dropout.other), chance))
    order = torch.rand(size, channels, generator=generator)
    anatomy = torch.rand(size, generator=generator) < dropout.anatomy
    # Without waiting for a GPU, which may still be busy with the step before.
    mine = ranks.rows(size)
    keep, order, anatomy = (one[mine].to(presence.device, non_blocking=True) for one in (keep, order, anatomy))
    favourite = torch.where(presence > 0, order, -1.0).argmax(1, keepdim=True)
    keep = keep.scatter(1, favourite, True)
    return {
        **batch,
        "presence": presence * keep,
        "anatomy_present": batch["anatomy_present"] * anatomy,
    }
