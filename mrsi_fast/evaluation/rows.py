"""Rows of an evaluation: who made them, their means over heads, and how they become a line of a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mrsi_fast.evaluation import statistics
from mrsi_fast.evaluation.lesion import Detection

Row = dict[str, Any]


APART = "2HG"
"""Scored apart: nearly empty maps lift every mean."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation left on disk.

    Attributes:
        folder: Where.
        parts: Its scores by subject and factor, and what was learned from the train heads.
        rows: Every score; see ``scoring.score`` and ``part_header`` for the keys.
        facts: Settings, model, what was not available.
    """

    folder: Path
    parts: Path
    rows: list[Row]
    facts: dict[str, Any]


def head_values(rows: Iterable[Row], metric: str, convention: str, apart: bool = False) -> dict[str, float]:
    """Mean per head of one metric, over subjects and maps (2HG alone, or all but it)."""
    return statistics.head_means(
        [
            (row["head"], row["value"])
            for row in rows
            if row["metric"] == metric and row["convention"] == convention and (row["metabolite"] == APART) == apart
        ]
    )


def methods(rows: Iterable[Row]) -> list[tuple[str, str, int]]:
    """Methods with operating point and steps, in order of appearance."""
    return list(dict.fromkeys((row["method"], row["operating_point"], row["steps"]) for row in rows))


def of_method(rows: Iterable[Row], key: tuple[str, str, int]) -> list[Row]:
    """Rows of one method at one operating point."""
    return [row for row in rows if (row["method"], row["operating_point"], row["steps"]) == key]


def method_label(key: tuple[str, str, int]) -> str:
    """A method, its operating point and steps, as tables name them."""
    name, point, steps = key
    if point == "one-step mean":
        return f"{name}, one-step mean (= the Self-Attention UNet as a regressor)"
    return name if point == "point estimate" else f"{name}, {point}" + (f", {steps} steps" if steps else "")


def detections(rows: Iterable[Row]) -> list[Detection]:
    """Detection records of rows of one method and factor."""
    return [
        Detection(row["diameter_mm"], row["value"], tuple(row["false"]), row["slices"])
        for row in rows
        if row["metric"] == "detection_peak"
    ]


def mean_over_heads(rows: Sequence[Row], metric: str, metabolite: str | None = None) -> float:
    """Mean over heads of one metric, 2HG left out unless requested."""
    chosen = [
        (r["head"], r["value"])
        for r in rows
        if r["metric"] == metric and (r["metabolite"] == metabolite if metabolite else r["metabolite"] != APART)
    ]
    found = statistics.head_means(chosen)
    return float(np.mean(list(found.values()))) if found else math.nan


def factors_of(rows: Iterable[Row]) -> list[Any]:
    """Factors in order of appearance."""
    return list(dict.fromkeys(row["factor"] for row in rows))


def grouped(rows: Iterable[Row], keys: Sequence[str]) -> list[tuple[tuple[Any, ...], list[Row]]]:
    """Rows by the values of some columns, in order of appearance."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return list(groups.items())


def by_factor(rows: Sequence[Row], title: str, columns: Sequence[tuple[str, Callable[..., Any], str]]) -> str:
    """A table with one line per factor and method; columns are (heading, function of the method's rows, format)."""
    lines = []
    for factor in factors_of(rows):
        part = [row for row in rows if row["factor"] == factor]
        for key in methods(part):
            own = of_method(part, key)
            cells = [formatted(function(own), form) for _, function, form in columns]
            if any(cells):
                lines.append([f"x{factor}", method_label(key), *cells])
    return markdown_table(title, ["factor", "method", *(name for name, _, _ in columns)], lines)


def mean_cell(values: dict[str, float], form: str) -> str:
    """The mean over heads as a cell; empty without heads."""
    return form.format(np.mean(list(values.values()))) if values else ""


def formatted(value: Any, form: str) -> str:
    """A value as a cell; empty for NaN."""
    return "" if isinstance(value, float) and math.isnan(value) else form.format(value)


def markdown_table(title: str, heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table without its empty columns; empty without lines."""
    if not lines:
        return ""
    used = [k for k in range(len(heads)) if any(line[k] for line in lines)]
    body = [[heads[k] for k in used], ["---"] * len(used), *([line[k] for k in used] for line in lines)]
    return "\n".join([title, "", *("| " + " | ".join(line) + " |" for line in body)])
