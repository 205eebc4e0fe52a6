"""A contest: everything that one table compares, checked for the same result first, then timed together.

Beside the peers every round times the machine's ceilings, so that each row can be told as a share of them, one of them
under two labels: where these differ, the machine is unfit to judge.
"""

from __future__ import annotations

import ctypes
import gc
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.ceilings import ceilings
from harness.peers import Missing
from harness.records import CONTROL_BAND
from harness.timing import LONG_S, Ratio, interleave, paired_ratio

__all__ = ["CONTROL_BAND", "Entry", "Missing", "Outcome", "hold"]

TOLERANCE = 2e-4
"""Allowed difference between peers, of the largest value of a result: the accuracy that the native engine promises."""

Runner = Callable[[], Any]


@dataclass(frozen=True)
class Entry:
    """One row of a contest.

    Attributes:
        label: What is timed, e.g. "native".
        build: Makes the function to time; raises ``Missing`` where it cannot.
        case: On what, e.g. a shape; entries of one case do the same work.
        flops: Floating-point operations of a call by the direct method, 2 per multiply-add.
        bytes: Least traffic of a call.
        backend: What runs, in words; the function's own attribute ``backend`` goes before it.
        ours: Whether it is ours to keep fast; the others are yardsticks.
        times: What a duration is multiplied by, where only a part of something long is timed.
    """

    label: str
    build: Callable[[], Runner]
    case: str = ""
    flops: float = 0.0
    bytes: float = 0.0
    backend: str = "PyTorch"
    ours: bool = False
    times: float = 1.0

    @property
    def key(self) -> tuple[str, str]:
        """Label and case."""
        return self.label, self.case


@dataclass
class Outcome:
    """What a contest gave.

    Attributes:
        name: Of the contest, threads included.
        threads: Of every peer.
        entries: Those that ran, by (label, case).
        seconds: Per call, one value a round, by (label, case).
        anchors: The same for the ceilings, by name.
        peak_mb: Growth of the process's resident peak while a peer was built and run.
        missing: Why the others did not run, by (label, case).
        backends: What ran, by (label, case).
    """

    name: str
    threads: int
    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    seconds: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    anchors: dict[str, list[float]] = field(default_factory=dict)
    peak_mb: dict[tuple[str, str], float] = field(default_factory=dict)
    missing: dict[tuple[str, str], str] = field(default_factory=dict)
    backends: dict[tuple[str, str], str] = field(default_factory=dict)

    def faster(self, key: tuple[str, str], than: str) -> Ratio:
        """How many times faster an entry is than another label of its case."""
        return paired_ratio(self.seconds[than, key[1]], self.seconds[key])


def hold(
    name: str,
    threads: int,
    entries: Sequence[Entry],
    than: str | None = "eager",
    same: bool = True,
    rounds: int | None = None,
    budget_s: float = 10.0,
    sums: Mapping[str, Mapping[str, int]] | None = None,
    pause_s: float = 0.0,
    at_least_s: float = 0.0,
) -> Outcome:
    """Builds all entries, compares their results, and times them.

    Args:
        name: Of the contest.
        threads: PyTorch is set to this many for the time of the contest; entries take as many.
        entries: What to time.
        than: Label that the others are compared with.
        same: Whether all entries of a case must give the same result.
        rounds: Rounds of timing; None for what the budget allows.
        budget_s: Seconds for the timing.
        sums: Further cases, each with the number of times that it contains others: their durations are added up within
            each round.
        pause_s: Rest before each call.
        at_least_s: What ends sooner is called several times in a row: where rounds are few and long, a ceiling called
            once in each says nothing of the machine.

    Raises:
        AssertionError: An entry computes something else than what it is compared with: times would mean nothing.
    """
    outcome = Outcome(f"{name}-t{threads}", threads)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        runners = _build(outcome, entries)
        if same:
            _check(runners, than)
        timed: dict[Any, Runner] = {**runners, **ceilings(threads)}
        seconds = interleave(timed, rounds, at_least_s, budget_s=budget_s, pause_s=pause_s)
    finally:
        torch.set_num_threads(before)
    outcome.anchors = {key: values for key, values in seconds.items() if isinstance(key, str)}
    outcome.seconds = {
        key: [outcome.entries[key].times * value for value in values]
        for key, values in seconds.items()
        if not isinstance(key, str)
    }
    for case, counts in (sums or {}).items():
        _add_up(outcome, case, counts)
    return outcome


def _add_up(outcome: Outcome, case: str, counts: Mapping[str, int]) -> None:
    for label in dict.fromkeys(label for label, _ in [*outcome.seconds, *outcome.missing]):
        parts = {(label, part): count for part, count in counts.items()}
        key, one = (label, case), next(iter(parts))
        reasons = [outcome.missing[part] for part in parts if part in outcome.missing]
        if reasons:
            outcome.missing[key] = reasons[0]
        if not all(part in outcome.seconds for part in parts):
            continue
        flops, moved = (
            sum(count * getattr(outcome.entries[part], what) for part, count in parts.items())
            for what in ("flops", "bytes")
        )
        outcome.entries[key] = replace(outcome.entries[one], case=case, flops=flops, bytes=moved)
        outcome.backends[key] = outcome.backends[one]
        columns = zip(*(outcome.seconds[part] for part in parts), strict=True)
        outcome.seconds[key] = [
            sum(count * second for count, second in zip(parts.values(), column, strict=True)) for column in columns
        ]


def _build(outcome: Outcome, entries: Sequence[Entry]) -> dict[tuple[str, str], Runner]:
    runners = {}
    for entry in entries:
        _trim()
        start = reset_peak_mb()
        try:
            run = entry.build()
        except Missing as error:
            outcome.missing[entry.key] = str(error)
            continue
        begin = time.perf_counter()
        run()
        if time.perf_counter() - begin < LONG_S:
            run()
        outcome.peak_mb[entry.key] = peak_mb() - start
        outcome.entries[entry.key] = entry
        outcome.backends[entry.key] = getattr(run, "backend", entry.backend)
        runners[entry.key] = run
    return runners


def _check(runners: Mapping[tuple[str, str], Runner], than: str | None) -> None:
    wanted: dict[str, tuple[Tensor, ...]] = {}
    for (_, case), run in sorted(runners.items(), key=lambda item: item[0][0] != than):
        if case not in wanted:
            wanted[case] = _tensors(run())
    for (label, case), run in runners.items():
        got = _tensors(run())
        if not got:
            raise AssertionError(f"{label} {case}: returns nothing that could be compared with {than}.")
        for mine, truth in zip(got, wanted[case], strict=True):
            difference, largest = (mine - truth).abs().max().item(), truth.abs().max().item()
            if not difference <= TOLERANCE * largest:  # NaN too
                raise AssertionError(
                    f"{label} {case}: differs from {than} by {difference:.3g} where the largest value is "
                    f"{largest:.3g}; peers that compute different things cannot be compared."
                )


def _tensors(result: Any) -> tuple[Tensor, ...]:
    parts = result if isinstance(result, tuple | list) else (result,)
    return tuple(part.detach().clone() for part in parts if isinstance(part, Tensor))


# ---- memory ----------------------------------------------------------------------------------------------------------

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def keep_memory() -> bool:
    """Lets this process keep what it frees instead of asking the system for the same pages at every call.

    Whether glibc serves a tensor from a fresh mapping, page faults included, or from its heap depends on what was freed
    before: the same function took up to three times as long in one process as in the next. A long run has its pages.

    Returns:
        Whether that could be set (glibc).
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(mmap_threshold, 32 << 20) and mallopt(trim_threshold, 2**31 - 1))  # the largest that it takes


def _trim() -> None:
    """Gives freed memory back to the system, so that the next peer's peak is its own."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # no glibc
        return


def peak_mb() -> float:
    """Resident peak of this process since ``reset_peak_mb``, in MB; NaN where the system does not tell."""
    return _status_mb("VmHWM")


def reset_peak_mb() -> float:
    """Starts the resident peak anew and returns the resident size, in MB; NaN where the system does not tell."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return float("nan")
    return _status_mb("VmRSS")


def _status_mb(name: str) -> float:
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1]) * 1024 / 1e6 if found else float("nan")
