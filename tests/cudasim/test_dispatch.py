"""The way from ``mrsi_fast.ops`` to the CUDA launchers, walked on the CPU: real dispatch, simulated kernels."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from mrsi_fast import ops
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.ops import _cuda, _dispatch


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_group_norm_silu_reaches_its_kernel(on_gpu, dtype):
    x = torch.randn(2, 32, 6, 5).to(dtype).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(2, 32).to(dtype)
    scale, shift = torch.randn(2, 64).to(dtype).chunk(2, dim=1)  # strided rows, as FiLM gives them
    inputs = (x, weight, bias, 2, scale, shift, 1e-5)
    assert ops.explain("group_norm_silu", *inputs).backend == "cuda"
    before = on_gpu.launches()
    result = ops.group_norm_silu(*inputs)
    assert on_gpu.launches() == before + 1
    assert result.is_contiguous(memory_format=torch.channels_last)
    wanted = ops.reference.group_norm_silu.group_norm_silu(*inputs)
    torch.testing.assert_close(result, wanted, rtol=2e-3 if dtype is torch.float16 else 1e-5, atol=1e-5)


def test_group_norm_silu_takes_what_a_plan_folds_in(on_gpu):
    x = torch.randn(2, 32, 6, 5).contiguous(memory_format=torch.channels_last)
    (weight, bias, conv_bias), embedding = torch.randn(3, 32), torch.randn(2, 32)
    inputs, folded = (x, weight, bias, 2, None, None, 1e-5), {"conv_bias": conv_bias, "embedding": embedding}
    before, out = on_gpu.launches(), torch.empty_like(x)
    torch.ops.mrsi_fast.group_norm_silu_out(*inputs, out, **folded)
    assert on_gpu.launches() == before + 1
    wanted = ops.reference.group_norm_silu.group_norm_silu(*inputs, **folded)
    torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-5)


def test_group_norm_silu_refuses_with_a_reason(on_gpu):
    x = torch.randn(2, 32, 6, 5)
    vector = torch.ones(32)
    for inputs, reason in [
        ((x, vector, vector), "not channels-last"),
        ((x.half().contiguous(memory_format=torch.channels_last), vector, vector), "cast the weights once"),
        ((x.double().contiguous(memory_format=torch.channels_last), vector.double(), vector.double()), "float64"),
        ((x.contiguous(memory_format=torch.channels_last), torch.ones(33)[1:], vector), "weight does not start"),
    ]:
        choice = ops.explain("group_norm_silu", *inputs, 2, None, None, 1e-5)
        assert choice.backend == "reference" and reason in choice.refused["cuda"]
        before = on_gpu.launches()
        ops.group_norm_silu(*inputs, 2)
        assert on_gpu.launches() == before


def test_self_attention_has_no_cuda_kernel(on_gpu):
    qkv = torch.randn(1, 64, 3, 2, 32).half()
    choice = ops.explain("self_attention", qkv, 0.2)
    assert choice.backend == "reference" and "cuda" not in choice.refused


def test_solver_step_reaches_its_kernel(on_gpu):
    acquisition = Acquisition((4, 4), (2, 2))
    modes = acquisition.modes(torch.float32, "cpu")
    tensors = [torch.randn(2, 3, 8, 8) for _ in range(4)]
    inputs = (*tensors, torch.randn(3, 4), torch.tensor([2]), modes.hr_x.contiguous(), modes.hr_y.contiguous(), None)
    before = on_gpu.launches()
    result = ops.solver_step(*inputs)
    assert on_gpu.launches() == before + 1
    torch.testing.assert_close(result, ops.reference.solver_step.solver_step(*inputs), rtol=1e-5, atol=1e-5)
    aliased = inputs[0].clone()
    torch.ops.mrsi_fast.solver_step_out(aliased, *inputs[1:], aliased)  # in place: computed beside and copied
    torch.testing.assert_close(aliased, result, rtol=1e-5, atol=1e-5)


def measured_row(**change):
    row = {
        "op": "group_norm_silu",
        "backward": False,
        "architecture": 90,
        "dtype": "float32",
        "elements": 2 * 32 * 30,
        "shape": "2x32x6x5",
        "backend": "reference",
        "microseconds": {"cuda": 4.0, "reference": 3.0},
    }
    return {**row, **change}


@pytest.mark.parametrize(
    "change, backend, against",
    [
        ({}, "reference", "cuda: fastest on sm_90 at 2x32x6x5 in float32 (cuda 4.0 us, reference 3.0 us)"),
        ({"elements": 2 * 32 * 30 * 3}, "reference", "fastest on sm_90"),
        ({"elements": 2 * 32 * 30 * 5}, "cuda", ""),  # too far away to speak for this size
        ({"architecture": 80}, "cuda", ""),
        ({"dtype": "float16"}, "cuda", ""),
        ({"backward": True}, "cuda", ""),
        ({"op": "self_attention"}, "cuda", ""),
    ],
    ids=str,
)
def test_a_measured_choice_holds_for_its_architecture_dtype_and_size(
    on_gpu, monkeypatch, tmp_path, change, backend, against
):
    table = tmp_path / "choices.json"
    table.write_text(json.dumps({"rows": [measured_row(**change)]}))
    monkeypatch.setattr(_cuda, "MEASURED", table)
    monkeypatch.setattr(_cuda, "architecture", lambda device: 90)
    x, (weight, bias) = torch.randn(2, 32, 6, 5).contiguous(memory_format=torch.channels_last), torch.randn(2, 32)
    inputs = (x, weight, bias, 2, None, None, 1e-5)
    choice = ops.explain("group_norm_silu", *inputs)
    assert choice.backend == backend and against in str(choice)
    with ops.override("cuda"):  # a pin stands above the table
        assert ops.explain("group_norm_silu", *inputs).backend == "cuda"


@pytest.mark.parametrize("backward, taken", [(False, "cuda"), (True, "triton")])
def test_every_backend_that_is_not_taken_has_its_reason(on_gpu, monkeypatch, backward, taken):
    both = [one for one in _dispatch._implementations["group_norm_silu"] if one.backend != "native"]
    able = tuple(dataclasses.replace(one, lacks=lambda: None) for one in both)
    monkeypatch.setitem(_dispatch._implementations, "group_norm_silu", able)
    monkeypatch.setattr(_dispatch, "SERVES", {"cuda": "cpu", "triton": "cpu"})
    x, (weight, bias) = torch.randn(2, 32, 6, 5).contiguous(memory_format=torch.channels_last), torch.randn(2, 32)
    choice = ops.explain("group_norm_silu", x, weight, bias, 2, None, None, 1e-5, backward=backward)
    assert choice.backend == taken
    wanted = "it has no backward kernel" if backward else "cuda is preferred, one kernel where PyTorch runs four"
    assert choice.refused == {"cuda" if backward else "triton": wanted}


def test_the_committed_table_of_choices_can_be_read():
    assert isinstance(_cuda.measured_choices(_cuda.MEASURED), dict)
    assert set(_cuda.PREFERRED) >= {("self_attention", False), ("group_norm_silu", True)}
