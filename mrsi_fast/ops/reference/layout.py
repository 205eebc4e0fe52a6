"""The memory format of an operation's result; shared by reference, fake and kernels, so that their strides agree."""

from __future__ import annotations

import torch
from torch import Tensor

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def memory_format_of(x: Tensor) -> torch.memory_format:
    """Channels-last where x is dense in that order and not in the plain one; contiguous for every other layout."""
    channels_last = _CHANNELS_LAST.get(x.dim())
    if channels_last is not None and not x.is_contiguous() and x.is_contiguous(memory_format=channels_last):
        return channels_last
    return torch.contiguous_format
