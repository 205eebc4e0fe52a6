"""What is known about the network kernels without Python: clean under sanitizers, and the AVX-512 machine code."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[2] / "csrc"
COMPILER = shutil.which("g++")
ROUNDS = int(os.environ.get("MRSI_FAST_FUZZ_ROUNDS", "300"))
SEED = int(os.environ.get("MRSI_FAST_FUZZ_SEED", "0"))  # `make fuzz` draws other shapes each time
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(COMPILER is None, reason="there is no g++"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the stubs compiled here are those of x86-64"),
]


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("csrc_build", CSRC / "build.py")
    module = sys.modules["csrc_build"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compile_all(commands: list[list[str]]) -> None:
    running = [subprocess.Popen([COMPILER, f"-I{CSRC / 'include'}", f"-I{CSRC}", *command]) for command in commands]
    assert all(process.wait() == 0 for process in running)


def test_random_shapes_are_clean_under_the_sanitizers(build, tmp_path):
    flags = [*build.CXX_FLAGS, *build.SANITIZE_FLAGS, "-Wno-maybe-uninitialized", "-c"]
    kernel = '-DMRSI_FAST_KERNEL_FILE="cpu/network.inl"'
    sources = {CSRC / "cpu" / f"isa_{isa}.cpp": [*options, kernel] for isa, options in build.ISA_FLAGS.items()}
    amx = build.amx_part().built
    sources |= {CSRC / "cpu" / name: ["-DMRSI_FAST_WITH_AMX"] * amx for name in ("isa.cpp", "pack.cpp", "pairs.cpp")}
    sources |= {CSRC / "cpu" / "amx.cpp": build.AMX_FLAGS} if amx else {}
    sources |= {Path(__file__).with_name("fuzz_network.cpp"): []}
    objects = {source: str(tmp_path / f"{source.stem}.o") for source in sources}
    compile_all([[*flags, *sources[source], str(source), "-o", out] for source, out in objects.items()])
    program = str(tmp_path / "fuzz_network")
    compile_all([["-fsanitize=address,undefined", *objects.values(), "-o", program]])
    # Looking for use after return, GCC 13 on Ubuntu 24.04 faulted on vectors of 64 bytes (taken for its bug 110027).
    environment = {**os.environ, "ASAN_OPTIONS": "detect_stack_use_after_return=0"}
    command = [program, str(ROUNDS), str(SEED)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    print(result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"plain: {ROUNDS} rounds" in result.stdout


def test_the_avx512_tile_is_made_of_full_width_fused_multiply_adds(build, tmp_path):
    """Whether the processor can run it or not: this shows in the machine code."""
    assembly = tmp_path / "network.s"
    kernel = '-DMRSI_FAST_KERNEL_FILE="cpu/network.inl"'
    stub = str(CSRC / "cpu" / "isa_avx512.cpp")
    compile_all([[*build.CXX_FLAGS, *build.ISA_FLAGS["avx512"], kernel, "-S", stub, "-o", str(assembly)]])
    blocks = re.split(r"^\.L\w+:", assembly.read_text(), flags=re.MULTILINE)
    fused = [len(re.findall(r"vfmadd\d+ps\s.*%zmm", block)) for block in blocks]
    spills = [len(re.findall(r"vmov[au]ps\s+%zmm\d+, -?\d*\(%r[sb]p\)", block)) for block in blocks]
    inner = [spill for count, spill in zip(fused, spills, strict=True) if count == 24]  # 12 rows x 2 vectors a step
    assert inner and max(inner) == 0


def test_products_of_pairs_are_made_in_tiles(build, tmp_path):
    """Whether the processor can run them or not."""
    if not build.amx_part().built:
        pytest.skip(build.amx_part().reason)
    assembly = tmp_path / "amx.s"
    compile_all([[*build.CXX_FLAGS, *build.AMX_FLAGS, "-S", str(CSRC / "cpu" / "amx.cpp"), "-o", str(assembly)]])
    blocks = re.split(r"^\.L\w+:", assembly.read_text(), flags=re.MULTILINE)
    products = [len(re.findall(r"tdpbf16ps", block)) for block in blocks]
    stores = [len(re.findall(r"tilestored", block)) for block in blocks]
    # Three products of parts for 2 x 2 tiles of sums, or 1 x 2; no sum is stored between them.
    assert sum(products) >= 12 + 6 and sum(products) % 6 == 0
    assert all(store == 0 for count, store in zip(products, stores, strict=True) if count)
    assert "vcvtne2ps2bf16" in assembly.read_text()
