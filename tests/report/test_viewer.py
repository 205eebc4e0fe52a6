"""The interactive page in a real browser: what it shows and says is what the NIfTI files hold."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mrsi_fast.report.html import write_report
from support.chromium import Chromium
from support.report_page import number, pixels, point_at, text
from support.results import save, view

pytestmark = [pytest.mark.browser, pytest.mark.slow]
ATTACK = "<script>document.title='attacked'</script>"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result on disk in a folder with a hostile name, with a T1 of a hostile name, and its page."""
    folder = tmp_path_factory.mktemp("run") / "a<img src=x onerror=alert(1)>"
    shown = view(warnings=[ATTACK])
    sidecar = save(shown, folder)
    rng = np.random.default_rng(1)
    anatomy = rng.uniform(50, 200, (70, 70, 18)).astype(np.float32)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-69, -69, -17)
    path = folder / "T1 <b>&'quote'.nii.gz"
    nib.save(nib.Nifti1Image(anatomy, affine), path)
    write_report(folder, [sidecar], folder / "report.html", anatomy=path)
    return folder


@pytest.fixture(scope="module")
def page(browser: Chromium, results: Path) -> Chromium:
    browser.open(results / "report.html")
    assert browser.value("document.body.dataset.ready") == "yes", browser.value("document.body.innerText.slice(0, 500)")
    return browser


@pytest.mark.parametrize(("name", "label"), [("tNAA", "NAANAAG"), ("tCho", "GPCPCh")])
def test_values_under_the_pointer_are_those_of_the_files(page: Chromium, results: Path, name: str, label: str) -> None:
    page.set("map", name)
    maps = {
        what: nib.load(results / f"res-x2_met-{label}_desc-{what}_mrsi.nii.gz")
        for what in ("sr", "srstd", "zerofilled", "measured")
    }
    seen = 0
    for x, y in ((0.35, 0.45), (0.5, 0.5), (0.62, 0.3), (0.3, 0.6)):
        point_at(page, "mean", x, y)
        place = text(page, "place")
        assert place.startswith("pointer at ")
        index = tuple(int(part) for part in re.search(r"voxel (\d+), (\d+), (\d+)", place).groups())
        mm = [float(value) * (1 if letter in "RAS" else -1)
              for letter, value in re.findall(r"([RLAPSI]) ([\d.]+)", place)]  # fmt: skip
        mm_ras = np.array([mm[0], mm[1], mm[2]])
        voxel = np.linalg.inv(maps["sr"].affine) @ [*mm_ras, 1]
        assert np.abs(voxel[:3] - index).max() < 0.52, (place, voxel)
        values = {what: float(image.get_fdata()[index]) for what, image in maps.items() if what != "measured"}
        values["measured"] = float(maps["measured"].get_fdata()[index[0] // 2, index[1] // 2, index[2]])
        if not np.isfinite(values["sr"]):
            continue
        seen += 1
        shown = text(page, "value-mean")
        top = np.nanpercentile(maps["sr"].get_fdata(), 99.5)
        assert number(shown) == pytest.approx(values["sr"], abs=top / 4000 + 5e-4 * abs(values["sr"]))
        assert number(shown.partition("\u00b1")[2]) == pytest.approx(values["srstd"], rel=5e-3, abs=top / 400)
        assert shown.endswith("mM")
        assert number(text(page, "value-zerofilled")) == pytest.approx(values["zerofilled"], rel=5e-4, abs=top / 900)
        assert number(text(page, "value-measured")) == pytest.approx(values["measured"], rel=1e-3, abs=top / 3000)
    assert seen >= 3


def test_slider_moves_through_the_slices(page: Chromium, tmp_path: Path) -> None:
    page.set("map", "tNAA")
    pictures = []
    for z in range(3):
        page.set("slice", str(z))
        assert text(page, "slice-text") == f"{z + 1} of 3"
        point_at(page, "mean", 0.5, 0.5)
        assert re.search(rf"voxel \d+, \d+, {z}$", text(page, "place"))
        pictures.append(pixels(page, "mean", tmp_path / "slice.png"))
    assert min(np.abs(pictures[0] - other).mean() for other in pictures[1:]) > 2


def test_window_colours_opacity_and_contour_change_the_picture(page: Chromium, tmp_path: Path) -> None:
    page.set("map", "tNAA")
    page.set("slice", "1")
    page.set("opacity", "100")
    before = pixels(page, "mean", tmp_path / "a.png")
    page.set("high", "40")
    darker = pixels(page, "mean", tmp_path / "b.png")
    assert darker[..., 1].mean() < before[..., 1].mean() - 10  # viridis: green grows along it
    assert page.value("document.querySelectorAll('#panels .bar span')[1].textContent").startswith("40 mM")
    page.value("document.getElementById('window-reset').click()")
    page.settle()
    assert np.abs(pixels(page, "mean", tmp_path / "c.png") - before).mean() < 0.5
    page.set("colours", "cividis")
    assert np.abs(pixels(page, "mean", tmp_path / "d.png") - before).mean() > 5
    page.set("colours", "viridis")
    page.set("opacity", "0")
    anatomy = pixels(page, "mean", tmp_path / "e.png")
    assert np.abs(anatomy[..., 0] - anatomy[..., 1]).mean() < 2 and anatomy.std() > 10  # grey levels of the T1
    page.set("opacity", "100")
    page.set("contour", "hotspot tCho/tNAA")
    drawn = page.value(
        "(() => { const c = document.getElementById('panel-mean').nextElementSibling;"
        " const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; const f = [];"
        " for (let i = 3; i < d.length; i += 4) if (d[i] > 0) f.push((i >> 2) % c.width / c.width,"
        " Math.floor((i >> 2) / c.width) / c.height); return f; })()"
    )
    # The lesion is at voxels 4-8, 10-15 of 28x28: x from +47.5 to +22.5 mm (right), on the left side of the picture.
    x, y = np.array(drawn).reshape(-1, 2).T
    assert 0 < x.min() and x.max() < 0.5 and 0.3 < y.mean() < 0.7
    page.set("contour", "none")


def test_ratio_shows_probability_and_views_follow(page: Chromium, tmp_path: Path) -> None:
    page.set("map", "tCho/tNAA")
    page.set("view", "axial")
    assert page.value("[...document.querySelectorAll('#panels figure')].filter((f) => !f.hidden).length") == 5
    page.mouse(5, 5)
    assert number(text(page, "value-probability")) == 1.0  # it starts at the peak of the hotspot
    for name in ("coronal", "sagittal", "planes", "axial"):
        page.set("view", name)
        assert pixels(page, "mean", tmp_path / "view.png").std() > 5
    page.set("map", "tNAA")
    assert page.value("[...document.querySelectorAll('#panels figure')].filter((f) => !f.hidden).length") == 4


def test_a_click_moves_the_crosshair_of_every_panel(page: Chromium) -> None:
    page.set("map", "tNAA")
    point_at(page, "measured", 0.6, 0.55)
    expected = [float(value) for value in re.findall(r"[RLAPSI] ([\d.]+)", text(page, "place"))]
    box = page.value(
        "(() => { const r = document.getElementById('panel-measured').getBoundingClientRect();"
        " return [r.left + 0.6 * r.width, r.top + 0.55 * r.height]; })()"
    )
    page.mouse(*box, click=True)
    page.mouse(5, 5)
    assert text(page, "place").startswith("crosshair at ")
    found = [float(value) for value in re.findall(r"[RLAPSI] ([\d.]+)", text(page, "place"))]
    assert found == pytest.approx(expected, abs=0.8)  # a canvas pixel


def test_names_are_text_and_nothing_is_asked_of_the_network(page: Chromium) -> None:
    assert "a<img src=x onerror=alert(1)>" in text(page, "viewer") + page.value(
        "document.querySelector('h1').textContent"
    )
    assert page.value("document.querySelector('.warnings li').textContent") == ATTACK
    assert "T1 <b>&'quote'.nii.gz" in page.value("document.body.innerText")
    assert page.value("document.title").startswith("a<img") and page.value("document.images.length") > 4
    assert page.value("getComputedStyle(document.querySelector('.research')).position") == "sticky"
    assert page.errors() == []


def test_still_pictures_stand_in_where_webgl_is_missing(
    browser_without_webgl: Chromium, results: Path, tmp_path: Path
) -> None:
    browser_without_webgl.open(results / "report.html")
    assert browser_without_webgl.value("document.body.dataset.ready") == "stills"
    assert browser_without_webgl.value("document.getElementById('viewer').hidden")
    assert "still pictures below" in browser_without_webgl.value("document.body.innerText")
    assert browser_without_webgl.value("[...document.images].every((i) => i.complete && i.naturalWidth > 10)")
    assert not browser_without_webgl.errors()
