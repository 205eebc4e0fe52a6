"""Two recorded runs compared: did a kernel of ours become slower, or is it the machine?

A row is judged by its duration relative to anchors of the same rounds (a matrix product; the eager PyTorch row that it
names), which have to agree, and not at all where one of them moved. Instruction counts, where recorded, need no such
care.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mrsi_fast.report.benchmarks.ratios import Ratio, change
from mrsi_fast.report.benchmarks.records import SGEMM, History

ANCHOR_BAND = 0.10
"""An anchor whose own duration moved by more says that the machine changed, not the code."""
TIME_BAND = 0.05
"""The interval of a change has to lie beyond this: two processes differ by a few percent without a reason."""
COUNT_BAND = 0.02

Verdict = Literal["slower", "faster", "same", "unfit"]


@dataclass(frozen=True)
class Judgement:
    """One row of a comparison.

    Attributes:
        name: Of the row, or of a counted kernel.
        verdict: "unfit" where an anchor moved.
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
    return [*_counted(old, new), *(_timed(old, new, name) for name in new.rows if name in old.rows)]


def _counted(old: History, new: History) -> Iterator[Judgement]:
    for name, count in new.instructions.items():
        before = old.instructions.get(name)
        if not before:
            continue
        ratio = count / before
        verdict = _verdict(Ratio(ratio, ratio, ratio), COUNT_BAND)
        words = f"{count:,} instructions, {ratio - 1:+.1%}"
        yield Judgement(name, verdict, True, {"instructions": Ratio(ratio, ratio, ratio)}, words)


def _timed(old: History, new: History, name: str) -> Judgement:
    row = new.rows[name]
    changes, moved = {}, {}
    for anchor in _anchors(old, new, name):
        before, after = _anchor_seconds(old, name, anchor), _anchor_seconds(new, name, anchor)
        drift = float(np.median(after) / np.median(before)) - 1
        if abs(drift) > ANCHOR_BAND:
            moved[anchor] = drift
            continue
        ratios = [np.asarray(h.rows[name].seconds) / at for h, at in ((old, before), (new, after))]
        changes[anchor] = change(*ratios)
    drifts = ", ".join(f"{anchor} moved {drift:+.0%}" for anchor, drift in moved.items())
    if moved or not changes:
        return Judgement(name, "unfit", row.ours, changes, drifts or "no anchor in common")
    verdicts = {_verdict(one, TIME_BAND) for one in changes.values()}
    verdict: Verdict = verdicts.pop() if len(verdicts) == 1 else "same"  # anchors have to agree
    words = ", ".join(f"{one} of before against {anchor}" for anchor, one in changes.items())
    return Judgement(name, verdict, row.ours, changes, words)


def _anchors(old: History, new: History, name: str) -> list[str]:
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
