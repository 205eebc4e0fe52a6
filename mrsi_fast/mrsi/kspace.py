"""Fourier modes of one map axis, and the gain of each line of a slice (NumPy float64, cached).

An MRSI map of ``n`` voxels comes from the lines ``|k| <= n/2`` of k-space. On the finer grid of ``N = n f`` voxels, LR
voxel ``j`` has its centre at the HR position ``p_j = (j + 1/2) f - 1/2``, and the acquisition along this axis is

    A[j, X] = 1/N  sum_{|k| <= n/2}  w_k W_k B_k  cos(2 pi k (p_j - X) / N),

with ``w_k = 1/2`` for the lines ``k = +-n/2`` of an even ``n`` and 1 otherwise, the window ``W`` and the box response
``B_k = 1/sinc(k/N)``. Written in cosines and sines about the centre of LR voxel 0 the sum is a singular value
decomposition: one orthonormal HR row, one orthonormal LR column and one gain for each mode. Everything else in
``mrsi_fast.mrsi`` (adjoint, pseudo-inverse, projection, zero-filling, elliptic support) follows from these three.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Support = Literal["square", "ellipse"]
Window = Literal["none", "hamming", "hann"]
Float64 = NDArray[np.float64]

#: Modes whose gain is below this share of the largest one count as not measured (the edge lines of a Hann window).
RCOND = 1e-6

_WINDOWS: dict[str, tuple[float, float]] = {"none": (1.0, 0.0), "hamming": (0.54, 0.46), "hann": (0.5, 0.5)}


@dataclass(frozen=True)
class AxisModes:
    """Real Fourier modes that ``n`` samples can hold, on both grids.

    Attributes:
        lines: ``[n]`` the k-space line ``k >= 0`` of each mode (cosine and sine of one line are two modes).
        rows: ``[n, N]`` orthonormal rows on the HR grid.
        samples: ``[n, n]`` orthonormal rows on the LR grid.
        gains: ``[n]`` singular values of ``A`` without window and box: ``1/sqrt(f)``, and ``1/sqrt(2 f)`` for the line
            ``n/2`` of an even ``n``, of which only the cosine is seen.
    """

    lines: NDArray[np.int64]
    rows: Float64
    samples: Float64
    gains: Float64


@lru_cache(maxsize=256)
def axis_modes(n: int, factor: int) -> AxisModes:
    """Return the Fourier modes of an axis of ``n`` LR voxels and ``n * factor`` HR voxels.

    Args:
        n: number of LR voxels, at least 1, odd or even.
        factor: HR voxels in one LR voxel, at least 1.
    """
    size = n * factor
    position = np.arange(size) - ((factor - 1) / 2)  # HR voxels, counted from the centre of LR voxel 0
    index = np.arange(n)
    lines, rows, samples = [0], [np.ones(size)], [np.ones(n)]
    for k in range(1, (n - 1) // 2 + 1):
        for wave in (np.cos, np.sin):
            lines.append(k)
            rows.append(wave(2 * np.pi * k * position / size))
            samples.append(wave(2 * np.pi * k * index / n))
    gains = np.full(n, np.sqrt(1 / factor))
    if n % 2 == 0:
        lines.append(n // 2)
        rows.append(np.cos(np.pi * position / factor))
        samples.append(np.cos(np.pi * index))
        if factor > 1:  # without upsampling the sine of line n/2 does not exist, and its cosine is seen whole
            gains[-1] = np.sqrt(0.5 / factor)
    return AxisModes(
        lines=_frozen(np.array(lines, dtype=np.int64)),
        rows=_frozen(_unit_rows(rows)),
        samples=_frozen(_unit_rows(samples)),
        gains=_frozen(gains),
    )


def window_weight(radius: Float64, window: Window) -> Float64:
    """Return ``a + b cos(pi radius)``: none (1), Hamming (0.54 + 0.46 cos) or Hann (0.5 + 0.5 cos); 1 at the centre."""
    a, b = _WINDOWS[window]
    return a + b * np.cos(np.pi * np.asarray(radius, dtype=np.float64))


def box_weight(lines: NDArray[np.int64], size: int) -> Float64:
    """Return ``1 / sinc(k/N)``: what the box mean over an HR voxel took from line ``k``, given back."""
    return 1.0 / np.sinc(np.asarray(lines) / size)


def axis_gains(n: int, factor: int, window: Window, box: bool, acquired: int | None = None) -> Float64:
    """Return the ``[n]`` singular values of one axis with its window and box response.

    ``acquired`` voxels were measured where the map was zero-filled to ``n``: lines beyond ``acquired/2`` hold nothing,
    and the line ``acquired/2`` of an even number, of which one sign was measured, enters with weight 1/2.
    """
    modes, lines = axis_modes(n, factor), n if acquired is None else acquired
    gains = modes.gains * window_weight(np.minimum(modes.lines / (lines / 2), 1.0), window)
    if lines < n:
        gains = gains * np.where(2 * modes.lines < lines, 1.0, np.where(2 * modes.lines == lines, 0.5, 0.0))
    return gains * box_weight(modes.lines, n * factor) if box else gains


@lru_cache(maxsize=256)
def plane_gains(
    lr_shape: tuple[int, int],
    factors: tuple[int, int],
    support: Support,
    window: Window,
    box: bool,
    acquired: tuple[int, int] | None = None,
) -> Float64:
    """Return the ``[nx, ny]`` singular values of a slice's acquisition over pairs of axis modes.

    Square support: the product of the two axes, window included. Elliptic support: lines with
    ``(2 kx/nx)^2 + (2 ky/ny)^2 <= 1`` (decided in integers), windowed by that radius. For zero-filled maps ``nx`` and
    ``ny`` are the ``acquired`` ones.
    """
    (nx, ny), (fx, fy), (ax, ay) = lr_shape, factors, acquired or lr_shape
    if support == "square":
        return _frozen(np.outer(axis_gains(nx, fx, window, box, ax), axis_gains(ny, fy, window, box, ay)))
    gains = np.outer(axis_gains(nx, fx, "none", box, ax), axis_gains(ny, fy, "none", box, ay))
    kx, ky = axis_modes(nx, fx).lines[:, None], axis_modes(ny, fy).lines[None, :]
    inside = (2 * kx * ay) ** 2 + (2 * ky * ax) ** 2 <= (ax * ay) ** 2
    radius = np.minimum(np.hypot(2 * kx / ax, 2 * ky / ay), 1.0)
    return _frozen(np.where(inside, gains * window_weight(radius, window), 0.0))


def _unit_rows(rows: list[Float64]) -> Float64:
    matrix = np.stack(rows).astype(np.float64)
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def _frozen(array: NDArray) -> NDArray:
    array.setflags(write=False)  # cached and shared: nobody may change it
    return array
