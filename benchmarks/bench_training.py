"""One optimiser step on 8 slices of 64x64, the shipped network: forward, backward, clipping, AdamW, weight average."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.contest import Entry
from harness.peers import plain_operations
from harness.training import fixed_batch, trainer
from mrsi_fast.models.pretrained import load_pretrained

THREADS = (2,)
PEERS = {
    "ours": (contextlib.nullcontext, "float32", "our operations"),
    "eager": (plain_operations, "float32", "PyTorch, channels-last"),
    "bfloat16": (contextlib.nullcontext, "bfloat16", "PyTorch under autocast, which training takes by itself here"),
}
"""What the operations are, in which precision, and what to call that."""
SAME_LOSS = {"float32": 1e-4, "bfloat16": 1e-2}


def build(label: str, folder: Path, losses: dict[str, float]) -> Callable[[], object]:
    """Every step from the same weights would need a copy of all state: the steps go on, as in training.

    So it is the first one's loss that must be the same for all.
    """
    operations, precision, _ = PEERS[label]
    config = load_pretrained().config
    state, batch = trainer(folder / label, config.model, config.diffusion, precision), fixed_batch(8, 64)

    def run() -> None:
        with operations():
            state.update(batch)

    with operations():
        losses[label] = float(state.update(batch))
    assert losses[label] == pytest.approx(next(iter(losses.values())), rel=SAME_LOSS[precision]), losses
    return run


@pytest.mark.parametrize("threads", THREADS, ids="t{}".format)
@pytest.mark.parametrize("label", PEERS)
def bench_training_step(row, contest, folder, label, threads):
    def entries(threads: int) -> list[Entry]:
        losses: dict[str, float] = {}
        return [
            Entry(one, functools.partial(build, one, folder, losses), backend=backend, ours=one != "eager")
            for one, (_, _, backend) in PEERS.items()
        ]

    row(contest("training_step", threads, entries, same=False, budget_s=20.0), label, slices=8)
