"""Launch configurations of the Triton kernels, by kernel, architecture and size: a committed table, no autotuning.

Autotuning would make the first call slow, results depend on timing noise, and captured graphs differ from run to run.
The rows are chosen from registers and shared memory of the ahead-of-time builds (``make gpu-static``); they ran
on an H100 without having been timed against others there.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """How a kernel is cut up and compiled.

    Attributes:
        block: Pixels of a step (group_norm_silu), or queries of a program (self_attention).
        keys: Keys of a step; 0 where the kernel has none.
        warps: Warps of a program.
        stages: Depth of the software pipeline.
        descriptors: Load keys and values through tensor descriptors (TMA); sm_90 and later have them.
    """

    block: int
    keys: int = 0
    warps: int = 4
    stages: int = 2
    descriptors: bool = False


# kernel -> rows of (lowest architecture, largest size, configuration); the first row that fits is taken.
# Size: pixels of a map for group_norm_silu, tokens for self_attention.
TABLE: dict[str, tuple[tuple[int, int, Config], ...]] = {
    "group_norm_silu": (
        (80, 64, Config(64, warps=2)),
        (80, 256, Config(256, warps=4)),
        (80, 1 << 30, Config(512, warps=8)),
    ),
    "group_norm_silu_backward": (
        (80, 64, Config(64, warps=2)),
        (80, 256, Config(128, warps=4)),
        (80, 1 << 30, Config(256, warps=8)),
    ),
    "self_attention": (
        (90, 64, Config(64, keys=64, stages=1, descriptors=True)),
        (100, 1 << 30, Config(64, keys=32, stages=2, descriptors=True)),  # 64 keys spill on sm_100
        (90, 1 << 30, Config(64, keys=64, stages=2, descriptors=True)),
        (80, 64, Config(64, keys=64, stages=1)),
        (80, 1 << 30, Config(64, keys=64, stages=3)),
    ),
    "self_attention_backward": (
        (100, 1 << 30, Config(64, keys=32)),
        (80, 1 << 30, Config(32, keys=64)),  # 64 queries spill with heads of 64
    ),
}


def configuration(kernel: str, architecture: int, size: int) -> Config:
    """Return the configuration of ``kernel`` for an architecture (80 for sm_80) and a size (pixels or tokens).

    Raises:
        ValueError: The architecture is older than the kernels support.
    """
    for lowest, largest, config in TABLE[kernel]:
        if architecture >= lowest and size <= largest:
            return config
    raise ValueError(f"{kernel} needs a GPU of compute capability 8.0 or later, this one has {architecture / 10:.1f}.")
