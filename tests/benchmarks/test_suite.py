"""The benchmarks run: whole rows where everything is there, reasons where the extension or a package is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from harness.records import History
from mrsi_fast.ops import _native
from support.data import checkout

PROGRAM = """
import sys
for name in {absent}:
    sys.modules[name] = None  # as if it were not installed
import pytest
sys.exit(pytest.main({arguments}))
"""


def benchmarks(*arguments: str, absent: tuple[str, ...] = (), require: str = "") -> subprocess.CompletedProcess[str]:
    """Runs pytest as from a shell: what a worker of pytest-xdist was told would switch the timing off."""
    options = ["--benchmark-only", "--rounds", "2", "-rs", "-p", "no:cacheprovider", *arguments]
    program = PROGRAM.format(absent=absent, arguments=options)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment["MRSI_FAST_REQUIRE"] = require
    return subprocess.run(
        [sys.executable, "-c", program], cwd=checkout(), env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.skipif(_native.module() is None, reason="the compiled extension is not there")
def test_rows_are_printed_stored_and_saved(tmp_path):
    saved, stored = tmp_path / "machine.json", tmp_path / "pytest-benchmark.json"
    case = "self_attention and 8x8 and t1"
    files = ("--save-results", str(saved), "--benchmark-json", str(stored))
    done = benchmarks("benchmarks/bench_self_attention.py", "-k", case, *files)
    assert done.returncode == 0, done.stdout + done.stderr
    name = "bench_self_attention[native-8x8-8x32-t1]"
    replayed = {one["name"]: one for one in json.loads(stored.read_text())["benchmarks"]}[name]
    told = replayed["extra_info"]
    assert len(told["seconds"]) == 2 and told["backend"] == "native" and told["share_of_gemm"] > 0
    assert replayed["stats"]["min"] == pytest.approx(min(told["seconds"]), rel=1e-4)
    assert "times_faster_than_eager" in told and "Control (one function" in done.stdout
    history = History.load(saved)  # without the rows, if this machine is too busy to judge
    assert history.runs[0].waiting == "passive"
    assert name not in history.rows or history.rows[name].seconds == told["seconds"]


@pytest.mark.slow
def test_without_extension_and_triton_rows_say_what_was_missing():
    files = ("benchmarks/bench_solver_step.py", "benchmarks/bench_conv3x3_gn_silu.py")
    absent = ("mrsi_fast._C", "triton")
    done = benchmarks(*files, "-k", "step-t1 or 96to32-32-t1", absent=absent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bench_solver_step[native-step-t1]: not run: the compiled extension" in done.stdout
    assert "bench_conv3x3[native-b1-96to32-32-t1]: not run: the compiled extension" in done.stdout
    public = [line for line in done.stdout.splitlines() if line.startswith("bench_conv3x3_gn_silu[public-b1-96to32")]
    assert public[-1].endswith("reference")  # the operation itself falls back, and says so


@pytest.mark.slow
def test_a_fallback_fails_where_native_is_required():
    done = benchmarks("benchmarks/bench_self_attention.py", absent=("mrsi_fast._C",), require="native")
    assert done.returncode == 4 and "MRSI_FAST_REQUIRE asks for what is not here" in done.stdout + done.stderr
