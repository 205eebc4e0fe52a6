"""Building blocks of the Self-Attention UNet; every heavy step goes through ``mrsi_fast.ops``."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrsi_fast import ops


def in_low_precision(x: Tensor) -> bool:
    """Whether training on the CPU runs under autocast: PyTorch's kernels take bfloat16 there, ours float32."""
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu")


class GroupNormSiLU(nn.Module):
    """GroupNorm with groups of ``group_channels``, optional scale and shift from an embedding, then SiLU."""

    def __init__(self, channels: int, group_channels: int) -> None:
        super().__init__()
        self.num_groups = channels // group_channels
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """``x`` [B, C, X, Y]; ``scale``, ``shift`` [B, C]."""
        if in_low_precision(x):
            return self._low_precision(x, scale, shift)
        return ops.group_norm_silu(x, self.weight, self.bias, self.num_groups, scale, shift)

    def _low_precision(self, x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
        """The same by PyTorch's own operations, gain and FiLM folded into one factor and one addend a channel."""
        if scale is None and shift is None:
            return F.silu(F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype)))
        film = 1 if scale is None else 1 + scale
        gain, offset = self.weight * film, self.bias * film + (0 if shift is None else shift)
        normal = F.group_norm(x, self.num_groups)
        return F.silu(torch.addcmul(offset.to(x.dtype)[..., None, None], normal, gain.to(x.dtype)[..., None, None]))

    def extra_repr(self) -> str:
        """Channels and groups, for ``print(network)``."""
        return f"{self.weight.numel()}, num_groups={self.num_groups}"


def _trains_fused(x: Tensor) -> bool:
    """Whether normalisation and convolution are one operation, with gradients by Winograd."""
    return x.device.type == "cpu" and torch.is_grad_enabled() and not in_low_precision(x)


def norm_conv3x3(
    norm: GroupNormSiLU,
    conv: nn.Conv2d,
    x: Tensor,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """``conv(norm(x, scale, shift)) + residual``.

    One operation where a gradient is wanted on the CPU: its forward and both its gradients run by Winograd. It packs
    the filters at every call, which inference need not pay: the engines fuse the network by themselves.
    """
    if _trains_fused(x):
        return ops.conv3x3_gn_silu(
            x, norm.weight, norm.bias, norm.num_groups, conv.weight, conv.bias, scale, shift, residual
        )
    out = conv(norm(x, scale, shift))
    return out if residual is None else residual + out


def norm_conv3x3_pair(norm: GroupNormSiLU, first: nn.Conv2d, second: nn.Conv2d, x: Tensor) -> tuple[Tensor, Tensor]:
    """``first(norm(x))`` and ``second(norm(x))`` by one convolution with both sets of filters: ``x`` is read once."""
    weight, bias = (torch.cat([getattr(first, name), getattr(second, name)]) for name in ("weight", "bias"))
    if _trains_fused(x):
        out = ops.conv3x3_gn_silu(x, norm.weight, norm.bias, norm.num_groups, weight, bias)
    else:
        out = F.conv2d(norm(x), weight, bias, padding=1)
    return out[:, : first.out_channels], out[:, first.out_channels :]


class ResBlock(nn.Module):
    """Two 3x3 convolutions behind GroupNorm-SiLU; the second norm is scaled and shifted by the embedding (FiLM)."""

    def __init__(self, in_channels: int, out_channels: int, embedding_width: int, group_channels: int) -> None:
        super().__init__()
        self.norm1 = GroupNormSiLU(in_channels, group_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.film = nn.Linear(embedding_width, 2 * out_channels)
        self.norm2 = GroupNormSiLU(out_channels, group_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        for tensor in (*self.conv2.parameters(), *self.film.parameters()):
            nn.init.zeros_(tensor)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """``x`` [B, C_in, X, Y], ``embedding`` [B, E] -> [B, C_out, X, Y]."""
        scale, shift = self.film(embedding).chunk(2, dim=1)
        hidden = norm_conv3x3(self.norm1, self.conv1, x)
        return norm_conv3x3(self.norm2, self.conv2, hidden, scale, shift, residual=self.skip(x))


class AttentionBlock(nn.Module):
    """Self-attention over all positions of a grid, with heads of ``head_channels`` channels."""

    def __init__(self, channels: int, head_channels: int, group_channels: int) -> None:
        super().__init__()
        self.num_heads = channels // head_channels
        self.norm = GroupNormSiLU(channels, group_channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)
        for tensor in self.proj.parameters():
            nn.init.zeros_(tensor)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C, X, Y] -> [B, C, X, Y]."""
        batch, channels, width, height = x.shape
        qkv = self.qkv(self.norm(x)).permute(0, 2, 3, 1)
        mixed = ops.self_attention(qkv.reshape(batch, width * height, 3, self.num_heads, -1))
        return x + self.proj(mixed.reshape(batch, width, height, channels).permute(0, 3, 1, 2))


class Embedding(nn.Module):
    """Embeds the noise label and the conditioning vector into one vector that modulates every residual block."""

    rates: Tensor  # [frequencies], radians

    def __init__(self, vector_width: int, embedding_width: int, frequencies: int = 32) -> None:
        super().__init__()
        # Noise labels ln(sigma)/4 span about -1 to 1: octave-spaced frequencies up to about 16 turns resolve them.
        # They are no weights, so they are made on the CPU even where weights are only placeholders ("meta").
        rates = 2 * math.pi * torch.logspace(-2, 4, frequencies, base=2.0, device="cpu")
        self.register_buffer("rates", rates, persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(2 * frequencies + vector_width, embedding_width),
            nn.SiLU(),
            nn.Linear(embedding_width, embedding_width),
            nn.SiLU(),
        )

    def forward(self, noise_label: Tensor, vector: Tensor) -> Tensor:
        """``noise_label`` [B], ``vector`` [B, V] -> [B, E]."""
        phase = noise_label[:, None] * self.rates
        return self.layers(torch.cat([phase.cos(), phase.sin(), vector], dim=1))
