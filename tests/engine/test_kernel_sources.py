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


# The micro-kernels of csrc/cpu/gemm.h: rows and panels of the two that the network multiplies most with.
TILES = {(8, 1), (6, 2)}
PROBE = """#include "cpu/gemm.h"
namespace mrsi_fast { namespace MRSI_ISA {
using Kernel = decltype(&micro_kernel<8, 1>);
__attribute__((used, visibility("default"))) Kernel probes[] = {micro_kernel<8, 1>, micro_kernel<6, 2>};
}}
"""


def avx512_tiles(build, folder: Path, kernel: str, *options: str) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """(rows, panels) of each register tile in the machine code of a kernel file: its blocks with FMAs on 512 bits, as
    (how many, 512-bit values read from or written to the stack)."""
    assembly = folder / "kernel.s"
    flags = [*build.CXX_FLAGS, *build.ISA_FLAGS["avx512"], *options, f'-DMRSI_FAST_KERNEL_FILE="{kernel}"']
    compile_all([[*flags, f"-I{folder}", "-S", str(CSRC / "cpu" / "isa_avx512.cpp"), "-o", str(assembly)]])
    function = re.compile(r"^(\S*micro_kernelILi(\d+)ELi(\d+)E\S*):\n(.*?)^\s+\.size\s+\1", re.MULTILINE | re.DOTALL)
    found = {}
    for _, rows, panels, body in function.findall(assembly.read_text()):
        blocks = re.split(r"^\.L\w+:", body, flags=re.MULTILINE)
        fused = [len(re.findall(r"vfmadd\d+ps\s.*%zmm", block)) for block in blocks]
        spilled = [len(re.findall(r"%zmm\d+, *-?\d*\(%r[sb]p|\(%r[sb]p[^)]*\),.*%zmm", block)) for block in blocks]
        found[int(rows), int(panels)] = [pair for pair in zip(fused, spilled, strict=True) if pair[0]]
    return found


def test_the_avx512_tiles_are_made_of_full_width_fused_multiply_adds(build, tmp_path):
    """Whether the processor can run them or not: every sum stays in a register, one FMA each a step."""
    found = avx512_tiles(build, tmp_path, "cpu/network.inl")
    assert set(found) >= TILES
    for rows, panels in TILES:
        assert found[rows, panels] == [(rows * 2 * panels, 0)]


def test_sums_on_the_stack_are_seen(build, tmp_path):
    """The test above can fail: with half of the registers taken away, the same code spills."""
    (tmp_path / "probe.inl").write_text(PROBE)
    assert avx512_tiles(build, tmp_path, "probe.inl") == {(r, p): [(r * 2 * p, 0)] for r, p in TILES}
    taken = [f"-ffixed-xmm{register}" for register in range(16, 32)]
    for blocks in avx512_tiles(build, tmp_path, "probe.inl", *taken).values():
        assert all(spilled > 0 for _, spilled in blocks)


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
