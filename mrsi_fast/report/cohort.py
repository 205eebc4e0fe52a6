"""The front page of an output folder with several inputs: a picture and a row each, those that need a look first."""

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

FALSE_DETAIL = "adds false detail"
NOT_TESTED = "not tested"
_PICTURE_PIXELS = 170
_REMARKABLE = 1.1
"""Residual over the expected one from which it is among the reasons for a look."""


def page_name(stem: str) -> str:
    """File name of the page of one result."""
    return f"{stem}_report.html"


def verdict_of(evidence: Mapping[str, Any] | None) -> str:
    """What the self-test says of a result in one line, the worst first: ``adds false detail: tCho; adds ...``.

    Args:
        evidence: As it stands in the record of the result.
    """
    maps = (evidence or {}).get("maps") or {}
    if not maps:
        return NOT_TESTED
    groups: dict[str, list[str]] = {}
    for name, facts in maps.items():
        groups.setdefault(str(facts["verdict"]).partition(":")[0], []).append(name)
    ordered = sorted(groups, key=lambda verdict: (verdict != FALSE_DETAIL, "true" in verdict, verdict))
    return "; ".join(f"{verdict}: {' '.join(groups[verdict])}" for verdict in ordered)


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
    from markupsafe import Markup

    from mrsi_fast.report.style import csp_hash, environment, page_css

    text = resources.files("mrsi_fast.report").joinpath("cohort.html.j2").read_text(encoding="utf-8")
    template = environment().from_string(text)
    shown = [_shown(row, folder) for row in sorted(rows, key=_urgency)]
    css = page_css()
    pictured = sorted({row["picture"]["map"] for row in shown if row["picture"]})
    page = template.render(
        title=folder.resolve().name,
        version=__version__,
        policy=f"default-src 'none'; img-src data:; style-src '{csp_hash(css)}'; base-uri 'none'; form-action 'none'",
        css=Markup(css),
        rows=shown,
        pictured=", ".join(pictured),
        done=sum(_has_result(row) for row in rows),
    )
    write_text(target, page)
    return target


def _has_result(row: Mapping[str, Any]) -> bool:
    return row["status"] in ("done", "skipped")


def _residual(row: Mapping[str, Any]) -> float:
    return float(row["residual_over_expected"] or 0)


def _urgency(row: Mapping[str, Any]) -> tuple[bool, bool, float, int, str]:
    """No result first, then false detail, then by how far the residual exceeds the noise, then by warnings."""
    false = FALSE_DETAIL in str(row["verdict"])
    return _has_result(row), not false, -max(_residual(row), 1.0), -int(row["warnings"] or 0), str(row["input"])


def _shown(row: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A row as the template takes it: with its page, its picture, and why it needs a look."""
    reasons = [] if _has_result(row) else [f"{row['status']}: {row['detail']}"]
    if FALSE_DETAIL in str(row["verdict"]):
        reasons.append(str(row["verdict"]).partition(";")[0])
    if _residual(row) > _REMARKABLE:
        reasons.append(f"residual {row['residual_over_expected']} times its expectation from noise")
    if count := int(row["warnings"] or 0):
        reasons.append(f"{count} warning{'s' if count > 1 else ''}")
    look = "bad" if not _has_result(row) else "look" if reasons else "well"
    record = str(row["result"])
    return {
        **row,
        "page": _link(record),
        "picture": _picture(folder / record, str(row["maps"]).split()) if record else None,
        "reasons": reasons,
        "look": look,
    }


def _picture(record: Path, names: Sequence[str]) -> dict[str, Any] | None:
    """The first map of a result in the slice with most voxels; None if it cannot be read."""
    import numpy as np

    from mrsi_fast.mrsi.mapset import MapInputError
    from mrsi_fast.mrsi.names import bids_label
    from mrsi_fast.mrsi.nifti import read_nifti
    from mrsi_fast.report.stills import still
    from mrsi_fast.report.window import display_window

    stem = record.name.removesuffix(_RECORD_TAIL)
    for name in names[:1]:
        try:
            volume = read_nifti(record.with_name(f"{stem}_met-{bids_label(name)}_desc-sr_mrsi.nii.gz"))
        except (OSError, MapInputError, ValueError):
            return None
        values = volume.data[0]
        counts = np.isfinite(values).sum(axis=(0, 1))
        z = max(range(values.shape[2]), key=lambda z: (int(counts[z]), -abs(z - values.shape[2] // 2)))
        drawn = still(values, z, volume.affine, display_window(values), "viridis")
        scale = _PICTURE_PIXELS / max(drawn.width_mm, drawn.height_mm)
        width, height = max(1, round(scale * drawn.width_mm)), max(1, round(scale * drawn.height_mm))
        return {"map": name, "data": drawn.data, "width": width, "height": height}
    return None


def _link(record: str) -> str:
    """Relative address of the page of a result; empty if there is no result."""
    return quote(record.removesuffix(_RECORD_TAIL) + "_report.html") if record else ""
