"""Rows 41 to 52: weights, devices, memory."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import tracemalloc
from importlib import resources
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import safetensors.torch
import torch

import mrsi_fast
from mrsi_fast import memory
from mrsi_fast.config import ConfigError, ModelConfig
from mrsi_fast.engine.eager import EagerEngine
from mrsi_fast.models import pretrained
from mrsi_fast.models.pretrained import ModelFolderError, load_pretrained, sha256_of
from mrsi_fast.resolver import SuperResolver
from mrsi_fast.sampling import is_out_of_memory
from support.faults import AFFINE, command, fault, head, scan

SOURCES = [path for path in Path(mrsi_fast.__file__).parent.rglob("*.py") if "kernels" not in path.parts]


def copy_of(model: Path, folder: Path) -> Path:
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def sealed(folder: Path) -> Path:
    """The folder with a manifest that fits what is in it, as somebody with bad intentions would leave it."""
    sums = {name: sha256_of(folder / name) for name in (pretrained.CONFIG, pretrained.WEIGHTS, pretrained.CARD)}
    (folder / pretrained.MANIFEST).write_text(json.dumps({"sha256": sums}))
    return folder


def ends_with_5(folder: Path, tmp_path: Path, *phrases: str) -> None:
    done = command("sr", "--model", folder, "-i", scan(tmp_path / "in"), "-o", tmp_path / "out")
    assert done.exit_code == 5, done.output
    assert all(phrase in " ".join(done.output.split()) for phrase in phrases), done.output


@fault(41)
@pytest.mark.parametrize("kind", ["cut", "trailing", "header", "page"])
def test_damaged(model, tmp_path, row, kind):
    folder = copy_of(model, tmp_path / "m")
    path = folder / pretrained.WEIGHTS
    raw = path.read_bytes()
    changed = {"cut": raw[:-100], "trailing": raw + b"x", "header": b"\xff" * 7 + b"\0" + raw[8:], "page": b"<html>"}
    path.write_bytes(changed[kind])
    ends_with_5(folder, tmp_path, "model.safetensors is damaged: expected sha256", "Copy the model folder again")
    with pytest.raises(ModelFolderError):
        load_pretrained(sealed(folder))  # with a manifest that fits: safetensors itself, or the shapes


@fault(42)
def test_bit_flip(model, tmp_path, row):
    folder = copy_of(model, tmp_path / "m")
    raw = bytearray((folder / pretrained.WEIGHTS).read_bytes())
    raw[-50] ^= 1
    (folder / pretrained.WEIGHTS).write_bytes(raw)
    ends_with_5(folder, tmp_path, "expected sha256", "got")


@fault(43)
def test_pickle(model, tmp_path, row):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "model.pt").write_bytes(pickle.dumps(Evil()))
    ends_with_5(tmp_path / "model.pt", tmp_path, "there is no such model folder")
    folder = copy_of(model, tmp_path / "m")
    (folder / pretrained.WEIGHTS).write_bytes(pickle.dumps(Evil()))
    ends_with_5(sealed(folder), tmp_path, "cannot be read")
    assert not (tmp_path / "ran").exists()


@fault(44)
def test_no_pickle_is_written_or_read(row):
    """Checkpoints are safetensors and JSON, so there is no object in them to refuse."""
    forbidden = r"^\s*(?:import|from) (?:pickle|dill|joblib)\b|torch\.(?:load|save)\(|allow_pickle"
    assert not [path for path in SOURCES if re.search(forbidden, path.read_text(encoding="utf-8"), re.MULTILINE)]


@fault(45)
def test_other_scale(model, tmp_path, row):
    folder = copy_of(model, tmp_path / "m")
    config = json.loads((folder / pretrained.CONFIG).read_text())
    config["diffusion"]["residual_rms"] = {"2": config["diffusion"]["residual_rms"]["2"]}
    (folder / pretrained.CONFIG).write_text(json.dumps(config))
    resolver = SuperResolver.from_pretrained(sealed(folder), engine="eager")
    with pytest.raises(ValueError, match="serves factors up to x2; asked is x4"):
        resolver((head(), AFFINE), 4)
    config["model"]["channels"].reverse()
    (folder / pretrained.CONFIG).write_text(json.dumps(config))
    ends_with_5(sealed(folder), tmp_path, "model.safetensors holds the channels tNAA,tCr", "config.json names other2")


@pytest.mark.parametrize(
    "change",
    [
        {"encoder_blocks": [10**7]},
        {"widths": [32 * 10**6]},
        {"widths": [32] * 40, "encoder_blocks": [1] * 40, "decoder_blocks": [1] * 40},
        {"channels": ["tNAA"] * 8},
        {"channels": []},
        {"head_channels": 0},
        {"stem_factor": 10**9},
        {"embedding_width": 10**9},
    ],
)
def test_the_shape_of_a_network_has_bounds(change):
    with pytest.raises(ConfigError):
        ModelConfig.parse(change)


def test_a_configuration_of_megabytes_is_none(tmp_path):
    (tmp_path / "config.json").write_text("[" * 2_000_000)
    with pytest.raises(ConfigError, match="is larger than"):
        ModelConfig.load(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="not a valid configuration"):
        ModelConfig.load(tmp_path / "config.json")


@fault(46)
def test_no_weights(tmp_path, row, monkeypatch):
    ends_with_5(tmp_path / "nowhere", tmp_path, "there is no such model folder", "leave the model out")
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    done = command("sr", "-i", tmp_path / "in", "-o", tmp_path / "out")
    assert done.exit_code == 5 and "did not come with this installation" in done.output


@fault(47)
def test_unreadable_weights(model, tmp_path, row, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pretrained, "sha256_of", forbidden)
    ends_with_5(model, tmp_path, "cannot be read (Permission denied; it belongs to user", "and has mode 0")


@fault(48)
def test_nothing_is_pulled(row):
    """Not applicable: weights come with the package, so no process fetches any. Held here: nothing opens a network."""
    network = r"^\s*(?:import|from) (?:urllib(?:\.request)?|requests|http\.\w+|socket|ftplib|httpx)(?: import| *$)"
    assert not [path for path in SOURCES if re.search(network, path.read_text(encoding="utf-8"), re.MULTILINE)]


@fault(49)
@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_no_cuda(model, tmp_path, row):
    done = command("sr", "--model", model, "--device", "cuda", "-i", scan(tmp_path / "in"), "-o", tmp_path / "out")
    assert done.exit_code == 2 and "cpu" in done.output and "CUDA" in done.output, done.output


@fault(50)
def test_gpu_is_an_alias(model, tmp_path, row):
    done = command("sr", "--model", model, "--device", "tpu", "-i", scan(tmp_path / "in"), "-o", tmp_path / "out")
    assert done.exit_code == 2 and len(done.output) < 400, done.output
    alias = command("sr", "--model", model, "--device", "gpu", "-i", tmp_path / "in", "-o", tmp_path / "out")
    assert ("CUDA" in alias.output) if not torch.cuda.is_available() else alias.exit_code == 0


def small_memory(resolver: SuperResolver, rows: int, error: BaseException) -> list[int]:
    """Lets the engine refuse batches of more rows; returns the batches it was asked for."""
    engine, asked = resolver._sampler.engine, []
    whole = engine.estimate

    def estimate(cond, projection=None, on_step=None):
        asked.append(len(cond.z))
        if len(cond.z) > rows:
            raise error
        return whole(cond, projection, on_step)

    engine.estimate = estimate
    return asked


@fault(51)
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_halves_the_batch(model, row, error):
    maps = (head((9, 8, 8)), AFFINE)
    wanted = SuperResolver.from_pretrained(model, device="cpu", engine="eager")(maps, evidence="off")
    resolver = SuperResolver.from_pretrained(model, device="cpu", engine="eager")
    asked = small_memory(resolver, 3, error)
    with pytest.warns(UserWarning, match="do not fit into memory"):
        found = resolver(maps, evidence="off")
    assert asked[:3] == [8, 4, 2] and max(asked[1:]) <= 4
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-5, atol=1e-5)
    small_memory(resolver, 0, error)
    with pytest.warns(UserWarning), pytest.raises(MemoryError, match="one slice of 18x16 voxels"):
        resolver(maps, evidence="off")


@fault(52)
def test_memory_is_asked_for_before(model, tmp_path, row, monkeypatch):
    assert is_out_of_memory(RuntimeError("std::bad_alloc")) and not is_out_of_memory(RuntimeError("shape mismatch"))
    scan(tmp_path / "in", (20, 20, 4))
    told = command("validate", "-i", tmp_path / "in")
    assert "memory of sr: up to" in told.output and "GB at --scale 8" in told.output
    few = ("--max-memory", "0.1", "--model", model, "--engine", "eager")
    done = command("sr", "-i", tmp_path / "in", "-o", tmp_path / "out", *few)
    assert done.exit_code == 4 and "more than the 0.1 GB available" in done.output, done.output
    assert memory.VARIABLE not in os.environ, "the limit of a command ends with it"
    monkeypatch.setenv(memory.VARIABLE, "16")
    with pytest.raises(memory.NotEnoughMemory, match=r"2 maps on a grid of 1024x1024x200 need up to"):
        memory.check_memory(2, (512, 512, 200), (2, 2, 1))
    for bad in ("-1", "nan", "much", "1e300"):
        done = command("sr", f"--max-memory={bad}", "-i", tmp_path / "in", "-o", tmp_path / "out")
        assert done.exit_code == 2, done.output


@fault(51)
def test_out_of_memory_halves_the_batches_of_samples(model, tmp_path, row, monkeypatch):
    """The command line, end to end: results are written, and a line says what was halved."""
    whole = EagerEngine.run

    def run(engine, job):
        if len(job.initial) > 2:
            raise MemoryError
        return whole(engine, job)

    monkeypatch.setattr(EagerEngine, "run", run)
    drawn = ("--model", model, "--engine", "eager", "--samples", "3", "--steps", "1", "--save-samples")
    with pytest.warns(UserWarning, match="slices at once do not fit into memory"):
        done = command("sr", "-i", scan(tmp_path / "in", (8, 8, 4)), "-o", tmp_path / "halved", *drawn)
    monkeypatch.undo()
    again = command("sr", "-i", tmp_path / "in", "-o", tmp_path / "whole", *drawn)
    assert done.exit_code == again.exit_code == 0, done.output
    files = sorted(path.name for path in (tmp_path / "whole").glob("*_desc-sample*.nii.gz"))
    assert len(files) == 3
    for name in files:
        halved, wanted = (nib.load(tmp_path / one / name).get_fdata() for one in ("halved", "whole"))
        np.testing.assert_allclose(halved, wanted, rtol=1e-4, atol=1e-4)


@fault(52)
def test_more_samples_take_no_more_memory(model, tmp_path, row):
    """Arrays of Python (tracemalloc) in the command; the process as a whole: benchmarks/memory.py."""
    scan(tmp_path / "in", (16, 16, 24))
    peaks = []
    for samples in (2, 2, 12):  # the first one pays for what is made once
        drawn = ("--samples", str(samples), "--steps", "1", "--save-samples", "--evidence", "off")
        tracemalloc.start()
        options = ("--model", model, "--engine", "eager", "-o", tmp_path / f"out{len(peaks)}", *drawn)
        done = command("sr", "-i", tmp_path / "in", *options)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert done.exit_code == 0, done.output
    assert peaks[2] < 1.1 * peaks[1], peaks


@pytest.mark.slow
def test_the_estimate_is_an_upper_bound(model, tmp_path):
    """The peak of a process of its own, with samples and without."""
    script = (
        "import re, sys, numpy as np; from mrsi_fast import SuperResolver, memory\n"
        "count, samples = int(sys.argv[2]), int(sys.argv[3])\n"
        "x, y = np.meshgrid(*[np.linspace(-1, 1, 24)] * 2, indexing='ij')\n"
        "head = np.repeat((10 * np.exp(-x**2 - y**2))[..., None], count, -1)\n"
        "maps = {name: (head, np.diag([8.0, 8, 8, 1])) for name in ('tNAA', 'tCr', 'tCho')}\n"
        "SuperResolver.from_pretrained(sys.argv[1])(maps, 4, samples=samples, steps=1, evidence='off')\n"
        # VmHWM is this program's own; ru_maxrss would keep that of the process that started it.
        "peak = 1024 * int(re.search('VmHWM:\\\\s+(\\\\d+)', open('/proc/self/status').read())[1])\n"
        "print(peak / memory.needed_bytes(3, (24, 24, count), (4, 4, 1), samples))\n"
    )
    for slices, samples in ((4, 0), (24, 0), (24, 4)):
        command_line = [sys.executable, "-c", script, str(model), str(slices), str(samples)]
        done = subprocess.run(command_line, capture_output=True, text=True, check=True, timeout=300)
        assert 0.3 < float(done.stdout) < 1.0, (slices, samples, done.stdout)


def test_stored_channels_are_those_of_the_configuration(model):
    with safetensors.safe_open(model / pretrained.WEIGHTS, "pt") as stored:
        assert stored.metadata()["channels"].startswith("tNAA,tCr")
