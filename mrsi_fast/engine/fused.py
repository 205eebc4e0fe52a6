"""A planned network as few GPU kernels: PyTorch's convolutions without bias, and fused operations between them.

What is an elementwise kernel of its own in eager PyTorch is folded into a neighbour here. The bias of a convolution is
not added to its result but travels with it, per channel, until a group norm reads both (``conv_bias``); scale and shift
of every block come from a table that is computed before a run. What is left per residual block: two fused norms, two
convolutions and one sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mrsi_fast.engine.plan import AttentionOp, ConvOp, Operation, Plan, Source, plan_network
from mrsi_fast.models.unet import SelfAttentionUNet

EPS = 1e-5
"""Added to the variance of a group, as ``models.blocks.GroupNormSiLU`` does."""


@dataclass(frozen=True)
class Biases:
    """What becomes of the biases around one convolution, in float64.

    Attributes:
        lacking: [C] what the inputs still lack when they are read, or None.
        added: [K] what is added to the result at once, since its reader cannot add it; else None.
    """

    lacking: Tensor | None
    added: Tensor | None


def fold_biases(plan: Plan) -> dict[str, Biases]:
    """Decide, by name of the result, where each convolution's bias is added.

    A group norm adds what its input lacks, a 1x1 convolution maps it by its own matrix and a sum adds it up. A 3x3
    convolution without norm cannot carry it (its zero padding lacks nothing), nor can attention or the final shuffle.
    """
    at_once = {plan.head.name}
    for operation in plan.operations:
        if isinstance(operation, AttentionOp):
            at_once.add(operation.qkv.name)
        elif operation.norm is None and operation.conv.kernel_size[0] > 1:
            at_once |= {source.value.name for source in operation.sources}
    lacks: dict[str, Tensor | None] = {}  # value -> [C] float64
    found = {}
    for operation in plan.operations:
        if isinstance(operation, AttentionOp):
            continue
        conv, residual = operation.conv, operation.residual
        lacking = _concatenated(operation.sources, lacks)
        bias = conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
        bias = bias.double()
        if operation.norm is None and lacking is not None:
            bias = bias + conv.weight.detach()[:, :, 0, 0].double() @ lacking
        if residual is not None and (missing := lacks.get(residual.name)) is not None:
            bias = bias + missing
        added = operation.out.name in at_once
        lacks[operation.out.name] = None if added else bias
        found[operation.out.name] = Biases(None if operation.norm is None else lacking, bias if added else None)
    return found


def _concatenated(sources: tuple[Source, ...], lacks: dict[str, Tensor | None]) -> Tensor | None:
    parts = [lacks.get(source.value.name) for source in sources]
    given = next((part for part in parts if part is not None), None)
    if given is None:
        return None
    pairs = zip(parts, sources, strict=True)
    return torch.cat([given.new_zeros(source.value.channels) if part is None else part for part, source in pairs])


@dataclass(frozen=True)
class Weights:
    """What one convolution and the norm before it need, in the precision to run in.

    Attributes:
        conv: [K, C, 3, 3], or [C, K] of a 1x1 convolution.
        norm: Weight and bias of the norm before it, [C] each; empty if there is none.
        lacking: As in ``Biases``.
        added: As in ``Biases``.
    """

    conv: Tensor
    norm: tuple[Tensor, ...]
    lacking: Tensor | None
    added: Tensor | None


def cast_weights(operation: ConvOp, biases: Biases, dtype: torch.dtype) -> Weights:
    """The weights of one operation in ``dtype``: the network's own tensors where that is their type."""

    def cast(t: Tensor | None) -> Tensor | None:
        return None if t is None else t.detach().to(dtype)

    conv, norm = operation.conv.weight.detach().to(dtype), operation.norm
    if conv.shape[2] == 1:
        conv = conv[:, :, 0, 0].t()
    both = () if norm is None else (norm.weight.detach().to(dtype), norm.bias.detach().to(dtype))
    return Weights(conv, both, cast(biases.lacking), cast(biases.added))


class FusedNetwork:
    """One network for one batch shape. Calls are device work only, so that a graph can capture them.

    Args:
        network: In evaluation mode, on the device to run on, channels-last.
        batch: Slices in a batch.
        grid: High-resolution grid (X, Y), any sizes.
        dtype: Precision to run in: weights are cast once, here.
        spread: Whether an evaluation gives the channels of both heads, those of the mean first.
    """

    def __init__(
        self,
        network: SelfAttentionUNet,
        batch: int,
        grid: tuple[int, int],
        dtype: torch.dtype,
        spread: bool = False,
    ) -> None:
        plan, self._film = plan_network(network, batch, grid)
        self.plan = plan.with_spread() if spread else plan
        convolutions = [op for op in self.plan.operations if isinstance(op, ConvOp)]
        biases = fold_biases(self.plan)
        self._weights = {op.out.name: cast_weights(op, biases[op.out.name], dtype) for op in convolutions}
        self._last_reader = {v.name: i for i, op in enumerate(self.plan.operations) for v in op.reads}
        self._batch, self._device = batch, network.stem.weight.device
        self._film_order = self._order_of_film()

    @property
    def own_calls(self) -> int:
        """Calls of ``torch.ops.mrsi_fast`` in one evaluation."""
        return sum(isinstance(op, AttentionOp) or op.norm is not None for op in self.plan.operations)

    @property
    def film_width(self) -> int:
        """Values in a row of ``film_table``."""
        return self._batch * self._film.width

    def film_table(self, noise_labels: list[float], vector: Tensor) -> Tensor:
        """[steps, film_width] scale and shift of every block, each of them dense over the batch.

        Args:
            noise_labels: ln(sigma) / 4 of each step, held to the trained range.
            vector: [B, V] of ``Condition``, float32.
        """
        rows = self._film.rows(noise_labels, vector)
        return rows.flatten(1).index_select(1, self._film_order)

    def _order_of_film(self) -> Tensor:
        """Where each value of a row of ``film_table`` lies in the planned row [B, width] of the same step."""
        samples = torch.arange(self._batch)[:, None] * self._film.width
        order = torch.empty(self.film_width, dtype=torch.int64)
        for op in self.plan.operations:
            if isinstance(op, ConvOp) and op.film is not None:
                for first in (op.film, op.film + op.conv.in_channels):  # scale, shift
                    rows = samples + torch.arange(first, first + op.conv.in_channels)
                    order[self._batch * first :][: rows.numel()] = rows.flatten()
        return order.to(self._device)

    def __call__(self, stem: Tensor, film: Tensor) -> Tensor:
        """One evaluation.

        Args:
            stem: Input of the first convolution (``SelfAttentionUNet.stem_input``), channels-last.
            film: [film_width] row of ``film_table``.

        Returns:
            Output of the last convolution, before the pixel-shuffle, channels-last.
        """
        inputs: tuple[Source, ...] = ()
        values, gathered = {self.plan.stem.name: stem}, stem
        for index, operation in enumerate(self.plan.operations):
            if isinstance(operation, AttentionOp):
                values[operation.out.name] = _attend(operation, values[operation.qkv.name])
            else:
                if operation.sources != inputs:  # a block's skip and first convolution read the same concatenation
                    inputs, gathered = operation.sources, _gather(operation.sources, values)
                values[operation.out.name] = self._convolve(operation, gathered, values, film)
            self._drop_dead(values, operation, index)
        return values[self.plan.head.name]

    def _convolve(self, operation: ConvOp, x: Tensor, values: dict[str, Tensor], film: Tensor) -> Tensor:
        conv, weights = operation.conv, self._weights[operation.out.name]
        if operation.norm is not None:
            x = _normalise(operation, x, film, weights)
        added = weights.added
        if weights.conv.dim() == 4:
            y = F.conv2d(x, weights.conv, None, conv.stride, conv.padding)
        else:  # a matrix product takes the bias along
            rows = x.permute(0, 2, 3, 1).flatten(0, 2)
            y = torch.mm(rows, weights.conv) if added is None else torch.addmm(added, rows, weights.conv)
            y, added = y.view(x.shape[0], *x.shape[2:], -1).permute(0, 3, 1, 2), None
        if operation.residual is not None:
            y.add_(values[operation.residual.name])
        return y if added is None else y.add_(added[:, None, None])

    def _drop_dead(self, values: dict[str, Tensor], operation: Operation, index: int) -> None:
        for value in operation.reads:
            if self._last_reader[value.name] == index:
                values.pop(value.name, None)


def _normalise(operation: ConvOp, x: Tensor, film: Tensor, weights: Weights) -> Tensor:
    assert operation.norm is not None
    scale = shift = None
    if operation.film is not None:
        batch, channels = x.shape[:2]
        both = film.narrow(0, batch * operation.film, 2 * batch * channels).view(2, batch, channels)
        scale, shift = both[0], both[1]
    out, groups = torch.empty_like(x), operation.norm.num_groups
    torch.ops.mrsi_fast.group_norm_silu_out(x, *weights.norm, groups, scale, shift, EPS, out, conv_bias=weights.lacking)
    return out


def _gather(sources: tuple[Source, ...], values: dict[str, Tensor]) -> Tensor:
    parts = [values[source.value.name] for source in sources]
    pairs = zip(parts, sources, strict=True)
    parts = [F.interpolate(part, scale_factor=2.0, mode="nearest") if s.upsample else part for part, s in pairs]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _attend(operation: AttentionOp, qkv: Tensor) -> Tensor:
    batch, channels, width, height = qkv.shape
    packed = qkv.permute(0, 2, 3, 1).reshape(batch, width * height, 3, operation.heads, -1)
    head = packed.shape[-1]
    out = packed.new_empty(batch, width * height, operation.heads, head)
    torch.ops.mrsi_fast.self_attention_out(packed, head**-0.5, out)
    return out.view(batch, width, height, channels // 3).permute(0, 3, 1, 2)
