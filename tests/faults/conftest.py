"""A model of one level with random weights, and one run that several rows look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from typer.testing import Result

from support.faults import AFFINE, command, head, save
from support.tiny import tiny_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "random", spread=True)


@pytest.fixture(scope="session")
def sr(model: Path) -> Callable[..., Result]:
    def run(*arguments: Any) -> Result:
        return command("sr", "--model", model, "--threads", "1", "--engine", "eager", *arguments)

    return run


@pytest.fixture(scope="session")
def run(sr: Callable[..., Result], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """One slice: a map of bytes, one with a NaN, one of a single value; a name in the headers, a script as unit."""
    folder = tmp_path_factory.mktemp("run")
    maps = folder / "DOE_JOHN_19700101" / "maps"
    shape = (9, 8, 1)
    for name, values in (("tNAA", np.round(20 * head(shape)).astype(np.uint8)), ("tCr", head(shape, 5.0, 1))):
        image = nib.Nifti1Image(values, AFFINE)
        image.header["descrip"] = b"DOE^JOHN 19700101"
        image.header.extensions.append(nib.nifti1.Nifti1Extension(44, b'{"PatientName": "DOE^JOHN"}'))
        if name == "tCr":
            values[4, 4, 0] = np.nan
        maps.mkdir(parents=True, exist_ok=True)
        nib.save(image, maps / f"conc_{name}.nii.gz")
        save(maps / f"crlb_{name}.nii.gz", np.full(shape, 5.0, np.float32))
    save(maps / "conc_Ins.nii.gz", np.full(shape, 3.0, np.float32))
    done = sr("-i", maps, "-o", folder / "out", "--units", "<script>alert(1)</script>", "--pictures")
    assert done.exit_code == 0, done.output
    return folder / "out", done
