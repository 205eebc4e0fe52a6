"""Plots from a history: one for each kind of row that is there, none for what is not."""

from __future__ import annotations

import pytest

from harness.plots import draw, operations, quality_latency
from harness.records import QUALITY, History


def renamed(made: History) -> History:
    names = {
        "bench_norm[ours-t1]": "bench_group_norm_silu[ours-forward-level0-t1]",
        "bench_norm[eager-t1]": "bench_group_norm_silu[eager-forward-level0-t1]",
        "bench_conv[ours-t1]": "bench_unet[native-t1]",
    }
    rows = {names[k]: row.model_copy(update={"than": names.get(row.than)}) for k, row in made.rows.items()}
    return made.model_copy(update={"rows": rows})


def test_what_is_recorded_is_drawn(history, tmp_path):
    made = renamed(history(0))
    slow = "bench_group_norm_silu[eager-forward-level0-t1]"
    points = [
        {"label": "1", "row": "bench_unet[native-t1]", "lpips": 0.2, "psnr": 30.0, "seed_style": False},
        {"label": "seed", "row": slow, "lpips": 0.07, "psnr": 27.0, "seed_style": True},
        {"label": "not timed", "row": "bench_volume[gone-t1]", "lpips": 0.07, "psnr": 27.0, "seed_style": True},
    ]
    data = {"points": points, "zero_fill": {"lpips": 0.3, "psnr": 28.0}, "title": "x4"}
    files = draw(made.model_copy(update={"figures": {QUALITY: data}}), tmp_path)
    assert [file.name for file in files] == ["speed_engines.png", "speed_operations.png", "quality_latency.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    again = draw(made, tmp_path / "again")
    assert [file.name for file in again] == ["speed_engines.png", "speed_operations.png"]
    assert again[0].read_bytes() == files[0].read_bytes()  # the same rows, the same bytes


def test_the_bars_are_the_recorded_ratios(history):
    axes = operations(renamed(history(0, noise=0.0))).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [pytest.approx(1.8)]
    assert axes.get_yticklabels()[0].get_text() == "GroupNorm-SiLU, forward; 1 thread"


def test_nothing_recorded_nothing_drawn(history, tmp_path):
    empty = History(machine={"cpu": "x", "cpus": 1})
    assert draw(empty, tmp_path) == [] and quality_latency(empty) is None
