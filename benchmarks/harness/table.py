"""Recorded benchmarks as tables: for the terminal after a run, and for the documentation."""

from __future__ import annotations

from collections.abc import Sequence

from harness.records import CONTROL_BAND, History, in_band

HEADS = ("row", "median", "times faster", "than", "GFLOP/s", "of R", "GB/s", "of copy", "MB", "runs")


def duration(seconds: float) -> str:
    """With a unit that fits: 7.75 h, 1.84 s, 23.1 ms, 410 us."""
    for shortest, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * shortest:
            return f"{seconds / shortest:.3g} {unit}"
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def heads_by_threads(first: str, threads: Sequence[int]) -> str:
    """Heads of a Markdown table that has a time and the native engine's ratio for each number of threads."""
    return first + "".join(f" {t} thread{'s' * (t > 1)} | native is faster by |" for t in threads)


def unfit(history: History) -> list[str]:
    """One sentence for each contest whose control lies outside its band."""
    return [
        f"MACHINE UNFIT: in {name} one function against itself gave {control}, outside 1 +- {CONTROL_BAND:g}; the rows "
        "timed with it are no evidence."
        for name, control in history.controls().items()
        if not in_band(control)
    ]


def controls(history: History) -> str:
    """How far the control of any contest was off, in one sentence."""
    ratios = history.controls().values()
    worst = max(ratios, key=lambda ratio: abs(ratio.median - 1))
    inside = sum(map(in_band, ratios))
    return (
        f"Control (one function under two labels): {inside} of {len(ratios)} within 1 +- {CONTROL_BAND:g}, "
        f"the furthest {worst}."
    )


def text_table(history: History) -> list[str]:
    """Rows by contest with ratios, rates, shares of the ceilings, memory and what ran; above it, what is unfit."""
    lines = [*unfit(history), controls(history)] if history.rows else []
    for key, contest in history.contests.items():
        names = [name for name, row in history.rows.items() if row.contest == key]
        threads = f"{contest.threads} thread{'s' if contest.threads > 1 else ''}"
        lines += ["", f"{key}: {threads}, {len(next(iter(contest.anchors.values())))} rounds, R = {contest.gemm}"]
        table = [_cells(history, name) for name in names]
        lines += aligned([HEADS, *table])
    if history.instructions:
        lines += ["", *aligned([("kernel", "instructions"), *((k, f"{n:,}") for k, n in history.instructions.items())])]
    lines += [f"{name}: not run: {reason}" for name, reason in history.missing.items()]
    return lines


def _cells(history: History, name: str) -> tuple[str, ...]:
    row, shares = history.rows[name], history.shares(name)
    faster = None if row.than in (None, name) else history.faster(name)

    def share(rate: str, part: str) -> tuple[str, str]:
        return (f"{shares[rate]:.1f}", f"{shares[part]:.2f}") if rate in shares else ("", "")

    return (
        name,
        duration(history.seconds(name)),
        "" if faster is None else str(faster),
        "" if faster is None or row.than is None else history.rows[row.than].label,
        *share("gflop_per_s", "share_of_gemm"),
        *share("gb_per_s", "share_of_copy"),
        "" if row.peak_mb is None else f"{row.peak_mb:.0f}",
        row.backend,
    )


def aligned(rows: Sequence[Sequence[str]], numbers: bool = True) -> list[str]:
    """Lines with aligned columns: between the first and the last, numbers to the right, words to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if not numbers or index in (0, len(row) - 1) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
