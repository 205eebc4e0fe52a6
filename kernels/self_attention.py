"""Triton self-attention, forward and backward, on the packed projection qkv [N, tokens, 3, heads, head size].

The forward is an online softmax over blocks of keys (Dao 2023). The backward runs it again for the log-sum-exp of each
row and for delta = grad . out, then computes the gradients of queries and of keys and values in two kernels without
atomics, so that they are deterministic. Half precision only: float32 attention is the reference's.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from mrsi_fast.kernels.configs import Config


@triton.jit
def _rows(pointer, first, tokens, stride, BLOCK: tl.constexpr, HEAD: tl.constexpr):
    """BLOCK rows of a head from ``first`` on, 0 after the last token."""
    r = first + tl.arange(0, BLOCK)
    return tl.load(pointer + r[:, None] * stride + tl.arange(0, HEAD)[None, :], mask=(r < tokens)[:, None], other=0.0)


@triton.jit
def _store_rows(pointer, values, first, tokens, stride, BLOCK: tl.constexpr, HEAD: tl.constexpr):
    r = first + tl.arange(0, BLOCK)
    pointers = pointer + r[:, None] * stride + tl.arange(0, HEAD)[None, :]
    tl.store(pointers, values.to(pointer.dtype.element_ty), mask=(r < tokens)[:, None])


@triton.jit
def forward_kernel(
    qkv,  # [N, tokens, 3, heads, HEAD]
    out,  # [N, tokens, heads, HEAD], written; None with grad
    grad,  # [N, tokens, heads, HEAD] or None
    log_sum,  # [N, heads, tokens] float32, written with grad; base 2
    delta,  # [N, heads, tokens] float32, written with grad
    tokens,
    heads,
    scale_log2e,
    HEAD: tl.constexpr,  # channels of a head
    QUERIES: tl.constexpr,  # of a block
    KEYS: tl.constexpr,  # of a block
    DESCRIPTORS: tl.constexpr,  # load keys and values through tensor descriptors
):
    """Grid (query blocks, N heads). Writes ``out``; with ``grad`` instead the two vectors that the backward needs."""
    first = tl.program_id(0) * QUERIES
    head_row = tl.program_id(1)
    sample = (head_row // heads).to(tl.int64)
    head = head_row % heads
    part = heads * HEAD
    row = 3 * part
    q_pointer = qkv + sample * tokens * row + head * HEAD
    k_pointer = q_pointer + part
    v_pointer = k_pointer + part
    if DESCRIPTORS:
        keys = tl.make_tensor_descriptor(k_pointer, shape=[tokens, HEAD], strides=[row, 1], block_shape=[KEYS, HEAD])
        values = tl.make_tensor_descriptor(v_pointer, shape=[tokens, HEAD], strides=[row, 1], block_shape=[KEYS, HEAD])
    q = _rows(q_pointer, first, tokens, row, QUERIES, HEAD)
    total = tl.zeros((QUERIES, HEAD), tl.float32)
    weight = tl.zeros((QUERIES,), tl.float32)
    highest = tl.full((QUERIES,), float("-inf"), tl.float32)
    for begin in range(0, tokens, KEYS):
        if DESCRIPTORS:
            k = keys.load([begin, 0])
            v = values.load([begin, 0])
        else:
            k = _rows(k_pointer, begin, tokens, row, KEYS, HEAD)
            v = _rows(v_pointer, begin, tokens, row, KEYS, HEAD)
        s = tl.dot(q, tl.trans(k)) * scale_log2e
        s = tl.where((begin + tl.arange(0, KEYS) < tokens)[None, :], s, float("-inf"))
        new = tl.maximum(highest, tl.max(s, 1))
        keep = tl.exp2(highest - new)
        p = tl.exp2(s - new[:, None])
        weight = weight * keep + tl.sum(p, 1)
        total = total * keep[:, None] + tl.dot(p.to(v.dtype), v)
        highest = new
    total = total / weight[:, None]
    if grad is None:
        _store_rows(out + sample * tokens * part + head * HEAD, total, first, tokens, part, QUERIES, HEAD)
    else:
        g = _rows(grad + sample * tokens * part + head * HEAD, first, tokens, part, QUERIES, HEAD)
        r = first + tl.arange(0, QUERIES)
        tl.store(log_sum + head_row * tokens + r, highest + tl.log2(weight), mask=r < tokens)
        tl.store(delta + head_row * tokens + r, tl.sum(g.to(tl.float32) * total, 1), mask=r < tokens)


@triton.jit
def query_gradient_kernel(
    qkv,  # [N, tokens, 3, heads, HEAD]
    grad,  # [N, tokens, heads, HEAD]
    log_sum,  # [N, heads, tokens] float32
    delta,  # [N, heads, tokens] float32
    grad_qkv,  # [N, tokens, 3, heads, HEAD], written
    tokens,
    heads,
    scale,
    HEAD: tl.constexpr,  # channels of a head
    QUERIES: tl.constexpr,  # of a block
    KEYS: tl.constexpr,  # of a block
):
    """Grid (query blocks, N heads): dq = scale ds k with ds = p (grad v' - delta)."""
    first = tl.program_id(0) * QUERIES
    head_row = tl.program_id(1)
    sample = (head_row // heads).to(tl.int64)
    part = heads * HEAD
    row = 3 * part
    base = sample * tokens * row + head_row % heads * HEAD
    q = _rows(qkv + base, first, tokens, row, QUERIES, HEAD)
    g = _rows(grad + sample * tokens * part + head_row % heads * HEAD, first, tokens, part, QUERIES, HEAD)
    r = first + tl.arange(0, QUERIES)
    log_sums = tl.load(log_sum + head_row * tokens + r, mask=r < tokens, other=0.0)
    deltas = tl.load(delta + head_row * tokens + r, mask=r < tokens, other=0.0)
    total = tl.zeros((QUERIES, HEAD), tl.float32)
    for begin in range(0, tokens, KEYS):
        k = _rows(qkv + base + part, begin, tokens, row, KEYS, HEAD)
        v = _rows(qkv + base + 2 * part, begin, tokens, row, KEYS, HEAD)
        s = tl.dot(q, tl.trans(k)) * (scale * 1.4426950408889634)
        p = tl.exp2(s - log_sums[:, None])
        p = tl.where((begin + tl.arange(0, KEYS) < tokens)[None, :], p, 0.0)
        ds = p * (tl.dot(g, tl.trans(v)) - deltas[:, None])
        total += tl.dot(ds.to(k.dtype), k)
    _store_rows(grad_qkv + base, total * scale, first, tokens, row, QUERIES, HEAD)


@triton.jit
def key_gradient_kernel(
    qkv,  # [N, tokens, 3, heads, HEAD]
    grad,  # [N, tokens, heads, HEAD]
    log_sum,  # [N, heads, tokens] float32
    delta,  # [N, heads, tokens] float32
    grad_qkv,  # [N, tokens, 3, heads, HEAD], written
    tokens,
    heads,
    scale,
    HEAD: tl.constexpr,  # channels of a head
    QUERIES: tl.constexpr,  # of a block
    KEYS: tl.constexpr,  # of a block
):
    """Grid (key blocks, N heads): dv = p' grad and dk = scale ds' q."""
    first = tl.program_id(0) * KEYS
    head_row = tl.program_id(1)
    sample = (head_row // heads).to(tl.int64)
    part = heads * HEAD
    row = 3 * part
    base = sample * tokens * row + head_row % heads * HEAD
    grad_base = grad + sample * tokens * part + head_row % heads * HEAD
    k = _rows(qkv + base + part, first, tokens, row, KEYS, HEAD)
    v = _rows(qkv + base + 2 * part, first, tokens, row, KEYS, HEAD)
    dk = tl.zeros((KEYS, HEAD), tl.float32)
    dv = tl.zeros((KEYS, HEAD), tl.float32)
    for begin in range(0, tokens, QUERIES):
        q = _rows(qkv + base, begin, tokens, row, QUERIES, HEAD)
        g = _rows(grad_base, begin, tokens, part, QUERIES, HEAD)
        r = begin + tl.arange(0, QUERIES)
        # Rows after the last token get an infinite log-sum, hence weights of 0.
        log_sums = tl.load(log_sum + head_row * tokens + r, mask=r < tokens, other=float("inf"))
        deltas = tl.load(delta + head_row * tokens + r, mask=r < tokens, other=0.0)
        p = tl.exp2(tl.dot(k, tl.trans(q)) * (scale * 1.4426950408889634) - log_sums[None, :])
        dv += tl.dot(p.to(g.dtype), g)
        ds = p * (tl.dot(v, tl.trans(g)) - deltas[None, :])
        dk += tl.dot(ds.to(q.dtype), q)
    _store_rows(grad_qkv + base + part, dk * scale, first, tokens, row, KEYS, HEAD)
    _store_rows(grad_qkv + base + 2 * part, dv, first, tokens, row, KEYS, HEAD)


def _meta(config: Config) -> dict[str, int]:
    return {"QUERIES": config.block, "KEYS": config.keys, "num_warps": config.warps, "num_stages": config.stages}


def _allocate_scratch(bytes_wanted: int, alignment: int, stream: int | None) -> Tensor:
    """Global memory for tensor descriptors that a kernel makes itself."""
    return torch.empty(bytes_wanted, dtype=torch.int8, device="cuda")


def forward(qkv: Tensor, scale: float, out: Tensor, config: Config) -> None:
    """Fill ``out`` [N, tokens, heads, head size] with softmax(scale q k') v from ``qkv``, both dense."""
    samples, tokens, _, heads, head_size = qkv.shape
    if qkv.numel() == 0:
        return
    if config.descriptors and qkv.is_cuda:
        triton.set_allocator(_allocate_scratch)
    forward_kernel[(triton.cdiv(tokens, config.block), samples * heads)](
        qkv, out, None, None, None, tokens, heads, scale * math.log2(math.e),
        HEAD=head_size, DESCRIPTORS=config.descriptors, **_meta(config),
    )  # fmt: skip


def backward(grad: Tensor, qkv: Tensor, scale: float, config: Config) -> Tensor:
    """Gradient of ``qkv`` from ``grad`` [N, tokens, heads, head size], both dense."""
    samples, tokens, _, heads, head_size = qkv.shape
    grad_qkv = torch.empty_like(qkv)
    if qkv.numel() == 0:
        return grad_qkv
    log_sum, delta = qkv.new_empty(2, samples * heads, tokens, dtype=torch.float32)
    queries = (triton.cdiv(tokens, config.block), samples * heads)
    keys = (triton.cdiv(tokens, config.keys), samples * heads)
    forward_kernel[queries](
        qkv, None, grad, log_sum, delta, tokens, heads, scale * math.log2(math.e),
        HEAD=head_size, DESCRIPTORS=False, **_meta(config),
    )  # fmt: skip
    saved = (qkv, grad, log_sum, delta, grad_qkv, tokens, heads, scale)
    query_gradient_kernel[queries](*saved, HEAD=head_size, **_meta(config))
    key_gradient_kernel[keys](*saved, HEAD=head_size, **_meta(config))
    return grad_qkv
