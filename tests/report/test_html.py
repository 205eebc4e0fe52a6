"""The HTML page is one file that loads nothing, escapes what it is given, and shows what the JSON says."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mrsi_fast.report.html import ReportError, write_report

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def record(**changes: Any) -> dict[str, Any]:
    facts = {
        "content": "signal",
        "noise_sd": 93.4,
        "noise_source": "crlb",
        "trusted_voxels": 349,
        "residual_relative": 0.0123,
        "residual_whitened": 18.91,
        "residual_expected": None,
        "energy_outside_band": 0.0055,
    }
    return {
        "input_grid": {"shape": [14, 14, 3], "voxel_mm": [10.0, 10.0, 12.0]},
        "output_grid": {"shape": [28, 28, 3], "voxel_mm": [5.0, 5.0, 12.0]},
        "fov_corner_difference_mm": 0.0,
        "device": "cpu",
        "device_reason": "asked for",
        "threads": 2,
        "engine": "eager",
        "engine_reason": "asked for",
        "operator": "14x14 k-space samples.",
        "operator_assumed": False,
        "data_consistency": {"description": "Data consistency: soft."},
        "model": {"name": "base", "sha256": "0" * 64},
        "operating_point": "mean of 8 samples",
        "samples": 8,
        "steps": 8,
        "solver": "dpmpp_2m",
        "seed": 3,
        "seconds": 11.4,
        "note": "Research use only.",
        "maps": {"tNAA": facts},
        "warnings": [],
        **changes,
    }


def write_result(folder: Path, stem: str = "res-x2", **changes: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [f"{stem}{name}.png" for name in ("_desc-sr_mrsi", "_met-NAANAAG_desc-sr_mrsi")]
    facts = record(files={name: {} for name in pictures}, **changes)
    (folder / f"{stem}_desc-sr_mrsi.json").write_text(json.dumps(facts))
    for name in (*pictures, f"{stem}_met-GPCPCh_desc-sr_mrsi.png"):  # the last one is of another result
        (folder / name).write_bytes(PIXEL)


class Addresses(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [value or "" for name, value in attributes if name in ("src", "href", "action", "data")]


def parsed(path: Path) -> Addresses:
    page = Addresses()
    page.feed(path.read_text())
    return page


def test_numbers_and_pictures_are_inside(tmp_path: Path) -> None:
    write_result(tmp_path)
    page = write_report(tmp_path, tmp_path / "report.html", "K_01")
    text = page.read_text()
    for expected in ("K_01", "14x14x3 voxels of 10 x 10 x 12 mm", "18.91", "1.23%", "Research use only"):
        assert expected in text
    addresses = parsed(page)
    assert len(addresses.found) == 2 and all(one.startswith("data:image/png;base64,") for one in addresses.found)
    assert base64.b64decode(addresses.found[0].partition(",")[2]) == PIXEL
    assert not {"script", "link", "iframe"} & set(addresses.tags)


def test_what_comes_from_files_is_escaped(tmp_path: Path) -> None:
    attack = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    write_result(tmp_path, warnings=[attack], operator=attack, engine_reason=attack)
    page = write_report(tmp_path, tmp_path / "report.html", attack)
    assert "script" not in parsed(page).tags and parsed(page).tags.count("img") == 2
    assert not re.search(r"<[^>]*onerror", page.read_text())


def test_several_results_and_failures_share_a_page(tmp_path: Path) -> None:
    write_result(tmp_path / "a", "sub-01_space-orig_res-x2")
    write_result(tmp_path / "b", "sub-02_space-orig_res-x2")
    outcomes = [
        {"label": "a", "status": "done", "detail": ""},
        {"label": "c", "status": "invalid", "detail": "c: is empty."},
    ]
    (tmp_path / "run.json").write_text(json.dumps({"inputs": outcomes}))
    records = sorted(tmp_path.glob("*/*.json"))
    text = write_report(tmp_path, tmp_path / "report.html", "study", records).read_text()
    assert "a: sub-01_space-orig_res-x2" in text and "b: sub-02_space-orig_res-x2" in text
    assert "c (invalid): c: is empty." in text


def test_nothing_to_report_and_damaged_results(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="holds no result"):
        write_report(tmp_path, tmp_path / "report.html", "empty")
    (tmp_path / "res-x2_desc-sr_mrsi.json").write_text("{}")
    with pytest.raises(ReportError, match=r"res-x2_desc-sr_mrsi\.json: is not a result"):
        write_report(tmp_path, tmp_path / "report.html", "damaged")
