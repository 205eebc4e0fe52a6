"""The history of one machine: raw repeats of every row with the anchors of its rounds, as JSON in the repository.

A duration alone says little on a machine that drifts. Each row names the contest in which it was timed; the contest
holds the ceilings that were timed in the same rounds, so that every ratio can be formed, and formed again. One that was
timed by several processes says which rounds were whose: what two processes differ by, no process can tell.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from harness.ratios import Ratio, change, paired_ratio
from mrsi_fast.config import Settings
from mrsi_fast.files import write_text

SGEMM, SGEMM_AGAIN, OWN_GEMM, COPY = "sgemm", "sgemm-again", "own-gemm", "copy"
GEMM_SIZE = 1024
GEMM_FLOPS = 2 * GEMM_SIZE**3
COPY_FLOATS = 16 * 2**20
"""64 MiB are copied: beyond any cache of these machines."""
COPY_BYTES = 2 * 4 * COPY_FLOATS

QUALITY = "quality_latency"
"""Name of the figure's data in a history: what each operating point reaches on the validation heads."""

CONTROL_BAND = 0.03
"""One function under two labels may differ by this; by more, and the machine is unfit to judge."""

TIMING = 2
"""How functions are timed: 1 called short ones several times a round, 2 calls each once."""

SESSIONS = 3
"""A contest keeps the rounds of so many processes, the latest."""


def cpu_histories(folder: Path) -> list[Path]:
    """The histories of CPUs among the results of a folder: the machine of a GPU's (``make gpu``) names no processor."""
    paths = sorted(folder.glob("*.json"))
    return [path for path in paths if "cpu" in json.loads(path.read_text(encoding="utf-8")).get("machine", {})]


def processor(machine: Mapping[str, Any]) -> str:
    """Its name without trade marks and frequency."""
    words = re.sub(r"\((?:R|TM)\)|\bCPU\b|\bprocessor\b|@.*", " ", str(machine["cpu"]), flags=re.IGNORECASE)
    return " ".join(words.split())


def same_processor(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two fingerprints are of one kind of machine: names like "AMD EPYC" are shared by many processors."""
    return all(one.get(name) == other.get(name) for name in ("cpu", "family", "cpus"))


def in_band(control: Ratio) -> bool:
    """Whether a control says that the machine is fit."""
    return abs(control.median - 1) <= CONTROL_BAND


class Run(Settings):
    """One session of benchmarks.

    Attributes:
        started: UTC, to the minute.
        commit: Of the checkout, "+" appended where it had changes; empty if unknown.
        versions: Python, PyTorch, peers.
        waiting: What threads did that had nothing to do.
        rounds: Limit on rounds that was asked for, if any.
        code: Digest of what was timed and of what timed it; empty if unknown.
        timing: How, see ``TIMING``; rows that were timed in different ways are not compared.
    """

    started: str
    commit: str
    versions: dict[str, str]
    waiting: str
    rounds: int | None = None
    code: str = ""
    timing: int = 1

    def repeats(self, other: Run) -> bool:
        """Whether both timed the same code in the same way, at another time."""
        same = all(getattr(self, name) == getattr(other, name) for name in ("code", "versions", "waiting", "rounds"))
        return same and self.code != ""


class Contest(Settings):
    """What was timed together: the ceilings of its rounds, in seconds.

    Attributes:
        sessions: Index into the history's runs and number of rounds of each process, in the order of the values.
        threads: Of every peer.
        anchors: Durations by name, one value a round.
    """

    sessions: list[tuple[int, int]]
    threads: int
    anchors: dict[str, list[float]]

    @classmethod
    def of(cls, threads: int, anchors: Mapping[str, Sequence[float]]) -> Contest:
        """What the only run of a history timed by itself."""
        rounds = len(next(iter(anchors.values())))
        return cls(sessions=[(0, rounds)], threads=threads, anchors={k: list(v) for k, v in anchors.items()})

    @property
    def parts(self) -> list[slice]:
        """The rounds of each process."""
        ends = list(itertools.accumulate(rounds for _, rounds in self.sessions))
        return [slice(end - rounds, end) for end, (_, rounds) in zip(ends, self.sessions, strict=True)]

    @property
    def control(self) -> Ratio:
        """One matrix product against itself under another label."""
        return paired_ratio(self.anchors[SGEMM_AGAIN], self.anchors[SGEMM])

    @property
    def gemm(self) -> str:
        """The better matrix product of these rounds: the R that arithmetic is measured by."""
        names = [name for name in (SGEMM, OWN_GEMM) if name in self.anchors]
        return min(names, key=lambda name: paired_ratio(self.anchors[name], self.anchors[SGEMM]).median)


class Row(Settings):
    """One benchmark.

    Attributes:
        contest: Key into the history's contests.
        label: What was timed.
        case: On what; empty where there is one case only.
        ours: Whether it is ours to keep fast; other rows are yardsticks.
        than: Name of the row that it is compared with, if any.
        backend: What ran.
        flops: Of a call by the direct method, 2 per multiply-add.
        bytes: Least traffic of a call.
        peak_mb: Growth of the resident peak while it was built and run; None where not measured.
        seconds: Of a call, one value a round.
        facts: Anything else worth keeping.
    """

    contest: str
    label: str
    case: str = ""
    ours: bool = False
    than: str | None = None
    backend: str
    flops: float = 0.0
    bytes: float = 0.0
    peak_mb: float | None = None
    seconds: list[float] = Field(min_length=1)
    facts: dict[str, Any] = {}


class History(Settings):
    """All that is recorded of one machine.

    Attributes:
        machine: Fingerprint without a host name.
        runs: Sessions, the latest last; those that no row refers to any more are dropped.
        contests: By name.
        rows: By the name of the benchmark, as pytest prints it.
        missing: Why a row is not there, by name.
        instructions: Instructions that a C++ kernel takes at a shape of the network, counted by callgrind.
        figures: Data of plots that are not rows, by name.
    """

    machine: dict[str, Any]
    runs: list[Run] = []
    contests: dict[str, Contest] = {}
    rows: dict[str, Row] = {}
    missing: dict[str, str] = {}
    instructions: dict[str, int] = {}
    figures: dict[str, Any] = {}

    @property
    def machine_name(self) -> str:
        """Processor, number of CPUs and instruction set of the kernels."""
        isa = f", {self.machine['isa']}" if self.machine.get("isa") else ""
        return f"{processor(self.machine)}, {self.machine['cpus']} CPUs{isa}"

    @property
    def started(self) -> str:
        """When the latest of its sessions began; empty without one."""
        return max((run.started for run in self.runs), default="")

    def timing(self, name: str) -> set[int]:
        """How a row was timed, see ``TIMING``."""
        return {self.runs[run].timing for run, _ in self.contests[self.rows[name].contest].sessions}

    def rows_of(self, contest: str) -> dict[str, Row]:
        """The rows of a contest by name."""
        return {name: row for name, row in self.rows.items() if row.contest == contest}

    def seconds(self, name: str) -> float:
        """Median duration of a row."""
        values = sorted(self.rows[name].seconds)
        middle = len(values) // 2
        return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2

    def against(self, name: str, anchor: str) -> Ratio:
        """How many times longer a row took than an anchor of its contest, or than another row of it."""
        row = self.rows[name]
        anchors = self.contests[row.contest].anchors
        return paired_ratio(row.seconds, anchors[anchor] if anchor in anchors else self.rows[anchor].seconds)

    def faster(self, name: str, than: str | None = None) -> Ratio | None:
        """How many times faster a row is than another of its contest, by default the one that it names."""
        than = than or self.rows[name].than
        if than not in self.rows or self.rows[than].contest != self.rows[name].contest:
            return None
        return paired_ratio(self.rows[than].seconds, self.rows[name].seconds)

    def shares(self, name: str) -> dict[str, float]:
        """Rates of a row (GFLOP/s, GB/s) and their shares of the ceilings of its rounds; empty where not counted."""
        row = self.rows[name]
        contest = self.contests[row.contest]
        found: dict[str, float] = {}
        if row.flops:
            share = paired_ratio(contest.anchors[contest.gemm], row.seconds).median * row.flops / GEMM_FLOPS
            found |= {"gflop_per_s": row.flops / self.seconds(name) / 1e9, "share_of_gemm": share}
        if row.bytes:
            share = paired_ratio(contest.anchors[COPY], row.seconds).median * row.bytes / COPY_BYTES
            found |= {"gb_per_s": row.bytes / self.seconds(name) / 1e9, "share_of_copy": share}
        return found

    def over_model(self, name: str, winograd_share: float = 0.85 * 4) -> float | None:
        """How many times longer a row takes than a model of its arithmetic says, or None where that is not counted.

        The model lets stride-1 3x3 convolutions run at ``winograd_share`` R (Winograd F(4x4,3x3) multiplies a quarter
        as often, 0.85 of R being what its transforms leave) and all else at R, the best matrix product of its rounds.
        """
        row = self.rows[name]
        part = row.facts.get("winograd_flops")
        if not part:
            return None
        contest = self.contests[row.contest]
        products = (part / winograd_share + row.flops - part) / GEMM_FLOPS
        return paired_ratio(row.seconds, contest.anchors[contest.gemm]).median / products

    def scaling(self, name: str, threads: int = 2) -> Ratio | None:
        """What a row gains by more threads, of what the matrix product gains; None where it was not timed with them.

        Args:
            name: Of the row with one thread.
            threads: How many.
        """
        more = name.replace("-t1]", f"-t{threads}]")
        if name not in self.rows or more not in self.rows or more == name:
            return None

        def relative(row: Row) -> list[float]:
            anchor = self.contests[row.contest].anchors[SGEMM]
            return [mine / product for mine, product in zip(row.seconds, anchor, strict=True)]

        return change(relative(self.rows[more]), relative(self.rows[name]))

    def controls(self) -> dict[str, Ratio]:
        """One function against itself under another label: of every contest, and of the rows that are such controls."""
        found = {key: contest.control for key, contest in self.contests.items()}
        for name, row in self.rows.items():
            if "band" in row.facts and row.than in self.rows and row.than != name:
                found[name] = paired_ratio(row.seconds, self.rows[row.than].seconds)
        return found

    def of_todays_rule(self) -> History:
        """Without the rows that a retired rule timed: they are compared with nothing any more."""
        rows = {name: row for name, row in self.rows.items() if self.timing(name) == {TIMING}}
        return self.model_copy(update={"rows": rows})

    def fit_part(self) -> History:
        """Without the contests, and their rows, in which one matrix product differed from itself: no evidence."""
        contests = {key: contest for key, contest in self.contests.items() if in_band(contest.control)}
        rows = {name: row for name, row in self.rows.items() if row.contest in contests}
        return self.model_copy(update={"contests": contests, "rows": rows})

    def updated(self, newer: History) -> History:
        """This history with the rows, counts and figures of a newer run in place of older ones.

        The rounds of a contest of the same rows and the same code are added to those that are there instead, as those
        of one more process; the latest ``SESSIONS`` stay.
        """
        runs, contests, fresh = [*self.runs, *newer.runs], dict(self.contests), dict(newer.rows)
        for key, contest in newer.contests.items():
            sessions = [(run + len(self.runs), rounds) for run, rounds in contest.sessions]
            contests[key] = contest.model_copy(update={"sessions": sessions})
            if self._repeated(key, newer):
                contests[key], joined = _joined(self, contests[key], newer.rows_of(key))
                fresh |= joined
        rows = {**self.rows, **fresh}
        # Else it is replaced as a whole: rows of the older rounds would be paired with the anchors of the newer.
        rows = {name: row for name, row in rows.items() if row.contest not in newer.contests or name in fresh}
        missing = {**{k: v for k, v in self.missing.items() if k not in newer.rows}, **newer.missing}
        rows = {name: row for name, row in rows.items() if name not in newer.missing}
        contests = {key: contest for key, contest in contests.items() if any(r.contest == key for r in rows.values())}
        used = {run for contest in contests.values() for run, _ in contest.sessions}
        place = {run: index for index, run in enumerate(sorted(used | ({len(runs) - 1} if runs else set())))}
        for key, contest in contests.items():
            sessions = [(place[run], rounds) for run, rounds in contest.sessions]
            contests[key] = contest.model_copy(update={"sessions": sessions})
        return History(
            machine=newer.machine,
            runs=[runs[run] for run in place],
            contests=contests,
            rows=rows,
            missing=missing,
            instructions={**self.instructions, **newer.instructions},
            figures={**self.figures, **newer.figures},
        )

    def _repeated(self, key: str, newer: History) -> bool:
        """Whether a newer run's contest is one of this history, timed once more."""
        if key not in self.contests:
            return False
        before, after = self.contests[key], newer.contests[key]
        return (
            self.rows_of(key).keys() == newer.rows_of(key).keys()
            and before.anchors.keys() == after.anchors.keys()
            and all(self.runs[old].repeats(newer.runs[new]) for old, _ in before.sessions for new, _ in after.sessions)
        )

    def save(self, path: Path) -> None:
        """Writes the history: one line a row, so that a difference in git shows the rows that changed."""
        parts = []
        for key, value in self.model_dump(mode="json").items():
            if isinstance(value, dict) and value and key not in ("machine",):
                lines = [f"  {json.dumps(name)}: {json.dumps(one)}" for name, one in value.items()]
                parts.append(f" {json.dumps(key)}: {{\n" + ",\n".join(lines) + "\n }")
            else:
                parts.append(f" {json.dumps(key)}: {json.dumps(value)}")
        write_text(path, "{\n" + ",\n".join(parts) + "\n}\n")


def _joined(old: History, contest: Contest, rows: Mapping[str, Row]) -> tuple[Contest, dict[str, Row]]:
    """A contest and its rows with the rounds that an older history has of them in front, cut to the latest sessions."""
    before = old.contests[rows[next(iter(rows))].contest]
    sessions = [*before.sessions, *contest.sessions][-SESSIONS:]
    kept = sum(rounds for _, rounds in sessions)
    anchors = {name: [*before.anchors[name], *values][-kept:] for name, values in contest.anchors.items()}
    joined = {
        name: row.model_copy(update={"seconds": [*old.rows[name].seconds, *row.seconds][-kept:]})
        for name, row in rows.items()
    }
    return contest.model_copy(update={"sessions": sessions, "anchors": anchors}), joined


def newest_first(histories: Sequence[History]) -> list[History]:
    """By the time of their latest sessions; those with whole networks among their rows before those without."""

    def rank(history: History) -> tuple[bool, str]:
        return any(name.startswith("bench_unet[") for name in history.rows), history.started

    return sorted(histories, key=rank, reverse=True)
