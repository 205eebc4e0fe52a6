"""The cases of single operations: our kernels, PyTorch in two layouts, its compiler, vendor kernels."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpu.case import OWN, Case
from gpu.target import Peer, Target
from mrsi_fast import ops
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.ops.reference.solver_step import solver_step as solver_reference
from support.shapes import MapShape

HALVES = (torch.float16, torch.bfloat16)
DTYPES = (torch.float32, *HALVES)
TOKENS = ((8, 256, 5, 32), (8, 64, 8, 32))
COMPILED = "max-autotune-no-cudagraphs"  # the benchmark's own graph holds the calls


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def pinned(
    backend: str, function: Callable[..., Any], make: Callable[[Target], tuple]
) -> Callable[[Target, int], Peer]:
    """``function`` on fresh inputs, served by one backend of ours."""

    def build(target: Target, sets: int) -> Peer:
        inputs = [make(target) for _ in range(sets)]

        def call(index: int) -> Any:
            with ops.override(backend):
                return function(*inputs[index])

        return call

    return build


def plain(
    function: Callable[..., Any], make: Callable[[Target], tuple], compiled: bool = False
) -> Callable[[Target, int], Peer]:
    """``function`` on fresh inputs, as it is or compiled."""

    def build(target: Target, sets: int) -> Peer:
        inputs = [make(target) for _ in range(sets)]
        run = target.compiled(function, COMPILED) if compiled else function
        return lambda index: run(*inputs[index])

    return build


def group_norm_silu_cases(maps: tuple[MapShape, ...]) -> Iterator[Case]:
    """Forward in three types, backward in one, channels-last, with FiLM as in the second norm of a block."""
    for shape in maps:
        for dtype in DTYPES:
            yield _norm_case(shape, dtype)
        yield _norm_backward_case(shape, torch.float32)


def _norm_inputs(target: Target, shape: MapShape, dtype: torch.dtype, layout: torch.memory_format) -> tuple:
    draw = torch.Generator().manual_seed(0)  # every peer and every set gets the same numbers

    def normal(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=draw).to(target.device, dtype)

    x = normal(*shape.size).contiguous(memory_format=layout)
    films = (0.3 * normal(shape.batch, shape.channels), 0.3 * normal(shape.batch, shape.channels))
    return x, 1 + 0.1 * normal(shape.channels), normal(shape.channels), shape.groups, *films, 1e-5


def _eager_norm(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, scale: Tensor, shift: Tensor, eps: float
) -> Tensor:
    y = F.group_norm(x, groups, weight, bias, eps)
    return F.silu(y * (1 + scale[:, :, None, None]) + shift[:, :, None, None])


def _norm_case(shape: MapShape, dtype: torch.dtype) -> Case:
    last, first = (
        functools.partial(_norm_inputs, shape=shape, dtype=dtype, layout=layout)
        for layout in (torch.channels_last, torch.contiguous_format)
    )
    peers = {backend: pinned(backend, ops.group_norm_silu, last) for backend in OWN}
    peers |= {"eager": plain(_eager_norm, first), "eager-channels": plain(_eager_norm, last)}
    peers |= {"compile": plain(_eager_norm, last, compiled=True)}
    elements = shape.batch * shape.channels * shape.height * shape.width
    return Case(
        name=f"group_norm_silu[{shape.name}-{short(dtype)}]",
        dtype=dtype,
        peers=peers,
        than="eager-channels",
        flops=12.0 * elements,  # two passes of statistics, one multiply-add, SiLU
        bytes=2.0 * elements * dtype.itemsize,
        op="group_norm_silu",
        elements=elements,
    )


def _norm_backward_case(shape: MapShape, dtype: torch.dtype) -> Case:
    def make(target: Target) -> tuple:
        x, *others = _norm_inputs(target, shape, dtype, torch.channels_last)
        return torch.ones_like(x), x, *others

    def ours(grad: Tensor, *inputs: Any) -> Tensor:
        return torch.ops.mrsi_fast.group_norm_silu_backward(grad, *inputs)[0]

    elements = shape.batch * shape.channels * shape.height * shape.width
    return Case(
        name=f"group_norm_silu_backward[{shape.name}-{short(dtype)}]",
        dtype=dtype,
        peers={backend: pinned(backend, ours, make) for backend in ("triton", "reference")},
        than="reference",
        flops=30.0 * elements,
        bytes=3.0 * elements * dtype.itemsize,
        op="group_norm_silu",
        backward=True,
        elements=elements,
    )


def self_attention_cases(shapes: tuple[tuple[int, int, int, int], ...]) -> Iterator[Case]:
    """Forward and backward in both half types; vendor kernels are cuDNN's and flash attention."""
    for shape in shapes:
        for dtype in HALVES:
            yield _attention_case(shape, dtype)
            yield _attention_backward_case(shape, dtype)


def _qkv(target: Target, shape: tuple[int, int, int, int], dtype: torch.dtype) -> tuple[Tensor]:
    batch, tokens, heads, head_size = shape
    draw = torch.Generator().manual_seed(0)
    return (torch.randn(batch, tokens, 3, heads, head_size, generator=draw).to(target.device, dtype),)


def _eager_attention(qkv: Tensor) -> Tensor:
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).contiguous()


def _by_vendor(kernel: SDPBackend) -> Callable[[Tensor], Tensor]:
    def attention(qkv: Tensor) -> Tensor:
        with sdpa_kernel(kernel):
            return _eager_attention(qkv)

    return attention


def _attention_case(shape: tuple[int, int, int, int], dtype: torch.dtype) -> Case:
    make = functools.partial(_qkv, shape=shape, dtype=dtype)
    batch, tokens, heads, head_size = shape
    peers = {backend: pinned(backend, ops.self_attention, make) for backend in ("triton", "reference")}
    peers |= {"eager": plain(_eager_attention, make), "compile": plain(_eager_attention, make, compiled=True)}
    peers |= {"cudnn": plain(_by_vendor(SDPBackend.CUDNN_ATTENTION), make)}
    peers |= {"flash": plain(_by_vendor(SDPBackend.FLASH_ATTENTION), make)}
    elements = batch * tokens * heads * head_size
    return Case(
        name=f"self_attention[{'x'.join(map(str, shape))}-{short(dtype)}]",
        dtype=dtype,
        peers=peers,
        than="eager",
        flops=4.0 * elements * tokens,
        bytes=4.0 * elements * dtype.itemsize,
        op="self_attention",
        elements=3 * elements,
    )


def _attention_backward_case(shape: tuple[int, int, int, int], dtype: torch.dtype) -> Case:
    batch, tokens, heads, head_size = shape

    def make(target: Target) -> tuple:
        (qkv,) = _qkv(target, shape, dtype)
        return torch.ones(batch, tokens, heads, head_size, device=target.device, dtype=dtype), qkv, head_size**-0.5

    elements = batch * tokens * heads * head_size
    return Case(
        name=f"self_attention_backward[{'x'.join(map(str, shape))}-{short(dtype)}]",
        dtype=dtype,
        peers={
            backend: pinned(backend, torch.ops.mrsi_fast.self_attention_backward, make)
            for backend in ("triton", "reference")
        },
        than="reference",
        flops=14.0 * elements * tokens,
        bytes=7.0 * elements * dtype.itemsize,
        op="self_attention",
        backward=True,
        elements=3 * elements,
    )


def solver_step_case(batch: int, acquisition: Acquisition) -> Case:
    """One step of 8 maps with projection."""
    width, height = acquisition.hr_shape

    def make(target: Target) -> tuple:
        modes = acquisition.modes(torch.float32, target.device)
        draw = torch.Generator().manual_seed(0)
        base, now, prev = torch.randn(3, batch, 8, width, height, generator=draw).to(target.device)
        coefficients = torch.tensor([[0.7, 0.4, -0.1, 0.0]], device=target.device)
        step = torch.zeros(1, dtype=torch.int64, device=target.device)
        bases = (modes.hr_x.contiguous(), modes.hr_y.contiguous(), modes.kept)
        return base, now, prev, None, coefficients, step, *bases

    ranks = [len(one) for one in make(Target(torch.device("cpu")))[6:8]]
    slices, values = 8 * batch, 8 * batch * width * height
    peers = {backend: pinned(backend, ops.solver_step, make) for backend in ("cuda", "reference")}
    return Case(
        name=f"solver_step[{batch}x8x{width}x{height}-float32]",
        dtype=torch.float32,
        peers={**peers, "compile": plain(solver_reference, make, compiled=True)},
        than="reference",
        flops=4.0 * slices * (ranks[0] * width * height + ranks[0] * ranks[1] * height) + 6.0 * values,
        bytes=4.0 * 4 * values,
        op="solver_step",
        elements=values,
    )
