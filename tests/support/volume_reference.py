"""The acquisition of a volume as its definition writes it: explicit, slow, float64. Tests hold the fast one to this.

On a fine grid of ``N = n f`` voxels an axis that was phase-encoded is measured as

    A[j, p] = 1/N sum_{|k| <= n/2} w_k W_k exp(2 pi i k ((j + 1/2) f - 1/2 - p)/N),

``w = 1/2`` on the lines ``+-n/2`` of an even ``n`` and 1 elsewhere, ``W`` the window at ``|k|/(n/2)``. An axis of
slices of their own is measured as the mean of the object over each slice, here the mean of 1200 points.
"""

from __future__ import annotations

import numpy as np

WINDOWS = {"none": (1.0, 0.0), "hamming": (0.54, 0.46), "hann": (0.5, 0.5)}
_FINE = 1200


def encoded_axis(count: int, factor: int, window: str = "none") -> np.ndarray:
    """[n, N] of a phase-encoded axis."""
    size = count * factor
    constant, wave = WINDOWS[window]
    centres = (np.arange(count) + 0.5) * factor - 0.5
    matrix = np.zeros((count, size), complex)
    for k in range(-(count // 2), count // 2 + 1):
        weight = 0.5 if 2 * abs(k) == count else 1.0
        weight *= constant + wave * np.cos(np.pi * abs(k) / (count / 2))
        matrix += weight * np.exp(2j * np.pi * k * (centres[:, None] - np.arange(size)) / size)
    assert np.abs(matrix.imag).max() < 1e-9 * size
    return matrix.real / size


def sliced_axis(count: int, factor: int, thickness: float = 1.0) -> np.ndarray:
    """[n, N] of slices of their own, ``thickness`` in units of their distance."""
    matrix = np.zeros((count, count * factor))
    for slice_index in range(count):
        points = slice_index + 0.5 + thickness * ((np.arange(_FINE) + 0.5) / _FINE - 0.5)
        for point in points:
            matrix[slice_index, min(int(point * factor), count * factor - 1)] += 1 / _FINE
    return matrix


def volume_matrix(axes: list[np.ndarray]) -> np.ndarray:
    """[nz nx ny, Z X Y] of a volume [Z, X, Y] from the matrices of its axes z, x, y."""
    z, x, y = axes
    return np.kron(z, np.kron(x, y))


def point_source(size: int, position: float) -> np.ndarray:
    """Band-limited point at a position in voxels on a periodic axis of odd size: all lines with its phase."""
    lines = np.arange(-(size // 2), size // 2 + 1)
    return np.exp(2j * np.pi * lines[:, None] * (np.arange(size) - position) / size).sum(0).real / size


def position_of(values: np.ndarray) -> float:
    """Where the first Fourier line says that a single source on a periodic axis lies, in voxels."""
    size = len(values)
    line = np.sum(values * np.exp(-2j * np.pi * np.arange(size) / size))
    return float((-np.angle(line) * size / (2 * np.pi)) % size)
