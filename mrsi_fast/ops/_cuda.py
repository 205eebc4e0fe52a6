"""What the CUDA and Triton implementations of every operation share: streams, alignment, architecture, and the choice.

``PREFERRED`` says which backend serves an operation on a GPU where several could. No entry has been measured on a GPU
yet; each says what it rests on. ``MRSI_FAST_BACKEND`` pins one backend against it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from mrsi_fast.kernels import available

DTYPE_CODES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
"""Numbers of the element types in csrc/include/mrsi_fast/cuda_launchers.h."""

# operation, then whether backward: (backend, why).
PREFERRED = {
    ("group_norm_silu", False): ("cuda", "one kernel where PyTorch runs four"),
    ("group_norm_silu", True): ("triton", "the CUDA kernels have no backward"),
    ("self_attention", False): ("reference", "PyTorch's fused attention is preferred until ours is measured faster"),
    ("self_attention", True): ("triton", "it reads the packed projection and writes one packed gradient"),
    ("solver_step", False): ("cuda", "one kernel for projection, update and noise"),
}


def passed_over(op: str, backend: str) -> Callable[[bool], str | None]:
    """Why ``backend`` is passed over for ``op`` although it could serve it; asked with whether backward is wanted."""

    def reason(backward: bool) -> str | None:
        preferred, why = PREFERRED.get((op, backward), (backend, ""))
        return None if preferred == backend else f"{why} (MRSI_FAST_BACKEND={backend} takes it)"

    return reason


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


def address(tensor: Tensor | None) -> int:
    """The tensor's address, 0 for an absent one."""
    return 0 if tensor is None else tensor.data_ptr()


@contextmanager
def launching(device: torch.device) -> Iterator[int]:
    """Makes ``device`` current and yields its current stream's handle, read at each call: capture changes it."""
    with torch.cuda.device(device):
        yield torch.cuda.current_stream(device).cuda_stream


def workspace(size: int, device: torch.device) -> Tensor:
    """Scratch memory of the kernels, from PyTorch's allocator, so that a captured graph keeps it in its pool."""
    return torch.empty(size, dtype=torch.uint8, device=device)
