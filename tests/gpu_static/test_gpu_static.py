"""The static bars: the rules catch faults, the committed table keeps them, and (gpu_static) the whole build."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from gpu_static import table
from gpu_static.sass import KernelCode
from gpu_static.table import ARCHITECTURES, Row, check, render
from support.cuda_tools import ToolMissingError, cuobjdump, nvcc

GOOD = Row("CUDA", "kernel<half>", 80, 256, 40, 1024, 6, 4, 2, 0, 0, 0, 0, 0)
RULES = {"*": {"spilled_max": 0}, "kernel<half>": {"registers_max": 40, "ldg128_min": 4}}


@pytest.fixture
def tools() -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    try:
        nvcc(), cuobjdump()
    except ToolMissingError as error:
        pytest.skip(str(error))


def test_bars_report_what_misses_them():
    assert check([GOOD], RULES) == []
    for change, text in [
        ({"spilled": 8}, "spilled is 8"),
        ({"registers": 41}, "registers is 41"),
        ({"ldg128": 3}, "ldg128"),
    ]:
        (problem,) = check([dataclasses.replace(GOOD, **change)], RULES)
        assert text in problem and "sm_80" in problem
    assert check([GOOD], {**RULES, "gone": {}}) == ["no kernel is called gone"]


def test_names_are_readable():
    symbol = "_ZN9mrsi_fast28group_norm_silu_fused_kernelI6__halfLi8EEEvNS_22GroupNormSiLUArgumentsIT_EE"
    assert KernelCode(symbol, 1, 0, 0, 0, 0, {}).name == "group_norm_silu_fused_kernel<half, 8>"


def test_the_committed_table_covers_every_kernel_and_architecture_without_spills():
    rows = re.findall(r"^(CUDA|Triton)\t(.*?)\t(\d+)\t.*\t(\d+)$", table.TABLE.read_text(), re.M)
    kernels = {kernel for _, kernel, _, _ in rows}
    assert {(kernel, str(sm)) for kernel in kernels for sm in ARCHITECTURES} == {(k, sm) for _, k, sm, _ in rows}
    assert set(json.loads(table.BARS.read_text())) - {"*"} <= kernels
    assert all(spills == "0" for *_, spills in rows)


def test_the_table_is_rendered_from_the_rows():
    text = render([GOOD], "compilers")
    compilers, heads, row = text.splitlines()
    assert compilers == "# compilers" and len(heads.split("\t")) == len(row.split("\t"))
    assert row.split("\t") == ["CUDA", "kernel<half>", "80", "40", "1024", "6", "75%", "4", "2", "0", "0", "0"]


@pytest.mark.gpu_static
def test_planted_faults_in_machine_code_are_seen(tools, tmp_path):
    source = tmp_path / "planted.cu"
    source.write_text(
        "__global__ void double_precision_kernel(double* x) { x[threadIdx.x] *= 3.0; }\n"
        "__global__ void float_atomic_kernel(float* x) { atomicAdd(x, x[threadIdx.x + 1]); }\n"
        "__global__ void scalar_loads_kernel(const short* x, short* y) { y[threadIdx.x] = x[threadIdx.x] + 1; }\n"
    )
    codes = {code.name: code for code in table.read_cubin(table.compile_cuda(source, 90, tmp_path))}
    assert codes["double_precision_kernel"].counts["float64"] > 0
    assert codes["float_atomic_kernel"].counts["float_atomic"] > 0
    assert codes["scalar_loads_kernel"].counts["ldg128"] == 0
    source.write_text(
        "__global__ void indexed_array(float* x, int i) {\n"
        "  float a[64];\n"
        "  for (int k = 0; k < 64; ++k) a[k] = x[k];\n"
        "  for (int k = 0; k < 64; ++k) a[(k * i) & 63] += a[k];\n"
        "  x[i] = a[i & 63];\n"
        "}\n"
    )
    with pytest.raises(RuntimeError, match="(?i)local memory|stack"):
        table.compile_cuda(source, 90, tmp_path)


@pytest.mark.gpu_static
def test_everything_compiles_within_its_bars_and_gives_the_committed_table(tools, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["gpu_static"])
    assert table.main() == 0, capsys.readouterr().out
