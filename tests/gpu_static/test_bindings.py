"""The way from ``mrsi_fast.ops`` through the compiled bindings up to the launch, which ends there without a driver."""

from __future__ import annotations

import contextlib

import pytest
import torch

from mrsi_fast import ops
from mrsi_fast.ops import _cuda, _dispatch, _native

X = torch.randn(2, 32, 6, 5).contiguous(memory_format=torch.channels_last)
VECTOR, FILM = torch.ones(32), torch.zeros(2, 32)


@pytest.fixture(autouse=True)
def up_to_the_launch(monkeypatch):
    reason = _native.lacks("cuda_group_norm_silu")
    if reason:
        pytest.skip(reason)
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here: tests/gpu goes further")
    monkeypatch.setattr(_cuda, "launching", lambda device: contextlib.nullcontext(0))
    monkeypatch.setattr(_dispatch, "SERVES", {"native": "none", "cuda": "cpu", "triton": "none"})


@pytest.mark.parametrize(
    "name, call",
    [
        ("group_norm_silu", lambda: ops.group_norm_silu(X, VECTOR, VECTOR, 2, FILM, FILM)),
        (
            "group_norm_silu",
            lambda: torch.ops.mrsi_fast.group_norm_silu_out(
                X, VECTOR, VECTOR, 2, None, None, 1e-5, torch.empty_like(X), conv_bias=VECTOR, embedding=FILM
            ),
        ),
        ("solver_step", lambda: ops.solver_step(X, X, None, None, torch.zeros(1, 4), torch.zeros(1).long())),
    ],
    ids=["group_norm_silu", "group_norm_silu_out", "solver_step"],
)
def test_a_launch_without_a_driver_is_an_error_that_names_the_operation(name, call, monkeypatch):
    contiguous = X.contiguous()
    monkeypatch.setattr(f"{__name__}.X", contiguous if name == "solver_step" else X)
    with ops.override("cuda"), pytest.raises(RuntimeError, match=f"{name}: the CUDA launch failed: .*driver"):
        call()


def test_empty_inputs_launch_nothing():
    before = _native.module().cuda_launch_count()
    with ops.override("cuda"):
        assert ops.group_norm_silu(X[:0], VECTOR, VECTOR, 2).shape == (0, 32, 6, 5)
    assert _native.module().cuda_launch_count() == before
