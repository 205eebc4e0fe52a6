"""The stride-1 3x3 convolutions of the shipped network, and what computes them: our kernel and its peers."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.conv_peers import mnn_convolution, ncnn_convolution
from harness.peers import Missing
from harness.plan_parts import OneConvolution
from mrsi_fast import ops
from mrsi_fast.engine.plan import ConvOp, plan_network
from mrsi_fast.models.pretrained import load_pretrained
from support.shapes import CHANNELS_PER_GROUP

Runner = Callable[[], Tensor]


@dataclass(frozen=True)
class ConvShape:
    """A convolution [batch, inputs, size, size] -> [batch, outputs, size, size] and how often an evaluation has it.

    Attributes:
        fused: Whether GroupNorm-SiLU precedes it.
    """

    batch: int
    inputs: int
    outputs: int
    size: int
    count: int
    fused: bool

    @property
    def name(self) -> str:
        """As in a row: b8-96to96-32."""
        return f"b{self.batch}-{self.inputs}to{self.outputs}-{self.size}"

    @property
    def flops(self) -> int:
        """Of the direct method, 2 per multiply-add."""
        return 2 * 9 * self.batch * self.inputs * self.outputs * self.size**2

    @property
    def bytes(self) -> int:
        """Input, weights and output once."""
        return 4 * (self.batch * (self.inputs + self.outputs) * self.size**2 + 9 * self.inputs * self.outputs)


@functools.cache
def model_convolutions(batch: int, grid: int = 64) -> tuple[ConvShape, ...]:
    """All distinct stride-1 3x3 convolutions of the shipped network at ``grid`` x ``grid`` maps."""
    plan, _ = plan_network(load_pretrained().network, batch, (grid, grid))
    found = [
        (op.conv.in_channels, op.conv.out_channels, op.grid[0], op.norm is not None)
        for op in plan.operations
        if isinstance(op, ConvOp) and op.conv.kernel_size == (3, 3) and op.conv.stride == (1, 1)
    ]
    return tuple(ConvShape(batch, *shape[:3], count, shape[3]) for shape, count in sorted(Counter(found).items()))


@dataclass(frozen=True)
class ConvInputs:
    """Random tensors of a shape, channels-last; the same for every peer."""

    x: Tensor
    weight: Tensor
    bias: Tensor
    norm_weight: Tensor
    norm_bias: Tensor
    groups: int

    @classmethod
    def of(cls, shape: ConvShape) -> ConvInputs:
        """Drawn from a fixed seed."""
        draw = torch.Generator().manual_seed(shape.inputs * 1000 + shape.size)
        x = torch.randn(shape.batch, shape.inputs, shape.size, shape.size, generator=draw)
        weight = torch.randn(shape.outputs, shape.inputs, 3, 3, generator=draw) / (9 * shape.inputs) ** 0.5
        bias, gain, offset = (torch.randn(n, generator=draw) for n in (shape.outputs, shape.inputs, shape.inputs))
        groups = max(1, shape.inputs // CHANNELS_PER_GROUP)
        return cls(x.contiguous(memory_format=torch.channels_last), weight, bias, gain, offset, groups)


def native_fused(inputs: ConvInputs, threads: int, pairs: bool = False) -> Runner:
    """GroupNorm-SiLU and the convolution in one, weights packed beforehand as in a plan."""
    i = inputs
    return OneConvolution(i.x, i.weight, i.bias, (i.norm_weight, i.norm_bias, i.groups), threads, pairs)


def native_convolution(inputs: ConvInputs, threads: int, pairs: bool = False) -> Runner:
    """The convolution alone, weights packed beforehand as in a plan."""
    return OneConvolution(inputs.x, inputs.weight, inputs.bias, None, threads, pairs)


def public_fused(inputs: ConvInputs, threads: int) -> Runner:
    """``mrsi_fast.ops.conv3x3_gn_silu``, which packs its weights at every call."""
    arguments = (inputs.x, inputs.norm_weight, inputs.norm_bias, inputs.groups, inputs.weight, inputs.bias)
    run = torch.inference_mode()(functools.partial(ops.conv3x3_gn_silu, *arguments))
    run.backend = ops.explain("conv3x3_gn_silu", *arguments, None, None, None, 1e-5).backend  # type: ignore[attr-defined]
    return run


def eager_fused(inputs: ConvInputs, threads: int) -> Runner:
    """Three calls of plain PyTorch."""
    i = inputs

    @torch.inference_mode()
    def run() -> Tensor:
        activated = F.silu(F.group_norm(i.x, i.groups, i.norm_weight, i.norm_bias))
        return F.conv2d(activated, i.weight, i.bias, padding=1)

    return run


def onednn_convolution(inputs: ConvInputs, threads: int) -> Runner:
    """The convolution of oneDNN alone, weights in the layout that it prefers: what a frozen compiled network calls."""
    if not torch.backends.mkldnn.is_available():
        raise Missing("this PyTorch was built without oneDNN")
    ones, x = [1, 1], inputs.x
    try:
        weight = torch.ops.mkldnn._reorder_convolution_weight(
            inputs.weight.contiguous(memory_format=torch.channels_last), ones, ones, ones, 1, list(x.shape)
        )
        call = torch.ops.mkldnn._convolution_pointwise
    except (AttributeError, RuntimeError) as error:
        raise Missing(
            f"this PyTorch has no convolution with packed weights ({str(error).splitlines()[0][:120]})"
        ) from error

    @torch.inference_mode()
    def run() -> Tensor:
        return call(x, weight, inputs.bias, ones, ones, ones, 1, "none", [], "")

    return run


FUSED: dict[str, Callable[[ConvInputs, int], Runner]] = {
    "native": native_fused,
    "native-amx": functools.partial(native_fused, pairs=True),
    "public": public_fused,
    "eager": eager_fused,
}
"""GroupNorm-SiLU and convolution, by the label of their rows."""

ALONE: dict[str, Callable[[ConvInputs, int], Runner]] = {
    "native": native_convolution,
    "native-amx": functools.partial(native_convolution, pairs=True),
    "onednn": onednn_convolution,
    "ncnn": ncnn_convolution,
    "mnn": mnn_convolution,
}
"""The convolution alone."""
