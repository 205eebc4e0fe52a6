"""One HTML file for a run: every result with its numbers, warnings and pictures; opens anywhere, loads nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from mrsi_fast._version import __version__
from mrsi_fast.files import write_text
from mrsi_fast.report.summary import HEADS, agreement_rows, summary_lines

SIDECAR = "_desc-sr_mrsi.json"


class ReportError(ValueError):
    """A folder that no report can be made from; the message says why."""


def write_report(folder: Path, target: Path, title: str, records: Sequence[Path] | None = None) -> Path:
    """Gathers results into one self-contained page.

    Args:
        folder: Output folder of ``mrsi-fast sr``.
        target: The HTML file.
        title: Heading.
        records: JSON records of the results to show; default all in the folder and below.

    Raises:
        ReportError: The folder holds no result, or one of its JSON files is damaged.
        OSError: A file cannot be read or written.
    """
    if records is None:
        records = sorted(path for path in folder.rglob(f"*{SIDECAR}") if not path.name.startswith("."))
    outcomes = _outcomes(folder)
    if not records and not outcomes:
        raise ReportError(f"{folder}: holds no result of `mrsi-fast sr`. Give its output folder.")
    text = resources.files("mrsi_fast.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(text).render(
        title=title,
        version=__version__,
        heads=HEADS,
        results=[_result(path, folder) for path in records],
        failures=[outcome for outcome in outcomes if outcome["status"] not in ("done", "skipped")],
    )
    write_text(target, page)
    return target


def _outcomes(folder: Path) -> list[dict[str, Any]]:
    """How the inputs of the run went, as the command noted it."""
    try:
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))["inputs"]
    except (OSError, ValueError, KeyError):
        return []


def _result(sidecar: Path, folder: Path) -> dict[str, Any]:
    stem = sidecar.name.removesuffix(SIDECAR)
    try:
        record = json.loads(sidecar.read_text(encoding="utf-8"))
        summary, agreement = summary_lines(record), agreement_rows(record)
    except (ValueError, KeyError, TypeError) as error:
        raise ReportError(f"{sidecar.name}: is not a result of `mrsi-fast sr`, or is damaged ({error!r}).") from error
    names = sorted(name for name in record.get("files", ()) if name.endswith(".png") and Path(name).name == name)
    names.sort(key=lambda name: name != f"{stem}_desc-sr_mrsi.png")  # the overview first
    where = sidecar.parent.relative_to(folder)
    return {
        "name": f"{where}: {stem}" if where.parts else stem,
        "warnings": record.get("warnings", []),
        "summary": summary,
        "agreement": agreement,
        "pictures": [
            {"name": name, "data": base64.b64encode((sidecar.parent / name).read_bytes()).decode()}
            for name in names
            if (sidecar.parent / name).is_file()
        ],
    }
