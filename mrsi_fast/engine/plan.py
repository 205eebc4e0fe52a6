"""A network evaluation as a typed list of operations with static shapes, and where each value lives in one arena.

``plan_network`` walks the UNet once for a batch shape. What depends only on noise level and conditioning (embedding and
FiLM scale-shift of every block) is not part of the list: ``FilmTable`` computes it for all steps of a run in advance.
The plan is independent of kernels; an engine turns it into calls.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from mrsi_fast.models.blocks import AttentionBlock, GroupNormSiLU, ResBlock
from mrsi_fast.models.unet import Level, SelfAttentionUNet

STRIP_ROWS = 4
"""GroupNorm statistics are kept per strip of this many rows (``kStripRows`` of csrc/include/mrsi_fast/network.h)."""


@dataclass(frozen=True)
class Value:
    """A channels-last tensor [batch, height, width, channels] and, if a GroupNorm reads it, its strip statistics."""

    name: str
    batch: int
    height: int
    width: int
    channels: int

    @property
    def floats(self) -> int:
        """Size of the tensor."""
        return self.batch * self.height * self.width * self.channels

    @property
    def stats_floats(self) -> int:
        """Size of its statistics: mean and M2 per strip and channel."""
        return self.batch * -(-self.height // STRIP_ROWS) * 2 * self.channels


@dataclass(frozen=True)
class Source:
    """A value that a convolution reads, nearest-upsampled x2 or as it is."""

    value: Value
    upsample: bool = False


@dataclass(frozen=True)
class ConvOp:
    """``out = conv(norm(concat(sources))) + residual``; ``norm`` is GroupNorm, scale-shift and SiLU, or None.

    ``film`` is the offset of the scale (the shift follows it) in a row of the ``FilmTable``.
    """

    name: str
    sources: tuple[Source, ...]
    conv: nn.Conv2d
    out: Value
    norm: GroupNormSiLU | None = None
    film: int | None = None
    residual: Value | None = None

    @property
    def reads(self) -> tuple[Value, ...]:
        """Values that must be alive when this runs."""
        return (*(source.value for source in self.sources), *((self.residual,) if self.residual else ()))

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the concatenated, upsampled input."""
        first = self.sources[0]
        return first.value.height << first.upsample, first.value.width << first.upsample

    @property
    def flops(self) -> int:
        """Floating-point operations of the direct method, 2 per multiply-add."""
        return 2 * self.conv.in_channels * self.conv.kernel_size[0] ** 2 * self.out.floats

    @property
    def bytes(self) -> int:
        """Bytes that must move at least once: inputs, weights, residual, output."""
        weights = self.conv.weight.numel() + self.conv.out_channels
        return 4 * (sum(value.floats for value in self.reads) + weights + self.out.floats)


@dataclass(frozen=True)
class AttentionOp:
    """``out = softmax(q k' / sqrt(d)) v`` per image and head; ``qkv`` holds [q | k | v] along channels."""

    name: str
    qkv: Value
    out: Value
    heads: int

    @property
    def reads(self) -> tuple[Value, ...]:
        """Values that must be alive when this runs."""
        return (self.qkv,)

    @property
    def flops(self) -> int:
        """Floating-point operations, 2 per multiply-add, without the softmax."""
        return 4 * self.out.height * self.out.width * self.out.floats

    @property
    def bytes(self) -> int:
        """Bytes that must move at least once."""
        return 4 * (self.qkv.floats + self.out.floats)


Operation = ConvOp | AttentionOp


@dataclass
class Plan:
    """What ``plan_network`` found.

    Attributes:
        operations: In the order in which they run.
        stem: Input of the first convolution: padded, pixel-unshuffled stack of the network's inputs.
        head: Output of the last one, before the pixel-shuffle.
        both_heads: What replaces the last operation where the spread is wanted too: the filters of both heads side by
            side, so that their input is read once. None if the network has one head.
        state: Values that live through a whole run beside stem and head: eval, base, previous, noise [K, X, Y] per
            image (as [height=K, width=X, channels=Y]), presence and, of a network with two heads, spread.
        film_width: Floats in a row of the ``FilmTable``.
        offsets: Where in the arena each value starts, in floats, by name; its statistics by name + ".stats".
        arena_floats: Size of the arena.
    """

    operations: list[Operation]
    stem: Value
    head: Value
    state: dict[str, Value]
    film_width: int
    both_heads: ConvOp | None = None
    offsets: dict[str, int] = field(default_factory=dict)
    arena_floats: int = 0

    def with_spread(self) -> Plan:
        """The plan of an evaluation that gives mean and spread, ``head`` holding the channels of both."""
        assert self.both_heads is not None
        return replace(self, operations=[*self.operations[:-1], self.both_heads], head=self.both_heads.out)


class FilmTable:
    """Scale and shift of every residual block as one matrix product on the embedding.

    Computed in float64: rows then come out the same to the last float32 bit however many are computed together, so that
    results depend neither on the batch nor on how a long chain is cut.
    """

    def __init__(self, network: SelfAttentionUNet) -> None:
        blocks = [module for module in network.modules() if isinstance(module, ResBlock)]
        self.embedding = copy.deepcopy(network.embedding).double()
        self.offsets: dict[ResBlock, int] = {}
        self.width = 0
        for block in blocks:
            self.offsets[block] = self.width
            self.width += block.film.out_features
        self.weight = torch.cat([block.film.weight.detach() for block in blocks]).double()
        self.bias = torch.cat([block.film.bias.detach() for block in blocks]).double()

    @functools.cached_property
    def single(self) -> tuple[Tensor, Tensor]:
        """The matrix [embedding width, width] and the bias [width] in float32."""
        return self.weight.float().T.contiguous(), self.bias.float()

    def embed(self, noise_labels: Sequence[float], vector: Tensor) -> Tensor:
        """[steps * B, embedding width] in float64: what the rows are made of."""
        labels = torch.tensor(noise_labels, dtype=torch.float64, device=vector.device).repeat_interleave(len(vector))
        return self.embedding(labels, vector.double().repeat(len(noise_labels), 1))

    def rows(self, noise_labels: Sequence[float], vector: Tensor) -> Tensor:
        """[steps, B, width] for the noise labels of some steps and the conditioning ``vector`` [B, V], in its dtype."""
        rows = torch.nn.functional.linear(self.embed(noise_labels, vector), self.weight, self.bias)
        return rows.to(vector.dtype).view(len(noise_labels), len(vector), self.width)


class _Walk:
    """Follows ``SelfAttentionUNet.forward`` and writes down each operation."""

    def __init__(self, film: FilmTable) -> None:
        self.film = film
        self.operations: list[Operation] = []

    def conv(
        self,
        name: str,
        sources: tuple[Source, ...],
        conv: nn.Conv2d,
        norm: GroupNormSiLU | None = None,
        film: int | None = None,
        residual: Value | None = None,
    ) -> Value:
        first = sources[0]
        height, width = first.value.height << first.upsample, first.value.width << first.upsample
        stride = conv.stride[0]
        out = Value(name, first.value.batch, -(-height // stride), -(-width // stride), conv.out_channels)
        self.operations.append(ConvOp(name, sources, conv, out, norm, film, residual))
        return out

    def block(self, name: str, block: ResBlock, sources: tuple[Source, ...]) -> Value:
        skip = sources[0].value
        if isinstance(block.skip, nn.Conv2d):
            skip = self.conv(f"{name}.skip", sources, block.skip)
        hidden = self.conv(f"{name}.conv1", sources, block.conv1, block.norm1)
        film = self.film.offsets[block]
        return self.conv(f"{name}.conv2", (Source(hidden),), block.conv2, block.norm2, film, skip)

    def attention(self, name: str, block: AttentionBlock, x: Value) -> Value:
        qkv = self.conv(f"{name}.qkv", (Source(x),), block.qkv, block.norm)
        mixed = Value(f"{name}.mixed", x.batch, x.height, x.width, x.channels)
        self.operations.append(AttentionOp(mixed.name, qkv, mixed, block.num_heads))
        return self.conv(f"{name}.proj", (Source(mixed),), block.proj, residual=x)


def plan_network(
    network: SelfAttentionUNet, batch: int, grid: tuple[int, int], film: FilmTable | None = None
) -> tuple[Plan, FilmTable]:
    """Plans one evaluation.

    Args:
        network: Its weights are referred to, not copied.
        batch: Slices in a batch.
        grid: High-resolution grid (X, Y), any sizes.
        film: The network's table from another plan: it depends on neither batch nor grid. Computed by default.
    """
    config, film = network.config, film or FilmTable(network)
    padded = [-(-size // config.grid_multiple) * config.grid_multiple // config.stem_factor for size in grid]
    stem = Value("stem.in", batch, padded[0], padded[1], network.stem.in_channels)
    walk = _Walk(film)
    features, skips = walk.conv("stem", (Source(stem),), network.stem), []

    def level(name: str, module: nn.Module, sources: tuple[Source, ...]) -> Value:
        assert isinstance(module, Level)
        for index, block in enumerate(module.blocks):
            assert isinstance(block, ResBlock)
            sources = (Source(walk.block(f"{name}.{index}", block, sources)),)
        x = sources[0].value
        return x if module.attention is None else walk.attention(f"{name}.attention", module.attention, x)

    for index, module in enumerate(network.encoder):
        features = level(f"encoder.{index}", module, (Source(features),))
        skips.append(features)
        if index < len(network.down):
            down = network.down[index]
            assert isinstance(down, nn.Conv2d)
            features = walk.conv(f"down.{index}", (Source(features),), down)
    middle = network.middle
    features = walk.block("middle.block1", middle.block1, (Source(features),))
    features = walk.attention("middle.attention", middle.attention, features)
    features = walk.block("middle.block2", middle.block2, (Source(features),))
    for index in reversed(range(len(network.decoder))):
        sources = (Source(features, upsample=index + 1 < len(network.decoder)), Source(skips[index]))
        features = level(f"decoder.{index}", network.decoder[index], sources)
    head = walk.conv("head", (Source(features),), network.head, network.norm)
    maps = len(config.channels)
    both_heads = None
    names = ["eval", "base", "previous", "noise"]
    if network.spread is not None:
        both = side_by_side(network.head, network.spread)
        out = replace(head, name="heads", channels=both.out_channels)
        both_heads = ConvOp(out.name, (Source(features),), both, out, network.norm)
        names.append("spread")
    state = {name: Value(name, batch, maps, *grid) for name in names}
    state["presence"] = Value("presence", batch, 1, 1, maps)
    plan = Plan(walk.operations, stem, head, state, film.width, both_heads)
    assign_arena(plan)
    return plan, film


def side_by_side(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """One convolution with the filters of two that read the same input, and their channels one after the other."""
    channels = first.out_channels + second.out_channels
    both = nn.Conv2d(first.in_channels, channels, first.kernel_size, first.stride, first.padding)  # type: ignore[arg-type]
    both.requires_grad_(False)
    for name in ("weight", "bias"):
        setattr(both, name, nn.Parameter(torch.cat([getattr(first, name), getattr(second, name)]).detach(), False))
    return both


def assign_arena(plan: Plan) -> None:
    """Gives every value and its statistics the lowest place that is free while it lives (first fit, cache lines)."""
    last = len(plan.operations)
    head = plan.head if plan.both_heads is None else plan.both_heads.out
    lives: dict[str, list[int]] = {}  # name -> [floats, first operation, last operation]
    for value in (plan.stem, head, *plan.state.values()):
        lives[value.name] = [value.floats, 0, last]
    for index, operation in enumerate(plan.operations):
        out = operation.out
        if out is not plan.head:
            lives[out.name] = [out.floats, index, index]
        for value in operation.reads:
            lives[value.name][2] = max(lives[value.name][2], index)
        if isinstance(operation, ConvOp) and operation.norm is not None:
            for source in operation.sources:
                value, name = source.value, source.value.name + ".stats"
                lives[name] = [value.stats_floats, lives[value.name][1], index]
    placed: list[tuple[int, int, int, int]] = []  # (start, end, first, last)
    for name, (floats, first, final) in sorted(lives.items(), key=lambda item: (item[1][1], -item[1][0])):
        start = 0
        for low, high, born, dies in sorted(placed):
            if born <= final and first <= dies and low < start + floats and start < high:
                start = high
        end = start + -(-floats // 16) * 16
        placed.append((start, end, first, final))
        plan.offsets[name] = start
        plan.arena_floats = max(plan.arena_floats, end)
    plan.offsets[plan.head.name] = plan.offsets[head.name]  # an evaluation writes one of them
