"""The Self-Attention UNet: nearly all its arithmetic is in stride-1 3x3 convolutions, the case Winograd speeds up.

A pixel-unshuffle stem lets 64x64 maps cost what 32x32 costs; attention runs on the coarsest grid and once above it; a
level has one skip, read by its first decoder block together with the nearest-upsampled coarser features.
"""

from __future__ import annotations

from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrsi_fast.config import ModelConfig
from mrsi_fast.models.blocks import AttentionBlock, Embedding, GroupNormSiLU, ResBlock, norm_conv3x3, norm_conv3x3_pair
from mrsi_fast.models.condition import Condition, vector_width


class Level(nn.Module):
    """The blocks that one resolution level runs on one side of the UNet, with optional attention at the end."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, attention: bool, config: ModelConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResBlock(
                in_channels if index == 0 else out_channels, out_channels, config.embedding_width, config.group_channels
            )
            for index in range(blocks)
        )
        self.attention = (
            AttentionBlock(out_channels, config.head_channels, config.group_channels) if attention else None
        )

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """``x`` [B, C_in, X, Y], ``embedding`` [B, E] -> [B, C_out, X, Y]."""
        for block in self.blocks:
            x = block(x, embedding)
        return x if self.attention is None else self.attention(x)


class Middle(nn.Module):
    """Residual block, attention, residual block on the coarsest grid."""

    def __init__(self, channels: int, config: ModelConfig) -> None:
        super().__init__()
        self.block1 = ResBlock(channels, channels, config.embedding_width, config.group_channels)
        self.attention = AttentionBlock(channels, config.head_channels, config.group_channels)
        self.block2 = ResBlock(channels, channels, config.embedding_width, config.group_channels)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """``x`` [B, C, X, Y], ``embedding`` [B, E] -> [B, C, X, Y]."""
        return self.block2(self.attention(self.block1(x, embedding)), embedding)


class SelfAttentionUNet(nn.Module):
    """Maps a noisy residual and what is known about the maps to the raw output F of Karras et al. (2022, Eq. 7).

    Args:
        config: Shape of the network.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        maps = len(config.channels)
        area = config.stem_factor**2
        self.embedding = Embedding(vector_width(maps), config.embedding_width)
        self.stem = nn.Conv2d((3 * maps + 2) * area, config.widths[0], 3, padding=1)
        self.encoder, self.down = nn.ModuleList(), nn.ModuleList()
        for index, width in enumerate(config.widths):
            incoming = config.widths[max(index - 1, 0)]
            self.encoder.append(
                Level(incoming, width, config.encoder_blocks[index], config.encoder_attention[index], config)
            )
            if index + 1 < len(config.widths):
                self.down.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
        self.middle = Middle(config.widths[-1], config)
        self.decoder = nn.ModuleList()
        for index, width in enumerate(config.widths):
            incoming = config.widths[min(index + 1, len(config.widths) - 1)] + width
            self.decoder.append(
                Level(incoming, width, config.decoder_blocks[index], config.decoder_attention[index], config)
            )
        self.norm = GroupNormSiLU(config.widths[0], config.group_channels)
        self.head = nn.Conv2d(config.widths[0], maps * area, 3, padding=1)
        self.spread = nn.Conv2d(config.widths[0], maps * area, 3, padding=1) if config.spread else None
        for head in (self.head, self.spread):
            for tensor in () if head is None else head.parameters():
                nn.init.zeros_(tensor)

    def forward(self, x: Tensor, noise_label: Tensor, cond: Condition) -> Tensor:
        """One evaluation.

        Args:
            x: [B, K, X, Y] noisy residual after input scaling; channels of absent maps are ignored.
            noise_label: [B] ln(sigma) / 4.
            cond: What is known about the maps.

        Returns:
            [B, K, X, Y]; channels of absent maps carry no meaning.
        """
        if x.numel() == 0:  # PyTorch's pixel_unshuffle leaves the shape of an empty batch as it is
            return torch.zeros_like(x)
        return self._to_grid(norm_conv3x3(self.norm, self.head, self._features(x, noise_label, cond)), x)

    def with_spread(self, x: Tensor, noise_label: Tensor, cond: Condition) -> tuple[Tensor, Tensor]:
        """One evaluation that also gives the posterior's spread, which has a meaning at the one-step point only.

        Args:
            x: As for ``forward``; a state of 0 for estimates of mean and spread.
            noise_label: As for ``forward``; that of sigma_max.
            cond: As for ``forward``.

        Returns:
            What ``forward`` returns, and ln of the posterior standard deviation in units of the residual's RMS,
            [B, K, X, Y], not held to a range (``diffusion.denoiser.standard_deviation`` does that).

        Raises:
            ValueError: The network has no second head (``ModelConfig.spread``).
        """
        if self.spread is None:
            raise ValueError("This network has no head for the spread; its configuration has spread = false.")
        if x.numel() == 0:
            return torch.zeros_like(x), torch.zeros_like(x)
        features = self._features(x, noise_label, cond)
        mean, log_sd = norm_conv3x3_pair(self.norm, self.head, self.spread, features)
        return self._to_grid(mean, x), self._to_grid(log_sd, x)

    def _features(self, x: Tensor, noise_label: Tensor, cond: Condition) -> Tensor:
        """What the heads read, before its normalisation: [B, widths[0], X/f, Y/f] on the padded grid."""
        embedding = self.embedding(noise_label, cond.vector)
        features = self.stem(self.stem_input(x, cond))
        skips = []
        for index, level in enumerate(self.encoder):
            features = level(features, embedding)
            skips.append(features)
            if index < len(self.down):
                features = self.down[index](features)
        features = self.middle(features, embedding)
        for index in reversed(range(len(self.decoder))):
            if index + 1 < len(self.decoder):
                features = F.interpolate(features, scale_factor=2.0, mode="nearest")
            features = self.decoder[index](torch.cat([features, skips[index]], dim=1), embedding)
        return features

    def _to_grid(self, head: Tensor, x: Tensor) -> Tensor:
        """A head's output as maps on the grid of ``x``."""
        return F.pixel_shuffle(head, self.config.stem_factor)[..., : x.shape[-2], : x.shape[-1]]

    def stem_input(self, x: Tensor, cond: Condition) -> Tensor:
        """Residual, z, mask, anatomy and field-of-view flag, padded and unshuffled: [B, (3 K + 2) f^2, X/f, Y/f]."""
        x = x * cond.presence[:, :, None, None]
        field_of_view = torch.ones_like(cond.anatomy)
        stack = torch.cat([x, cond.z, cond.mask, cond.anatomy, field_of_view], dim=1)
        multiple = self.config.grid_multiple
        pad_x, pad_y = -x.shape[-2] % multiple, -x.shape[-1] % multiple
        stack = F.pad(stack, (0, pad_y, 0, pad_x))
        stack = F.pixel_unshuffle(stack, self.config.stem_factor)
        return stack.contiguous(memory_format=torch.channels_last)


def flop_split(network: SelfAttentionUNet, grid: tuple[int, int] = (64, 64)) -> dict[str, float]:
    """Counts the floating-point operations (2 per multiply-add) of one evaluation of one slice by kind of layer.

    Args:
        network: The network to count.
        grid: High-resolution grid (X, Y).

    Returns:
        GFLOP under "conv3x3", "conv3x3_stride2", "conv1x1", "attention" and "linear".
    """
    counts: Counter[str] = Counter()

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            kernel, stride = module.kernel_size[0], module.stride[0]
            kind = f"conv{kernel}x{kernel}" + (f"_stride{stride}" if stride > 1 else "")
            counts[kind] += 2 * module.in_channels * kernel**2 * output.numel()
        elif isinstance(module, nn.Linear):
            counts["linear"] += 2 * module.in_features * output.numel()
        elif isinstance(module, AttentionBlock):
            tokens = output.shape[-2] * output.shape[-1]
            counts["attention"] += 4 * tokens * output.numel()

    hooks = [module.register_forward_hook(count) for module in network.modules()]
    weight = network.stem.weight
    maps = len(network.config.channels)
    blank = torch.zeros(1, maps, *grid, dtype=weight.dtype, device=weight.device)
    cond = Condition(blank, blank, blank[:, :1], blank.new_zeros(1, vector_width(maps)))
    try:
        with torch.no_grad():
            network(blank, blank.new_zeros(1), cond)
    finally:
        for hook in hooks:
            hook.remove()
    return {kind: value / 1e9 for kind, value in sorted(counts.items())}
