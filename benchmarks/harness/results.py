"""The rows of one benchmark session: collected, told, and added to the machine's history."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.contest import Entry, Outcome
from harness.machine import fingerprint, slug, this_run
from harness.records import Contest, History, Row, in_band, same_processor
from harness.table import text_table
from support.backends import required
from support.data import checkout


def selected(
    entries: Sequence[Entry],
    items: Iterable[Any],
    function: Callable[..., Any],
    than: str | None,
    sums: Mapping[str, Mapping[str, int]] | None = None,
    **_: Any,
) -> list[Entry]:
    """The entries that some selected benchmark asks for, and those that these are compared with.

    Args:
        entries: Of a contest.
        items: Selected benchmarks (pytest's items, with the parameters ``label`` and ``case``).
        function: The one that asks.
        than: Label that the others are compared with; kept in each case that is left.
        sums: Cases that are added up from others.
    """
    asked = [
        item.callspec.params for item in items if item.originalname == function.__name__ and hasattr(item, "callspec")
    ]
    if not any("label" in one for one in asked):
        return list(entries)
    labels = {one.get("label") for one in asked} | {than}
    cases = {one.get("case", "") for one in asked}
    cases |= {part for case, parts in (sums or {}).items() if case in cases for part in parts}
    return [entry for entry in entries if entry.label in labels and entry.case in cases]


class Session:
    """What one run of pytest has timed so far.

    Args:
        rounds: Limit on rounds that was asked for.
    """

    def __init__(self, rounds: int | None) -> None:
        self.history = History(machine=fingerprint(), runs=[this_run(rounds)])

    def add(
        self, name: str, outcome: Outcome, key: tuple[str, str], than: str | None, facts: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Keeps a row and returns what pytest-benchmark stores beside it.

        Args:
            name: Of the benchmark as pytest prints it; its first parameter is the label.
            outcome: Of the contest.
            key: Label and case.
            than: Label that it is compared with, if that is there.
            facts: Anything else worth keeping.

        Raises:
            AssertionError: ``MRSI_FAST_REQUIRE`` has native, and a row of ours was computed by the reference.
        """
        label, case = key
        if outcome.entries[key].ours and "native" in required() and outcome.backends[key] == "reference":
            raise AssertionError(
                f"{name} ran by 'reference' although MRSI_FAST_REQUIRE asks for native: its time says nothing."
            )
        if than is not None and (than, case) not in outcome.seconds:
            than = None
        contest = Contest.of(outcome.threads, _rounded(outcome.anchors))
        self.history.contests[outcome.name] = contest
        entry, peak = outcome.entries[key], outcome.peak_mb.get(key)
        self.history.rows[name] = Row(
            contest=outcome.name,
            label=label,
            case=case,
            ours=entry.ours,
            than=None if than is None else name.replace(f"[{label}", f"[{than}", 1),
            backend=outcome.backends[key],
            flops=entry.flops,
            bytes=entry.bytes,
            peak_mb=None if peak is None or peak != peak else round(peak, 1),
            seconds=_rounded({"": outcome.seconds[key]})[""],
            facts=dict(facts),
        )
        told = {
            "backend": outcome.backends[key],
            "threads": outcome.threads,
            "peak_mb": peak,
            "control": str(contest.control) + ("" if in_band(contest.control) else " MACHINE UNFIT"),
            "machine": self.history.machine,
            "seconds": self.history.rows[name].seconds,
            "anchors": contest.anchors,
            **facts,
            **self.history.shares(name),
        }
        if than is not None and than != label:
            told[f"times_faster_than_{than}"] = str(outcome.faster(key, than))
        return told

    def lines(self) -> list[str]:
        """The table for the terminal, a warning above it where the machine was unfit."""
        return text_table(self.history)

    def save(self, path: Path | None) -> Path:
        """Adds the rows to a history, by default that of this machine in the checkout; none of an unfit contest.

        Rows of a retired timing rule leave it.

        Raises:
            ConfigError: There is a file of that name that is no history.
        """
        if path is None:
            path = history_path(checkout() / "benchmarks" / "results", self.history.machine)
        path.parent.mkdir(parents=True, exist_ok=True)
        newer = self.history.fit_part()
        history = History.load(path).of_todays_rule().updated(newer) if path.exists() else newer
        history.save(path)
        return path


def history_path(folder: Path, machine: Mapping[str, Any]) -> Path:
    """Where the history of a machine is, or goes: one of another processor under the same name is left alone.

    Raises:
        ConfigError: There is a file of that name that is no history.
    """
    for number in itertools.count(1):
        path = folder / f"{slug(dict(machine))}{'' if number == 1 else f'-{number}'}.json"
        if not path.exists() or same_processor(History.load(path).machine, machine):
            break
    return path


def _rounded(durations: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Five digits: enough for any clock."""
    return {name: [float(f"{value:.5g}") for value in values] for name, values in durations.items()}
