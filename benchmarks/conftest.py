"""How a benchmark reports: peers are timed together beforehand, and each row replays its own durations.

pytest-benchmark times one function after the other: on a machine that drifts it compares moments, not functions.
"""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from mrsi_fast.testing.backends import describe, missing_required
from mrsi_fast.testing.timing import paired_ratio


class Replay:
    """A timer whose pairs of readings lie a recorded duration apart."""

    def __init__(self) -> None:
        self._readings: list[float] = []

    def load(self, durations: list[float]) -> None:
        self._readings = [reading for duration in reversed(durations) for reading in (duration, 0.0)]

    def __call__(self) -> float:
        return self._readings.pop() if self._readings else 0.0


replay = Replay()


def pytest_configure(config: pytest.Config) -> None:
    missing = missing_required()
    if missing:
        reasons = "; ".join(f"{backend}: {reason}" for backend, reason in missing.items())
        pytest.exit(f"MRSI_FAST_REQUIRE asks for what is not here: {reasons}.", returncode=4)


def pytest_report_header(config: pytest.Config) -> list[str]:
    return describe()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.benchmark(timer=replay))


@pytest.fixture
def report(benchmark: BenchmarkFixture):
    """``report(label, seconds, against, **facts)``: one row from a dictionary of interleaved timings."""

    def row(label: str, seconds: dict[str, list[float]], against: str, **facts: object) -> None:
        ratio = paired_ratio(seconds[against], seconds[label])
        benchmark.extra_info.update(
            {f"times_faster_than_{against}": str(ratio), "threads": torch.get_num_threads(), **facts}
        )
        replay.load(seconds[label])
        benchmark.pedantic(lambda: None, rounds=len(seconds[label]), iterations=1)

    return row
