"""Counted instructions of the kernels: repeatable, and every kernel can be called."""

from __future__ import annotations

import pytest

from harness import instructions
from harness.instructions import KERNELS, CannotCount, count
from mrsi_fast.ops import _native


@pytest.mark.skipif(_native.module() is None, reason="the compiled extension is not there")
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_can_be_called(kernel):
    KERNELS[kernel][1](_native.module())()


@pytest.mark.slow
def test_counts_are_repeatable():
    if (reason := instructions.obstacle()) is not None:
        pytest.skip(reason)
    first = count("conv3x3_gn_silu direct 32to32 8x8")
    assert first > 8 * 8 * 32 * 32 * 9 / 16  # no fewer than its multiply-adds at 16 lanes
    assert count("conv3x3_gn_silu direct 32to32 8x8") == first


def test_without_valgrind_the_reason_is_told(monkeypatch):
    monkeypatch.setattr(instructions.shutil, "which", lambda name: None)
    with pytest.raises(CannotCount, match="valgrind is not installed"):
        count("self_attention 16x16 5x32")
