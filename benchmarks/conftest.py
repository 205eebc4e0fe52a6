"""How benchmarks report: peers are timed together beforehand, and each row replays its own durations.

pytest-benchmark times one function after the other: on a machine that drifts it compares moments, not functions. The
rules of a fair contest are in ``harness.contest``; here its rows become those of pytest-benchmark and of the
machine's history (``--save-results``). A benchmark's first parameter is ``label``, then ``case``, then ``threads``.
"""

from __future__ import annotations

import os

# Before PyTorch's OpenMP starts: threads that wait for work must not take the cores from the next peer.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness import results
from harness.contest import Entry, Outcome, hold, keep_memory
from harness.records import History
from support.backends import describe, missing_required

SESSION = pytest.StashKey[results.Session]()
HELD = pytest.StashKey[dict[tuple[str, int], Outcome]]()


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
    group.addoption("--long", action="store_true", help="Also the benchmarks that take many minutes.")
    group.addoption(
        "--save-results",
        nargs="?",
        const="auto",
        metavar="JSON",
        help="Add the rows to this history; without a name benchmarks/results/<machine>.json.",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes many minutes; runs with --long")
    missing = missing_required()
    if missing:
        reasons = "; ".join(f"{backend}: {reason}" for backend, reason in missing.items())
        pytest.exit(f"MRSI_FAST_REQUIRE asks for what is not here: {reasons}.", returncode=4)
    keep_memory()
    config.stash[SESSION] = results.Session(config.getoption("--rounds"))
    config.stash[HELD] = {}


def pytest_report_header(config: pytest.Config) -> list[str]:
    return describe()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        held_back = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if item not in held_back]
        if held_back:
            config.hook.pytest_deselected(items=held_back)
    for item in items:
        item.add_marker(pytest.mark.benchmark(timer=replay))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    session = config.stash[SESSION]
    for line in session.lines():
        terminalreporter.write_line(line)
    where = config.getoption("--save-results")
    history = session.history
    if where is not None and (history.rows or history.instructions or history.figures):
        path = session.save(None if where == "auto" else Path(where))
        left_out = sorted(set(history.contests) - set(history.fit_part().contests))
        words = f" without what an unfit machine timed: {', '.join(left_out)}; time that again" if left_out else ""
        terminalreporter.write_line(f"Added to {path}{words}.")


@pytest.fixture
def contest(request: pytest.FixtureRequest) -> Callable[..., Outcome]:
    """``contest(name, threads, entries, **options)``: the contest of that name, held when it is first asked for.

    Only the labels and cases that were selected (``-k``) take part, and the label that the others are compared with.
    """
    held = request.config.stash[HELD]

    def of(
        name: str,
        threads: int,
        entries: Callable[[int], Sequence[Entry]],
        than: str | None = "eager",
        **options: object,
    ) -> Outcome:
        if (name, threads) not in held:
            options["than"] = than
            if (rounds := request.config.getoption("--rounds")) is not None:
                options["rounds"] = rounds
            chosen = results.selected(entries(threads), request.session.items, request.function, **options)
            held[name, threads] = hold(name, threads, chosen, **options)
        return held[name, threads]

    return of


@pytest.fixture
def counted(request: pytest.FixtureRequest) -> History:
    """The session's history, for what is counted and not timed."""
    return request.config.stash[SESSION].history


@pytest.fixture
def row(request: pytest.FixtureRequest, benchmark: BenchmarkFixture) -> Callable[..., None]:
    """``row(outcome, label, case, than)``: one row of a contest; skipped with the reason where the peer is missing."""

    def replayed(outcome: Outcome, label: str, case: str = "", than: str | None = "eager", **facts: object) -> None:
        session, key = request.config.stash[SESSION], (label, case)
        if key in outcome.missing:
            session.history.missing[request.node.name] = outcome.missing[key]
            pytest.skip(outcome.missing[key])
        benchmark.group = outcome.name
        benchmark.extra_info.update(session.add(request.node.name, outcome, key, than, facts))
        replay.load(outcome.seconds[key])
        benchmark.pedantic(lambda: None, rounds=len(outcome.seconds[key]), iterations=1)

    return replayed


@pytest.fixture(scope="module")
def folder():
    """A folder for what a benchmark writes, gone when its module ends."""
    with tempfile.TemporaryDirectory(prefix="mrsi_fast_bench_") as name:
        yield Path(name)
