"""Two recorded runs compared: did a kernel of ours become slower, or is it the machine?

A row is judged by its duration relative to anchors of the same rounds (a matrix product; the eager PyTorch row that it
names), which have to agree, and not at all where one of them moved. What counts as one observation is a process, not a
round: rounds of one process agree better with each other than with those of the next. Instruction counts, where
recorded, need no such care.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.ratios import Change, Processes, Ratio, shared_spread
from harness.records import SGEMM, History, Row

ANCHOR_BAND = 0.10
"""An anchor whose own duration moved by more says that the machine changed, not the code: between the processes of one
run, between two runs."""
TIME_BAND = 0.05
"""The interval of a change has to lie beyond this: what is smaller is not worth a search."""
COUNT_BAND = 0.02
FALSE_ALARM = 0.05
"""Chance that a comparison of hundreds of rows, none of which changed, finds an interval that says otherwise: each row
gets its share (Bonferroni)."""
SHARED_WEIGHT = 4
"""Degrees of freedom that the spread pooled over all rows counts as beside a row's own: as many as three processes of
each run have."""

Verdict = Literal["slower", "faster", "same", "again", "unfit"]


@dataclass(frozen=True)
class Judgement:
    """One row of a comparison.

    Attributes:
        name: Of the row, or of a counted kernel.
        verdict: "unfit" where an anchor moved or nothing was timed in the same way; "again" where it looks changed, but
            one process of each run says so and what two processes differ by is not known.
        ours: Whether slower is a regression; other rows are yardsticks.
        changes: How many times longer it takes than before, relative to each anchor that stood still.
        reason: In words.
    """

    name: str
    verdict: Verdict
    ours: bool
    changes: dict[str, Ratio]
    reason: str

    @property
    def regression(self) -> bool:
        """Whether this has to be looked at."""
        return self.ours and self.verdict == "slower"


def compare(old: History, new: History) -> list[Judgement]:
    """Judges every row that both runs have, and every kernel that both have counted."""
    rows = {name: _changes(old, new, name) for name in new.rows if name in old.rows}
    shared = shared_spread([change for changes, _ in rows.values() for change in changes.values()])
    level = 1 - FALSE_ALARM / max(1, sum(new.rows[name].ours for name in rows))
    timed = (_timed(new.rows[name], name, *found, shared, level) for name, found in rows.items())
    return [*_counted(old, new), *timed]


def _counted(old: History, new: History) -> Iterator[Judgement]:
    for name, count in new.instructions.items():
        before = old.instructions.get(name)
        if not before:
            continue
        ratio = count / before
        verdict = _verdict(Ratio(ratio, ratio, ratio), COUNT_BAND)
        words = f"{count:,} instructions, {ratio - 1:+.1%}"
        yield Judgement(name, verdict, True, {"instructions": Ratio(ratio, ratio, ratio)}, words)


def _changes(old: History, new: History, name: str) -> tuple[dict[str, Change], dict[str, float]]:
    """The row relative to each anchor, process by process; else how far the anchors moved that allow no comparison.

    A process in which an anchor took longer or shorter than in the others is left out: it had another machine.
    """
    anchors = _anchors(old, new, name)
    if not anchors:
        return {}, {}
    middles = [np.array([_middles(one, name, anchor) for anchor in anchors]) for one in (old, new)]  # anchor, process
    usual = np.median(np.concatenate(middles, axis=1), axis=1, keepdims=True)
    steady = [(abs(side / usual - 1) <= ANCHOR_BAND).all(axis=0) for side in middles]
    if not all(side.any() for side in steady):
        steady = [np.ones_like(side) for side in steady]
    before, after = (np.median(side[:, kept], axis=1) for side, kept in zip(middles, steady, strict=True))
    moved = {anchor: float(drift) for anchor, drift in zip(anchors, after / before - 1, strict=True)}
    changes = {
        anchor: Change(*(_processes(one, name, anchor, kept) for one, kept in zip((old, new), steady, strict=True)))
        for anchor, drift in moved.items()
        if abs(drift) <= ANCHOR_BAND
    }
    return changes, {anchor: drift for anchor, drift in moved.items() if anchor not in changes}


def _middles(history: History, name: str, anchor: str) -> list[float]:
    """Median duration of an anchor in each process."""
    seconds = _anchor_seconds(history, name, anchor)
    return [float(np.median(seconds[part])) for part in history.contests[history.rows[name].contest].parts]


def _processes(history: History, name: str, anchor: str, kept: NDArray[np.bool_]) -> Processes:
    relative = np.asarray(history.rows[name].seconds) / _anchor_seconds(history, name, anchor)
    parts = history.contests[history.rows[name].contest].parts
    return Processes.of([relative[part] for part, steady in zip(parts, kept, strict=True) if steady])


def _timed(
    row: Row, name: str, changes: dict[str, Change], moved: dict[str, float], shared: float, level: float
) -> Judgement:
    ratios = {anchor: one.ratio(shared, SHARED_WEIGHT, level) for anchor, one in changes.items()}
    if moved or not ratios:
        drifts = ", ".join(f"{anchor} moved {drift:+.0%}" for anchor, drift in moved.items())
        return Judgement(
            name, "unfit", row.ours, ratios, drifts or "no anchor in common that was timed in the same way"
        )
    verdicts = {_verdict(one, TIME_BAND) for one in ratios.values()}
    verdict: Verdict = verdicts.pop() if len(verdicts) == 1 else "same"  # anchors have to agree
    words = ", ".join(f"{one} of before against {anchor}" for anchor, one in ratios.items())
    if verdict != "same" and not any(one.freedom for one in changes.values()):
        verdict, words = "again", f"{words}; one process each: record both again"
    return Judgement(name, verdict, row.ours, ratios, words)


def _anchors(old: History, new: History, name: str) -> list[str]:
    if old.timing(name) != new.timing(name):
        return []
    than = new.rows[name].than
    found = [SGEMM] if SGEMM in new.contests[new.rows[name].contest].anchors else []
    if than is not None and than != name and all(_has(history, name, than) for history in (old, new)):
        found.append(than)
    return found


def _has(history: History, name: str, than: str) -> bool:
    return than in history.rows and history.rows[than].contest == history.rows[name].contest


def _anchor_seconds(history: History, name: str, anchor: str) -> np.ndarray:
    anchors = history.contests[history.rows[name].contest].anchors
    return np.asarray(anchors[anchor] if anchor in anchors else history.rows[anchor].seconds)


def _verdict(ratio: Ratio, band: float) -> Verdict:
    if ratio.low > 1 + band:
        return "slower"
    return "faster" if ratio.high < 1 / (1 + band) else "same"
