"""Triton group_norm_silu, forward and backward, over channels-last maps viewed as [N, pixels, C].

One program owns one (sample, group). Statistics are two-pass on values shifted by a pivot, the group's first value, so
that a mean far above the standard deviation costs no digits (the same scheme as csrc/include/mrsi_fast). The backward
recomputes them, which costs two reads from L2 and saves nothing between the passes. No atomics: deterministic.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mrsi_fast.kernels.configs import Config


@triton.jit
def _tile(pointer, pixels, first, channels, WIDTH: tl.constexpr, BLOCK: tl.constexpr, PAD: tl.constexpr):
    """Offsets and mask of BLOCK pixels from ``first`` on, WIDTH channels padded to a power of two."""
    p = first + tl.arange(0, BLOCK)[:, None]
    c = tl.arange(0, PAD)[None, :]
    return pointer + p * channels + c, (p < pixels) & (c < WIDTH)


@triton.jit
def _shifted(x, addend, pivot, pixels, first, channels, WIDTH: tl.constexpr, BLOCK: tl.constexpr, PAD: tl.constexpr):
    """Values of a tile relative to the pivot, plus the addend of their channel; 0 outside the map."""
    pointers, mask = _tile(x, pixels, first, channels, WIDTH, BLOCK, PAD)
    values = tl.load(pointers, mask=mask, other=0.0).to(tl.float32) - pivot
    if addend is not None:
        values += addend[None, :]
    return tl.where(mask, values, 0.0), mask


@triton.jit
def _addend(conv_bias, embedding, row, first, WIDTH: tl.constexpr, PAD: tl.constexpr):
    """What is added to a group's channels before the normalisation, relative to its first channel's."""
    c = tl.arange(0, PAD)
    mask = c < WIDTH
    addend = tl.zeros((PAD,), tl.float32)
    if conv_bias is not None:
        addend += tl.load(conv_bias + first + c, mask=mask, other=0.0).to(tl.float32)
    if embedding is not None:
        addend += tl.load(embedding + row + first + c, mask=mask, other=0.0).to(tl.float32)
    return addend - tl.sum(tl.where(c == 0, addend, 0.0), 0)


@triton.jit
def _statistics(x, addend, pixels, channels, eps, WIDTH: tl.constexpr, BLOCK: tl.constexpr, PAD: tl.constexpr):
    """Pivot, mean relative to it, and 1 / sqrt(variance + eps) of a group."""
    pivot = tl.load(x).to(tl.float32)
    total = tl.zeros((BLOCK, PAD), tl.float32)
    for first in range(0, pixels, BLOCK):
        d, _ = _shifted(x, addend, pivot, pixels, first, channels, WIDTH, BLOCK, PAD)
        total += d
    count = (pixels * WIDTH).to(tl.float32)
    mean = tl.sum(tl.sum(total, 1), 0) / count
    squares = tl.zeros((BLOCK, PAD), tl.float32)
    for first in range(0, pixels, BLOCK):
        d, mask = _shifted(x, addend, pivot, pixels, first, channels, WIDTH, BLOCK, PAD)
        deviation = tl.where(mask, d - mean, 0.0)
        squares += deviation * deviation
    variance = tl.sum(tl.sum(squares, 1), 0) / count
    return pivot, mean, 1.0 / tl.sqrt_rn(variance + eps)


@triton.jit
def _vectors(weight, bias, scale, shift, row, first, WIDTH: tl.constexpr, PAD: tl.constexpr):
    """Gain and offset of a group's channels: weight (1 + scale) and bias (1 + scale) + shift."""
    c = tl.arange(0, PAD)
    mask = c < WIDTH
    gain = tl.load(weight + first + c, mask=mask, other=0.0).to(tl.float32)
    offset = tl.load(bias + first + c, mask=mask, other=0.0).to(tl.float32)
    if scale is not None:
        film = 1.0 + tl.load(scale + row + first + c, mask=mask, other=0.0).to(tl.float32)
        gain *= film
        offset *= film
    if shift is not None:
        offset += tl.load(shift + row + first + c, mask=mask, other=0.0).to(tl.float32)
    return gain, offset


@triton.jit
def forward_kernel(
    x,  # [N, pixels, C]
    weight,  # [C]
    bias,  # [C]
    scale,  # [N, C] or None
    shift,  # [N, C] or None
    conv_bias,  # [C] or None
    embedding,  # [N, C] or None
    y,  # [N, pixels, C], written
    pixels,
    channels,
    eps,
    WIDTH: tl.constexpr,  # channels of a group
    BLOCK: tl.constexpr,  # pixels of a step
    PAD: tl.constexpr,  # WIDTH rounded up to a power of two
):
    """Grid (groups, N)."""
    first_channel = tl.program_id(0) * WIDTH
    sample = tl.program_id(1)
    row = sample * channels
    origin = sample.to(tl.int64) * pixels * channels + first_channel
    addend = None
    if conv_bias is not None or embedding is not None:
        addend = _addend(conv_bias, embedding, row, first_channel, WIDTH, PAD)
    pivot, mean, inverse = _statistics(x + origin, addend, pixels, channels, eps, WIDTH, BLOCK, PAD)
    gain, offset = _vectors(weight, bias, scale, shift, row, first_channel, WIDTH, PAD)
    for first in range(0, pixels, BLOCK):
        d, mask = _shifted(x + origin, addend, pivot, pixels, first, channels, WIDTH, BLOCK, PAD)
        t = (d - mean) * inverse * gain[None, :] + offset[None, :]
        pointers, _ = _tile(y + origin, pixels, first, channels, WIDTH, BLOCK, PAD)
        tl.store(pointers, (t * tl.sigmoid(t)).to(y.dtype.element_ty), mask=mask)


@triton.jit
def _derivative(
    x, grad, pivot, mean, inverse, gain, offset, pixels, first, channels,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, PAD: tl.constexpr,
):  # fmt: skip
    """The normalised value and the gradient before SiLU, dv = grad silu'(v), of a tile; 0 outside the map."""
    d, mask = _shifted(x, None, pivot, pixels, first, channels, WIDTH, BLOCK, PAD)
    xhat = tl.where(mask, (d - mean) * inverse, 0.0)
    v = xhat * gain[None, :] + offset[None, :]
    sigmoid = tl.sigmoid(v)
    pointers, _ = _tile(grad, pixels, first, channels, WIDTH, BLOCK, PAD)
    g = tl.load(pointers, mask=mask, other=0.0).to(tl.float32)
    return xhat, g * sigmoid * (1.0 + v * (1.0 - sigmoid)), mask


@triton.jit
def backward_kernel(
    grad,  # [N, pixels, C]
    x,  # [N, pixels, C]
    weight,  # [C]
    bias,  # [C]
    scale,  # [N, C] or None
    shift,  # [N, C] or None
    grad_x,  # [N, pixels, C], written
    sum_dv,  # [N, C] float32, written
    sum_dv_xhat,  # [N, C] float32, written
    pixels,
    channels,
    eps,
    WIDTH: tl.constexpr,  # channels of a group
    BLOCK: tl.constexpr,  # pixels of a step
    PAD: tl.constexpr,  # WIDTH rounded up to a power of two
):
    """Grid (groups, N): grad_x, and per sample and channel the sums over pixels of dv and dv xhat."""
    first_channel = tl.program_id(0) * WIDTH
    sample = tl.program_id(1)
    row = sample * channels
    origin = sample.to(tl.int64) * pixels * channels + first_channel
    pivot, mean, inverse = _statistics(x + origin, None, pixels, channels, eps, WIDTH, BLOCK, PAD)
    gain, offset = _vectors(weight, bias, scale, shift, row, first_channel, WIDTH, PAD)

    total = tl.zeros((BLOCK, PAD), tl.float32)
    total_xhat = tl.zeros((BLOCK, PAD), tl.float32)
    for first in range(0, pixels, BLOCK):
        xhat, dv, _ = _derivative(
            x + origin, grad + origin, pivot, mean, inverse, gain, offset, pixels, first, channels, WIDTH, BLOCK, PAD
        )
        total += dv
        total_xhat += dv * xhat
    channel_dv = tl.sum(total, 0)
    channel_dv_xhat = tl.sum(total_xhat, 0)
    c = tl.arange(0, PAD)
    tl.store(sum_dv + row + first_channel + c, channel_dv, mask=c < WIDTH)
    tl.store(sum_dv_xhat + row + first_channel + c, channel_dv_xhat, mask=c < WIDTH)

    count = (pixels * WIDTH).to(tl.float32)
    mean_kdv = tl.sum(gain * channel_dv, 0) / count
    mean_kdv_xhat = tl.sum(gain * channel_dv_xhat, 0) / count
    for first in range(0, pixels, BLOCK):
        xhat, dv, mask = _derivative(
            x + origin, grad + origin, pivot, mean, inverse, gain, offset, pixels, first, channels, WIDTH, BLOCK, PAD
        )
        dx = inverse * (gain[None, :] * dv - mean_kdv - xhat * mean_kdv_xhat)
        pointers, _ = _tile(grad_x + origin, pixels, first, channels, WIDTH, BLOCK, PAD)
        tl.store(pointers, dx.to(grad_x.dtype.element_ty), mask=mask)


def _meta(x: Tensor, groups: int, config: Config) -> dict[str, int]:
    width = x.shape[2] // groups
    return {
        "WIDTH": width,
        "BLOCK": config.block,
        "PAD": triton.next_power_of_2(width),
        "num_warps": config.warps,
        "num_stages": config.stages,
    }


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
    conv_bias: Tensor | None,
    embedding: Tensor | None,
    y: Tensor,
    config: Config,
) -> None:
    """Fill ``y`` from ``x``, both [N, pixels, C] and dense.

    ``weight``, ``bias`` and ``conv_bias`` have shape [C]; ``scale``, ``shift`` and ``embedding`` [N, C].
    """
    samples, pixels, channels = x.shape
    if x.numel() == 0:
        return
    forward_kernel[(groups, samples)](
        x, weight, bias, scale, shift, conv_bias, embedding, y, pixels, channels, eps, **_meta(x, groups, config)
    )


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
    config: Config,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias, scale and shift (empty where absent); ``grad`` and ``x`` [N, pixels, C], dense.

    ``backward_kernel`` leaves the sums over pixels; what remains are sums over N samples of C values.
    """
    samples, pixels, channels = x.shape
    grad_x = torch.empty_like(x)
    dv, dv_xhat = x.new_empty(2, samples, channels, dtype=torch.float32)
    backward_kernel[(groups, samples)](
        grad, x, weight, bias, scale, shift, grad_x, dv, dv_xhat, pixels, channels, eps, **_meta(x, groups, config)
    )
    film = 1.0 if scale is None else 1.0 + scale.float()
    empty = x.new_empty(0)
    return (
        grad_x,
        (film * dv_xhat).sum(0).to(weight.dtype),
        (film * dv).sum(0).to(bias.dtype),
        empty if scale is None else (weight.float() * dv_xhat + bias.float() * dv).to(scale.dtype),
        empty if shift is None else dv.to(shift.dtype),
    )
