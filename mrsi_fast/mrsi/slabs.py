"""Work on volumes a few slices at a time, so that what it takes beside the volumes does not grow with their slices.

The operator of a slice acts on each slice alone, and so does data consistency with it; the operator of a volume, which
mixes slices, gets them all. Volumes are [M, X, Y, Z]; slices are [Z, M, X, Y], as the operator takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrsi_fast.mrsi.consistency import DataConsistency
from mrsi_fast.mrsi.volume_operator import Operator, VolumeAcquisition

Float32 = NDArray[np.float32]

SLAB = 8
"""Slices at a time."""


def to_slices(volume: NDArray) -> Tensor:
    """[..., X, Y, Z] array -> [Z, ..., X, Y] tensor."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(volume, -1, 0)))


def to_volume(slices: Tensor) -> NDArray:
    """[Z, ..., X, Y] tensor -> [..., X, Y, Z] array."""
    return np.ascontiguousarray(np.moveaxis(slices.numpy(), 0, -1))


def slabs(operator: Operator, count: int) -> Iterator[slice]:
    """Which of ``count`` slices go together: all where the operator mixes them."""
    step = max(count, 1) if isinstance(operator, VolumeAcquisition) else SLAB
    return (slice(start, start + step) for start in range(0, count, step))


def fill_by_slab(operator: Operator, result: Float32, function: Callable[[slice], Tensor]) -> Float32:
    """Fills an array [M, X, Y, Z] by a function that gives the slices [z, M, X, Y] of a slab."""
    for chosen in slabs(operator, result.shape[-1]):
        result[..., chosen] = np.moveaxis(function(chosen).numpy(), 0, -1)
    return result


def supported_by(consistency: DataConsistency, volume: Float32) -> DataConsistency:
    """``DataConsistency.supported_by`` for an estimate [M, X, Y, Z]."""
    found = parts(consistency, volume.shape[-1])
    every = torch.cat([part.products(to_slices(volume[..., chosen])) for chosen, part in found])
    return consistency.scaled_to(every.sum(0))


def gross_outliers(consistency: DataConsistency, volume: Float32) -> NDArray[np.bool_]:
    """``DataConsistency.gross_outliers`` [M, nx, ny, z] of an estimate [M, X, Y, Z]."""
    found = parts(consistency, volume.shape[-1])
    return to_volume(torch.cat([part.gross_outliers(to_slices(volume[..., chosen])) for chosen, part in found]))


def hold(consistency: DataConsistency, volume: Float32) -> Float32:
    """Applies data consistency to an estimate [M, X, Y, Z], in its place."""
    for chosen, part in parts(consistency, volume.shape[-1]):
        volume[..., chosen] = np.moveaxis(part.at_end(to_slices(volume[..., chosen])).numpy(), 0, -1)
    return volume


def parts(consistency: DataConsistency, count: int) -> Iterator[tuple[slice, DataConsistency]]:
    """Slabs and data consistency of each."""
    for chosen in slabs(consistency.acquisition, count):
        whole = chosen == slice(0, count)
        yield chosen, consistency if whole else consistency.of_slices(chosen)
