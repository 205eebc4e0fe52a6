"""Rows 53 to 73: disks, signals, fallbacks, seeds, names, personal data, scores, kernels, time."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import signal
import time
import warnings
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch

import mrsi_fast
from mrsi_fast import ops
from mrsi_fast.arguments import whole_number
from mrsi_fast.cli import batch, exits
from mrsi_fast.cli.batch import run_batch
from mrsi_fast.cli.inputs import InputSet
from mrsi_fast.cli.summary import without_folders
from mrsi_fast.cli.terminal import Terminal
from mrsi_fast.engine.eager import Fallback
from mrsi_fast.evaluation.metrics import psnr, score_slice
from mrsi_fast.evaluation.statistics import compare
from mrsi_fast.files import write_text
from mrsi_fast.ops import _native
from mrsi_fast.report.html import write_page
from mrsi_fast.resolver import SuperResolver
from mrsi_fast.training import ranks
from mrsi_fast.training.loop import _StopFlag
from support.faults import AFFINE, command, fault, head, save, scan

NATIVE = pytest.mark.skipif(_native.module() is None, reason="no compiled extension is built here")


@fault(53)
def test_full_disk(tmp_path, row, monkeypatch):
    target = tmp_path / "result.json"
    write_text(target, "former")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(target, "new")
    assert target.read_text() == "former" and [path.name for path in tmp_path.iterdir()] == ["result.json"]


@fault(54)
def test_output_that_cannot_be_written(tmp_path, row, monkeypatch):
    (tmp_path / "file").write_text("x")
    started = []
    monkeypatch.setattr(SuperResolver, "from_pretrained", lambda *a, **k: started.append(1))
    done = command("sr", "-i", scan(tmp_path / "in"), "-o", tmp_path / "file" / "out")
    assert done.exit_code == 2 and "cannot be written" in done.output and not started, done.output


@fault(55)
def test_leftovers_are_swept(sr, tmp_path, row):
    out = tmp_path / "out"
    assert sr("-i", scan(tmp_path / "in", (9, 8, 1)), "-o", out).exit_code == 0
    whole = {path.name: path.read_bytes() for path in out.iterdir() if path.suffix != ".html"}
    stem = next(path.name for path in out.iterdir() if path.name.endswith("_desc-sr_mrsi.json")).split("_desc")[0]
    (out / f".{stem}.abc.part").mkdir()
    (out / f".{stem}.abc.part" / "half.nii.gz").write_bytes(b"half")
    (out / f".{stem}_desc-sr_mrsi.json.xyz.part.json").write_text("{")
    again = sr("-i", tmp_path / "in", "-o", out)
    assert "finished before" in again.output and not [path for path in out.rglob("*.part*")]
    assert {name: (out / name).read_bytes() for name in whole if name.endswith(".gz")} == {
        name: raw for name, raw in whole.items() if name.endswith(".gz")
    }


def interrupted_batch(error: BaseException | None, number: int) -> tuple[list[str], int]:
    """A batch of three whose second is interrupted; without an error the exception of the signal was swallowed."""
    seen = []

    def work(entry, folder, wait):
        seen.append(entry.label)
        if len(seen) == 2:
            if error is not None:
                raise error
            try:
                signal.raise_signal(number)
            except BaseException:
                pass

    sets = [InputSet(Path(name), name) for name in "abc"]
    with exits.signals_raise():
        outcomes = run_batch(sets, work, [Path()] * 3, Terminal(quiet=True))
        code = exits.interruption() or batch.exit_code(outcomes)
    return seen, int(code)


@fault(56)
def test_interrupted_batch(row):
    assert interrupted_batch(KeyboardInterrupt(), signal.SIGINT) == (["a", "b"], 130)
    assert interrupted_batch(exits.Terminated(), signal.SIGTERM) == (["a", "b"], 143)
    assert interrupted_batch(None, signal.SIGINT) == (["a", "b"], 130), "an exception that a callback swallowed"
    assert interrupted_batch(None, signal.SIGTERM) == (["a", "b"], 143)


@fault(57)
def test_training_is_told_once(row):
    """That a run resumes to the bit is ``tests/training/test_loop.py``; that it ends with 143 too."""
    with _StopFlag() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.received == signal.SIGTERM


@fault(58)
def test_the_second_signal_acts_at_once(row):
    with exits.signals_raise(), _StopFlag() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.received
        with pytest.raises(exits.Terminated):
            signal.raise_signal(signal.SIGTERM)


@fault(59)
def test_no_rank_waits_for_another(row):
    """A rank without a sign of life is named; `make cluster` kills one of two processes (tests/training/test_ranks)."""
    assert 0 < ranks.BEAT_SECONDS < ranks.LOST_SECONDS < 60


@fault(60)
@NATIVE
def test_without_the_extension(model, row, monkeypatch):
    maps = (head((9, 8, 2)), AFFINE)
    native = SuperResolver.from_pretrained(model, device="cpu", engine="native")(maps, evidence="off")
    monkeypatch.setattr(_native, "_load", lambda: (None, "no compiled extension was found"))
    _native.lacks.cache_clear()
    try:
        resolver = SuperResolver.from_pretrained(model, device="cpu")
        plain = resolver(maps, evidence="off")
        told = resolver.explain()
    finally:
        _native.lacks.cache_clear()
    assert "engine: eager" in told and "not native: no compiled extension was found" in told, told
    np.testing.assert_allclose(plain.mean, native.mean, atol=2e-4 * np.nanmax(plain.mean))


@fault(61)
def test_without_triton(row):
    rows = [one for one in ops.status() if one["backend"] == "triton"]
    assert rows and all(one["usable"] or one["reason"] for one in rows)


@fault(62)
def test_what_cannot_be_compiled_runs_plain(model, row, monkeypatch):
    def broken(function, **options):
        def call(*arguments):
            raise RuntimeError("InductorError: no working C++ compiler was found")

        return call

    maps = (head((9, 8, 9)), AFFINE)
    plain = SuperResolver.from_pretrained(model, device="cpu", engine="eager")(maps, evidence="off")
    monkeypatch.setattr(torch, "compile", broken)
    resolver = SuperResolver.from_pretrained(model, device="cpu", engine="compile")
    with pytest.warns(UserWarning, match="torch.compile does not work here .*C\\+\\+ compiler.*running eager"):
        found = resolver(maps, evidence="off")
    np.testing.assert_array_equal(found.mean, plain.mean)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        resolver(maps, evidence="off")
    with pytest.raises(ZeroDivisionError):  # what is wrong with the call itself is no matter of compiling
        Fallback(broken(None), lambda x: 1 / x)(0)


@fault(63)
@pytest.mark.parametrize("seed", ["-1", str(2**64), "many", "1.5"])
def test_seeds(sr, tmp_path, row, seed):
    assert sr("-i", tmp_path, "-o", tmp_path / "o", f"--seed={seed}").exit_code == 2
    with pytest.raises(ValueError, match="seed"):
        whole_number("seed", seed, 0, 2**63 - 1, "give a whole number")


@fault(64)
def test_other_batches(model, row):
    results = []
    for size in (8, 3, 1):
        resolver = SuperResolver.from_pretrained(model, device="cpu", engine="eager")
        resolver._sampler = type(resolver._sampler)(resolver._sampler.engine, resolver._sampler.diffusion, size)
        results.append(resolver((head((9, 8, 5)), AFFINE), samples=2, steps=1, evidence="off").samples)
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=2e-5, atol=1e-5)


@fault(65)
@NATIVE
def test_other_threads(model, row):
    before = torch.get_num_threads()
    try:
        one, two = (
            SuperResolver.from_pretrained(model, device="cpu", engine="native", threads=count)(
                (head(), AFFINE), evidence="off"
            ).mean
            for count in (1, 2)
        )
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(one, two)


@fault(67)
def test_output_is_input(sr, tmp_path, row):
    folder = scan(tmp_path / "st" / "A")
    for out in (folder, tmp_path / "st" / "B" / ".." / "A"):
        (tmp_path / "st" / "B").mkdir(exist_ok=True)
        done = sr("-i", folder, "-o", out)
        assert done.exit_code == 2 and "never overwritten" in done.output, done.output
    before = {path: path.read_bytes() for path in folder.iterdir()}
    done = command("report", "-i", folder, "-o", folder / "conc_tNAA.nii.gz")
    assert done.exit_code == 2 and {path: path.read_bytes() for path in folder.iterdir()} == before


@fault(68)
def test_no_personal_data(run, row):
    """Neither the name in the headers nor the folders that hold the input get into any file or onto the terminal."""
    out, done = run
    for path in (path for path in out.rglob("*") if path.is_file()):
        raw = path.read_bytes()
        text = gzip.decompress(raw) if path.suffix == ".gz" else raw
        for private in (
            b"DOE^",
            b"DOE_JOHN",
            b"19700101",
            str(out.parent).encode(),
            os.environ.get("HOME", "/root").encode() + b"/",
        ):
            assert private not in text, (path.name, private)
    assert without_folders("/home/doe/x.nii: no (3 files in /data/doe/out; tCho/tNAA)") == (
        "x.nii: no (3 files in out; tCho/tNAA)"
    )


@fault(68)
@pytest.mark.parametrize("name", ["Smith_John", "Müller Anna", "smith"])
def test_a_person_in_a_file_name_is_no_metabolite(sr, tmp_path, row, name):
    """The file's name stands where inputs are listed, not in names of results, maps and pictures."""
    path = save(tmp_path / "private" / f"{name}.nii.gz", head((9, 8, 1)))
    done = sr("-i", path, "-o", tmp_path / "out", "--evidence", "off")
    assert done.exit_code == 0 and "is called 'map'" in " ".join(done.output.split()), done.output
    record = json.loads(next((tmp_path / "out").glob("*_desc-sr_mrsi.json")).read_text())
    assert list(record["maps"]) == ["map"] and list((tmp_path / "out").glob("*_met-map_desc-sr_mrsi.nii.gz"))
    for file in (file for file in (tmp_path / "out").rglob("*") if file.is_file()):
        assert name.split()[0].split("_")[0].lower() not in file.name.lower()
        raw = file.read_bytes()
        assert str(tmp_path).encode() not in (gzip.decompress(raw) if file.suffix == ".gz" else raw), file.name


@fault(69)
def test_two_names_one_file(sr, tmp_path, row):
    for name in ("Foo1", "Foo-1"):
        save(tmp_path / "in" / f"conc_{name}.nii.gz", head())
    done = sr("-i", tmp_path / "in", "-o", tmp_path / "out", "--metabolites", "all")
    assert done.exit_code == 3 and "Foo1" in done.output and "Foo-1" in done.output, done.output
    assert not list((tmp_path / "out").glob("*.nii.gz"))


@fault(70)
def test_script_in_a_name(run, row):
    page = next(run[0].glob("*.html")).read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page and "alert(1)" in page and write_page


@fault(71)
def test_scores(row):
    truth = head((12, 12, 1))[..., 0].astype(np.float64)
    assert psnr(truth, truth, 10.0) == np.inf
    with pytest.raises(ValueError):
        score_slice(truth, truth[:-1], np.ones_like(truth, bool), "brain")
    found = compare({"head": 1.0}, {"other": {"head": 2.0}}, larger_is_better=True)["other"]
    assert found.heads == 1 and found.p is None and "1 heads give p >= " in found.refusal


BAD_CALLS = {
    "no gain": lambda x: (x, torch.empty(0), torch.empty(0), 4, None, None, 1e-5),
    "one gain": lambda x: (x, torch.ones(1), torch.ones(1), 4, None, None, 1e-5),
    "no group": lambda x: (x, torch.ones(8), torch.ones(8), 0, None, None, 1e-5),
    "negative groups": lambda x: (x, torch.ones(8), torch.ones(8), -4, None, None, 1e-5),
    "groups that do not divide": lambda x: (x, torch.ones(8), torch.ones(8), 3, None, None, 1e-5),
    "short scale": lambda x: (x, torch.ones(8), torch.ones(8), 4, torch.ones(1, 1), None, 1e-5),
    "vector": lambda x: (x[0, 0, 0], torch.ones(8), torch.ones(8), 4, None, None, 1e-5),
    "whole numbers": lambda x: (x.long(), torch.ones(8), torch.ones(8), 4, None, None, 1e-5),
    "another device": lambda x: (x, torch.ones(8, device="meta"), torch.ones(8), 4, None, None, 1e-5),
}


@fault(72)
@pytest.mark.parametrize("kind", BAD_CALLS)
def test_hostile_tensors(row, kind):
    """Below the Python functions, where a plan or a caller of torch.ops comes in: a sentence, never a signal."""
    x = torch.randn(2, 8, 5, 6)
    arguments = BAD_CALLS[kind](x)
    calls = torch.ops.mrsi_fast
    for call in (
        lambda: calls.group_norm_silu(*arguments),
        lambda: calls.group_norm_silu_backward(x, *arguments),
        lambda: calls.group_norm_silu_out(*arguments, x.clone()),
    ):
        with pytest.raises(ValueError, match="must|divide|device"):
            call()
    norm = arguments[1:4]
    with pytest.raises(ValueError):
        calls.conv3x3_gn_silu(arguments[0], *norm, torch.ones(8, 8, 3, 3), None, *arguments[4:6], None, 1e-5)


@fault(72)
def test_hostile_tensors_of_other_operations(row):
    x, calls = torch.randn(2, 8, 5, 6), torch.ops.mrsi_fast
    fine = (torch.ones(8), torch.ones(8), 4)
    for weight, bias, residual in (
        (torch.ones(8, 8, 1, 1), None, None),
        (torch.empty(0), None, None),
        (torch.ones(8, 8, 3, 3), torch.ones(1), None),
        (torch.ones(8, 8, 3, 3), None, torch.ones(1, 8, 5, 6)),
    ):
        with pytest.raises(ValueError):
            calls.conv3x3_gn_silu(x, *fine, weight, bias, None, None, residual, 1e-5)
    complex_scale = torch.ones(2, 8, dtype=torch.complex64)
    for scale, eps in ((complex_scale, 1e-5), (torch.ones(2, 8, dtype=torch.long), 1e-5), (None, -1.0), (None, np.nan)):
        with pytest.raises(ValueError, match="must be floating point|eps must be"):
            calls.group_norm_silu(x, *fine, scale, None, eps)
    for qkv in (torch.randn(2, 7, 2, 4, 8), torch.randn(7), torch.ones(2, 7, 3, 4, 8, dtype=torch.long)):
        with pytest.raises(ValueError):
            calls.self_attention(qkv, 1.0)
    good = torch.randn(2, 7, 3, 4, 8)
    with pytest.raises(ValueError, match="grad must have the shape"):
        calls.self_attention_backward(torch.randn(1), good, 1.0)
    step = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError):
        calls.solver_step(x, x, None, None, torch.ones(3, 4), step, torch.ones(2, 5), None, None)
    for strange in (x.double(), x.requires_grad_(), x.detach().transpose(2, 3), x.detach()[:0], x.detach()[..., ::2]):
        assert calls.group_norm_silu(
            strange, *(one.to(strange.dtype) for one in fine[:2]), 4, None, None, 1e-5
        ).shape == (strange.shape)


@fault(73)
def test_time(run, row, monkeypatch):
    record = json.loads(next(run[0].glob("*_desc-sr_mrsi.json")).read_text())
    created = datetime.fromisoformat(record["created"])
    assert created.utcoffset() is not None and created.utcoffset().total_seconds() == 0
    rows = json.loads((run[0] / "run.json").read_text())["inputs"]
    assert all(datetime.fromisoformat(one["finished"]).utcoffset().total_seconds() == 0 for one in rows)
    monkeypatch.setattr(time, "time", lambda: 0.0)  # a clock that jumps; durations come from a monotonic one
    sources = (path.read_text(encoding="utf-8") for path in Path(mrsi_fast.__file__).parent.rglob("*.py"))
    assert not any(re.search(r"\btime\.time\(\)", text) for text in sources)


def test_every_row_of_the_table_is_a_test():
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert {int(number) for number in re.findall(r"^@fault\((\d+)\)", text, re.MULTILINE)} == set(range(1, 74))
