"""Measured scans without a finer truth: their own k-space cut by 2 and brought back.

The measured maps, untrusted voxels filled, are cut to half their matrix by the declared operator
(``evidence.halving``), super-resolved x2 with the one-step mean and compared with the measured maps outside the kept
band on trusted voxels (``evidence.detail`` defines error, amplitude and noise floor). Once without and, where the scan
has a T1, once with it. These rows are a track of their own: no truth is known, and the reference holds noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mrsi_fast.evaluation.measured_head import find_t1
from mrsi_fast.evaluation.rows import formatted, markdown_table
from mrsi_fast.evidence.detail import compare
from mrsi_fast.evidence.halving import halve
from mrsi_fast.mrsi.consistency import Mode
from mrsi_fast.mrsi.io import read_maps
from mrsi_fast.mrsi.quality import assess
from mrsi_fast.preparation import AcquisitionSettings
from mrsi_fast.resolver import SuperResolver

Row = dict[str, Any]


def truncation_rows(
    scan: Path,
    resolver: SuperResolver,
    anatomy: Path | None = None,
    acquisition: AcquisitionSettings | None = None,
    data_consistency: Mode = "auto",
) -> list[Row]:
    """Error, amplitude and noise floor of every map, with and without the anatomical image.

    Args:
        scan: Whatever ``read_maps`` reads.
        resolver: The model.
        anatomy: Anatomical image; default the one T1 in the folder of the scan, if there is one.
        acquisition: Declared support and window of the scan.
        data_consistency: As of a run.

    Raises:
        MapInputError: The scan cannot be read, or its matrix is too small.
    """
    settings = acquisition or AcquisitionSettings()
    maps = read_maps(scan)
    halved = halve(maps, assess(maps), known=settings)
    image = anatomy if anatomy is not None else find_t1(scan)
    rows: list[Row] = []
    for guidance, source in {"no T1": None, "with T1": image}.items():
        if guidance != "no T1" and source is None:
            continue
        result = resolver(
            halved.maps,
            scale=(*halved.factors, 1),
            samples=0,
            anatomy=source,
            acquisition=halved.known,
            data_consistency=data_consistency,
            keep_filled=True,
            evidence="off",
            align="off",
        )
        for name, detail in zip(maps.names, compare(halved, result.mean), strict=True):
            facts = {"scan": scan.name, "matrix": "x".join(map(str, maps.shape)), "guidance": guidance}
            rows.append({**facts, "metabolite": name, **asdict(detail)})
    return rows


def truncation_table(rows: Sequence[Row]) -> str:
    """One table a scan: maps as columns, error, amplitude and noise floor as lines."""
    tables = []
    for scan in dict.fromkeys(row["scan"] for row in rows):
        own = [row for row in rows if row["scan"] == scan]
        names = list(dict.fromkeys(row["metabolite"] for row in own))
        lines = []
        for guidance in dict.fromkeys(row["guidance"] for row in own):
            by_map = {row["metabolite"]: row for row in own if row["guidance"] == guidance}
            lines.append([f"error, {guidance}", *(formatted(by_map[n]["error"], "{:.3f}") for n in names)])
            lines.append([f"amplitude a, {guidance}", *(_with_interval(by_map[n], "amplitude") for n in names)])
        lines.append(["noise floor", *(formatted(by_map[n]["noise_floor"], "{:.2f}") for n in names)])
        lines.append(["trusted voxels", *(str(by_map[n]["voxels"]) for n in names)])
        title = (
            f"### {scan}, {own[0]['matrix']}: measured k-space cut by 2 and brought back by the one-step mean. Error "
            "outside the kept band on trusted voxels over zero-filling's (= 1), slope a of the measured detail on the "
            "added one with its 90 % interval, error that the stated noise alone leaves"
        )
        tables.append(markdown_table(title, ["", *names], lines))
    return "\n\n".join(tables)


def _with_interval(row: Row, key: str) -> str:
    low, high = row[f"{key}_interval"]
    return formatted(row[key], "{:.2f}") and f"{row[key]:.2f} [{low:.2f}, {high:.2f}]"
