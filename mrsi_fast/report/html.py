"""One HTML file for a result: interactive maps, ratios, numbers and warnings; it opens anywhere and loads nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from mrsi_fast._version import __version__
from mrsi_fast.files import write_text
from mrsi_fast.mrsi.export import without_identity
from mrsi_fast.mrsi.geometry import voxel_sizes_mm
from mrsi_fast.mrsi.regions import RegionRow, label_names, labels_on_grid, region_rows
from mrsi_fast.report.alignment_view import alignment_pictures
from mrsi_fast.report.background import packed_background
from mrsi_fast.report.content import all_entries, grid_facts, packed_entries, start_voxel, stills_of
from mrsi_fast.report.embed import pack_grey
from mrsi_fast.report.evidence_view import Picture, alignment_of, evidence_table, missing_colour, selftest_pictures
from mrsi_fast.report.orientation import slice_view
from mrsi_fast.report.ratio_view import RatioView, hotspot_lines, ratio_views
from mrsi_fast.report.stills import SEQUENTIAL, colour_codes
from mrsi_fast.report.style import csp_hash, environment, page_css
from mrsi_fast.report.summary import HEADS, agreement_rows, grouped_warnings, headline, short_number, summary_lines
from mrsi_fast.report.view import SIDECAR, MapView, ReportError, ResultView, read_view

STAGE_LABELS = {
    "measured": "measured",
    "zerofilled": "zero-filled",
    "mean": "super-resolved",
    "sd": "standard deviation",
    "probability": "probability above the threshold",
}
REGION_HEADS = ("region", "map", "voxels", "mL", "mean", "SD", "SD of the mean", "zero-filled mean", "inferred")
_STILL_PIXELS = 240


def write_page(
    view: ResultView,
    target: Path,
    anatomy: Path | None = None,
    regions: Path | None = None,
    durable: bool = True,
) -> Path:
    """Write the page of one result.

    Args:
        view: The result, from memory or from its files.
        target: The HTML file, replaced at once. With regions a table of the same name, ``.tsv``, is written beside it.
        anatomy: Anatomical image to show behind the maps.
        regions: Label image to summarise the maps in.
        durable: As for ``files.atomic_path``.

    Returns:
        ``target``.

    Raises:
        ReportError: The result's record is damaged.
        MapInputError: The anatomical image or the label image cannot be used.
        OSError: The page cannot be written.
    """
    try:
        numbers = {"summary": summary_lines(view.record), "agreement": agreement_rows(view.record)}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReportError(f"{view.title}: its JSON file is damaged ({error!r}). Run it again.") from error
    ratios = ratio_views(view)
    start = start_voxel(view, ratios)
    z = start[2]
    table = None if regions is None else _regions(view, ratios, regions)
    page = environment().from_string(_text("page.html.j2")).render(
        **numbers,
        **_viewer(view, ratios, start, anatomy),
        title=view.title,
        version=__version__,
        heads=HEADS,
        warnings=grouped_warnings(view.record.get("warnings", []), [one.name for one in view.maps]),
        headline=headline(view.record),
        ratios=[{"name": one.name, "lines": hotspot_lines(one)} for one in ratios],
        evidence=evidence_table(view.record),
        tested=[_tested(view, one, z) for one in view.maps if one.brought_back is not None],
        alignment=_alignment(view, anatomy),
        regions=table,
        stills=[_stills(view, entry, z) for entry in all_entries(view, ratios)],
        slice_number=f"{z + 1} of {view.shape[2]}",
        edges=slice_view(view.affine).edges,
        record=json.dumps(without_identity({k: v for k, v in view.record.items() if k != "files"}), indent=2),
        anatomy=None if anatomy is None else anatomy.name,
        moved=alignment_of(view.record) is not None,
        missing=missing_colour(),
    )  # fmt: skip
    if table is not None:
        rows = ["\t".join(row) for row in (table["heads"], *table["rows"])]
        write_text(target.with_suffix(".tsv"), "\n".join(rows) + "\n", durable)
    write_text(target, page, durable)
    return target


def write_report(
    folder: Path,
    records: Sequence[Path],
    target: Path,
    anatomy: Path | None = None,
    regions: Path | None = None,
) -> Path:
    """Write the page of a result from its files.

    Args:
        folder: Where the result was looked for, for messages.
        records: JSON files of the results that were found; one is needed.
        target: The HTML file.
        anatomy: As for :func:`write_page`.
        regions: As for :func:`write_page`.

    Returns:
        ``target``.

    Raises:
        ReportError: There is no result, a damaged one, or several.
    """
    if not records:
        raise ReportError(f"{folder}: holds no result of `mrsi-fast sr`. Give its output folder.")
    if len(records) > 1:
        raise ReportError(
            f"{folder}: holds {len(records)} results; --anatomy and --regions belong to one. Give its JSON with -i."
        )
    return write_page(read_view(records[0], title_of(records[0]), target.parent), target, anatomy, regions)


def title_of(record: Path) -> str:
    """What to call a result: its folder, and its file names where they name a subject."""
    stem, home = record.name.removesuffix(SIDECAR), record.parent.resolve()
    return f"{home.name}: {stem}" if stem.startswith("sub-") else home.name


def _viewer(
    view: ResultView, ratios: list[RatioView], start: tuple[int, int, int], anatomy: Path | None
) -> dict[str, Any]:
    """What the page needs for its interactive part: data, code, styles, and the policy that admits just these."""
    entries = packed_entries(view, ratios)
    if anatomy is None:
        background = pack_grey(np.zeros(view.shape, np.uint8), view.affine)
    else:
        background = packed_background(anatomy, view.affine, view.shape, alignment_of(view.record))
    data = {
        "entries": entries,
        "grid": grid_facts(view),
        "background": background,
        "anatomy": anatomy is not None,
        "start_mm": (view.affine @ [*start, 1.0])[:3].tolist(),
        "colours": {name: colour_codes()[name] for name in SEQUENTIAL},
    }
    script, css, code = _text("viewer.js"), page_css(), _niivue()
    policy = (
        f"default-src 'none'; img-src data: blob:; style-src '{csp_hash(css)}'; "
        f"script-src '{csp_hash(script)}' '{code['hash']}'; base-uri 'none'; form-action 'none'"
    )
    return {
        "policy": policy,
        "css": Markup(css),
        "script": Markup(script),
        "viewer_code": Markup(code["packed"]),
        "viewer_version": code["version"],
        "data": Markup(_json_in_html(data)),
        "entries": entries,
        "steps": entries[0]["steps"],
        "hotspots": [one.name for one in ratios],
    }


def _stills(view: ResultView, entry: MapView | RatioView, z: int) -> dict[str, Any]:
    pictures = [
        _picture((STAGE_LABELS[key], picture, window, "magma" if key in ("sd", "probability") else "viridis"))
        for key, picture, window in stills_of(view, entry, z)
    ]
    unit = view.record.get("units", "") if isinstance(entry, MapView) else ""
    return {"name": entry.name, "unit": unit, "pictures": pictures}


def _tested(view: ResultView, entry: MapView, z: int) -> dict[str, Any]:
    pictures = [_picture(one) for one in selftest_pictures(view, entry, z)]
    return {"name": entry.name, "unit": view.record.get("units", ""), "pictures": pictures}


def _picture(found: Picture) -> dict[str, Any]:
    """A still as the template takes it."""
    label, picture, (low, high), colours = found
    return {
        "label": label,
        "data": picture.data,
        "edges": picture.edges,
        "width": _STILL_PIXELS,
        "height": max(1, round(_STILL_PIXELS * picture.height_mm / picture.width_mm)),
        "low": short_number(low),
        "high": short_number(high),
        "colours": colours,
    }


def _alignment(view: ResultView, anatomy: Path | None) -> dict[str, Any] | None:
    """The anatomical image with the maps' outlines before and after; None where no placement was searched for."""
    matrix = alignment_of(view.record, used_only=False)
    if anatomy is None or matrix is None:
        return None
    used = alignment_of(view.record) is not None
    rows = alignment_pictures(view, anatomy, matrix)
    labels = {"before": "as its affine states", "after": "after alignment" if used else "at the best fit (not used)"}
    return {"rows": [(labels[key], pictures) for key, pictures in rows.items()]} if rows else None


def _regions(view: ResultView, ratios: list[RatioView], path: Path) -> dict[str, Any]:
    """Region statistics of every map and ratio as a table."""
    labels = labels_on_grid(path, view.affine, view.shape)
    names, voxel_ml = label_names(path), float(np.prod(voxel_sizes_mm(view.affine))) / 1000
    rows: list[tuple[str, RegionRow]] = []
    for one in view.maps:
        zero_filled = one.mean if one.zero_filled is None else one.zero_filled
        found = region_rows(labels, one.mean, zero_filled, one.samples, voxel_ml, names)
        rows += [(one.name, row) for row in found]
    for ratio in ratios:
        zero_filled = ratio.maps.median if ratio.zero_filled is None else ratio.zero_filled
        rows += [
            (ratio.name, row) for row in region_rows(labels, ratio.maps.median, zero_filled, None, voxel_ml, names)
        ]
    rows.sort(key=lambda one: one[1].label)
    return {"heads": REGION_HEADS, "rows": [_region_cells(name, row) for name, row in rows], "source": path.name}


def _region_cells(name: str, row: RegionRow) -> tuple[str, ...]:
    spread = "-" if row.sd_of_mean is None else f"{row.sd_of_mean:.3g}"
    return (
        row.name, name, str(row.voxels), f"{row.volume_ml:.2f}", f"{row.mean:.4g}", f"{row.sd:.3g}", spread,
        f"{row.zero_filled:.4g}", f"{row.inferred:.2%}",
    )  # fmt: skip


def _text(name: str) -> str:
    return resources.files("mrsi_fast.report").joinpath(name).read_text(encoding="utf-8")


@cache
def _niivue() -> dict[str, str]:
    """The vendored viewer: packed as it is stored, with its version and the hash that the page's policy names."""
    folder = resources.files("mrsi_fast.report").joinpath("vendor")
    facts = json.loads(folder.joinpath("niivue.json").read_text(encoding="utf-8"))
    digest = base64.b64encode(bytes.fromhex(facts["sha256"])).decode("ascii")
    packed = base64.b64encode(folder.joinpath("niivue.js.gz").read_bytes()).decode("ascii")
    return {"packed": packed, "hash": f"sha256-{digest}", "version": facts["version"]}


def _json_in_html(data: dict[str, Any]) -> str:
    """JSON that cannot end the element it is in, whatever the names in it are."""
    text = json.dumps(data, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
