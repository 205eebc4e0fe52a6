"""How well an anatomical image in a given place explains metabolite maps, and how that changes as the image moves.

The intensities of the image are split into a few overlapping bands, each band is averaged over the voxels and acquired
like the maps (``A``), and every map is explained as a combination of the bands and a smooth field. The explained share
of the maps' variance is the correlation ratio (Roche et al. 1998, 10.1007/BFb0056301) between image and maps, at the
resolution and with the point spread of the maps. It knows nothing of contrasts, so T2 and FLAIR serve as T1 does.

Errors of the maps are not independent, since texture and signal level are common to all metabolites of a voxel. So the
likelihood goes by the determinant of their covariance, and what moves all maps alike counts once.

The weights of the bands follow from the place (variable projection, Golub & Pereyra 1973, 10.1137/0710036): a place has
six numbers, and slope and curvature of the likelihood follow from the slopes of the bands between their voxels.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mrsi_fast.evidence.bands import Bands
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.geometry import voxel_sizes_mm
from mrsi_fast.preparation import AcquisitionSettings

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

MODEL_VOXEL_MM = 4.0
"""The object behind the maps is modelled on the coarsest grid of 1, 2 or 4 points a voxel that is this fine."""

MODEL_PLANE_MM = 3.0
"""Slices are averaged over planes at most this far apart."""

REACH_VOXELS = 1
"""Voxels around the ones that count from which signal reaches them; points further out are not looked at."""

CORRELATED_VOXELS = 4.0
"""Voxels that share one independent error of the fit: texture and point spread reach to the neighbours."""

DIFFERENCE = 0.1
"""Length of the differences that slopes are made of, mm and degrees."""


def rigid(values: Float64, centre: Float64) -> Float64:
    """[4, 4] of three shifts (mm) and three turns (degrees) about X, then Y, then Z of a centre."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(values[3:])):
        a, b = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    whole = np.eye(4)
    whole[:3, :3], whole[:3, 3] = matrix, values[:3] + centre - matrix @ centre
    return whole


@dataclass(frozen=True, eq=False)
class Explanation:
    """The maps as an image in one place explains them.

    Attributes:
        values: The place [6]: shifts along X, Y, Z (mm), turns about X, Y, Z (degrees).
        design: [voxels, columns] acquired bands, then the smooth field.
        weights: [columns, M] that explain most.
        residual: [voxels, M] what is left of the maps.
        observations: How many of the residuals are independent.
    """

    values: Float64
    design: Float64
    weights: Float64
    residual: Float64
    observations: float

    @property
    def explained(self) -> float:
        """Share of the maps' variance that is explained, mean over maps."""
        return 1 - float((self.residual**2).mean())

    @property
    def covariance(self) -> Float64:
        """[M, M] of what is left; of two maps that are alike it can still be inverted."""
        return self.residual.T @ self.residual / len(self.residual) + 1e-6 * np.eye(self.residual.shape[1])

    @property
    def likelihood(self) -> float:
        """Logarithm of the likelihood of the place, up to a constant, the covariance of the maps' errors unknown."""
        return -0.5 * self.observations * float(np.linalg.slogdet(self.covariance)[1])


class Fit:
    """Explains maps by an image in any place.

    Args:
        image: [X, Y, Z] anatomical image.
        image_affine: Its affine, mm.
        maps: [M, nx, ny, Z] measured maps, untrusted voxels filled.
        valid: [nx, ny, Z] voxels that count.
        affine: Of the maps.
        known: What was declared of the acquisition of the maps.

    Raises:
        ValueError: The image has one value.
    """

    def __init__(
        self,
        image: NDArray,
        image_affine: NDArray,
        maps: NDArray,
        valid: Bool,
        affine: NDArray,
        known: AcquisitionSettings | None = None,
    ) -> None:
        self._bands = Bands.of(image, np.asarray(image_affine, np.float64))
        self._affine, self._known = np.asarray(affine, np.float64), known or AcquisitionSettings()
        self._used = [z for z in range(maps.shape[3]) if valid[..., z].any()]
        self._valid = np.moveaxis(valid[..., self._used], -1, 0)
        inside = _points(self._affine, self._valid.shape[1:], 1, self._used, 1)[:, 0][self._valid]
        self.centre = inside.mean(0)
        self._field = _field(inside - self.centre, len(self._used) > 2)
        data = np.moveaxis(maps[..., self._used], -1, 1).astype(np.float64)[:, self._valid].T
        self._data = (data - data.mean(0)) / np.maximum(data.std(0), 1e-12)
        self.evaluations = 0
        voxel = voxel_sizes_mm(affine)
        factor = next((f for f in (1, 2, 4) if max(voxel[:2]) / f <= MODEL_VOXEL_MM), 4)
        self._model(factor, MODEL_PLANE_MM)

    def _model(self, factor: int, plane_mm: float) -> None:
        """Sets the points that stand for the object: per voxel ``factor`` along X and Y, and planes so far apart."""
        shape, known = self._valid.shape[1:], self._known
        planes = max(1, int(np.ceil(voxel_sizes_mm(self._affine)[2] / plane_mm)))
        self._operator = Acquisition.assume(shape, (factor, factor), known.support, known.window, acquired=known.matrix)
        valid = torch.from_numpy(self._valid).float()
        near = functional.max_pool2d(valid, 2 * REACH_VOXELS + 1, stride=1, padding=REACH_VOXELS).numpy() > 0
        near = near.repeat(factor, 1).repeat(factor, 2)[:, None].repeat(planes, 1)
        self._grid = near.shape
        self._near = torch.from_numpy(np.flatnonzero(near))
        self._points = torch.from_numpy(_points(self._affine, shape, factor, self._used, planes)[near]).float()

    def coarser(self) -> Fit:
        """The same at the voxel of the maps, one point each, for places that are far off: tens of times faster."""
        voxel = float(max(voxel_sizes_mm(self._affine)[:2]))
        other = copy.copy(self)
        other._bands = self._bands.coarser(voxel)
        other._model(1, voxel)
        other.evaluations = 0
        return other

    def mirrored(self, placement: Float64, axis: int = 0) -> Fit:
        """The same maps with the image moved by a matrix and mirrored about the centre along X, Y or Z (RAS+)."""
        mirror = np.eye(4)
        mirror[axis, axis], mirror[axis, 3] = -1.0, 2 * float(self.centre[axis])
        other = copy.copy(self)
        other._bands = self._bands.moved(mirror @ placement)
        other.evaluations = 0
        return other

    def at(self, values: Float64) -> Explanation:
        """Explains the maps by the image in a place [6]."""
        self.evaluations += 1
        bands = self._bands.at(_transformed(self._to_bands(values), self._points))
        design = np.concatenate([self._acquired(bands[None])[0], self._field], axis=1)
        weights = _solved(design, self._data)
        return Explanation(values, design, weights, self._data - design @ weights, len(self._data) / CORRELATED_VOXELS)

    def slopes(self, found: Explanation) -> tuple[Float64, Float64]:
        """Slope [6] and curvature [6, 6] of the likelihood about a place; the curvature as Gauss and Newton take it.

        With r the residuals of a voxel's maps, S their covariance and J what the image adds to the maps as it moves,
        the likelihood rises by ``n/N sum r'S^-1 J``, and its curvature is ``-n/N sum (PJ)'S^-1 PJ``, P taking away
        what other weights would explain.
        """
        slopes = self._bands.slopes(_transformed(self._to_bands(found.values), self._points))
        moved = []
        for step in DIFFERENCE * np.eye(6):
            change = (self._to_bands(found.values + step) - self._to_bands(found.values - step)) / (2 * DIFFERENCE)
            moved.append(torch.einsum("abn,na->bn", slopes, _transformed(change, self._points)))
        acquired = self._acquired(torch.stack(moved))
        jacobian = np.moveaxis(acquired @ found.weights[: acquired.shape[-1]], 0, -1)  # [voxels, M, 6]
        flat = jacobian.reshape(len(jacobian), -1)
        own = (flat - found.design @ _solved(found.design, flat)).reshape(jacobian.shape)
        precision = found.observations / len(found.residual) * np.linalg.inv(found.covariance)
        slope = np.einsum("nk,nkj->j", found.residual @ precision, jacobian)
        weighted = np.einsum("mk,nkj->nmj", precision, own)
        return slope, -np.einsum("nmi,nmj->ij", own, weighted)

    def explained_by_field(self) -> float:
        """Share of the maps' variance that the smooth field alone explains, mean over maps."""
        return 1 - float(((self._data - self._field @ _solved(self._field, self._data)) ** 2).mean())

    def _to_bands(self, values: Float64) -> Float64:
        """[4, 4] from mm to voxels of the bands, the image in a place [6]."""
        return np.asarray(np.linalg.inv(rigid(values, self.centre) @ self._bands.affine), np.float64)

    def _acquired(self, points: Tensor) -> Float64:
        """[images, voxels, bands] what the maps' voxels that count see of bands [images, bands, points]."""
        images = points.new_zeros(*points.shape[:2], int(np.prod(self._grid)))
        images.index_copy_(-1, self._near, points)
        objects = images.unflatten(-1, self._grid).mean(-3)  # over the planes of a slice
        seen = self._operator.forward(objects).numpy()[..., self._valid]
        return seen.swapaxes(1, 2).astype(np.float64)  # bands and field can hardly be told apart in float32


def _transformed(matrix: Float64, points: Tensor) -> Tensor:
    """Points [N, 3] after a matrix [4, 4]."""
    values = torch.from_numpy(matrix).float()
    return points @ values[:3, :3].T + values[:3, 3]


def _solved(design: Float64, data: Float64) -> Float64:
    """Weights [columns, ...] that explain data [voxels, ...] best, held by a trace of ridge."""
    gram = design.T @ design
    ridge = 1e-6 * gram.diagonal().mean() * np.eye(len(gram))
    return np.linalg.solve(gram + ridge, design.T @ data)


def _field(offset: Float64, in_depth: bool) -> Float64:
    """[voxels, columns] a smooth field: second order in the plane and, of three slices and more, along their axis."""
    x, y, z = (offset / max(1.0, np.abs(offset).max())).T
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y] + ([z, z * z] if in_depth else []), axis=1)


def _points(affine: Float64, shape: Sequence[int], factor: int, used: Sequence[int], planes: int) -> Float64:
    """Places of the model's points in mm [Z, planes, X, Y, 3]."""
    along = [(np.arange(n * factor) + 0.5) / factor - 0.5 for n in shape]
    heights = np.array(used)[:, None] + (np.arange(planes) + 0.5) / planes - 0.5
    z, x, y = np.broadcast_arrays(
        heights[:, :, None, None], along[0][None, None, :, None], along[1][None, None, None, :]
    )
    index = np.stack([x, y, z, np.ones_like(x)], axis=-1)
    return (index @ affine.T)[..., :3]
