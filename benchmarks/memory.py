"""Peak memory of ``mrsi-fast sr`` over slices and samples, each run in a process of its own (developers only).

``python benchmarks/memory.py`` prints the table of docs/memory.md: five maps of 32x32 voxels with CRLB at x2, 10, 40
and 160 slices, 0, 8 and 32 samples of one solver step (steps do not count for memory). ``--slices``, ``--samples``,
``--matrix`` and ``--scale`` choose others. Linux: peaks are the high-water mark of the resident set (VmHWM).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

NAMES = ("NAA", "Cr", "Cho", "Ins", "Glx")
NOISE = 0.25

RUN = """
import atexit, re, sys
def tell():
    print("peak", re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr)
atexit.register(tell)
from mrsi_fast.cli import main
main()
"""


def write_maps(folder: Path, matrix: int, slices: int) -> None:
    """Five noisy maps of a round head with their CRLB maps."""
    rng = np.random.default_rng(0)
    place = (np.arange(matrix) - (matrix - 1) / 2) / (matrix / 2)
    x, y, z = place[:, None, None], place[None, :, None], np.arange(slices) / 7
    head = np.broadcast_to(x**2 + y**2 < 0.8, (matrix, matrix, slices))
    folder.mkdir(parents=True)
    for number, name in enumerate(NAMES, start=2):
        values = number * (1 + 0.3 * np.sin(5 * x + number + z) * np.cos(4 * y - number))
        values = values + NOISE * rng.standard_normal(head.shape)
        bound = np.where(head, 100 * NOISE / np.maximum(values, 0.1), 999)
        for kind, image in (("conc", np.where(head, values, 0)), ("crlb", bound)):
            nifti = nib.Nifti1Image(image.astype(np.float32), np.diag([6.0, 6, 4, 1]))
            nib.save(nifti, folder / f"{kind}_{name}.nii.gz")


def peak_mb(maps: Path, output: Path, scale: int, samples: int) -> float:
    """Peak of one run, MB.

    Raises:
        RuntimeError: The run failed.
    """
    options = ["--scale", str(scale), "--samples", str(samples), "--steps", "1", "--threads", "1", "--quiet"]
    command = [sys.executable, "-c", RUN, "sr", "-i", str(maps), "-o", str(output), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = re.search(r"peak (\d+)", done.stderr)
    if done.returncode or told is None:
        raise RuntimeError(done.stderr[-2000:])
    return int(told[1]) / 1024


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, nargs="+", default=[10, 40, 160])
    parser.add_argument("--samples", type=int, nargs="+", default=[0, 8, 32])
    parser.add_argument("--matrix", type=int, default=32)
    parser.add_argument("--scale", type=int, default=2)
    asked = parser.parse_args()
    print("| slices | " + " | ".join(f"{one} samples" for one in asked.samples) + " |")
    print("|---|" + "---|" * len(asked.samples))
    with tempfile.TemporaryDirectory() as home:
        for slices in asked.slices:
            maps = Path(home) / f"maps{slices}"
            write_maps(maps, asked.matrix, slices)
            runs = ((maps, Path(home) / f"out{slices}-{count}", asked.scale, count) for count in asked.samples)
            print(f"| {slices} | " + " | ".join(f"{peak_mb(*run):.0f}" for run in runs) + " |", flush=True)


if __name__ == "__main__":
    main()
