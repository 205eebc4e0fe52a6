"""The acquisition of a whole volume: that of its planes times that along the slices' axis.

``A = A_z (x) A_xy``: the two act on different axes, so they commute, and pseudo-inverse and projection ``A+ A`` of the
product are the products of theirs, elliptic support in the plane included. Planes come first, as
everywhere in ``mrsi``: volumes are [Z, ..., X, Y] on the fine grid and [n, ..., nx, ny] on the measured one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mrsi_fast.mrsi.forward import Acquisition, Array, Modes
from mrsi_fast.mrsi.kspace import RCOND, Support, Window
from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.mrsi.through_plane import Kind, SliceAxis

_ROUNDING = 1e-3  # of distances in files


@dataclass(frozen=True, eq=False)
class VolumeModes:
    """The operator's matrices in one dtype on one device, with the methods of ``forward.Modes`` that volumes need.

    Attributes:
        plane: The matrices in the plane.
        down: [n, Z] A along the slices' axis; up: [Z, n] its pseudo-inverse; kept: [Z, Z] its projection.
    """

    plane: Modes[torch.Tensor]
    down: torch.Tensor
    up: torch.Tensor
    kept: torch.Tensor

    @property
    def gains(self) -> torch.Tensor:
        """Singular values in the plane, as ``Modes.gains``."""
        return self.plane.gains

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``A x``: [Z, ..., X, Y] to [n, ..., nx, ny]."""
        return self.plane.forward(across_planes(self.down, x))

    def pinv(self, y: torch.Tensor) -> torch.Tensor:
        """``A+ y``: [n, ..., nx, ny] to [Z, ..., X, Y]."""
        return across_planes(self.up, self.plane.pinv(y))

    def gram_pinv(self, y: torch.Tensor) -> torch.Tensor:
        """The pseudo-inverse of ``A A'`` in the plane: along the slices' axis it is close to a constant."""
        return self.plane.gram_pinv(y)

    def measured(self, x: torch.Tensor) -> torch.Tensor:
        """The part of [Z, ..., X, Y] that was measured."""
        return self.plane.measured(across_planes(self.kept, x))


@dataclass(frozen=True)
class VolumeAcquisition:
    """The linear operator of a volume; acts on the first and the last two axes.

    Attributes:
        plane: The operator of each slice.
        axis: The operator along the slices' axis.
    """

    plane: Acquisition
    axis: SliceAxis

    @property
    def support(self) -> Support:
        """k-space support in the plane."""
        return self.plane.support

    @property
    def window(self) -> Window:
        """k-space window in the plane."""
        return self.plane.window

    @property
    def assumed(self) -> bool:
        """Whether anything was assumed rather than declared."""
        return self.plane.assumed or self.axis.assumed

    @property
    def acquired(self) -> tuple[int, int] | None:
        """As ``Acquisition.acquired``."""
        return self.plane.acquired

    def describe(self) -> str:
        """Two sentences for logs and reports."""
        through = self.axis.describe()
        return f"{self.plane.describe()} {through[0].upper()}{through[1:]}."

    def forward(self, x: Array) -> Array:
        """``A x``: [Z, ..., X, Y] to [n, ..., nx, ny], any unit."""
        self._check(x, self.axis.planes)
        return self.plane.forward(_applied(self.axis.matrices().forward, x))

    def pinv(self, y: Array, rcond: float = RCOND, damping: float = 0.0) -> Array:
        """``A_lambda+ y``: [n, ..., nx, ny] to [Z, ..., X, Y], in float64; see ``Acquisition.pinv``."""
        self._check(y, self.axis.count)
        return self.plane.pinv(_applied(self.axis.matrices(damping).inverse, y), rcond, damping)

    def smooth(self, y: Array, damping: float = 0.0) -> Array:
        """The smoothest estimate that the data give: ``pinv``, zero-filling along an axis of separate slices."""
        self._check(y, self.axis.count)
        return self.plane.pinv(_applied(self.axis.matrices(damping).smooth, y), damping=damping)

    def zero_fill(self, y: Array) -> Array:
        """Plain zero-filled interpolation along all three axes; windows and slice profiles are not undone."""
        self._check(y, self.axis.count)
        plain = SliceAxis(self.axis.count, self.axis.factor, "slices").matrices().smooth
        return self.plane.zero_fill(_applied(plain, y))

    def measured(self, x: Array) -> Array:
        """``A+ A x``: the part of [Z, ..., X, Y] that was measured."""
        self._check(x, self.axis.planes)
        return self.plane.measured(_applied(self.axis.matrices().measured, x))

    def null(self, x: Array) -> Array:
        """What was not."""
        return x - self.measured(x)

    def modes(self, dtype: torch.dtype, device: torch.device | str, rcond: float = RCOND) -> VolumeModes:
        """The matrices for many applications; see ``Acquisition.modes``."""
        down, up, kept = (torch.tensor(one, dtype=dtype, device=device) for one in self.axis.matrices()[:3])
        return VolumeModes(self.plane.modes(dtype, device, rcond), down, up, kept)

    def _check(self, image: Array, planes: int) -> None:
        if image.ndim < 3 or image.shape[0] != planes:
            raise ValueError(
                f"The operator of a volume expects {planes} planes along the first axis, got an array of shape "
                f"{tuple(image.shape)}."
            )


Operator = Acquisition | VolumeAcquisition

FEWEST_SLICES = 6
"""Slices that can be refined: as many as voxels along an in-plane axis (``planes.MINIMUM_MATRIX``)."""


def operator_of(
    shape: Sequence[int],
    factors: Sequence[int],
    spacing_mm: float,
    plane: tuple[Support | None, Window | None, bool, tuple[int, int] | None],
    through: tuple[Kind | None, float | None],
) -> Operator:
    """The operator of a set of maps: that of its slices, or of the whole volume where they are refined too.

    Args:
        shape: Measured voxels, slices last.
        factors: One an axis, slices last.
        spacing_mm: Distance of slices.
        plane: Support, window, box response and acquired matrix in the plane; None is assumed (``Acquisition.assume``).
        through: Kind of the slices' axis, assumed encoded, and thickness of separate slices in mm.

    Raises:
        MapInputError: The slices cannot be refined: too few, of unknown thickness, or overlapping.
    """
    support, window, box, acquired = plane
    in_plane = Acquisition.assume(shape[:2], factors[:2], support, window, box, acquired)
    if factors[2] == 1:
        return in_plane
    _check_slices(shape[2], spacing_mm, *through)
    kind, thickness = through
    axis = SliceAxis(
        count=shape[2],
        factor=factors[2],
        kind=kind or "encoded",
        window="none" if kind == "slices" else in_plane.window,
        thickness=1.0 if thickness is None else min(thickness / spacing_mm, 1.0),
        assumed=kind is None,
    )
    return VolumeAcquisition(in_plane, axis)


def remarks_on_slices(operator: Operator) -> list[str]:
    """Remarks for the user on the origin of the slices."""
    if isinstance(operator, Acquisition) or not operator.axis.assumed:
        return []
    return [
        "The origin of the slices was not given: the third axis is assumed to be phase-encoded, as in whole-brain "
        "MRSI. Give --through-plane encoded, or --through-plane slices with their thickness."
    ]


def _check_slices(count: int, spacing_mm: float, kind: Kind | None, thickness_mm: float | None) -> None:
    keep = "Keep the slices as they are: a factor of 1 along their axis, such as --scale 2,2,1."
    if count < FEWEST_SLICES:
        number = "There is one slice" if count == 1 else f"There are {count} slices"
        raise MapInputError(
            f"{number}: too few to be refined through the plane, which takes {FEWEST_SLICES} or more. {keep}"
        )
    if kind == "slices" and thickness_mm is None:
        raise MapInputError(
            f"Separate slices, {spacing_mm:.4g} mm apart: whether there are gaps between them is not known. Say "
            f"how thick they are with --slice-thickness ({spacing_mm:.4g} if they are adjacent)."
        )
    if kind != "slices" and thickness_mm is not None:
        raise MapInputError(
            f"A slice thickness of {thickness_mm:.4g} mm was given, which a phase-encoded axis does not have. Say "
            "--through-plane slices if each slice was excited by itself."
        )
    if thickness_mm is not None and not 0 < thickness_mm <= spacing_mm * (1 + _ROUNDING):
        raise MapInputError(
            f"Slices {thickness_mm:.4g} mm thick and {spacing_mm:.4g} mm apart: a thickness is above 0 and at most the "
            f"distance of slices; overlapping slices are not offered. {keep}"
        )


def across_planes(matrix: torch.Tensor, volume: torch.Tensor) -> torch.Tensor:
    """``matrix`` [P, Q] applied to the first axis of [Q, ...]."""
    return (matrix @ volume.reshape(volume.shape[0], -1)).reshape(matrix.shape[0], *volume.shape[1:])


def _applied(matrix: NDArray, volume: Array) -> Array:
    """The same for tensors and arrays in float64, in the dtype of the volume."""
    if isinstance(volume, np.ndarray):
        flat = matrix @ volume.reshape(volume.shape[0], -1).astype(np.float64, copy=False)
        return flat.reshape(matrix.shape[0], *volume.shape[1:]).astype(volume.dtype, copy=False)
    wide = torch.tensor(matrix, dtype=torch.float64)
    return across_planes(wide, volume.double().cpu()).to(volume)
