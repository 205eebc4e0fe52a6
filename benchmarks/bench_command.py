"""From command to files: whole processes of ``mrsi-fast sr``, beside PyTorch's import, and the share of each stage.

Two inputs: the bundled example (6 maps, 16x16x3, x4) and a whole-brain grid (6 maps, 32x42x22, x2); each with mean and
standard deviation alone and, with ``--long``, with 8 samples. Maps, JSON and report are written.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.contest import Entry
from harness.processes import run_python
from harness.stages import stage_seconds
from mrsi_fast.mrsi.export import write_map
from support.data import checkout

THREADS, ANCHOR_S = (2,), 1.0
MAPS = {"tNAA": 8.0, "tCr": 6.0, "tCho": 1.6, "Ins": 4.5, "Glx": 9.0, "Lac": 0.8}
GRID, VOXEL_MM = (32, 42, 22), 5.0
MAIN = "from mrsi_fast.cli import main; main()"
INPUTS = {"example": ("4", "hamming", "ellipse"), "brain": ("2", "none", "square")}
MEAN, SAMPLES = "mean", "8-samples"
TORCH = ("import-torch", "")
MEANS = [TORCH, ("example", MEAN), ("brain", MEAN)]
SAMPLED = [TORCH, ("example", MEAN), ("example", SAMPLES), ("brain", SAMPLES)]


def write_brain(folder: Path) -> Path:
    """Smooth maps in an ellipsoid with noise and CRLB, the size of a whole-brain scan."""
    draw = np.random.default_rng(0)
    axes = [np.linspace(-1.15, 1.15, size) for size in GRID]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    inside = x**2 + y**2 + z**2 < 1
    affine = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    for number, (name, level) in enumerate(MAPS.items()):
        wave = 1 + 0.25 * np.cos(3 * x + number) * np.cos(4 * y) * np.cos(2 * z)
        values = np.where(inside, level * (wave + 0.05 * draw.standard_normal(GRID)), 0.0)
        write_map(folder / f"conc_{name}.nii.gz", values, affine, kind="map", name=name)
        write_map(folder / f"crlb_{name}.nii.gz", np.where(inside, 5.0, 0.0), affine, kind="map")
    return folder


def words(case: tuple[str, str], brain: Path, output: Path, threads: int) -> list[str]:
    where, what = case
    scale, window, support = INPUTS[where]
    source = brain if where == "brain" else checkout() / "examples" / "simulated_glioma"
    options = ["--scale", scale, "--window", window, "--support", support, "--threads", str(threads), "--quiet"]
    return ["sr", "-i", str(source), "-o", str(output), *options, "--samples", "8" if what == SAMPLES else "0"]


def build(case: tuple[str, str], folder: Path, threads: int) -> Callable[[], object]:
    brain = folder / "brain"
    if case[0] == "brain" and not brain.exists():
        brain.mkdir()
        write_brain(brain)

    def run() -> None:
        command = ["-c", "import torch"]
        if case != TORCH:
            command = ["-c", MAIN, *words(case, brain, Path(tempfile.mkdtemp(dir=folder)), threads)]
        run_python(command)

    return run


def entries(cases: list[tuple[str, str]], folder: Path, threads: int) -> list[Entry]:
    return [
        Entry(
            *(one[0], functools.partial(build, one, folder, threads), one[1]),
            backend="PyTorch" if one == TORCH else "mrsi_fast",
            ours=one != TORCH,
        )
        for one in cases
    ]


def shares(case: tuple[str, str], folder: Path, threads: int) -> dict[str, object]:
    """Seconds of each stage, from one more run with a clock around them."""
    if case == TORCH:
        return {}
    seconds = stage_seconds(words(case, folder / "brain", Path(tempfile.mkdtemp(dir=folder)), threads))
    return {"stages": {stage: round(one, 3) for stage, one in sorted(seconds.items(), key=lambda item: -item[1])}}


@pytest.mark.parametrize("threads", THREADS, ids="t{}".format)
@pytest.mark.parametrize(("label", "case"), MEANS)
def bench_command(row, contest, folder, label, case, threads):
    build = functools.partial(entries, MEANS, folder)
    held = contest("command", threads, build, than=None, same=False, rounds=5, pause_s=0.3, at_least_s=ANCHOR_S)
    row(held, label, case, than=None, **shares((label, case), folder, threads))


@pytest.mark.long
@pytest.mark.parametrize("threads", THREADS, ids="t{}".format)
@pytest.mark.parametrize(("label", "case"), SAMPLED)
def bench_command_samples(row, contest, folder, label, case, threads):
    build = functools.partial(entries, SAMPLED, folder)
    held = contest("command_samples", threads, build, than=None, same=False, rounds=3, pause_s=0.3, at_least_s=ANCHOR_S)
    row(held, label, case, than=None, **shares((label, case), folder, threads))
