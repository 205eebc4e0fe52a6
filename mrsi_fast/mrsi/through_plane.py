"""How the slices of a volume came about along their axis, as a linear operator on the planes of a finer volume.

Two ways; the user states which one applies:

- ``encoded``: the third axis was phase-encoded too (EPSI, FID-MRSI, concentric rings in 3D). Along it the operator is
  that of an in-plane axis (``mrsi_fast.mrsi.kspace``): lines ``|k| <= n/2``, half-voxel phase, field of view kept.
- ``slices``: each slice was excited by itself and integrates the object over its thickness ``t``, a box. Slices are
  ``d`` apart; ``t = d`` means adjacent ones, ``t < d`` leaves gaps that nothing was measured in. Plane ``i`` of the
  ``g`` planes that a slice is refined into covers ``[i, i + 1] d/g``, and its weight is the share of the slice in it.

Either is one orthonormal row per mode on the fine axis, one on the measured axis, and a gain, so that adjoint,
pseudo-inverse and projection follow as they do in the plane.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.kspace import RCOND, Float64, Window, axis_gains, axis_modes

Kind = Literal["encoded", "slices"]

KINDS: tuple[Kind, ...] = ("encoded", "slices")


class Matrices(NamedTuple):
    """The operator along the slices' axis, float64: ``n`` measured slices, ``Z`` planes of the finer volume.

    Attributes:
        forward: ``[n, Z]``, A.
        inverse: ``[Z, n]``, A+.
        measured: ``[Z, Z]``, A+ A: the projection on what was measured.
        smooth: ``[Z, n]``, the smoothest estimate that the slices give: A+ where the axis was encoded, zero-filling
            where it was not (A+ of boxes is a staircase).
    """

    forward: Float64
    inverse: Float64
    measured: Float64
    smooth: Float64


@dataclass(frozen=True)
class SliceAxis:
    """The axis along which slices are stacked, and what refines it.

    Attributes:
        count: Measured slices.
        factor: Planes of the finer volume in one of them.
        kind: ``encoded`` or ``slices``.
        window: k-space window along this axis; ``encoded`` alone.
        thickness: Thickness of a slice over the distance of slices, above 0 and at most 1; ``slices`` alone.
        assumed: True if nobody said which kind it is.

    Raises:
        ValueError: A count or factor below 1, an unknown kind, or a thickness outside 0 to 1.
    """

    count: int
    factor: int
    kind: Kind = "encoded"
    window: Window = "none"
    thickness: float = 1.0
    assumed: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        """Checks the description."""
        if self.count < 1 or self.factor < 1:
            raise ValueError(f"{self.count} slices refined {self.factor} times: give whole numbers of at least 1.")
        if self.kind not in KINDS:
            raise ValueError(f"The slices' axis is {self.kind!r}; choose 'encoded' or 'slices'.")
        if not 0 < self.thickness <= 1:
            raise ValueError(
                f"Slices {self.thickness:.3g} times as thick as they are apart: give a thickness above 0 and at most "
                "the distance of slices (overlapping slices are not offered)."
            )

    @property
    def planes(self) -> int:
        """Planes of the finer volume."""
        return self.count * self.factor

    def matrices(self, damping: float = 0.0) -> Matrices:
        """The operator's matrices, read-only.

        Args:
            damping: Tikhonov weight of the inverse relative to the largest gain, as in ``Acquisition.pinv``, times what
                leaves a constant as it is; the projection is never damped.
        """
        return _matrices(self, damping if self.kind == "encoded" and self.window != "none" else 0.0)

    @property
    def noise_gain(self) -> float:
        """Standard deviation that white unit noise has after the window along this axis."""
        if self.kind == "slices":
            return 1.0
        gains = axis_gains(self.count, 1, self.window, box=False)
        return float(np.sqrt((gains**2).mean()))

    def describe(self) -> str:
        """One clause for logs and reports."""
        text = f"{self.count} slices refined to {self.planes} planes, "
        if self.kind == "encoded":
            window = "" if self.window == "none" else f" with a {self.window.capitalize()} window"
            text += f"phase-encoded along the third axis{window}"
        elif self.thickness == 1:
            text += "adjacent slices, each the mean over its thickness"
        else:
            text += f"slices as thick as {100 * self.thickness:.3g} % of their distance, each the mean over it"
        return text + (" (assumed: give --through-plane encoded or slices)" if self.assumed else "")


def box_rows(count: int, factor: int, thickness: float) -> Float64:
    """Weights ``[count, count * factor]`` of the planes in each slice; each row sums to 1.

    Args:
        count: Slices.
        factor: Planes in the distance of two slices.
        thickness: Of a slice over that distance.
    """
    edges = np.arange(factor + 1) / factor
    low, high = 0.5 - thickness / 2, 0.5 + thickness / 2
    share = np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None) / thickness
    return np.kron(np.eye(count), share)


class AxisOperator(NamedTuple):
    """Singular value decomposition of A along the slices' axis: ``A = samples' diag(gains) rows``.

    Attributes:
        rows: ``[r, Z]`` orthonormal on the planes of the finer volume.
        samples: ``[r, n]`` orthonormal on the measured slices.
        gains: ``[r]``, above 0; lines that a window took away are left out.
    """

    rows: Float64
    samples: Float64
    gains: Float64


@lru_cache(maxsize=64)
def axis_operator(axis: SliceAxis) -> AxisOperator:
    """The decomposition of an axis, read-only."""
    if axis.kind == "slices":
        boxes = box_rows(axis.count, axis.factor, axis.thickness)
        norm = np.linalg.norm(boxes, axis=1)
        rows, samples, gains = boxes / norm[:, None], np.eye(axis.count), norm
    else:
        modes = axis_modes(axis.count, axis.factor)
        rows, samples = modes.rows, modes.samples
        gains = axis_gains(axis.count, axis.factor, axis.window, box=False)
    kept = gains > RCOND * gains.max()
    return AxisOperator(*(_frozen(array[kept]) for array in (rows, samples, gains)))


@lru_cache(maxsize=64)
def _matrices(axis: SliceAxis, damping: float) -> Matrices:
    rows, samples, gains = axis_operator(axis)
    inverse_gains = gains * (1 + damping**2) / (gains**2 + (damping * gains.max()) ** 2)
    inverse = rows.T @ (inverse_gains[:, None] * samples)
    smooth = inverse
    if axis.kind == "slices":
        plain = axis_modes(axis.count, axis.factor)
        smooth = plain.rows.T @ (plain.gains[:, None] * plain.samples) * axis.factor
    forward = samples.T @ (gains[:, None] * rows)
    return Matrices(*(_frozen(array) for array in (forward, inverse, rows.T @ rows, smooth)))


def _frozen(array: Float64) -> Float64:
    array.setflags(write=False)  # cached and shared
    return array


def along_slices(matrix: NDArray, volume: NDArray) -> NDArray:
    """``matrix`` [P, Q] applied to the last axis of [..., Q], giving [..., P] in the dtype of the volume."""
    return np.ascontiguousarray((volume.astype(np.float64, copy=False) @ matrix.T).astype(volume.dtype, copy=False))
