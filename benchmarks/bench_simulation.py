"""Training batches of 8 slices, one after the other as training draws them; slices per second are 8 over the median."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import pytest

from harness.contest import Entry
from harness.peers import Missing
from harness.training import phantom_simulation
from mrsi_fast.simulation import Simulator
from mrsi_fast.simulation.config import SimulationConfig
from support.data import data_dir

THREADS = (1,)


def build(label: str) -> Callable[[], object]:
    if label == "heads" and data_dir() is None:
        raise Missing("the label maps of real heads are not here (MRSI_FAST_DATA)")
    config = phantom_simulation(64) if label == "phantom" else SimulationConfig.preset("training")
    simulator, step = Simulator(config), itertools.count()
    return lambda: simulator.batch(0, next(step), 8)


def entries(threads: int) -> list[Entry]:
    return [
        Entry(label, functools.partial(build, label), backend="NumPy and PyTorch", ours=True)
        for label in ("phantom", "heads")
    ]


@pytest.mark.parametrize("threads", THREADS, ids="t{}".format)
@pytest.mark.parametrize("label", ["phantom", "heads"])
def bench_simulation(row, contest, label, threads):
    row(contest("simulation", threads, entries, than=None, same=False, budget_s=10.0), label, than=None, slices=8)
