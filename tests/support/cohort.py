"""Cohorts of small subjects on disk, five of them broken in different ways, and the program to run on them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

PROGRAM = "import sys; from mrsi_fast.cli import main; sys.argv[0] = 'mrsi-fast'; main()"
AFFINE = np.diag([10.0, 10.0, 12.0, 1.0])
BROKEN = ("s01", "s03", "s05", "s07", "s09")


def save(path: Path, plane: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(plane[..., None].astype(np.float32), AFFINE), path)


def write_subject(folder: Path, level: float, names: tuple[str, ...] = ("tNAA", "tCho")) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    x, y = np.meshgrid(np.linspace(-1, 1, 7), np.linspace(-1, 1, 6), indexing="ij")
    for number, name in enumerate(names):
        head = level / (1 + number) * np.exp(-2 * (x**2 + y**2 + 0.1 * level * x * y))
        save(folder / f"conc_{name}.nii.gz", head)
        save(folder / f"crlb_{name}.nii.gz", np.full_like(head, 5.0))
    return folder


def write_cohort(folder: Path, count: int, broken: bool = False) -> list[Path]:
    """Subjects s00, s01, ... with one map each."""
    subjects = [write_subject(folder / f"s{number:02d}", 5.0 + number, ("tNAA",)) for number in range(count)]
    if broken:
        (folder / "s01" / "conc_tNAA.nii.gz").write_bytes(b"not gzip")
        for path in (folder / "s03").iterdir():
            path.unlink()
        cut = folder / "s05" / "conc_tNAA.nii.gz"
        cut.write_bytes(cut.read_bytes()[:60])
        save(folder / "s07" / "conc_tNAA.nii.gz", np.full((7, 6), np.nan))
        save(folder / "s09" / "crlb_tNAA.nii.gz", np.full((5, 6), 5.0))
    return subjects


def start(*words: str | Path, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """The program in a process group of its own, one thread, its output captured."""
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", PROGRAM, *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(*words: str | Path, prefix: tuple[str, ...] = (), timeout: float = 570) -> tuple[int, str]:
    """Exit code and output of the program."""
    process = start(*words, prefix=prefix)
    said = process.communicate(timeout=timeout)[0]
    return process.returncode, said


def maps_in(folder: Path) -> dict[str, bytes]:
    """The NIfTI files of an output folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.nii.gz")}


def hidden_in(folder: Path) -> list[str]:
    """Locks, staging folders and half-written files."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*") if path.name != ".bidsignore")
