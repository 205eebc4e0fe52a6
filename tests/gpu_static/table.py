"""What can be known of the GPU kernels without a GPU: compiled for every architecture, read back, held to bars.

``python -m gpu_static.table``, from ``tests/``, compiles all CUDA sources and Triton kernels for six architectures,
checks the bars of ``bars.json`` and compares the table with ``tests/gpu_static/table.tsv``; ``--write`` writes it.
Nothing here says how fast a kernel is.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gpu_static.occupancy import DEVICES, blocks_per_multiprocessor
from gpu_static.sass import KernelCode, read_cubin
from support.cuda_tools import nvcc
from support.data import checkout

ROOT = checkout()
TABLE = ROOT / "tests/gpu_static/table.tsv"
COLUMNS = (
    "source", "kernel", "sm", "registers", "shared", "blocks", "fill", "loads", "stores", "tensor", "async", "spills"
)  # fmt: skip
"""Explained in ``docs/gpu.md``."""
BARS = ROOT / "tests/gpu_static/bars.json"
ARCHITECTURES = tuple(DEVICES)
# The options of csrc/build.py, and every warning of both compilers an error; spills and stack frames count as warnings.
NVCC_FLAGS = "-std=c++17 -O3 -lineinfo -Werror all-warnings -Xptxas=-warn-spills,-warn-lmem-usage"
HOST_FLAGS = "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra,-Werror"

# Threads and dynamic shared memory of a launch at the shipped model's largest shapes (float16 unless named otherwise).
LAUNCHES = {
    r"group_norm_silu_fused_kernel<(half|bfloat16), ": (512, 32 * 32 * 16 * 2 + 128),
    r"group_norm_silu_fused_kernel<float, ": (512, 32 * 32 * 16 * 4 + 128),
    r"group_norm_moments_kernel": (256, 256 * 8),
    r"group_norm_silu_apply_kernel": (256, 32 * 8),
    r"projected_solver_step_kernel": (256, 16 * (64 + 16) * 4),
    r"^solver_step_kernel": (256, 0),
}


@dataclass(frozen=True)
class Row:
    """One kernel on one architecture, as the table and the bars see it."""

    source: str
    kernel: str
    architecture: int
    threads: int
    registers: int
    shared: int
    blocks: int
    ldg128: int
    stg128: int
    tensor: int
    async_copy: int
    spilled: int
    float64: int
    float_atomic: int

    @property
    def occupancy(self) -> float:
        """Share of a multiprocessor's threads that can be resident."""
        return self.blocks * self.threads / DEVICES[self.architecture][1]


def make_row(source: str, name: str, code: KernelCode, architecture: int, threads: int, shared: int) -> Row:
    """Combine what the machine code says with the launch it is meant for (``shared``: dynamic bytes)."""
    counts = code.counts
    return Row(
        source=source,
        kernel=name,
        architecture=architecture,
        threads=threads,
        registers=code.registers,
        shared=code.static_shared + shared,
        blocks=blocks_per_multiprocessor(architecture, threads, code.registers, code.static_shared, shared),
        ldg128=counts["ldg128"],
        stg128=counts["stg128"],
        tensor=counts["tensor"],
        async_copy=counts["async_copy"],
        spilled=code.stack + code.local + counts["local"],
        float64=counts["float64"],
        float_atomic=counts["float_atomic"],
    )


def compile_cuda(source: Path, architecture: int, folder: Path) -> Path:
    """Compile one .cu file to a cubin.

    Raises:
        RuntimeError: The compiler refused or warned; the message is its own.
    """
    output = folder / f"{source.stem}.{architecture}.cubin"
    target = f"-gencode=arch=compute_{architecture},code=sm_{architecture}"
    command = [str(nvcc()), *NVCC_FLAGS.split(), HOST_FLAGS, f"-I{ROOT / 'csrc/include'}", target, "-cubin"]
    run = subprocess.run([*command, str(source), "-o", str(output)], capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"{source.name} for sm_{architecture}:\n{run.stdout}{run.stderr}")
    return output


def compile_ptx(source: Path, folder: Path) -> None:
    """Compile one .cu file to the PTX that newer architectures start from.

    Raises:
        RuntimeError: The compiler refused or warned.
    """
    command = [str(nvcc()), *NVCC_FLAGS.split(), f"-I{ROOT / 'csrc/include'}", f"-arch=compute_{ARCHITECTURES[-1]}"]
    output = folder / f"{source.stem}.ptx"
    run = subprocess.run([*command, "-ptx", str(source), "-o", str(output)], capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"{source.name} to PTX:\n{run.stdout}{run.stderr}")


def cuda_rows(architectures: Iterable[int] = ARCHITECTURES, only: str | None = None) -> list[Row]:
    """Rows of every CUDA kernel (of the .cu file named ``only``)."""
    sources = [path for path in sorted((ROOT / "csrc/cuda").glob("*.cu")) if only in (None, path.stem)]

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def rows_of(job: tuple[Path, int]) -> list[Row]:
            source, architecture = job
            rows = []
            for code in read_cubin(compile_cuda(source, architecture, folder)):
                launch = next((launch for pattern, launch in LAUNCHES.items() if re.search(pattern, code.name)), None)
                if launch is None:
                    raise RuntimeError(f"{code.name} has no launch in {__name__}.LAUNCHES; add one")
                rows.append(make_row("CUDA", code.name, code, architecture, *launch))
            return rows

        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(rows_of, [(source, a) for source in sources for a in architectures]))
            list(pool.map(lambda source: compile_ptx(source, folder), sources))
    return sorted((row for rows in found for row in rows), key=lambda row: (row.kernel, row.architecture))


def check(rows: Iterable[Row], bars: dict[str, dict[str, float]]) -> list[str]:
    """Return one sentence for each bar that a row misses, and for each bar that names no kernel.

    A bar's key is a kernel name, or ``*`` for all; its items are ``<column>_max`` and ``<column>_min``.
    """
    rows = list(rows)
    problems = [f"no kernel is called {name}" for name in bars if name != "*" and name not in {r.kernel for r in rows}]
    compare: dict[str, Callable[[float, float], bool]] = {"max": float.__le__, "min": float.__ge__}
    for row in rows:
        for item, bar in {**bars.get("*", {}), **bars.get(row.kernel, {})}.items():
            column, kind = item.rsplit("_", 1)
            value = getattr(row, column)
            if not compare[kind](float(value), float(bar)):
                problems.append(f"{row.kernel} on sm_{row.architecture}: {column} is {value}, bar {kind} {bar}")
    return problems


def render(rows: Iterable[Row], versions: str) -> str:
    """Return the table as tab-separated text: the compilers, the heads, a row a kernel and architecture."""
    lines = [f"# {versions}", "\t".join(COLUMNS)]
    for row in rows:
        cells = (
            row.source, row.kernel, row.architecture, row.registers, row.shared, row.blocks, f"{row.occupancy:.0%}",
            row.ldg128, row.stg128, row.tensor, row.async_copy, row.spilled,
        )  # fmt: skip
        lines.append("\t".join(str(cell) for cell in cells))
    return "\n".join(lines) + "\n"


def versions() -> str:
    """Compilers of the numbers, which hold for these versions alone."""
    import triton

    text = subprocess.run([str(nvcc()), "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"release \S+, V(\S+)", text)
    return f"nvcc {release[1] if release else 'unknown'}, Triton {triton.__version__}"


def main() -> int:
    """Compile everything, check the bars, and check or write the table; returns the exit code."""
    from gpu_static.triton_aot import triton_rows

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table instead of comparing it")
    options = parser.parse_args()
    rows = [*cuda_rows(), *triton_rows()]
    problems = check(rows, json.loads(BARS.read_text()))
    table = render(rows, versions())
    if options.write:
        TABLE.write_text(table)
    elif not TABLE.exists() or TABLE.read_text() != table:
        problems.append(f"{TABLE.relative_to(ROOT)} is not what these sources give; if that is meant, use --write")
    print(*problems, f"{len(rows)} kernels x architectures, {len(problems)} problems", sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
