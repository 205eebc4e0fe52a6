"""Made-up histories with known truth: durations of rows and anchors under drift, noise and planted slowdowns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from harness.records import COPY, OWN_GEMM, SGEMM, SGEMM_AGAIN, Contest, History, Row, Run

ANCHORS = {SGEMM: 25e-3, SGEMM_AGAIN: 25e-3, OWN_GEMM: 28e-3, COPY: 12e-3}
ROWS = {"bench_norm[ours-t1]": 1.0e-3, "bench_norm[eager-t1]": 1.8e-3, "bench_conv[ours-t1]": 6e-3}


def made_up(
    seed: int,
    factors: Mapping[str, float] | None = None,
    drift: float = 0.0,
    noise: float = 0.03,
    rounds: int = 20,
    instructions: Mapping[str, int] | None = None,
    processes: int = 1,
    between: float = 0.0,
    rows: Mapping[str, float] = ROWS,
) -> History:
    """One contest of rows ("ours" beside "eager") and the anchors above.

    Args:
        seed: Of drift and noise.
        factors: How much longer a row or anchor takes than it should.
        drift: Of the whole machine, as a slow random walk over the rounds (standard deviation at the end).
        noise: Of each duration by itself.
        rounds: Of each process.
        instructions: Counted kernels.
        processes: That timed the contest one after the other.
        between: What a row has in one process and not in the next, as a standard deviation.
        rows: Durations by name.
    """
    draw = np.random.default_rng(seed)
    walk = np.exp(np.cumsum(draw.normal(0, drift / (rounds * processes) ** 0.5, rounds * processes)))
    factors = factors or {}

    def durations(name: str, seconds: float, between: float = 0.0) -> list[float]:
        placed = np.repeat(draw.normal(0, between, processes), rounds)
        noises = draw.normal(0, noise, rounds * processes)
        return [float(v) for v in seconds * factors.get(name, 1.0) * walk * np.exp(placed + noises)]

    names = list(rows)
    made = {
        name: Row(
            contest="ops-t1",
            label=name.split("[")[1].split("-")[0],
            ours="ours" in name,
            than=name.replace("ours", "eager") if name.replace("ours", "eager") in names else None,
            backend="native",
            bytes=8e6,
            flops=2e9 if "conv" in name else 0.0,
            seconds=durations(name, seconds, between),
        )
        for name, seconds in rows.items()
    }
    contest = Contest(
        sessions=[(process, rounds) for process in range(processes)],
        threads=1,
        anchors={name: durations(name, s) for name, s in ANCHORS.items()},
    )
    run = Run(started="2026-01-01 00:00 UTC", commit="0", versions={"torch": "2"}, waiting="passive", code="0")
    return History(
        machine={"cpu": "Example 1", "cpus": 2, "isa": "avx2"},
        runs=[run] * processes,
        contests={"ops-t1": contest},
        rows=made,
        instructions=dict(instructions or {}),
    )


@pytest.fixture
def history():
    return made_up
