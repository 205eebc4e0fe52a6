"""What the CUDA and Triton implementations of every operation share: streams, alignment, architecture, and the choice.

Which backend serves an operation on a GPU where several could is said by a table of measurements (``MEASURED``), and by
``PREFERRED`` until there is one: no entry of that has been measured, each says what it rests on. ``MRSI_FAST_BACKEND``
pins one backend against both.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mrsi_fast.kernels import available

DTYPE_CODES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
"""Numbers of the element types in csrc/include/mrsi_fast/cuda_launchers.h."""

# operation, then whether backward: (backend, why), for what no row of `MEASURED` speaks of.
PREFERRED = {
    ("group_norm_silu", False): ("cuda", "one kernel where PyTorch runs four"),
    ("group_norm_silu", True): ("triton", "the CUDA kernels have no backward"),
    ("self_attention", False): ("reference", "PyTorch's fused attention is preferred until ours is measured faster"),
    ("self_attention", True): ("triton", "it reads the packed projection and writes one packed gradient"),
    ("solver_step", False): ("cuda", "one kernel for projection, update and noise"),
}
MEASURED = Path(__file__).with_name("gpu_choices.json")
"""Rows that ``make gpu`` writes: what was fastest per operation, direction, architecture, dtype and size."""
SIZE_RATIO = 4.0
"""A measured row speaks for inputs up to this many times larger or smaller."""


@dataclass(frozen=True)
class MeasuredChoice:
    """One row of ``MEASURED``; ``elements`` is the size of the operation's first input, times are in microseconds."""

    op: str
    backward: bool
    architecture: int
    dtype: str
    elements: int
    shape: str
    backend: str
    microseconds: dict[str, float] = field(hash=False)

    @property
    def why(self) -> str:
        """As in the output of ``explain``."""
        times = ", ".join(f"{name} {time:.1f} us" for name, time in sorted(self.microseconds.items()))
        return f"fastest on sm_{self.architecture} at {self.shape} in {self.dtype} ({times})"


@functools.cache
def measured_choices(path: Path) -> dict[tuple[str, bool], tuple[MeasuredChoice, ...]]:
    """The rows of a measured table, by operation and direction."""
    rows = [MeasuredChoice(**row) for row in json.loads(path.read_text())["rows"]]
    return {key: tuple(r for r in rows if (r.op, r.backward) == key) for key in {(r.op, r.backward) for r in rows}}


def preference(op: str) -> Callable[[bool, tuple[Any, ...]], tuple[str, str]]:
    """What serves ``op`` where several could: the nearest measured size, else ``PREFERRED``."""

    def prefer(backward: bool, inputs: tuple[Any, ...]) -> tuple[str, str]:
        first: Tensor = inputs[0]
        rows = measured_choices(MEASURED).get((op, backward), ())
        if rows and first.numel():
            here = (architecture(first.device), str(first.dtype).removeprefix("torch."))
            ratios = {row: abs(math.log(row.elements / first.numel())) for row in rows}
            near = [row for row in rows if (row.architecture, row.dtype) == here]
            best = min(near, key=lambda row: ratios[row], default=None)
            if best is not None and ratios[best] <= math.log(SIZE_RATIO):
                return best.backend, best.why
        return PREFERRED[op, backward]

    return prefer


@functools.cache
def architecture(device: torch.device) -> int:
    """Compute capability of a CUDA device as one number: 90 for sm_90."""
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@functools.cache
def triton_lacks() -> str | None:
    """Why the Triton kernels cannot run here, or None."""
    usable, reason = available()
    return None if usable else reason


def misaligned(**tensors: Tensor | None) -> str | None:
    """Name the first tensor that does not start on 16 bytes, as 128-bit accesses need; None if all do."""
    for name, tensor in tensors.items():
        if tensor is not None and tensor.data_ptr() % 16:
            return f"{name} does not start on a multiple of 16 bytes"
    return None


@contextmanager
def launching(device: torch.device) -> Iterator[int]:
    """Makes ``device`` current and yields its current stream's handle, read at each call: capture changes it."""
    with torch.cuda.device(device):
        yield torch.cuda.current_stream(device).cuda_stream


def workspace(size: int, device: torch.device) -> Tensor:
    """Scratch memory of the kernels, from PyTorch's allocator, so that a captured graph keeps it in its pool."""
    return torch.empty(size, dtype=torch.uint8, device=device)
