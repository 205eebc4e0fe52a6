"""Runs the Triton kernels in Triton's interpreter and prints one JSON object: case -> measured errors.

A process of its own, because TRITON_INTERPRET has to be set before Triton is imported and excludes compilation. Every
tensor lies inside a larger one filled with NaN: a load beyond its end poisons the result (the interpreter itself does
not check), and a store beyond it is found afterwards.
"""

from __future__ import annotations

import json
import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch

from mrsi_fast.kernels import group_norm_silu as norm
from mrsi_fast.kernels import self_attention as attention
from mrsi_fast.kernels.configs import Config
from mrsi_fast.ops.reference import group_norm_silu as reference

MARGIN = 4096
_guarded: list[tuple[torch.Tensor, int]] = []


def guarded(tensor: torch.Tensor) -> torch.Tensor:
    buffer = torch.full((tensor.numel() + 2 * MARGIN,), float("nan"), dtype=tensor.dtype)
    buffer[MARGIN : MARGIN + tensor.numel()] = tensor.reshape(-1)
    _guarded.append((buffer, tensor.numel()))
    return buffer[MARGIN : MARGIN + tensor.numel()].view(tensor.shape)


def guards_hold() -> bool:
    """Whether no guard was overwritten since the last call."""
    held = all(b[:MARGIN].isnan().all() and b[MARGIN + n :].isnan().all() for b, n in _guarded)
    _guarded.clear()
    return bool(held)


def comparison(result: torch.Tensor, wanted: torch.Tensor) -> dict[str, float | bool]:
    a, b = result.double().flatten(), wanted.double().flatten()
    scale = b.abs().clamp(min=1)
    return {
        "max": ((a - b).abs() / scale).max().item(),
        "l2": ((a - b).norm() / b.norm()).item(),
        "cosine": torch.nn.functional.cosine_similarity(a, b, dim=0).item(),
        "guards": guards_hold(),
    }


# name: (samples, pixels, channels, groups, block, mean, FiLM); the forward also runs with conv_bias and embedding
NORMS = {
    "8x8": (1, 64, 64, 4, 64, 0.3, True),
    "odd map": (2, 35, 48, 3, 16, 0.3, True),
    "no FiLM": (1, 50, 32, 2, 64, -0.5, False),
    "width 6": (1, 33, 18, 3, 32, 0.3, True),
    "one pixel": (2, 1, 32, 2, 16, 0.3, True),
    "mean 1000": (1, 300, 16, 1, 128, 1000.0, True),
}


def norm_inputs(name: str, dtype: torch.dtype) -> tuple:
    samples, pixels, channels, groups, block, mean, film = NORMS[name]
    generator = torch.Generator().manual_seed(pixels)

    def normal(*shape: int) -> torch.Tensor:
        return guarded(torch.randn(*shape, generator=generator).to(dtype))

    x = guarded((torch.randn(samples, pixels, channels, generator=generator) + mean).to(dtype))
    scale, shift = (normal(samples, channels), normal(samples, channels)) if film else (None, None)
    return x, normal(channels), normal(channels), groups, scale, shift, 1e-5, Config(block, warps=4)


def as_reference(x, weight, bias, groups, scale, shift, eps, config) -> tuple:
    wide = [None if t is None else t.double() for t in (x, weight, bias, scale, shift)]
    return wide[0].transpose(1, 2), wide[1], wide[2], groups, wide[3], wide[4], eps


def run_norm(name: str, dtype: torch.dtype, folded: bool = False) -> dict:
    x, *others, config = norm_inputs(name, dtype)
    y = guarded(torch.full_like(x, float("nan")))
    samples, _, channels = x.shape
    generator = torch.Generator().manual_seed(channels)
    addends = [guarded(torch.randn(s, generator=generator).to(dtype)) for s in ((channels,), (samples, channels))]
    addends = addends if folded else [None, None]
    norm.forward(x, *others, *addends, y, config)
    wide = [None if t is None else t.double() for t in addends]
    return comparison(y, reference.group_norm_silu(*as_reference(x, *others, config), *wide).transpose(1, 2))


def run_norm_backward(name: str, dtype: torch.dtype) -> dict:
    x, *others, config = norm_inputs(name, dtype)
    grad = guarded(torch.randn(x.shape, generator=torch.Generator().manual_seed(5)).to(dtype))
    results = norm.backward(grad, x, *others, config)
    inputs = as_reference(x, *others, config)
    wanted = reference.group_norm_silu_backward(grad.double().transpose(1, 2), *inputs)
    names = ("x", "weight", "bias", "scale", "shift")
    wanted = (wanted[0].transpose(1, 2), *wanted[1:])
    return {n: comparison(a, b) for n, a, b in zip(names, results, wanted, strict=True) if b.numel()}


# name: (samples, tokens, heads, head size, queries, keys, descriptors)
ATTENTIONS = {
    "8x8": (1, 64, 2, 32, 64, 64, False),
    "odd length": (2, 70, 2, 32, 64, 32, False),
    "head 64": (1, 100, 1, 64, 32, 64, False),
    "one token": (1, 1, 1, 32, 16, 16, False),
    "descriptors": (2, 90, 2, 32, 32, 64, True),
}


def attend(qkv: torch.Tensor) -> torch.Tensor:
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    weights = torch.softmax(query @ key.transpose(-1, -2) * qkv.shape[-1] ** -0.5, dim=-1)
    return (weights @ value).transpose(1, 2)


def attention_inputs(name: str, dtype: torch.dtype) -> tuple[torch.Tensor, Config]:
    samples, tokens, heads, head_size, queries, keys, descriptors = ATTENTIONS[name]
    qkv = torch.randn(samples, tokens, 3, heads, head_size, generator=torch.Generator().manual_seed(tokens))
    return guarded(qkv.to(dtype)), Config(queries, keys=keys, descriptors=descriptors)


def run_attention(name: str, dtype: torch.dtype) -> dict:
    qkv, config = attention_inputs(name, dtype)
    out = guarded(torch.full_like(qkv[:, :, 0], float("nan")).contiguous())
    attention.forward(qkv, qkv.shape[-1] ** -0.5, out, config)
    return comparison(out, attend(qkv.double()))


def run_attention_backward(name: str, dtype: torch.dtype) -> dict:
    qkv, config = attention_inputs(name, dtype)
    wide = qkv.double().requires_grad_()
    exact = attend(wide)
    grad = guarded(torch.randn(exact.shape, generator=torch.Generator().manual_seed(3)).to(dtype))
    (wanted,) = torch.autograd.grad(exact, wide, grad.double())
    result = attention.backward(grad, qkv, qkv.shape[-1] ** -0.5, config)
    return {part: comparison(result[:, :, i], wanted[:, :, i]) for i, part in enumerate("qkv")}


def main() -> None:
    torch.set_num_threads(1)
    report = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        short = str(dtype).removeprefix("torch.")
        for name in NORMS:
            if name == "mean 1000" and dtype is not torch.float32:
                continue  # such inputs have no digits left in half precision
            report[f"norm/{name}/{short}"] = run_norm(name, dtype)
            report[f"norm/{name} folded/{short}"] = run_norm(name, dtype, folded=True)
            report[f"norm backward/{name}/{short}"] = run_norm_backward(name, dtype)
    for name in ATTENTIONS:  # in float16 only: the interpreter multiplies the bit patterns of bfloat16 (Triton 3.8)
        report[f"attention/{name}/float16"] = run_attention(name, torch.float16)
        report[f"attention backward/{name}/float16"] = run_attention_backward(name, torch.float16)
    for batch, tokens in ((0, 8), (2, 0)):
        empty = torch.zeros(batch, tokens, 3, 2, 32, dtype=torch.float16)
        gradient = attention.backward(empty[:, :, 0], empty, 1.0, Config(16, keys=16))
        report[f"empty/{batch}x{tokens}"] = list(gradient.shape)
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
