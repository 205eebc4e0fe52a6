"""self_attention: the reference against the textbook and float64, its contract with torch, and what kernels refuse."""

from __future__ import annotations

import pytest
import torch

from mrsi_fast import ops
from mrsi_fast.ops import _native, self_attention
from support.compare import assert_as_accurate
from support.kernels import usable_isas, using

ISAS = usable_isas()

OP = torch.ops.mrsi_fast.self_attention.default
OUT = torch.ops.mrsi_fast.self_attention_out.default


def textbook(qkv: torch.Tensor, scale: float) -> torch.Tensor:
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    return (torch.softmax(scale * query @ key.transpose(-1, -2), -1) @ value).transpose(1, 2)


def check(result: torch.Tensor, qkv: torch.Tensor, scale: float) -> None:
    """Against float64, with the textbook in float32 as the yardstick; a mean of values is a sum of weighted ones."""
    sizes = qkv.double().clone()
    sizes[:, :, 2] = sizes[:, :, 2].abs()
    assert_as_accurate(result, textbook(qkv, scale), textbook(qkv.double(), scale), terms=textbook(sizes, scale))


@pytest.mark.parametrize("shape", [(2, 64, 3, 8, 32), (1, 1, 3, 1, 4), (3, 7, 3, 2, 5), (0, 4, 3, 1, 8)], ids=str)
def test_equals_the_textbook(shape):
    qkv = torch.randn(shape)
    result = self_attention(qkv)
    assert result.is_contiguous() and result.dtype == torch.float32
    check(result, qkv, shape[-1] ** -0.5)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", [(2, 256, 3, 2, 32), (1, 300, 3, 1, 33), (3, 17, 3, 5, 8), (1, 1, 3, 1, 1)], ids=str)
def test_every_instruction_set_equals_the_textbook(shape, isa):
    """Above 256 keys the softmax goes through blocks; large scores would overflow one not relative to the largest."""
    torch.manual_seed(0)
    qkv = 6 * torch.randn(shape)
    with using(isa):
        result = self_attention(qkv, 0.5)
    check(result, qkv, 0.5)


@pytest.mark.skipif(not ISAS, reason=_native.reason())
def test_the_cpu_kernel_says_what_it_does_not_take():
    qkv = torch.zeros(2, 16, 3, 2, 32)
    assert ops.explain("self_attention", qkv, 1.0).backend == "native"
    assert "float32" in str(ops.explain("self_attention", qkv.double(), 1.0))
    assert "not contiguous" in str(ops.explain("self_attention", qkv.transpose(0, 1), 1.0))
    assert "no backward" in str(ops.explain("self_attention", qkv, 1.0, backward=True))


@pytest.mark.skipif(not ISAS, reason=_native.reason())
def test_nan_stays_in_its_image():
    qkv = torch.randn(2, 20, 3, 2, 8)
    qkv[1, 3] = torch.nan
    result = self_attention(qkv)
    assert result[1].isnan().all() and not result[0].isnan().any()


def test_strided_input_scale_and_out_form():
    qkv = torch.randn(2, 3, 10, 2, 8).transpose(1, 2)
    check(self_attention(qkv, 0.3), qkv, 0.3)
    out = torch.full((2, 10, 2, 8), float("nan"))
    OUT(qkv, 0.3, out)
    check(out, qkv, 0.3)


def test_gradients_and_contract_with_torch():
    qkv = torch.randn(2, 5, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: self_attention(x, 0.4), (qkv,))
    torch.library.opcheck(OP, (qkv, 0.4))
    torch.library.opcheck(OP, (qkv.detach().float().transpose(0, 1), 0.4))
    torch.library.opcheck(OUT, (qkv.detach(), 0.4, torch.empty(2, 5, 2, 4, dtype=torch.float64)))
    (grad,) = torch.autograd.grad(self_attention(qkv).sum(), qkv, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"\[B, T, 3, H, D\]"):
        self_attention(torch.zeros(2, 5, 2, 4))
    with pytest.raises(ValueError, match="floating point"):
        self_attention(torch.zeros(1, 4, 3, 1, 8, dtype=torch.int64))


def test_what_the_gpu_kernels_refuse():
    from mrsi_fast.ops.self_attention import _refuse_triton

    good = torch.zeros(2, 16, 3, 2, 32, dtype=torch.float16)
    assert _refuse_triton(good, 1.0) is None
    assert "float32" in _refuse_triton(good.float(), 1.0)
    assert "48" in _refuse_triton(torch.zeros(1, 4, 3, 2, 48, dtype=torch.float16), 1.0)
    assert "contiguous" in _refuse_triton(good.transpose(0, 1), 1.0)
    shifted = torch.zeros(good.numel() + 1, dtype=torch.float16)[1:].view(good.shape)
    assert "16 bytes" in _refuse_triton(shifted, 1.0)
    assert "disabled" not in str(ops.explain("self_attention", good, 1.0))
