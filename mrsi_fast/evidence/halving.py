"""Measured maps cut to half their matrix, as the same scanner would have measured them with half the k-space lines.

A coarse voxel is data if any of the voxels that it covers is trusted; the others are bridged as in every run. The cut
follows the declared operator: a window is undone on the fine lines and applied again to the coarse ones, so that
the coarse maps are what the same protocol gives at half the matrix. The detail that the cut took away is measured, and
that makes it a truth for whatever tries to bring it back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.geometry import hr_affine
from mrsi_fast.mrsi.mapset import MapInputError, MapSet
from mrsi_fast.mrsi.quality import Trust, fill_volume
from mrsi_fast.preparation import AcquisitionSettings

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

SMALLEST_COARSE_SIDE = 6
"""Voxels per axis that must be left: the smallest matrix that the networks are trained on."""


@dataclass(frozen=True, eq=False)
class Halved:
    """Maps at half their matrix beside what was measured.

    Attributes:
        maps: The coarse maps, with the CRLB that white noise leaves in them if the input has one.
        factors: What brings them back to the measured grid; 1 along an axis that was not cut.
        reference: [M, X, Y, Z] measured maps, untrusted voxels filled, one voxel of nothing added to odd axes.
        counted: [M, X, Y, Z] trusted voxels of the reference.
        noise_sd: [M, X, Y, Z] stated noise of a voxel of the reference, NaN where unknown.
        fine: How the reference was sampled.
        coarse: How the coarse maps were sampled from the finer ones.
        known: What a run on the coarse maps has to be told of their acquisition.
    """

    maps: MapSet
    factors: tuple[int, int]
    reference: Float64
    counted: Bool
    noise_sd: Float64
    fine: Acquisition
    coarse: Acquisition
    known: AcquisitionSettings

    def detail(self, image: NDArray, measured: bool) -> Float64:
        """The part of maps [M, X, Y, Z] that the coarse maps do not hold.

        Args:
            image: Maps on the grid of the reference.
            measured: Whether they were measured; others are measured first, by the operator of the reference.
        """
        slices = np.moveaxis(np.asarray(image, np.float64), -1, 0)
        seen = slices if measured or is_identity(self.fine) else self.fine.forward(slices)
        return np.moveaxis(self.coarse.null(seen), 0, -1)

    @property
    def noise_share_outside(self) -> float:
        """Share of the variance of the reference's noise that lies outside the band of the coarse maps."""
        point = np.zeros(self.fine.hr_shape)
        point[tuple(n // 2 for n in point.shape)] = 1.0
        spread = point if is_identity(self.fine) else self.fine.adjoint(point)
        outside = self.coarse.null(point)
        outside = outside if is_identity(self.fine) else self.fine.adjoint(outside)
        return float((outside**2).sum() / (spread**2).sum())


def halve(
    maps: MapSet,
    trust: Trust,
    cut: tuple[bool, bool] = (True, True),
    known: AcquisitionSettings | None = None,
) -> Halved:
    """Cuts measured maps to half their matrix.

    Of interpolated maps half of the matrix that was measured is kept, on half of the grid.

    Args:
        maps: The measured maps.
        trust: Their assessment.
        cut: Whether to cut along X and along Y.
        known: What was declared of the measurement.

    Raises:
        MapInputError: The matrix is too small to be halved, or an interpolated grid has an odd side.
    """
    known = known or AcquisitionSettings()
    factors = (2 if cut[0] else 1, 2 if cut[1] else 1)
    shape, low_shape, matrix = _sizes(maps, factors, known.matrix)
    padding = [(0, 0), (0, shape[0] - maps.shape[0]), (0, shape[1] - maps.shape[1]), (0, 0)]
    counted = np.pad(trust.trusted, padding)
    reference = np.pad(fill_volume(maps.maps, trust.trusted, trust.support).astype(np.float64), padding)
    noise_sd = np.full(reference.shape, np.nan) if trust.sigma is None else np.pad(trust.sigma, padding).astype(float)
    noise_sd[~counted] = np.nan
    fine = Acquisition.assume(shape, (1, 1), known.support, known.window, acquired=known.matrix)
    coarse = Acquisition.assume(low_shape, factors, known.support, known.window, acquired=matrix)
    slices = np.moveaxis(reference, -1, 0)
    low = np.moveaxis(coarse.forward(slices if is_identity(fine) else fine.pinv(slices)), 0, -1)
    blocks = _Blocks(factors)
    low = np.where(blocks.sum(counted) > 0, low, np.nan).astype(np.float32)
    crlb = None
    if maps.crlb is not None:
        left = np.sqrt(blocks.sum(np.nan_to_num(noise_sd) ** 2) / np.maximum(blocks.sum(noise_sd > 0), 1))
        left /= np.sqrt(factors[0] * factors[1])
        with np.errstate(divide="ignore", invalid="ignore"):
            crlb = np.where(left > 0, 100 * left / np.abs(low), np.nan).astype(np.float32)
    mask = None if maps.mask is None else blocks.sum(np.pad(maps.mask, padding[1:])) > 0
    coarse_maps = replace(
        maps,
        maps=low,
        affine=hr_affine(maps.affine, (1 / factors[0], 1 / factors[1], 1)),
        crlb=crlb,
        crlb_unit="percent",
        snr=None,
        fwhm=None,
        mask=mask,
        lipid=None,
        source=f"{maps.source}, at half its matrix",
        warnings=(),
    )
    told = known.model_copy(update={"matrix": matrix})
    return Halved(coarse_maps, factors, reference, counted, noise_sd, fine, coarse, told)


def _sizes(
    maps: MapSet, factors: tuple[int, int], measured: tuple[int, int] | None
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int] | None]:
    """In-plane sizes: of the maps padded to whole coarse voxels, of half of that, and half of the measured matrix.

    Raises:
        MapInputError: As ``halve`` says.
    """
    shape = (maps.shape[0] + maps.shape[0] % factors[0], maps.shape[1] + maps.shape[1] % factors[1])
    low_shape = (shape[0] // factors[0], shape[1] // factors[1])
    matrix = None if measured is None else (measured[0] // factors[0], measured[1] // factors[1])
    if min(matrix or low_shape) < SMALLEST_COARSE_SIDE:
        x, y = measured or maps.shape[:2]
        raise MapInputError(
            f"The maps have {x} x {y} voxels{'' if matrix is None else ' before interpolation'}; the "
            f"self-test needs {2 * SMALLEST_COARSE_SIDE} along every axis that is refined."
        )
    if matrix is not None and shape != maps.shape[:2]:
        raise MapInputError("The self-test of interpolated maps needs an even matrix along every refined axis.")
    return shape, low_shape, matrix


@dataclass(frozen=True)
class _Blocks:
    """Sums over the fine voxels of each coarse one."""

    factors: tuple[int, int]

    def sum(self, image: NDArray) -> Float64:
        """[..., X, Y, Z] to [..., X/fx, Y/fy, Z]."""
        (fx, fy), (*rest, nx, ny, nz) = self.factors, image.shape
        return image.reshape(*rest, nx // fx, fx, ny // fy, fy, nz).sum(axis=(-4, -2), dtype=np.float64)


def is_identity(fine: Acquisition) -> bool:
    """Whether the maps are the samples themselves: all lines, no window, not interpolated."""
    return fine.separable and fine.window == "none" and fine.acquired is None
