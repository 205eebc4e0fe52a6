"""`make gpu` without a GPU: it ends with a sentence, and every piece of it runs dry on CPU tensors."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys

import pytest
import torch

from harness.records import COPY, SGEMM, SGEMM_AGAIN, History, cpu_histories
from mrsi_fast.ops import _cuda
from support.data import checkout

ROOT = checkout()


def run(*command: str, folder: str = ".") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT / folder, capture_output=True, text=True)


@pytest.fixture
def scripts():
    """The modules of benchmarks/gpu, loaded when a test asks for one: they import torch's compiler."""
    return lambda name: importlib.import_module(f"gpu.{name}")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_make_gpu_ends_with_a_sentence():
    result = run("make", "gpu")
    assert result.returncode != 0
    assert "no NVIDIA GPU was found" in result.stdout and "nothing was built, tested or timed" in result.stdout


@pytest.mark.gpu_static
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_the_benchmarks_say_that_nothing_was_timed():
    result = run(sys.executable, "-m", "gpu", folder="benchmarks")
    assert result.returncode == 1 and "Nothing was timed" in result.stdout


def timed(scripts, **seconds: list[float]):
    """A float16 case of 1 GFLOP and 1 MB whose ceilings are 10 TFLOP/s and 1 TB/s."""
    case = scripts("case")
    one = case.Case(
        "group_norm_silu[level0-float16]", torch.float16, {}, "eager", 1e9, 1e6, "group_norm_silu", elements=786432
    )
    size = case.matmul_size(scripts("target").Target(torch.device("cpu")))
    record = importlib.import_module("harness.records")
    anchors = {
        COPY: [record.COPY_BYTES / 1e12] * 2,
        SGEMM: [1e-4] * 2,
        SGEMM_AGAIN: [1e-4] * 2,
        "matmul-float16": [2 * size**3 / 1e13] * 2,
    }
    return case.Timed(one, seconds, anchors)


def test_a_row_is_told_as_shares_of_the_measured_ceilings(scripts):
    record, target = scripts("record"), scripts("target").Target(torch.device("cpu"))
    shares = record.roofline(timed(scripts, cuda=[2e-3, 2e-3]), "cuda", target)
    assert shares["share_of_copy_ceiling"] == pytest.approx(1e6 / 2e-3 / 1e12)
    assert shares["share_of_matmul_ceiling"] == pytest.approx(1e9 / 2e-3 / 1e13)
    assert shares["flops_per_byte"] == 1000


def test_the_fastest_of_ours_becomes_a_row_that_the_dispatch_reads(scripts, tmp_path):
    record, target = scripts("record"), scripts("target").Target(torch.device("cpu"))
    results = [timed(scripts, cuda=[3e-6, 3e-6], triton=[2e-6, 2e-6], reference=[9e-6, 9e-6], eager=[1e-6, 1e-6])]
    path = tmp_path / "choices.json"
    path.write_text(json.dumps({"rows": [{**record.choices(target, results)[0], "architecture": 80}]}))
    record.write_choices(path, record.choices(target, results), {"gpu": "planted"})
    rows = _cuda.measured_choices(path)["group_norm_silu", False]
    assert [(row.architecture, row.backend, row.elements) for row in rows] == [
        (80, "triton", 786432),
        (0, "triton", 786432),
    ]
    assert "triton 2.0 us" in rows[1].why
    record.write_choices(path, [], {"gpu": "planted"})  # rows of architectures that were not measured again stay


def test_what_is_written_can_be_read_as_any_machines_history(scripts, tmp_path):
    record, target = scripts("record"), scripts("target").Target(torch.device("cpu"))
    results = [timed(scripts, cuda=[1e-3, 1e-3], eager=[2e-3, 2e-3])]
    found = record.history(target, results, None)
    found.save(tmp_path / "gpu.json")
    again = History.load(tmp_path / "gpu.json")
    assert cpu_histories(tmp_path) == []  # the engine table of docs/speed.md is that of CPUs
    assert again.faster("group_norm_silu[level0-float16]-cuda").median == pytest.approx(2.0)
    text = record.paragraph(again)
    assert "| group_norm_silu[level0-float16] | cuda | 1000.0 | 2.00 [2.00, 2.00] | eager | 0% | 10% |" in text


def test_the_readme_says_that_no_benchmark_was_recorded_until_one_is(scripts):
    record, page = scripts("record"), (ROOT / "docs" / "speed.md").read_text()
    (block,) = record.BLOCK.findall(page)
    measured = [
        path for path in (ROOT / "benchmarks/results").glob("*.json") if '"architecture": "sm_' in path.read_text()
    ]
    assert ("No benchmark has\nbeen recorded on a GPU" in block) == (not measured)
    assert record.with_paragraph(page, "| table |\n") == page.replace(block, "| table |\n")
    with pytest.raises(ValueError, match="no block"):
        record.with_paragraph("# Something else", "text")


@pytest.mark.gpu_static
def test_the_benchmarks_run_dry(tmp_path):
    result = run(sys.executable, "-m", "gpu", "--dry-run", str(tmp_path), "--rounds", "2", folder="benchmarks")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    found = History.load(tmp_path / "dry-run-on-a-cpu.json")
    labels = {row.label for row in found.rows.values()}
    assert labels >= {"cuda", "triton", "reference", "eager", "eager-channels", "compile", "fused", "cuda-graph"}
    assert set(found.missing) <= {
        f"self_attention[1x16x1x32-{t}]-{v}" for t in ("float16", "bfloat16") for v in ("cudnn", "flash")
    }
    assert {row.case.partition("[")[0] for row in found.rows.values()} == {
        "group_norm_silu",
        "group_norm_silu_backward",
        "self_attention",
        "self_attention_backward",
        "solver_step",
        "unet",
        "unet_autotuned",
        "sampling_run",
    }
    decided = {(row["op"], row["backward"]) for row in json.loads((tmp_path / "gpu_choices.json").read_text())["rows"]}
    assert decided == set(_cuda.PREFERRED)
    assert "| unet[1x3x16x16-float32] | cuda-graph |" in (tmp_path / "speed.md").read_text()


@pytest.mark.gpu_static
def test_the_gpu_tests_run_dry():
    result = run(sys.executable, "-m", "pytest", "-q", "tests/gpu", "--dry-run")
    assert result.returncode == 0 and "passed" in result.stdout, result.stdout[-3000:]
    body = run(sys.executable, "tests/gpu/sanitize.py", "--body", "--device", "cpu")
    assert body.returncode == 0, body.stderr
