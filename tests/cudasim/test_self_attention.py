"""The CUDA self-attention kernels, run on the CPU, against float64 and against PyTorch in the same type."""

from __future__ import annotations

import pytest
import torch

SCHEDULES = range(8)
DTYPES = [torch.float16, torch.bfloat16]
# (samples, tokens, heads, head size): the shipped model at 8x8 and 16x16, then odd lengths and split keys.
MODEL_SHAPES = [(2, 64, 8, 32), (1, 256, 5, 32)]
ODD_SHAPES = [(1, 1, 1, 32), (1, 63, 2, 64), (3, 65, 1, 32), (1, 100, 3, 64), (1, 300, 1, 32)]


def packed(samples: int, tokens: int, heads: int, head_size: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(tokens)
    return torch.randn(samples, tokens, 3, heads, head_size, generator=generator).to(dtype)


def attention(qkv: torch.Tensor) -> torch.Tensor:
    """Textbook softmax(q k' / sqrt(d)) v in the type of ``qkv``."""
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    weights = torch.softmax(query @ key.transpose(-1, -2) * qkv.shape[-1] ** -0.5, dim=-1)
    return (weights @ value).transpose(1, 2)


def error(out: torch.Tensor, wanted: torch.Tensor) -> float:
    return (out.double() - wanted).abs().max().item()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", MODEL_SHAPES + ODD_SHAPES, ids=str)
def test_at_most_twice_the_error_of_torch_in_the_same_type(simulator, shape, dtype):
    qkv = packed(*shape, dtype)
    wanted = attention(qkv.double())
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    same_type = torch.nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
    # One rounding of the largest result is allowed even where PyTorch happens to be exact (a single token).
    rounding = wanted.abs().max().item() * (2.0**-11 if dtype is torch.float16 else 2.0**-8)
    out = simulator.self_attention(qkv)
    assert error(out, wanted) <= max(2 * error(same_type, wanted), rounding)


@pytest.mark.gpu_static
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1024, 2, 32), (1, 1024, 1, 64), (2, 1000, 1, 64), (8, 256, 5, 32)], ids=str)
def test_long_sequences(simulator, shape, dtype):
    test_at_most_twice_the_error_of_torch_in_the_same_type(simulator, shape, dtype)


@pytest.mark.parametrize("shape", [(1, 130, 1, 32), (1, 70, 1, 64)], ids=str)
def test_bit_equal_over_thread_schedules(simulator, shape):
    qkv = packed(*shape, torch.float16)
    results = []
    for seed in SCHEDULES:
        simulator.seed(seed)
        results.append(simulator.self_attention(qkv))
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize(
    "shape, kernels",
    [((1, 256, 2, 32), 2), ((6, 256, 4, 32), 1), ((1, 64, 8, 32), 1)],
    ids=["8 blocks", "96 blocks", "one step of keys"],
)
def test_keys_are_split_over_blocks_only_when_blocks_are_few(simulator, shape, kernels):
    before = simulator.launches()
    simulator.self_attention(packed(*shape, torch.float16))
    assert simulator.launches() - before == kernels


@pytest.mark.parametrize("head_size", [32, 64])
def test_tensor_core_work_and_shared_memory_conflicts(simulator, head_size):
    tokens, heads = 128, 1
    simulator.statistics()
    simulator.self_attention(packed(1, tokens, heads, head_size, torch.float16))
    counts = simulator.statistics()
    products = 2 * heads * tokens * tokens * head_size  # q k' and weights v
    assert counts.mma == products // (16 * 8 * 16)
    assert counts.ldmatrix_wavefronts == counts.ldmatrix_ideal > 0


def test_large_scores_do_not_overflow(simulator):
    qkv = packed(1, 96, 1, 32, torch.bfloat16) * 30
    out = simulator.self_attention(qkv)
    assert out.isfinite().all()
    assert error(out, attention(qkv.double())) <= 2.0**-8 * qkv.abs().max().item()


def test_a_nan_reaches_every_row_of_its_head_and_no_other_head(simulator):
    qkv = packed(1, 200, 2, 32, torch.float16)
    qkv[0, 150, 1, 0, 3] = float("nan")  # one key of head 0
    out = simulator.self_attention(qkv)
    assert out[:, :, 0].isnan().all() and not out[:, :, 1].isnan().any()


def test_empty_inputs_and_refusals(simulator):
    before = simulator.launches()
    assert simulator.self_attention(torch.empty(0, 64, 3, 2, 32, dtype=torch.float16)).shape == (0, 64, 2, 32)
    assert simulator.self_attention(torch.empty(2, 0, 3, 2, 32, dtype=torch.float16)).shape == (2, 0, 2, 32)
    for shape, dtype in [((1, 8, 3, 2, 48), torch.float16), ((1, 8, 3, 2, 32), torch.float32)]:
        with pytest.raises(RuntimeError, match="invalid argument"):
            simulator.self_attention(torch.zeros(shape, dtype=dtype))
    assert simulator.launches() == before
