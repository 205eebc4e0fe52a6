"""How much memory a run needs, told before it begins and refused where it is not there.

The estimate is an upper bound for what the arrays of a run take together, counted in values of the finer grid and
checked against a measured peak (``tests/faults/test_models.py``). Batches of slices run one after the other, so that
the network's own memory depends on the matrix and not on the number of slices; maps, deviations and samples are held
whole.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

VARIABLE = "MRSI_FAST_MAX_MEMORY"
"""Environment variable with the most memory that a run may take, GB."""

BASE_BYTES = 700 * 2**20
"""The process with PyTorch, the shipped weights and its kernels."""

BYTES_A_VALUE = 80
"""Of the finer grid, for each map: about 20 arrays of 32-bit numbers (60 bytes measured, 4 maps of 128x128x40)."""

BYTES_A_SAMPLE_VALUE = 13
"""For each map, value and sample: as drawn, held to the data, and as returned."""

BYTES_A_NETWORK_PIXEL = 14_000
"""Activations of the shipped network in a batch of 8 slices, for each pixel of a slice (10,300 measured at 192x192)."""


class NotEnoughMemory(ValueError):
    """A run needs more memory than there is; the message gives both figures and the next step."""


def needed_bytes(maps: int, shape: Sequence[int], factors: Sequence[int], samples: int = 0) -> int:
    """Upper bound of the memory of a run.

    Args:
        maps: Number of maps.
        shape: Measured voxels along X, Y, Z.
        factors: Super-resolution factor along each.
        samples: Posterior samples.
    """
    fine = [n * f for n, f in zip(shape, factors, strict=True)]
    values = maps * math.prod(fine)
    pixels = max(fine[0] * fine[1], fine[0] * fine[2], fine[1] * fine[2]) if min(factors) > 1 else _plane(fine, factors)
    return BASE_BYTES + BYTES_A_NETWORK_PIXEL * pixels + values * (BYTES_A_VALUE + BYTES_A_SAMPLE_VALUE * samples)


def _plane(fine: Sequence[int], factors: Sequence[int]) -> int:
    """Pixels of the plane that is refined."""
    refined = [n for n, f in zip(fine, factors, strict=True) if f > 1]
    return math.prod(refined) if len(refined) == 2 else math.prod(sorted(fine)[1:])


_MOST_GIGABYTES = 1e9
"""An exabyte: whoever states more made a mistake, and the largest floats are no whole numbers of bytes."""


def limit_bytes() -> int | None:
    """The most memory that a run may take: as the user states, else what is free here; None where nothing tells.

    Raises:
        ValueError: The user's figure is none.
    """
    if (stated := os.environ.get(VARIABLE)) is not None:
        try:
            number = float(stated)
        except ValueError:
            number = math.nan
        if not 0 < number < _MOST_GIGABYTES:
            raise ValueError(f"{VARIABLE} (--max-memory) is {stated!r}; give a number of GB above 0, below 1e9.")
        return int(number * 1e9)
    found = [one for one in (_free(), _free_in_group()) if one is not None]
    return min(found, default=None)


def check_memory(maps: int, shape: Sequence[int], factors: Sequence[int], samples: int = 0) -> str:
    """Refuses a run that would not fit.

    Returns:
        A phrase with the estimate and the limit.

    Raises:
        NotEnoughMemory: It would not.
    """
    needed, limit = needed_bytes(maps, shape, factors, samples), limit_bytes()
    grid = "x".join(str(n * f) for n, f in zip(shape, factors, strict=True))
    if limit is not None and needed > limit:
        held = f" with {samples} samples" if samples else ""
        raise NotEnoughMemory(
            f"{maps} maps on a grid of {grid}{held} need up to {_gb(needed)}, more than the {_gb(limit)} available. "
            f"Choose fewer maps or samples or a smaller scale, or set another limit ({VARIABLE}, --max-memory)."
        )
    return f"up to {_gb(needed)}" + ("" if limit is None else f" of {_gb(limit)}")


def return_freed() -> None:
    """Gives memory that was freed back to the system; glibc keeps holes that the next stage may not fit into."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count < 1e11 else f"{count / 1e9:.0f} GB"


def _free() -> int | None:
    """Memory that the system can give without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def _free_in_group() -> int | None:
    """Memory that the control group (container, SLURM job) still allows."""
    folder = Path("/sys/fs/cgroup")
    try:
        most = int((folder / "memory.max").read_text(encoding="ascii"))
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
        return max(most - used + int(stat.get("inactive_file", 0)), 0)
    except (OSError, ValueError):
        return None
