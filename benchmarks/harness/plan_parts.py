"""Parts of the native engine run by themselves: one convolution, one attention, one solver step.

Each is a plan set up by ``NativePlan`` as that sets up the whole network, so that what is timed here is what the engine
runs. Results are views of the plan's arena and valid while the part lives.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.peers import Missing
from mrsi_fast.engine.native import STEP_FIELDS, NativePlan, amx_obstacle, step_coefficients
from mrsi_fast.engine.plan import STRIP_ROWS, AttentionOp, ConvOp, Operation, Plan, Source, Value
from mrsi_fast.models.blocks import GroupNormSiLU
from mrsi_fast.models.unet import SelfAttentionUNet
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.ops import _native

Norm = tuple[Tensor, Tensor, int]


class _Part(NativePlan):
    """One operation in a plan of its own."""

    def __init__(
        self, operation: Operation, source: Value, threads: int, statistics: bool = False, pairs: bool = False
    ) -> None:
        missing = _native.lacks("Plan")
        if missing is not None:
            raise Missing(missing)
        if pairs and (lacking := amx_obstacle()) is not None:
            raise Missing(lacking)
        self.out = operation.out
        self.plan = Plan([operation], source, self.out, {}, 0)
        starts = [(source.name, source.floats), (self.out.name, self.out.floats)]
        if statistics:
            starts += [(f"{one.name}.stats", one.stats_floats) for one in (source, self.out)]
        for name, floats in starts:
            self.plan.offsets[name] = self.plan.arena_floats
            self.plan.arena_floats += -(-floats // 16) * 16
        self.batch, self.threads, self.pairs = source.batch, threads, pairs
        self.native = _native.module().Plan(self.plan.arena_floats, 0, threads)
        self._add(operation, 0)


class OneConvolution(_Part):
    """A stride-1 3x3 convolution, behind GroupNorm-SiLU where there is a norm.

    With a norm it computes the statistics of its result, where PyTorch computes those of the input: in a plan each
    convolution prepares the next one's.

    Args:
        x: [B, C, H, W].
        weight: [K, C, 3, 3].
        bias: [K].
        norm: Gain [C], offset [C] and number of groups, or None.
        threads: OpenMP threads.
        pairs: On pairs of bfloat16, as the engine "native-amx" does it.
    """

    def __init__(
        self, x: Tensor, weight: Tensor, bias: Tensor, norm: Norm | None, threads: int, pairs: bool = False
    ) -> None:
        batch, channels, height, width = x.shape
        conv = nn.Conv2d(channels, len(weight), 3, padding=1)
        conv.load_state_dict({"weight": weight, "bias": bias})
        layer = None
        if norm is not None:
            layer = GroupNormSiLU(channels, channels // norm[2])
            layer.load_state_dict({"weight": norm[0], "bias": norm[1]})
        source = Value("in", batch, height, width, channels)
        out = Value("out", batch, height, width, len(weight))
        operation = ConvOp("conv", (Source(source),), conv, out, layer)
        super().__init__(operation, source, threads, norm is not None, pairs)
        image = x.permute(0, 2, 3, 1)
        self.view(source).copy_(image)
        if norm is not None:
            self._fill_statistics(image)

    def _fill_statistics(self, image: Tensor) -> None:
        """Mean and M2 of each strip and channel, as the operation before would have left them."""
        batch, height, _, channels = image.shape
        strips = [image[:, top : top + STRIP_ROWS] for top in range(0, height, STRIP_ROWS)]
        mean = torch.stack([strip.mean((1, 2)) for strip in strips], 1)
        m2 = torch.stack([strip.var((1, 2), correction=0) * strip[0, :, :, 0].numel() for strip in strips], 1)
        self.view(Value("in.stats", batch, len(strips), 2, channels)).copy_(torch.stack([mean, m2], 2))

    def __call__(self) -> Tensor:
        """[B, K, H, W]."""
        self.native.evaluate(0)
        return self.view(self.out).permute(0, 3, 1, 2)


class OneAttention(_Part):
    """Self-attention over the positions of a square map.

    Args:
        qkv: [B, T, 3, H, D], T a square number.
        threads: OpenMP threads.
    """

    def __init__(self, qkv: Tensor, threads: int) -> None:
        batch, tokens, _, heads, head = qkv.shape
        side = round(tokens**0.5)
        source = Value("qkv", batch, side, side, 3 * heads * head)
        out = Value("mixed", batch, side, side, heads * head)
        super().__init__(AttentionOp("attention", source, out, heads), source, threads)
        self.view(source).copy_(qkv.reshape(batch, side, side, -1))
        self.shape = (batch, tokens, heads, head)

    def __call__(self) -> Tensor:
        """[B, T, H, D]."""
        self.native.evaluate(0)
        return self.view(self.out).view(self.shape)


class OneSolverStep(NativePlan):
    """The solver step of a network's plan without the network: from its output to its next input.

    Args:
        network: Whose maps, grid and pixel-unshuffle are taken.
        head: [B, K f^2, X/f, Y/f] the network's output.
        row: Coefficients in the order of ``STEP_FIELDS``.
        projection: Whose measured band is removed from the estimate, or None.
        threads: OpenMP threads.
    """

    def __init__(
        self,
        network: SelfAttentionUNet,
        head: Tensor,
        row: list[float],
        projection: Acquisition | None,
        threads: int,
    ) -> None:
        missing = _native.lacks("Plan")
        if missing is not None:
            raise Missing(missing)
        factor = network.config.stem_factor
        super().__init__(network, len(head), (factor * head.shape[2], factor * head.shape[3]), threads)
        self.row = step_coefficients(dict(zip(STEP_FIELDS, row, strict=True)))
        self.view(self.plan.head).copy_(head.permute(0, 2, 3, 1))
        self.view(self.plan.state["presence"]).fill_(1.0)
        self.modulation = torch.zeros(self.film.width)  # what run asks for; no operation takes it
        self.project(projection)

    def _add(self, operation: Operation, index: int) -> None:
        """Leaves the network out."""

    def __call__(self, x: Tensor, base: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
        """New state [B, K, X, Y] and the network's next input [B, C, X/f, Y/f].

        Args:
            x: [B, K, X, Y] evaluation point.
            base: Committed state.
            previous: Estimate of the step before.
        """
        state = {name: self.view(self.plan.state[name]) for name in ("eval", "base", "previous")}
        for name, value in (("eval", x), ("base", base), ("previous", previous)):
            state[name].copy_(value)
        self.native.run([self.row], self.modulation.data_ptr(), lambda step: None, lambda step: None)
        return state["eval"], self.view(self.plan.stem).permute(0, 3, 1, 2)
