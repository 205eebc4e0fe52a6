"""The choice of an implementation: pins, disabled and missing backends, and the reasons that are given."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import warnings

import pytest
import torch

from mrsi_fast import ops
from mrsi_fast.ops import _dispatch, _native
from mrsi_fast.ops._dispatch import Implementation

needs_native = pytest.mark.skipif(_native.module() is None, reason=_native.reason())


def arguments(dtype: torch.dtype = torch.float32) -> tuple:
    return (torch.randn(2, 8, 4, 4, dtype=dtype), *torch.randn(2, 8, dtype=dtype), 2, None, None, 1e-5)


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@needs_native
def test_the_kernel_is_chosen_and_a_refusal_is_explained():
    assert ops.explain("group_norm_silu", *arguments()).backend == "native"
    choice = ops.explain("group_norm_silu", *arguments(torch.float64))
    assert (
        str(choice) == "group_norm_silu on cpu: reference; not native: the CPU kernel takes float32, got torch.float64"
    )


@needs_native
def test_a_pinned_backend_that_cannot_serve_is_an_error():
    with ops.override("native"):
        ops.group_norm_silu(*arguments())
        with pytest.raises(RuntimeError, match="MRSI_FAST_BACKEND=native cannot run group_norm_silu .*float64"):
            ops.group_norm_silu(*arguments(torch.float64))
    with ops.override("triton"):  # serves another device: nothing to do with this call
        assert ops.explain("group_norm_silu", *arguments()).backend == "reference"


def test_pin_the_reference_or_disable_the_kernel():
    x = arguments()
    with ops.override("reference"):
        assert ops.explain("group_norm_silu", *x).refused == {"native": "MRSI_FAST_BACKEND=reference"}
    with ops.override(disable="native, cuda"), warnings.catch_warnings():
        warnings.simplefilter("error")  # wanted, so no warning
        assert ops.explain("group_norm_silu", *x).refused == {"native": "disabled by MRSI_FAST_DISABLE"}
        ops.group_norm_silu(*x)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="Unknown backend"), ops.override("nativ"):
        pass
    with pytest.raises(ValueError, match="There is no operation 'group_norm'"):
        ops.explain("group_norm")


def test_the_first_that_does_not_refuse_wins(monkeypatch):
    def implementation(backend: str, lacks: str | None, refuses: str | None) -> Implementation:
        return Implementation(backend, lambda: lacks, lambda *inputs: refuses, lambda *inputs: None)

    candidates = (implementation("cuda", None, "too big"), implementation("triton", None, None))
    monkeypatch.setitem(_dispatch._implementations, "toy", candidates)
    choice = _dispatch.choose("toy", "cuda", ())
    assert choice.backend == "triton" and choice.refused == {"cuda": "too big"}
    backward = _dispatch.choose("toy", "cuda", (), backward=True)
    assert backward.backend == "reference" and backward.refused["triton"] == "it has no backward kernel"
    rows = [row for row in ops.status() if row["op"] == "toy"]
    assert rows[0] == {"op": "toy", "device": "cuda", "backend": "cuda", "usable": True, "reason": ""}


def test_a_missing_binary_falls_back_says_why_once_and_gives_the_same_numbers(tmp_path):
    torch.manual_seed(0)
    inputs = arguments()
    wanted = ops.group_norm_silu(*inputs)
    torch.save({"inputs": inputs, "wanted": wanted}, tmp_path / "case.pt")
    run = python(
        f"""
        import sys, warnings
        sys.modules["mrsi_fast._C"] = None  # what Python leaves behind for a module that cannot be imported
        import torch
        from mrsi_fast import ops
        case = torch.load({str(tmp_path / "case.pt")!r})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(3):
                got = ops.group_norm_silu(*case["inputs"])
        torch.testing.assert_close(got, case["wanted"])
        (only,) = caught
        print(only.message)
        """
    )
    assert run.returncode == 0, run.stderr
    assert "plain PyTorch on cpu" in run.stdout and "native: the compiled extension" in run.stdout


@needs_native
def test_isa_from_the_environment():
    code = "import torch; from mrsi_fast.ops import _native; print(_native.module().isa())"
    assert python(code, MRSI_FAST_ISA="plain").stdout.strip() == "plain"
    wrong = python(code, MRSI_FAST_ISA="sse9")
    assert wrong.returncode and "'sse9' is not usable here; usable: plain" in wrong.stderr


@needs_native
@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_kernels_run_on_the_thread_pool_of_torch():
    run = python(
        """
        import os, torch
        from mrsi_fast import ops
        threads = lambda: len(os.listdir("/proc/self/task"))
        torch.set_num_threads(3)
        x, v = torch.randn(3, 64, 64, 64), torch.ones(64)
        before = threads()
        ops.group_norm_silu(x, v, v, 4)
        ours = threads()
        torch.nn.functional.silu(torch.randn(3, 64, 64, 64))
        both = threads()
        loaded = {line.split()[-1] for line in open("/proc/self/maps") if "gomp" in line or "omp.so" in line}
        print(ours - before, both - ours, len(loaded))
        """,
        OMP_NUM_THREADS="3",
    )
    # Our call started the two helpers, torch's then started none, and one OpenMP library is loaded.
    assert run.stdout.split() == ["2", "0", "1"], run.stdout + run.stderr
