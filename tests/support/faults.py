"""The table of 73 faults and bad inputs that users and hospitals meet; each row is a test in ``tests/faults``."""

from __future__ import annotations

import gzip
import json
import os
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from mrsi_fast.cli.app import app

TABLE = "MRSI_FAST_FAULTS_TABLE"
"""Environment variable: file that takes a line of JSON for every command that a test runs."""

AFFINE = np.array([[0.0, -10, 0, 40], [9, 0, 0, -30], [0, 0, 12, 5], [0, 0, 0, 1]])

ROWS = (
    "empty .nii.gz",
    "text renamed .nii.gz",
    "plain .nii renamed .nii.gz",
    "gz renamed .nii",
    "gz cut in its header",
    ".nii cut in its data",
    "gzip CRC wrong",
    "32767^3 in 1.4 kB",
    "gz that claims 2000^3",
    "gz bomb",
    "negative dim",
    "nine axes, or an unknown type",
    "axis of no voxel",
    "huge vox_offset",
    "NaN in srow",
    "affine of zeros",
    "NaN pixdim under a good sform",
    "scl_slope NaN",
    "qform_code 0",
    "qform is not sform",
    "sheared axes",
    "48 orientations",
    "metres and microns",
    "complex data",
    "stack without names",
    "colours",
    "integers stored",
    "bool and int64 arrays",
    "one NaN voxel",
    "nothing but NaN",
    "infinite, blown up, overflowing",
    "one value everywhere",
    "negative concentrations",
    "tiny and odd grids",
    "a single slice",
    "mask on another grid",
    "empty mask",
    "T1 of another place",
    "scales that are none",
    "voxels outside training",
    "damaged weights",
    "bit flip in weights",
    "pickled weights",
    "no NumPy scalar in a checkpoint",
    "weights for another scale",
    "no weights",
    "unreadable weights",
    "two processes pull weights",
    "--device cuda without CUDA",
    "--device gpu",
    "CUDA out of memory",
    "CPU memory refused",
    "disk full",
    "output cannot be written",
    "kill -9 while saving",
    "Ctrl-C in a batch",
    "SIGTERM in training",
    "SIGTERM twice",
    "a rank dies",
    "no compiled extension",
    "no Triton",
    "torch.compile fails",
    "seeds that are none",
    "other batches",
    "other threads",
    "odd names and loops of links",
    "output is the input",
    "personal data in headers and names",
    "two names, one file",
    "script in a name",
    "scores of what cannot be scored",
    "hostile tensors",
    "time and timezone",
)
assert len(ROWS) == 73


def fault(number: int) -> Any:
    """Names a test by its row of the table; the test takes ``row``."""
    return pytest.mark.parametrize("row", [f"{number:02d} {ROWS[number - 1]}"])


def head(shape: tuple[int, ...] = (9, 8, 2), level: float = 10.0, seed: int = 0) -> np.ndarray:
    """A smooth head with 5 % of noise, 0 outside."""
    x, y = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    plane = level * (1 + 0.2 * np.cos(2 * x)) * (x**2 + y**2 < 1.6)
    noise = 1 + 0.05 * np.random.default_rng(seed).normal(size=shape)
    return (plane[..., None] * noise).astype(np.float32)


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE, **fields: Any) -> Path:
    """Writes a NIfTI image; ``fields`` overwrite entries of its header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values, affine)
    for key, value in fields.items():
        image.header[key] = value
    nib.save(image, path)
    return path


def scan(
    folder: Path, shape: tuple[int, ...] = (9, 8, 2), names: tuple[str, ...] = ("tNAA",), crlb: bool = True
) -> Path:
    """A folder of maps with bounds."""
    for number, name in enumerate(names):
        save(folder / f"conc_{name}.nii.gz", head(shape, 10 / (1 + number), number))
        if crlb:
            save(folder / f"crlb_{name}.nii.gz", np.full(shape, 5.0, np.float32))
    return folder


def patched(path: Path, offset: int, what: str, *values: Any) -> Path:
    """Overwrites bytes of an uncompressed or compressed image with packed values."""
    zipped = path.name.endswith(".gz")
    raw = bytearray(gzip.decompress(path.read_bytes()) if zipped else path.read_bytes())
    struct.pack_into(what, raw, offset, *values)
    path.write_bytes(gzip.compress(bytes(raw)) if zipped else bytes(raw))
    return path


def command(name: str, *arguments: Any) -> Result:
    """Runs a command in this process."""
    done = CliRunner().invoke(app, [name, *map(str, arguments)])
    if TABLE in os.environ:  # see support/faults_table.py
        facts = {"test": os.environ["PYTEST_CURRENT_TEST"], "command": name, "exit": done.exit_code}
        with Path(os.environ[TABLE]).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(facts | {"output": done.output}) + "\n")
    assert "Traceback" not in done.output, done.output
    return done


def refused(path: Path, *phrases: str, good: Path | None = None) -> None:
    """A bad input is one FAIL row with the file's name and these phrases; what else was given is done."""
    done = command("validate", "-i", path, *(["-i", good] if good else []))
    assert done.exit_code == (4 if good else 3), done.output
    assert "FAIL" in done.output and path.name.split(".")[0] in done.output, done.output
    for phrase in phrases:
        assert phrase in done.output, done.output


def remarked(path: Path, *phrases: str, options: tuple[Any, ...] = ()) -> None:
    """An odd input is usable, and a warning has these phrases; with ``--strict`` it has failed."""
    done = command("validate", "-i", path, *options)
    assert done.exit_code == 0 and "WARN" in done.output, done.output
    for phrase in phrases:
        assert phrase in done.output, done.output
    assert command("validate", "--strict", "-i", path, *options).exit_code == 3
