"""Instructions of the C++ kernels, counted by callgrind: compared without need of a quiet machine."""

from __future__ import annotations

import pytest

from harness.instructions import KERNELS, CannotCount, count


@pytest.mark.parametrize("kernel", KERNELS)
def bench_instructions(request, benchmark, counted, kernel):
    try:
        instructions = count(kernel)
    except CannotCount as reason:
        counted.missing[request.node.name] = str(reason)
        pytest.skip(str(reason))
    counted.instructions[kernel] = instructions
    benchmark.extra_info["instructions"] = instructions
    benchmark.pedantic(lambda: None, rounds=1, iterations=1)
