"""How benchmarks report: peers are timed together beforehand, and each row replays its own durations.

pytest-benchmark times one function after the other: on a machine that drifts it compares moments, not functions.
"""

from __future__ import annotations

import os

# Before PyTorch's OpenMP starts: threads that wait for work must not take the cores from the next peer.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from collections.abc import Callable, Sequence

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mrsi_fast.testing.backends import describe, missing_required
from mrsi_fast.testing.contest import Entry, Outcome, hold


class Replay:
    """A timer whose pairs of readings lie a recorded duration apart."""

    def __init__(self) -> None:
        self._readings: list[float] = []

    def load(self, durations: list[float]) -> None:
        self._readings = [reading for duration in reversed(durations) for reading in (duration, 0.0)]

    def __call__(self) -> float:
        return self._readings.pop() if self._readings else 0.0


replay = Replay()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mrsi_fast benchmarks")
    group.addoption("--rounds", type=int, help="Rounds of timing; default as many as each benchmark's budget allows.")


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


@pytest.fixture(scope="session")
def contest(request: pytest.FixtureRequest) -> Callable[..., Outcome]:
    """``contest(name, threads, entries, **options)``: the contest of that name, held when it is first asked for."""
    held: dict[tuple[str, int], Outcome] = {}

    def of(name: str, threads: int, entries: Callable[[int], Sequence[Entry]], **options: object) -> Outcome:
        if (name, threads) not in held:
            options = {"rounds": request.config.getoption("--rounds"), **options}
            held[name, threads] = hold(name, threads, entries(threads), **options)
        return held[name, threads]

    return of


@pytest.fixture
def row(benchmark: BenchmarkFixture) -> Callable[..., None]:
    """``row(outcome, label, case, than)``: one row of a contest; skipped with the reason where the peer is missing."""

    def replayed(outcome: Outcome, label: str, case: str = "", than: str = "eager") -> None:
        key = label, case
        if key in outcome.missing:
            pytest.skip(outcome.missing[key])
        facts = {"backend": outcome.backends[key], "threads": outcome.threads, "peak_mb": outcome.peak_mb.get(key)}
        if (than, case) in outcome.seconds:
            facts[f"times_faster_than_{than}"] = str(outcome.faster(key, than))
        benchmark.extra_info.update(facts | outcome.rates(key))
        replay.load(outcome.seconds[key])
        benchmark.pedantic(lambda: None, rounds=len(outcome.seconds[key]), iterations=1)

    return replayed
