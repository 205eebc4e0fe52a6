"""A page is one file that loads nothing, escapes what it is given, and holds the maps and the numbers of its result."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import subprocess
import sys
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mrsi_fast.cli.summary import COLUMNS
from mrsi_fast.mrsi.export import write_map
from mrsi_fast.report.cohort import write_cohort
from mrsi_fast.report.html import write_page, write_report
from mrsi_fast.report.view import MapView, ReportError, ResultView
from support.results import LR_AFFINE, record, save, view

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """Tags, addresses, handlers and scripts of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.policy = ""
        self.scripts: dict[str, str] = {}
        self._in = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attributes)
        self.addresses += [found[name] or "" for name in ("src", "href", "action", "data") if name in found]
        self.handlers += [name for name in found if name.startswith("on") or name == "style"]
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"] or ""
        self._in = (found.get("id") or f"{tag} without id") if tag in ("script", "style") else ""

    def handle_data(self, text: str) -> None:
        if self._in:
            self.scripts[self._in] = self.scripts.get(self._in, "") + text

    def handle_endtag(self, tag: str) -> None:
        self._in = ""


def test_numbers_maps_and_ratio_are_inside(tmp_path: Path) -> None:
    page = write_page(view(), tmp_path / "report.html")
    text = page.read_text()
    for expected in ("K_01", "14x14x3 voxels of 10 x 10 x 12 mm", "18.91", "1.23%", "Research use only", "tCho/tNAA",
                     "mirror image of the hotspot", "90 % interval"):  # fmt: skip
        assert expected in text
    assert page.stat().st_size < 2_000_000
    data = json.loads(Page(page).scripts["report-data"])
    assert [entry["name"] for entry in data["entries"]] == ["tNAA", "tCho", "tCho/tNAA"]
    assert list(data["entries"][0]["stages"]) == ["measured", "zerofilled", "mean", "sd"]
    assert list(data["entries"][2]["stages"]) == ["measured", "zerofilled", "mean", "sd", "probability"]


def test_packed_maps_are_nifti_on_their_grid_within_half_a_step(tmp_path: Path) -> None:
    shown = view()
    data = json.loads(Page(write_page(shown, tmp_path / "report.html")).scripts["report-data"])
    for key, values, affine in (
        ("mean", shown.maps[0].mean, shown.affine), ("measured", shown.maps[0].measured, LR_AFFINE)
    ):  # fmt: skip
        packed = gzip.decompress(base64.b64decode(data["entries"][0]["stages"][key]["nifti"]))
        image = nib.Nifti1Image.from_bytes(packed)
        np.testing.assert_allclose(image.affine, affine, atol=1e-6)
        known = np.isfinite(values)
        np.testing.assert_allclose(
            image.get_fdata()[known], values[known], atol=0.51 * np.nanpercentile(values, 99.5) / 4000
        )
        assert (np.asarray(image.dataobj.get_unscaled())[~known] == -32768).all()


def test_nothing_is_loaded_and_only_the_page_own_code_may_run(tmp_path: Path) -> None:
    page = Page(write_page(view(), tmp_path / "report.html"))
    assert page.addresses and all(one.startswith("data:image/png;base64,") for one in page.addresses)
    assert not {"link", "iframe", "object", "embed"} & set(page.tags) and not page.handlers
    assert page.policy.startswith("default-src 'none'") and "unsafe" not in page.policy and "http" not in page.policy
    for element in ("script without id", "style without id"):
        digest = base64.b64encode(hashlib.sha256(page.scripts[element].encode()).digest()).decode()
        assert f"'sha256-{digest}'" in page.policy
    bundle = gzip.decompress(base64.b64decode(page.scripts["viewer-code"]))
    assert f"'sha256-{base64.b64encode(hashlib.sha256(bundle).digest()).decode()}'" in page.policy


def test_vendored_viewer_is_what_its_description_says() -> None:
    folder = resources.files("mrsi_fast.report").joinpath("vendor")
    facts = json.loads(folder.joinpath("niivue.json").read_text())
    bundle = gzip.decompress(folder.joinpath("niivue.js.gz").read_bytes())
    assert hashlib.sha256(bundle).hexdigest() == facts["sha256"]
    assert facts["licence"] == "BSD-2-Clause" and "BSD 2-Clause" in folder.joinpath("LICENSE").read_text()


def test_what_comes_from_files_is_escaped(tmp_path: Path) -> None:
    shown = view(title=ATTACK, warnings=[ATTACK], operator=ATTACK, engine_reason=ATTACK, units=ATTACK)
    facts = shown.record["maps"]["tNAA"]
    odd = MapView(ATTACK, *(getattr(shown.maps[0], name) for name in ("mean", "std", "measured", "zero_filled")), None)
    shown = ResultView(ATTACK, shown.record | {"maps": {ATTACK: facts}}, (odd,), shown.affine, shown.lr_affine)
    plain = Page(write_page(view(), tmp_path / "plain.html"))
    page = Page(write_page(shown, tmp_path / "report.html"))
    assert page.tags.count("script") == plain.tags.count("script") and not page.handlers
    assert "x" not in page.addresses
    assert page.tags.count("img") == 4 and "<img src=x" not in (tmp_path / "report.html").read_text()
    assert json.loads(page.scripts["report-data"])["entries"][0]["name"] == ATTACK


def test_no_text_of_a_file_turns_the_reading_order(tmp_path: Path) -> None:
    name, escaped = "A\u202egpj.AANt\u2066", "A\\u202egpj.AANt\\u2066"
    shown = view(title=name, warnings=[f"{name}: odd"], units=name)
    facts = shown.record["maps"]["tNAA"]
    odd = MapView(name, *(getattr(shown.maps[0], key) for key in ("mean", "std", "measured", "zero_filled")), None)
    shown = ResultView(name, shown.record | {"maps": {name: facts}}, (odd,), shown.affine, shown.lr_affine)
    written = write_page(shown, tmp_path / "report.html")
    text = written.read_text()
    assert "\u202e" not in text and "\u2066" not in text and f"<title>{escaped}" in text
    entry = json.loads(Page(written).scripts["report-data"])["entries"][0]
    assert (entry["name"], entry["unit"]) == (escaped, escaped) and f'value="{escaped}"' in text
    row = dict.fromkeys(COLUMNS, "") | {"input": name, "status": "failed"}
    cohort = write_cohort(tmp_path, tmp_path / "index.html", [row])
    assert "\u202e" not in cohort.read_text()


def test_names_of_files_are_text(tmp_path: Path) -> None:
    shown, image = view(), np.ones((28, 28, 3), np.int16)
    t1, atlas = tmp_path / "<script>alert(1) T1.nii.gz", tmp_path / "<script>alert(2).nii.gz"
    for path in (t1, atlas):
        nib.save(nib.Nifti1Image(image, shown.affine), path)
    atlas.with_name("<script>alert(2).tsv").write_text("index\tname\n1\t<script>alert(3)</script>\n")
    plain = Page(write_page(view(), tmp_path / "plain.html"))
    written = write_page(shown, tmp_path / "report.html", t1, atlas)
    page, text = Page(written), written.read_text()
    assert page.tags.count("script") == plain.tags.count("script") and not page.handlers
    assert all(f"&lt;script&gt;alert({number})" in text for number in (1, 2, 3))


def test_many_warnings_do_not_push_the_maps_away(tmp_path: Path) -> None:
    warnings = [f"warning {chr(97 + number)}." for number in range(6)]
    text = write_page(view(warnings=warnings), tmp_path / "report.html").read_text()
    assert all(f"<li>{warning}</li>" in text for warning in warnings) and "2 more warnings" in text
    assert "more warnings" not in write_page(view(warnings=warnings[:4]), tmp_path / "few.html").read_text()


def test_files_give_the_same_page_as_the_run(tmp_path: Path) -> None:
    shown = view(title="results")
    sidecar = save(shown, tmp_path / "results")
    page = write_report(tmp_path / "results", [sidecar], tmp_path / "again.html")
    assert page.read_bytes() == write_page(shown, tmp_path / "direct.html").read_bytes()


def test_only_the_files_of_a_result_enter_its_page(tmp_path: Path) -> None:
    sidecar = save(view(), tmp_path)
    clean = write_report(tmp_path, [sidecar], tmp_path / "clean.html").read_bytes()
    left = np.full((28, 28, 3), 77.0, np.float32)
    for name in ("met-Ins_desc-sr", "met-NAANAAG_desc-sample008", "met-GPCPCh_desc-sample123"):
        write_map(tmp_path / f"res-x2_{name}_mrsi.nii.gz", left, view().affine, kind="mean")
    assert write_report(tmp_path, [sidecar], tmp_path / "again.html").read_bytes() == clean


def test_without_samples_there_is_neither_interval_nor_probability(tmp_path: Path) -> None:
    text = write_page(view(samples=0), tmp_path / "report.html").read_text()
    assert "90 % interval" not in text and "of the mean maps; without samples" in text
    entries = json.loads(Page(tmp_path / "report.html").scripts["report-data"])["entries"]
    assert [list(entry["stages"]) for entry in entries] == [["measured", "zerofilled", "mean"]] * 3


def test_regions_give_a_table_and_a_file(tmp_path: Path) -> None:
    shown, labels = view(), np.zeros((28, 28, 3), np.int16)
    labels[4:9, 10:16], labels[20:24, 10:16] = 3, 8
    nib.save(nib.Nifti1Image(labels, shown.affine), tmp_path / "atlas.nii.gz")
    (tmp_path / "atlas.tsv").write_text("index\tname\n3\t<b>lesion</b>\n")
    page = write_page(shown, tmp_path / "report.html", regions=tmp_path / "atlas.nii.gz")
    assert "&lt;b&gt;lesion&lt;/b&gt;" in page.read_text() and "<b>lesion" not in page.read_text()
    head, *rows = [line.split("\t") for line in (tmp_path / "report.tsv").read_text().splitlines()]
    assert len(rows) == 6 and head[:3] == ["region", "map", "voxels"]
    first = dict(zip(head, rows[0], strict=True))
    assert first["region"] == "<b>lesion</b>" and first["map"] == "tNAA" and first["voxels"] == "90"
    assert float(first["mean"]) == pytest.approx(shown.maps[0].mean[4:9, 10:16].mean(), rel=1e-3)


def test_the_self_test_is_a_table(tmp_path: Path) -> None:
    facts = {
        "error": 0.912, "error_interval": [0.87, 0.95], "amplitude": 0.8, "amplitude_interval": [0.6, None],
        "noise_floor": None, "total_variation": 0.98, "verdict": "adds true detail",
    }  # fmt: skip
    evidence = {"tested": True, "reason": "Cut by 2.", "maps": {"tNAA": facts}, "guidance": {"reason": ATTACK}}
    text = write_page(view(evidence=evidence), tmp_path / "report.html").read_text()
    for expected in (
        "Self-test on this scan",
        "0.912 [0.870, 0.950]",
        ">0.80<",
        ">?<",
        "adds true detail",
        "Cut by 2.",
    ):
        assert expected in text, expected
    assert ATTACK not in text
    assert "Self-test" not in write_page(view(evidence=None), tmp_path / "without.html").read_text()


def test_nothing_to_report_and_damaged_results(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="holds no result"):
        write_report(tmp_path, [], tmp_path / "report.html")
    sidecar = tmp_path / "res-x2_desc-sr_mrsi.json"
    for content in ("{}", "[", '{"maps": {}, "files": {}}', json.dumps(record(files={}))):
        sidecar.write_text(content)
        with pytest.raises(ReportError, match=r"res-x2_desc-sr_mrsi\.json"):
            write_report(tmp_path, [sidecar], tmp_path / "report.html")
    save(view(), tmp_path)
    (tmp_path / "res-x2_met-GPCPCh_desc-zerofilled_mrsi.nii.gz").unlink()
    with pytest.raises(ReportError, match="GPCPCh_desc-zerofilled_mrsi.nii.gz is missing"):
        write_report(tmp_path, [sidecar], tmp_path / "report.html")
    with pytest.raises(ReportError, match="holds 2 results"):
        write_report(tmp_path, [sidecar, sidecar], tmp_path / "report.html")
    save(view(maps={"tNAA": {}, "tCho": {}}), tmp_path)
    with pytest.raises(ReportError, match="its JSON file is damaged"):
        write_report(tmp_path, [sidecar], tmp_path / "report.html")


def test_a_page_needs_no_matplotlib() -> None:
    code = "import sys; import mrsi_fast.report.html, mrsi_fast.cli.work; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
