"""Figures show the numbers they are given: window, missing voxels, proportions, text as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from mrsi_fast.mrsi.geometry import hr_affine
from mrsi_fast.report.figures import MISSING, MapPanels, map_figure, save_png
from mrsi_fast.report.window import display_window

LR_AFFINE = np.diag([10.0, 13.0, 8.0, 1.0])


def panels(name: str = "tNAA", shape: tuple[int, int, int] = (6, 5, 3), factor: int = 2, std: bool = True) -> MapPanels:
    lr = np.random.default_rng(3).uniform(1, 9, shape).astype(np.float32)
    mean = lr.repeat(factor, 0).repeat(factor, 1)
    mean[:2, :2] = np.nan
    spread = 0.1 * mean if std else None
    return MapPanels(name, "mM", lr, np.nan_to_num(mean), mean, spread, LR_AFFINE, hr_affine(LR_AFFINE, (2, 2, 1)))


def test_window_starts_at_zero_and_leaves_out_missing_values() -> None:
    values = np.append(np.linspace(2.0, 8.0, 1001), [np.nan, np.inf, -np.inf])
    low, high = display_window(values)
    assert low == 0.0
    assert high == pytest.approx(2 + 0.995 * 6)


def test_window_shows_negative_values() -> None:
    assert display_window(np.linspace(-5.0, 10.0, 1001))[0] == pytest.approx(-5 + 0.01 * 15)


@pytest.mark.parametrize("values", [np.zeros(4), np.full(4, np.nan), np.array([])])
def test_empty_maps_get_a_usable_window(values: np.ndarray) -> None:
    assert display_window(values) == (0.0, 1.0)


def test_window_of_a_map_that_is_negative_everywhere() -> None:
    low, high = display_window(np.array([-3.0, -1.0]))
    assert low == -3.0 and low < high


def test_stages_of_a_map_share_one_window_and_keep_millimetres() -> None:
    figure = map_figure([(panels(), 1)], "title")
    pictures = [axes.images[0] for axes in figure.axes if axes.images and len(axes.texts) >= 4]
    assert len({picture.get_clim() for picture in pictures[:3]}) == 1
    assert pictures[3].get_clim() != pictures[0].get_clim()
    assert {tuple(picture.get_extent()) for picture in pictures} == {(0.0, 60.0, 0.0, 65.0)}


def test_values_outside_the_trusted_region_do_not_set_the_window() -> None:
    wild = panels()
    wild.zero_fill[:2, :2] = 1e6
    figure = map_figure([(wild, 0)], "title")
    assert figure.axes[0].images[0].get_clim()[1] < 10


def test_measured_voxels_that_were_not_used_are_crossed_out() -> None:
    axes = map_figure([(panels(), 1)], "title").axes[0]
    (crosses,) = axes.lines
    assert [tuple(point) for point in crosses.get_xydata()] == [(55.0, 6.5)]  # voxel 0, 0: right (radiological), bottom


def test_missing_voxels_are_grey_in_the_file(tmp_path: Path) -> None:
    empty = panels()
    empty.mean[:] = np.nan
    path = save_png(map_figure([(empty, 0)], "title"), tmp_path / "a.png")
    figure = map_figure([(empty, 0)], "title")
    box = figure.axes[2].get_position()  # third panel: the mean
    picture = imread(path)[..., :3]
    rows, columns = picture.shape[:2]
    centre = picture[int(rows * (1 - (box.y0 + 0.3 * box.height))), int(columns * (box.x0 + 0.3 * box.width))]
    np.testing.assert_allclose(centre, to_rgb(MISSING), atol=1 / 255)


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (save_png(map_figure([(panels(), 0)], "t"), tmp_path / f"{n}.png").read_bytes() for n in "ab")
    assert first == second


def test_names_from_files_are_printed_as_they_are(tmp_path: Path) -> None:
    odd = panels(name="$x_{1$ <b>")
    figure = map_figure([(odd, 0)], "K_01 $\\frac$", notes=["cost 5$ and $\\bad{$"])
    save_png(figure, tmp_path / "odd.png")  # a formula that cannot be parsed would raise here


def test_without_standard_deviation_there_is_no_fourth_panel() -> None:
    with_std, without = (map_figure([(panels(std=std), 0)], "t") for std in (True, False))
    assert len(with_std.axes) == 6 and len(without.axes) == 4  # panels and their colour bars
    assert without.get_figwidth() < with_std.get_figwidth()


def test_a_figure_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        map_figure([], "title")
