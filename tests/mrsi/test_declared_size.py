"""Runs that cannot fit are refused by the headers of the maps: no value is read, from whichever source."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mrsi_fast import SuperResolver, memory
from mrsi_fast.mrsi import nifti
from mrsi_fast.mrsi.declared_size import DeclaredSize, declared_size
from support.faults import command
from support.tiny import tiny_model

SHAPE = (64, 48, 20)


def header_alone(path: Path, *shape: int) -> Path:
    """A file whose header declares maps of this shape; the values are not there."""
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.float32)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    header.set_sform(np.diag([5.0, 5, 5, 1]), 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = header.binaryblock + bytes(4)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("maps")
    for name in ("conc_tNAA.nii.gz", "conc_tCr.nii.gz", "conc_MM09.nii.gz", "crlb_tNAA.nii.gz"):
        header_alone(folder / name, *SHAPE)
    return folder


def test_headers_tell_maps_and_matrix(maps, tmp_path):
    assert declared_size(maps) == DeclaredSize(2, SHAPE, 2)
    assert declared_size(maps, metabolites="tCr") == DeclaredSize(1, SHAPE, 2)
    assert declared_size(maps, metabolites=["all"]) == DeclaredSize(3, SHAPE, 2)
    assert declared_size({"tNAA": maps / "conc_tNAA.nii.gz", "crlb_tNAA": maps / "crlb_tNAA.nii.gz"}) == DeclaredSize(
        1, SHAPE, 2
    )
    assert declared_size(maps / "conc_tNAA.nii.gz") == DeclaredSize(1, SHAPE, 2)
    assert declared_size(header_alone(tmp_path / "NAA.nii", 10, 64, 48)) == DeclaredSize(1, (10, 64, 48), 0)
    stack = header_alone(tmp_path / "stack.nii", 16, 16, 1, 4)
    assert declared_size(stack) == DeclaredSize(4, (16, 16, 1), 2)
    assert declared_size(stack, names="tNAA,crlb_tNAA,tCr,crlb_tCr") == DeclaredSize(2, (16, 16, 1), 2)
    assert declared_size(stack, "tCr", "tNAA,tCr,tCho,Ins") == DeclaredSize(1, (16, 16, 1), 2)


def test_where_headers_do_not_tell_reading_decides(maps, tmp_path):
    (tmp_path / "conc_tNAA.nii.gz").write_bytes(b"no header")
    unknown = (np.zeros((8, 8, 1)), np.eye(4)), tmp_path, tmp_path / "nothing.nii", {"tNAA": np.zeros((8, 8, 1))}, {}
    assert [declared_size(one) for one in unknown] == [None] * len(unknown)
    assert declared_size(maps, metabolites="Glx") is None


def test_a_run_that_cannot_fit_is_refused_before_its_maps_are_read(maps, tmp_path, monkeypatch):
    """The values are not there, so a run that reads them ends with another sentence."""
    model = tiny_model(tmp_path / "model")
    options = ("--model", model, "--engine", "eager", "-o", tmp_path / "out")
    done = command("sr", "-i", maps, *options, "--scale", "4", "--max-memory", "0.8")
    assert done.exit_code == 4 and "2 maps on a grid of 256x192x20 need up to" in done.output, done.output
    assert "more than the 0.8 GB available" in done.output
    done = command("sr", "-i", maps, *options, "--scale", "4", "--max-memory", "64")
    assert "truncated" in done.output, done.output

    resolver = SuperResolver.from_pretrained(model, engine="eager")
    monkeypatch.setenv(memory.VARIABLE, "0.8")
    monkeypatch.setattr(nifti, "read_nifti", lambda *a, **k: pytest.fail("a map was read"))
    for scale, grid in ((4, "256x192x20"), ((4, 4, 2), "256x192x40"), ("8,4", "512x192x20")):
        with pytest.raises(memory.NotEnoughMemory, match=f"2 maps on a grid of {grid} need up to"):
            resolver(maps, scale=scale)
    monkeypatch.setenv(memory.VARIABLE, "1.2")
    with pytest.raises(memory.NotEnoughMemory, match="with 64 samples need up to"):
        resolver(maps, scale=2, samples=64)
