"""The front page of an output folder with several inputs: one row each, those that need a look first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mrsi_fast._version import __version__
from mrsi_fast.files import write_text

_RECORD_TAIL = "_desc-sr_mrsi.json"
FRONT_PAGE = "report.html"
"""The page of an output folder: that of its only result, or one that leads to all of them."""


def page_name(stem: str) -> str:
    """File name of the page of one result."""
    return f"{stem}_report.html"


def write_cohort(folder: Path, target: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Writes a page that leads to the page of every result.

    Args:
        folder: The output folder.
        target: The HTML file, in this folder.
        rows: As in ``summary.csv``.

    Returns:
        The HTML file.

    Raises:
        OSError: It cannot be written.
    """
    import jinja2

    text = resources.files("mrsi_fast.report").joinpath("cohort.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    ordered = sorted(rows, key=_urgency)
    page = environment.from_string(text).render(
        title=folder.resolve().name,
        version=__version__,
        rows=[{**row, "page": _link(str(row["result"]))} for row in ordered],
        done=sum(row["status"] in ("done", "skipped") for row in rows),
    )
    write_text(target, page)
    return target


def _urgency(row: Mapping[str, Any]) -> tuple[bool, float, int, str]:
    """Failures first, then by how far the residual exceeds the noise, then by the number of warnings."""
    residual = float(row["residual_over_expected"] or 0)
    return row["status"] in ("done", "skipped"), -max(residual, 1.0), -int(row["warnings"] or 0), str(row["input"])


def _link(record: str) -> str:
    """Relative address of the page of a result; empty if there is no result."""
    return quote(record.removesuffix(_RECORD_TAIL) + "_report.html") if record else ""
