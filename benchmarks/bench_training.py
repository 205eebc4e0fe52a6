"""One optimiser step on 8 slices of 64x64, the shipped network: forward, backward, clipping, AdamW, weight average."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from mrsi_fast.models.pretrained import load_pretrained
from mrsi_fast.testing.contest import Entry
from mrsi_fast.testing.peers import plain_operations
from mrsi_fast.testing.training import fixed_batch, trainer

THREADS = (2,)
PEERS = {"ours": contextlib.nullcontext, "eager": plain_operations}


def build(label: str, folder: Path, losses: dict[str, float]) -> Callable[[], object]:
    """Every step from the same weights would need a copy of all state: the steps go on, as in training.

    So it is the first one's loss that must be the same for all.
    """
    config = load_pretrained().config
    state, batch = trainer(folder / label, config.model, config.diffusion), fixed_batch(8, 64)

    def run() -> None:
        with PEERS[label]():
            state.update(batch)

    with PEERS[label]():
        losses[label] = state.update(batch)
    assert losses[label] == pytest.approx(next(iter(losses.values())), rel=1e-4), losses
    return run


@pytest.mark.parametrize("threads", THREADS, ids="t{}".format)
@pytest.mark.parametrize("label", PEERS)
def bench_training_step(row, contest, folder, label, threads):
    def entries(threads: int) -> list[Entry]:
        losses: dict[str, float] = {}
        backends = {"ours": "our operations", "eager": "PyTorch, channels-last"}
        return [
            Entry(one, functools.partial(build, one, folder, losses), backend=backends[one], ours=one == "ours")
            for one in PEERS
        ]

    row(contest("training_step", threads, entries, same=False, budget_s=20.0), label, slices=8)
