"""Faults planted in the kernels, each of which the simulator has to report: proof that a green run means something."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
NORM = ("group_norm_silu.cu", "include/mrsi_fast/group_norm_silu.cuh")
SOLVER = ("solver_step.cu", "include/mrsi_fast/solver_step.cuh")
REPORTED = [
    (0, "deadlock|__syncthreads after 48 threads returned"),
    (1, "meet at different __syncthreads"),
    (2, "deadlock"),
    (3, "the calling lane is not in its mask"),
    (4, "reads a lane outside its mask"),
]


@pytest.fixture(scope="module")
def helpers():
    spec = importlib.util.spec_from_file_location("cudasim_conftest", HERE / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def faults(helpers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    return helpers.Simulator(helpers.compile_library(folder, "-O1", sources=[HERE / "faults.cu"]))


@pytest.fixture(scope="module")
def run_fault(helpers, faults):
    def run(index: int, seed: int) -> torch.Tensor:
        out = torch.zeros(64)
        faults.seed(seed)
        faults.check(faults.library.cudasim_run_fault(index, ctypes.c_void_p(helpers.address(out))))
        return out

    return run


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("index, message", REPORTED)
def test_broken_collectives_are_errors_under_every_schedule(run_fault, index, message, seed):
    with pytest.raises(RuntimeError, match=message):
        run_fault(index, seed)


def test_a_shared_memory_race_changes_with_the_schedule(run_fault):
    results = [run_fault(5, seed) for seed in range(8)]
    assert any(not torch.equal(results[0], other) for other in results[1:])


def test_unwritten_shared_memory_reads_as_nan(run_fault):
    assert run_fault(6, 0).isnan().all()


@pytest.mark.gpu_static
def test_a_store_beyond_shared_memory_is_seen_by_the_address_sanitizer(helpers, sanitized):
    def build(folder, *options):
        return helpers.compile_library(folder, *options, sources=[HERE / "faults.cu"])

    call = (
        "out = torch.zeros(64)\nsimulator.library.cudasim_run_fault(7, conftest.ctypes.c_void_p(conftest.address(out)))"
    )
    run = sanitized(build, call)
    assert run.returncode != 0
    assert "heap-buffer-overflow" in run.stderr and "store_beyond_shared_memory" in run.stderr


def results_over_schedules(simulator, call) -> list[torch.Tensor]:
    results = []
    for seed in range(8):
        simulator.seed(seed)
        results.append(call())
    return results


def normalise(simulator):
    x = torch.randn(1, 600, 32, generator=torch.Generator().manual_seed(1)).half()
    vector = torch.ones(32).half()
    return lambda: simulator.group_norm_silu(x, vector, vector, 2)


def project(simulator):
    generator = torch.Generator().manual_seed(1)
    base, now, prev = torch.randn(3, 2, 32, 32, generator=generator)
    bases = tuple(torch.linalg.qr(torch.randn(32, 8, generator=generator))[0].T.contiguous() for _ in range(2))
    coefficients = torch.tensor([[0.7, 0.4, -0.1, 0.0]])
    return lambda: simulator.solver_step(base, now, prev, None, coefficients, 0, bases)


@pytest.mark.gpu_static
@pytest.mark.parametrize(
    "fault, call",
    [
        ((*SOLVER, "store_half);\n    __syncthreads();\n\n    for", "store_half);\n\n    for"), project),
        ((*SOLVER, "sum;\n    }\n    __syncthreads();", "sum;\n    }"), project),
        ((*SOLVER, "store_half);\n    __syncthreads();\n\n    small", "store_half);\n\n    small"), project),
        ((*NORM, "__syncthreads();  // the sum", "// the sum"), normalise),
        ((*NORM, "packet.store(tile + p * width);", "packet.store(tile + p % 2 * width);"), normalise),
    ],
    ids=["no barrier after Qx v", "no barrier after the modes", "no barrier before the update"]
    + ["no barrier in sum", "shared slot"],
)
def test_a_fault_in_a_kernel_shows_in_its_results(mutant, fault, call):
    broken = mutant(*fault)
    results = results_over_schedules(broken, call(broken))
    differ = any(not torch.equal(results[0], other) for other in results[1:])
    assert differ or any(r.isnan().any() for r in results) or max(r.abs().max() for r in results) > 0.1


@pytest.mark.gpu_static
@pytest.mark.parametrize(
    "fault, call",
    [
        (
            (*SOLVER, "if (second > first) store(second", "store(second > first ? second : rows"),
            "simulator.solver_step(*torch.zeros(3, 1, 7, 8), None, torch.ones(1, 4), 0, "
            "(torch.zeros(3, 7), torch.zeros(3, 8)))",
        ),
        (
            (*NORM, "for (; p < end; p += step) use", "for (; p <= end; p += step) use"),
            "simulator.group_norm_silu(torch.zeros(1, 65, 16), torch.ones(16), torch.ones(16), 1)",
        ),
    ],
    ids=["solver step stores a row too many", "group norm loads a row too many"],
)
def test_stepping_out_of_a_tensor_is_seen_by_the_address_sanitizer(helpers, sanitized, fault, call):
    run = sanitized(lambda folder, *options: helpers.plant(folder, *fault, *options), call)
    assert run.returncode != 0
    assert "heap-buffer-overflow" in run.stderr


@pytest.mark.gpu_static
def test_the_kernels_are_clean_under_the_sanitizers(helpers, sanitized):
    run = sanitized(
        helpers.compile_library,
        "for seed in (0, 5):\n"
        "    simulator.seed(seed)\n"
        "    for dtype in (torch.float32, torch.float16, torch.bfloat16):\n"
        "        for pixels, channels, groups in ((65, 96, 6), (33, 6, 3), (4000, 32, 2)):\n"
        "            x = torch.randn(1, pixels, channels).to(dtype)\n"
        "            v = torch.randn(channels).to(dtype)\n"
        "            w = torch.randn(1, channels).to(dtype)\n"
        "            simulator.group_norm_silu(x, v, v, groups, w, w, v, w)\n"
        "    coefficients = torch.randn(2, 4)\n"
        "    for width, height, rank_x, rank_y in ((32, 32, 8, 8), (7, 9, 3, 5), (1, 1, 1, 1), (12, 20, 0, 0)):\n"
        "        state = torch.randn(4, 3, width, height)\n"
        "        bases = (torch.randn(rank_x, width), torch.randn(rank_y, height)) if rank_x else (None, None)\n"
        "        kept = torch.ones(rank_x, rank_y) if rank_x else None\n"
        "        simulator.solver_step(*state, coefficients, 1, bases, kept)\n"
        "print('clean')\n",
    )
    assert run.returncode == 0 and run.stdout.strip() == "clean", run.stderr[-3000:]
