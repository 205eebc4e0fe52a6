"""Twelve subjects, from command to files: one process, two Dask workers, two shards side by side; the same two cores.

Simulated analytic heads, six maps of 16x16x3 voxels, x4, mean and standard deviation, self-test, report. One process
has two threads; workers and shards have one each.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.contest import Entry
from mrsi_fast.simulation import SimulationConfig, simulate
from mrsi_fast.simulation.export import write_subject
from support.data import checkout

THREADS = (2,)
SUBJECTS, SLICES, FACTOR = 12, 3, 4
MAIN = "from mrsi_fast.cli import main; main()"
ONE = ["--threads", "1"]
WAYS = {
    "one-process": [["--threads", "2"]],
    "one-process-again": [["--threads", "2"]],
    "two-workers": [["--workers", "2", *ONE]],
    "two-shards": [["--shard", "1/2", *ONE], ["--shard", "2/2", *ONE]],
}


def write_cohort(folder: Path) -> None:
    config = SimulationConfig.preset("realistic-3T")
    anatomy = config.anatomy.model_copy(update={"heads": "phantom", "tumour_masks": None})
    volume = config.volume.model_copy(update={"slices": SLICES})
    config = config.model_copy(update={"anatomy": anatomy, "volume": volume})
    for subject in simulate(config, SUBJECTS, scales=(FACTOR,)):
        write_subject(subject, folder)


def build(label: str, folder: Path) -> Callable[[], object]:
    cohort = folder / "cohort"
    if not cohort.exists():
        write_cohort(cohort)
    inputs = [word for path in sorted(cohort.glob(f"*_acq-x{FACTOR}")) for word in ("-i", str(path))]

    def run() -> None:
        output = tempfile.mkdtemp(dir=folder)
        common = ["sr", *inputs, "-o", output, "--scale", str(FACTOR), "--window", "hamming", "--support", "ellipse"]
        commands = [[sys.executable, "-c", MAIN, *common, "--quiet", *options] for options in WAYS[label]]
        processes = [
            subprocess.Popen(one, cwd=checkout(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for one in commands
        ]
        failed = [found for process in processes for found in [process.communicate()[1]] if process.returncode]
        if failed:
            raise RuntimeError(failed[0].decode()[-500:])
        assert len(list(Path(output).glob("**/*_desc-sr_mrsi.json"))) == SUBJECTS

    return run


@pytest.mark.long
@pytest.mark.parametrize("threads", THREADS, ids="t{}".format)
@pytest.mark.parametrize("label", WAYS)
def bench_cohort(row, contest, folder, label, threads):
    def entries(threads: int) -> list[Entry]:
        return [Entry(one, functools.partial(build, one, folder), backend="mrsi_fast", ours=True) for one in WAYS]

    held = contest("cohort", threads, entries, than="one-process", same=False, rounds=3, pause_s=0.3)
    row(held, label, than="one-process")
