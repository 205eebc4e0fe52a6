"""A scan's evidence beside the run: mean and SD alone, with self-test and alignment of a T1, and a run of 8 samples.

A simulated analytic head of 64x64x20 voxels at x4, all its maps; from arrays to arrays, in one process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from harness.contest import Entry
from mrsi_fast import SuperResolver
from mrsi_fast.evaluation.cases import Case, simulated_case
from mrsi_fast.simulation import SimulationConfig
from mrsi_fast.simulation.volume import simulate_subject

THREADS = (2,)
SLICES, FACTOR = 20, 4
ALONE: dict[str, Any] = {"evidence": "off", "align": "off"}
RUNS: dict[str, dict[str, Any]] = {
    "8-samples": ALONE | {"samples": 8, "steps": 8},
    "mean": ALONE | {"samples": 0},
    "mean, self-test": {"samples": 0, "evidence": "auto"},
    "mean, self-test, T1 aligned": {"samples": 0, "evidence": "auto", "align": "auto"},
}


@functools.cache
def case() -> Case:
    config = SimulationConfig.preset("realistic-3T")
    anatomy = config.anatomy.model_copy(update={"heads": "phantom", "tumour_masks": None})
    volume = config.volume.model_copy(update={"slices": SLICES})
    config = config.model_copy(update={"anatomy": anatomy, "volume": volume})
    return simulated_case(simulate_subject(config, 0, 0, [(FACTOR, FACTOR)]), (FACTOR, FACTOR))


def build(label: str, threads: int) -> Callable[[], object]:
    resolver = SuperResolver.from_pretrained()
    image = case().anatomy if "T1" in label else None
    options = case().arguments() | RUNS[label]
    return lambda: resolver(case().measured, anatomy=image, **options)


@pytest.mark.parametrize("threads", THREADS, ids="t{}".format)
@pytest.mark.parametrize("label", RUNS)
def bench_evidence(row, contest, label, threads):
    def entries(threads: int) -> list[Entry]:
        return [Entry(one, functools.partial(build, one, threads), backend="mrsi_fast") for one in RUNS]

    held = contest("evidence", threads, entries, than="8-samples", same=False, rounds=3)
    row(held, label, than="8-samples")
