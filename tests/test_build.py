"""csrc/build.py: what it decides and why, and that objects of one instruction set lend no code to another."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
SWITCHES = ("MRSI_FAST_NATIVE", "MRSI_FAST_CUDA", "MRSI_FAST_CUDA_ARCHS", "CUDA_HOME", "CUDA_PATH", "CXX")


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name in SWITCHES:
        monkeypatch.delenv(name, raising=False)
    spec = importlib.util.spec_from_file_location("mrsi_fast_csrc_build_under_test", CSRC / "build.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_a_switch_at_1_turns_an_obstacle_into_an_error(build, monkeypatch):
    assert build.decide("MRSI_FAST_CUDA", "there is no toolkit", "toolkit") == build.Part(False, "there is no toolkit")
    assert build.decide("MRSI_FAST_CUDA", None, "toolkit") == build.Part(True, "toolkit")
    monkeypatch.setenv("MRSI_FAST_CUDA", "0")
    assert build.decide("MRSI_FAST_CUDA", None, "toolkit") == build.Part(False, "MRSI_FAST_CUDA=0")
    monkeypatch.setenv("MRSI_FAST_CUDA", "1")
    with pytest.raises(build.BuildError, match="MRSI_FAST_CUDA=1, but there is no toolkit"):
        build.decide("MRSI_FAST_CUDA", "there is no toolkit", "")
    monkeypatch.setenv("MRSI_FAST_CUDA", "yes")
    with pytest.raises(build.BuildError, match="use auto, 1 or 0"):
        build.switch("MRSI_FAST_CUDA")


def test_no_compiler_is_one_reason(build, monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    part = build.native_part()
    assert not part.built and "no C++ compiler" in part.reason


@pytest.mark.skipif(sys.platform != "linux", reason="CUDA kernels are built on Linux only")
def test_an_nvcc_alone_is_not_a_toolkit(build, monkeypatch, tmp_path):
    for part in ("bin/nvcc", "include/cuda_runtime.h", "lib64/libcudart_static.a"):
        monkeypatch.setenv("CUDA_HOME", str(tmp_path))
        toolkit, reason = build.find_toolkit()
        assert toolkit is None and str(tmp_path) in reason
        (tmp_path / part).parent.mkdir()
        (tmp_path / part).touch()
    toolkit, _ = build.find_toolkit()
    assert toolkit.home == tmp_path and toolkit.archs == ("80", "90", "120+PTX")


def test_architectures_become_nvcc_options(build):
    assert build.arch_flags(("80", "9.0a", "120+PTX")) == [
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_90a,code=sm_90a",
        "-gencode=arch=compute_120,code=sm_120",
        "-gencode=arch=compute_120,code=compute_120",
    ]
    with pytest.raises(build.BuildError, match="MRSI_FAST_CUDA_ARCHS has 'hopper'"):
        build.arch_flags(("hopper",))


def test_headers_know_neither_torch_nor_python():
    for header in (CSRC / "include").rglob("*.*h"):
        text = header.read_text()
        assert not any(word in text for word in ("<torch", "<ATen", "<c10", "<Python.h>", "pybind11")), header


def test_no_fast_math_anywhere(build):
    flags = " ".join([*build.CXX_FLAGS, *sum(build.ISA_FLAGS.values(), [])])
    assert "fast-math" not in flags and "march=native" not in flags
    assert "fast_math" not in (CSRC / "build.py").read_text()


def check_own_namespace(source, flags, namespace, tmp_path):
    """A shared inline function would be linked from any object: compiled for AVX-512, it stops an older processor."""
    target = tmp_path / f"{namespace}.o"
    flags = [*flags, f"-I{CSRC / 'include'}", f"-I{CSRC}", "-std=c++17", "-w", "-O0", "-fopenmp"]
    subprocess.run(["c++", *flags, "-c", str(source), "-o", str(target)], check=True)
    symbols = subprocess.run(["nm", "-C", "--defined-only", "--extern-only", target], capture_output=True, text=True)
    names = [line.split(" ", 2)[2] for line in symbols.stdout.splitlines()]
    names = [name for name in names if not name.startswith("DW.ref.")]  # the compiler's, data
    assert names
    assert [name for name in names if not name.startswith(f"mrsi_fast::{namespace}::")] == []
    sections = subprocess.run(["objdump", "-h", target], capture_output=True, text=True).stdout
    assert ".init_array" not in sections, "a static initialiser would run before the processor has been asked"


needs_nm = pytest.mark.skipif(
    shutil.which("nm") is None or shutil.which("c++") is None, reason="needs a compiler and nm"
)


@needs_nm
@pytest.mark.parametrize("kernel", sorted(path.name for path in (CSRC / "cpu").glob("*.inl")))
def test_objects_of_an_instruction_set_export_only_their_own_namespace(build, kernel, tmp_path):
    for isa in build.isas():
        flags = [*build.ISA_FLAGS[isa], f'-DMRSI_FAST_KERNEL_FILE="cpu/{kernel}"']
        check_own_namespace(CSRC / "cpu" / f"isa_{isa}.cpp", flags, isa, tmp_path)


@needs_nm
def test_so_does_the_object_for_amx(build, tmp_path):
    if not build.amx_part().built:
        pytest.skip(build.amx_part().reason)
    check_own_namespace(CSRC / "cpu" / "amx.cpp", build.AMX_FLAGS, "amx", tmp_path)


def test_a_compiler_that_does_not_know_amx_leaves_it_out(build, monkeypatch):
    if "avx512" not in build.isas():
        assert not build.amx_part().built
        return
    monkeypatch.setattr(build, "compiler", lambda: "false")
    assert build.amx_part() == build.Part(False, "the compiler is too old")
