"""Named shapes for tests and benchmarks: those of the shipped network, and awkward ones with their reason."""

from __future__ import annotations

from dataclasses import dataclass

CHANNELS_PER_GROUP = 16


@dataclass(frozen=True)
class MapShape:
    """A feature map [batch, channels, height, width] and the groups of its normalisation."""

    name: str
    batch: int
    channels: int
    height: int
    width: int
    groups: int

    @property
    def size(self) -> tuple[int, int, int, int]:
        """[B, C, H, W]."""
        return self.batch, self.channels, self.height, self.width


def model_maps(batch: int = 8) -> tuple[MapShape, ...]:
    """Inputs of GroupNorm-SiLU in the network at 64x64 maps (32x32 after the pixel-unshuffle), widths 96, 160, 256."""
    levels = (
        ("level0", 96, 32),
        ("level0-skip", 96 + 160, 32),  # decoder: [upsampled main, skip] concatenated
        ("level1", 160, 16),
        ("level1-skip", 160 + 256, 16),
        ("level2", 256, 8),
    )
    return tuple(MapShape(name, batch, c, n, n, c // CHANNELS_PER_GROUP) for name, c, n in levels)


AWKWARD_MAPS = (
    MapShape("one value a group but for space", 1, 3, 5, 1, 3),
    MapShape("channels below a vector", 2, 5, 7, 3, 1),
    MapShape("channels not whole vectors, odd group", 3, 33, 7, 5, 3),
    MapShape("groups straddle vectors", 2, 36, 9, 9, 4),
    MapShape("one position", 2, 32, 1, 1, 4),
    MapShape("more rows than a strip", 1, 8, 40, 33, 2),
    MapShape("a contiguous row longer than a strip", 1, 2, 67, 70, 1),
)
