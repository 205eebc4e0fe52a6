"""Reports of whole runs in a real browser: a simulated glioma, a measured scan, a whole-brain subject."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from support.chromium import WEBGL, Chromium
from support.report_page import Files, entries, number, pixels, place, point_at, record_of, text

pytestmark = [pytest.mark.browser, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("MRSI_FAST_DATA", ROOT.parent / "shared" / "data"))
LARGEST_PAGE = 5_000_000
LABELS = {"tNAA": "NAANAAG", "tCr": "CrPCr", "tCho": "GPCPCh"}
WHOLE_BRAIN = """\
name = "whole-brain"
[anatomy]
heads = "phantom"
tumour_masks = ""
[volume]
matrix = [64, 84]
fov_mm = [160.0, 210.0]
slices = 22
thickness_mm = 5.25
step_mm = 5.25
first_mm = -55.0
source = "object"
support = "ellipse"
window = "hamming"
"""


@dataclass(frozen=True)
class Scan:
    """A finished run, with its page in the browser."""

    page: Chromium
    folder: Path
    report: Path


def mrsi_fast(*arguments: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from mrsi_fast.cli import main; main()", *map(str, arguments)],
        capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def glioma(folder: Path) -> Path:
    maps, t1 = ROOT / "examples" / "simulated_glioma", ROOT / "examples" / "simulated_glioma_truth" / "T1.nii.gz"
    mrsi_fast("sr", "-q", "-i", maps, "--anatomy", t1,
              "--scale", "4", "--window", "hamming", "--support", "ellipse", "--units", "mM", "-o", folder)  # fmt: skip
    return folder


def measured(folder: Path) -> Path:
    scan = DATA / "mrsi_oryx2_mit" / "K_01"
    if not scan.is_dir():
        pytest.skip(f"{scan} is not there")
    mrsi_fast("sr", "-q", "-i", scan, "--anatomy", scan / "T1_Bet.nii.gz", "--scale", "2", "-o", folder)
    return folder


def whole_brain(folder: Path) -> Path:
    preset, simulated = folder.parent / "whole-brain.toml", folder.parent / "simulated"
    preset.write_text(WHOLE_BRAIN)
    mrsi_fast("simulate", "-q", "--preset", preset, "--scales", "2", "-o", simulated)
    mrsi_fast("sr", "-q", "-i", simulated / "sub-000_acq-x2", "--anatomy", simulated / "sub-000_truth" / "T1.nii.gz",
              "--scale", "2", "--window", "hamming", "--support", "ellipse", "--units", "mM", "-o", folder)  # fmt: skip
    return folder


@pytest.fixture(scope="module", params=[glioma, measured, whole_brain], ids=lambda one: one.__name__)
def scan(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scan]:
    folder = request.param(tmp_path_factory.mktemp("scan") / "out")
    browser = Chromium(*WEBGL, width=1200, height=1000)
    try:
        browser.open(folder / "report.html")
        assert text(browser, "no-viewer-reason") == ""
        assert browser.value("document.body.dataset.ready") == "yes"
        yield Scan(browser, folder, folder / "report.html")
    finally:
        browser.close()


def test_a_page_is_one_small_file_without_errors(scan: Scan) -> None:
    size = scan.report.stat().st_size
    print(f"{scan.report}: {size / 1e6:.2f} MB")
    assert size < LARGEST_PAGE
    assert scan.page.errors() == []
    assert entries(scan.page)[:3] == ["tNAA", "tCr", "tCho"] and entries(scan.page)[-1] == "tCho/tNAA"


@pytest.mark.parametrize("name", ["tNAA", "tCho"])
def test_values_under_the_pointer_are_those_of_the_files(scan: Scan, name: str) -> None:
    page, files = scan.page, Files(scan.folder, LABELS[name])
    steps = number(text(page, "steps"))
    page.set("map", name)
    page.set("slice", str(files.values["mean"].shape[2] // 2))
    unit = record_of(scan.folder)["units"]
    seen = 0
    for x, y in ((0.42, 0.37), (0.47, 0.61), (0.55, 0.45), (0.58, 0.58), (0.38, 0.52)):
        point_at(page, "mean", x, y)
        index, mm = place(page)
        if files.edge_mm(mm) < 0.1 or not np.isfinite(files.at("mean", mm)):
            continue  # the page states mm to a tenth
        seen += 1
        assert np.floor((np.linalg.inv(files.images["mean"].affine) @ [*mm, 1.0])[:3] + 0.5).astype(int).tolist() == [
            *index
        ]
        shown = text(page, "value-mean")
        assert shown.endswith(unit)
        reads = {
            "mean": shown,
            "sd": shown.partition("\u00b1")[2],
            "zerofilled": text(page, "value-zerofilled"),
            "measured": text(page, "value-measured"),
        }
        for key, read in reads.items():
            coarse = {"mean": steps, "measured": steps, "zerofilled": min(steps, 200), "sd": 100}[key]
            value = files.at(key, mm)
            assert number(read) == pytest.approx(value, abs=files.top(key) / coarse + 6e-4 * abs(value)), (key, mm)
    assert seen >= 2


def test_slider_map_and_window_change_the_picture(scan: Scan, tmp_path: Path) -> None:
    page = scan.page
    page.set("map", "tNAA")
    count = int(text(page, "slice-text").partition(" of ")[2])
    middle = count // 2
    page.set("slice", str(middle))
    assert text(page, "slice-text") == f"{middle + 1} of {count}"
    first = pixels(page, "mean", tmp_path / "first.png")
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 50 and first.std() > 20  # a map, not an empty canvas
    page.set("slice", str(middle - 1))
    point_at(page, "mean", 0.5, 0.5)
    assert place(page)[0][2] == middle - 1
    assert np.abs(pixels(page, "mean", tmp_path / "slice.png") - first).mean() > 2
    page.set("slice", str(middle))
    page.set("map", "tCho")
    assert np.abs(pixels(page, "mean", tmp_path / "map.png") - first).mean() > 2
    page.set("map", "tNAA")
    high = number(page.value("document.getElementById('high').value"))
    page.set("high", f"{3 * high:.4g}")
    assert pixels(page, "mean", tmp_path / "window.png")[..., 1].mean() < first[..., 1].mean() - 5
    page.value("document.getElementById('window-reset').click()")


def test_evidence_alignment_and_stills_are_there(scan: Scan) -> None:
    page, evidence = scan.page, record_of(scan.folder)["evidence"]
    read = page.value("document.body.innerText")
    assert evidence["tested"] and "Self-test on this scan" in read
    assert all(facts["verdict"] in read for facts in evidence["maps"].values())
    assert "Anatomical image and maps" in read and evidence["guidance"]["reason"] in read
    assert page.value("[...document.images].every((i) => i.complete && i.naturalWidth > 10)")
    assert page.value("document.querySelectorAll('.tested img').length") == 5 * len(evidence["maps"])
    assert page.errors() == []
