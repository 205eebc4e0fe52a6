"""What a run leaves behind: the machine's history, the table of choices, and the GPU tables of docs/speed.md."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

from gpu.case import OWN, Timed, matmul, matmul_size
from gpu.target import Target
from harness.machine import this_run
from harness.ratios import paired_ratio
from harness.records import COPY, COPY_BYTES, Contest, History, Row

BLOCK = re.compile(r"<!-- gpu: written by make gpu -->\n(.*?)<!-- end of gpu -->", re.DOTALL)
OURS = ("cuda", "triton", "fused", "cuda-graph")
"""Labels of what is ours to keep fast; the others are yardsticks."""
SHOWN = ("unet", "sampling_run", "group_norm_silu[level0-", "self_attention[8x256", "solver_step")
"""Beginnings of the cases that docs/speed.md shows."""


def name_of(machine: dict) -> str:
    """File name of a GPU: "NVIDIA H100 80GB HBM3" -> "nvidia-h100-80gb-hbm3"."""
    return "-".join(re.findall(r"[a-z0-9]+", machine["gpu"].lower()))


def roofline(timed: Timed, label: str, target: Target) -> dict[str, float]:
    """Share of the measured copy and matrix-product ceilings that a row reaches: the larger one binds it."""
    case = timed.case
    seconds = statistics.median(timed.seconds[label])
    copy = COPY_BYTES / statistics.median(timed.anchors[COPY])
    product = 2.0 * matmul_size(target) ** 3 / statistics.median(timed.anchors[matmul(case.dtype)])
    return {
        "gb_per_s": case.bytes / seconds / 1e9,
        "share_of_copy_ceiling": case.bytes / seconds / copy,
        "tflop_per_s": case.flops / seconds / 1e12,
        "share_of_matmul_ceiling": case.flops / seconds / product,
        "flops_per_byte": case.flops / case.bytes,
    }


def history(target: Target, results: Sequence[Timed], rounds: int | None) -> History:
    """All rows with their ceilings, in the form of every other machine's history."""
    found = History(machine=target.machine(), runs=[this_run(rounds)])
    for timed in results:
        case = timed.case
        found.contests[case.name] = Contest.of(1, timed.anchors)
        for label, seconds in timed.seconds.items():
            found.rows[f"{case.name}-{label}"] = Row(
                contest=case.name,
                label=label,
                case=case.name,
                ours=label in OURS,
                than=f"{case.name}-{case.than}" if case.than in timed.seconds else None,
                backend=label,
                flops=case.flops,
                bytes=case.bytes,
                seconds=seconds,
                facts={key: float(f"{value:.4g}") for key, value in roofline(timed, label, target).items()},
            )
        found.missing.update({f"{case.name}-{label}": reason for label, reason in timed.missing.items()})
    return found


def choices(target: Target, results: Sequence[Timed]) -> list[dict]:
    """One row per operation, direction, type and size: the fastest of our backends and its rivals' times."""
    rows = []
    for timed in results:
        own = {label: seconds for label, seconds in timed.seconds.items() if label in OWN}
        if not timed.case.op or len(own) < 2:
            continue
        first = next(iter(own))
        best = max(own, key=lambda label: paired_ratio(own[first], own[label]).median)
        rows.append(
            {
                "op": timed.case.op,
                "backward": timed.case.backward,
                "architecture": target.architecture,
                "dtype": str(timed.case.dtype).removeprefix("torch."),
                "elements": timed.case.elements,
                "shape": re.sub(r".*\[(.*)-.*\]", r"\1", timed.case.name),
                "backend": best,
                "microseconds": {label: round(1e6 * statistics.median(s), 2) for label, s in own.items()},
            }
        )
    return rows


def write_choices(path: Path, rows: list[dict], machine: dict) -> None:
    """Put the rows in place of those of the same architecture."""
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    measured = {row["architecture"] for row in rows}
    kept = [row for row in before if row["architecture"] not in measured]
    lines = ",\n".join(f"    {json.dumps(row)}" for row in [*kept, *rows])
    path.write_text(f'{{\n  "written_by": "make gpu, last on {machine["gpu"]}",\n  "rows": [\n{lines}\n  ]\n}}\n')


def paragraph(found: History) -> str:
    """The table of docs/speed.md: what ran how fast against what, with the ceilings' shares."""
    lines = [
        f"Timed on one {found.machine['gpu']} (`make gpu`, {found.runs[-1].started}); ratios are medians of paired",
        "rounds with bootstrap intervals, shares those of the copy and matrix product measured in the same rounds.",
        "",
        "| case | what | microseconds | times faster | than | of copy | of matmul |",
        "| --- | --- | ---: | ---: | --- | ---: | ---: |",
    ]
    for name, row in found.rows.items():
        if not (row.ours and row.case.startswith(SHOWN)):
            continue
        faster = found.faster(name)
        than = found.rows[row.than].label if row.than in found.rows else ""
        shares = (row.facts[f"share_of_{one}_ceiling"] for one in ("copy", "matmul"))
        cells = (
            row.case,
            row.label,
            f"{1e6 * found.seconds(name):.1f}",
            "" if faster is None else str(faster),
            than,
            *(f"{share:.0%}" for share in shares),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def with_paragraph(page: str, text: str) -> str:
    """docs/speed.md with its GPU block replaced.

    Raises:
        ValueError: The page has no such block.
    """
    if not BLOCK.search(page):
        raise ValueError("docs/speed.md has no block '<!-- gpu: written by make gpu -->' to write into.")
    return BLOCK.sub(lambda match: match[0].replace(match[1], text), page)
