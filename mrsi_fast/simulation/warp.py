"""How a head becomes a subject's head: affine and elastic deformation, ventricle scaling, tissue shares of a slice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.simulation.anatomy import CLASSES, Head, head_paths, load_head
from mrsi_fast.simulation.config import AnatomyConfig
from mrsi_fast.simulation.fields import Array, Axis, SmoothField
from mrsi_fast.simulation.keys import Key
from mrsi_fast.simulation.phantom import phantom_head

PHANTOM_VARIANTS = {"train": range(0, 4), "val": range(4, 6), "test": range(6, 8), "all": range(0, 8)}

VENTRICLE_REACH_MM = 30.0  # width of the region that ventricle scaling moves
ELASTIC_LIMIT = 2.5  # the elastic field is cut at this many standard deviations, so that it never folds

Orientation = Literal["axial", "coronal", "sagittal"]
AXES_OF: dict[Orientation, tuple[int, int, int]] = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}
"""The anatomical axes (0 right, 1 anterior, 2 superior) that run along x, y and across the slices."""

COUNT_BITS = 5  # labels are counted per class in 5 bits of one 64-bit integer, all 12 classes in one addition
LARGEST_COUNT = 2**COUNT_BITS - 1
ONE_OF_CLASS = np.uint64(1) << (np.uint64(COUNT_BITS) * np.arange(len(CLASSES), dtype=np.uint64))


@dataclass(frozen=True)
class WarpedHead:
    """A head and its map from subject space (mm, RAS+, origin at the centre of the cerebrum) to its voxels.

    Attributes:
        head: The label volume.
        matrix: [3, 3], rotation, scaling and flip.
        elastic: Displacement field of unit variance per axis, or None.
        elastic_mm: Its standard deviation.
        ventricle_scale: Relative size change of the ventricles.
    """

    head: Head
    matrix: NDArray[np.float64]
    elastic: SmoothField | None
    elastic_mm: float
    ventricle_scale: float

    def fractions(self, x: Axis, y: Axis, planes: Array, refine: int) -> Array:
        """Share of each tissue class [C, X, Y] on a slice.

        Args:
            x: Points.
            y: Points.
            planes: Heights to average over, mm.
            refine: Labels are looked up at ``refine`` x ``refine`` places in the cell of each point.
        """
        fine = x.refined(refine), y.refined(refine)
        counts = np.zeros((len(CLASSES), x.count, y.count), np.uint16)
        for first in range(0, len(planes), LARGEST_COUNT // refine**2):
            part = planes[first : first + LARGEST_COUNT // refine**2]
            packed = np.zeros((x.count * refine, y.count * refine), np.uint64)
            for z, lattice in zip(part, self._displacement(part, x.dtype), strict=True):
                packed += ONE_OF_CLASS[self._labels(*fine, float(z), lattice)]
            total = packed[::refine, ::refine].copy()
            for offset in range(1, refine**2):
                total += packed[offset // refine :: refine, offset % refine :: refine]
            for index in range(len(CLASSES)):
                counts[index] += ((total >> (COUNT_BITS * index)) & LARGEST_COUNT).astype(np.uint16)
        fractions = counts.astype(x.dtype)
        fractions *= 1 / (len(planes) * refine**2)
        return fractions

    def reoriented(self, orientation: Orientation) -> WarpedHead:
        """The head with its axes permuted, so that slices are coronal or sagittal; its ventricles keep their size."""
        if orientation == "axial":
            return self
        matrix = self.matrix @ np.eye(3)[:, list(AXES_OF[orientation])]
        return replace(self, matrix=matrix, ventricle_scale=0.0)

    def displaced(self, rotation: NDArray[np.float64], shift_mm: NDArray[np.float64]) -> WarpedHead:
        """The head seen by a frame displaced against this one: a point p shows what lies at ``rotation p + shift``."""
        x, y, z = (float(c) for c in np.array(self.head.centre) + self.matrix @ shift_mm)
        return replace(self, head=replace(self.head, centre=(x, y, z)), matrix=self.matrix @ rotation)

    def class_near(self, point: tuple[float, float, float]) -> int:
        """Class at a point (mm), elastic deformation and ventricle scaling left out."""
        voxel = self.matrix @ np.array(point) + self.head.centre + 0.5
        depth, width, height = self.head.classes.shape
        x, y, z = np.clip(voxel, 0, np.array([width, height, depth]) - 1).astype(int)
        return int(self.head.classes[z, x, y])

    def _labels(self, x: Axis, y: Axis, z: float, lattice: Array | None) -> NDArray[np.uint8]:
        """Class of each point of one plane: the nearest voxel of the warped head.

        Affine map, ventricle scaling and elastic field are sums of separable terms, so one matrix product gives each
        coordinate.
        """
        head, gx, gy = self.head, x.points, y.points
        offset = (gx - head.ventricles[0], gy - head.ventricles[1], z - head.ventricles[2])
        bell_x, bell_y = (np.exp(-((o / VENTRICLE_REACH_MM) ** 2)) for o in offset[:2])
        bell_x *= -self.ventricle_scale * float(np.exp(-((offset[2] / VENTRICLE_REACH_MM) ** 2)))
        one_x, one_y = np.ones_like(gx), np.ones_like(gy)
        depth, width, height = head.classes.shape
        index = []
        for row, size in enumerate((width, height, depth)):
            a, b, c = self.matrix[row].tolist()
            left = [np.stack([a * gx, one_x, bell_x * (a * offset[0]), bell_x], axis=1)]
            right = [
                np.stack(
                    [one_y, b * gy + (c * z + head.centre[row] + 0.5), bell_y, bell_y * (b * offset[1] + c * offset[2])]
                )
            ]
            if lattice is not None and self.elastic is not None:
                left.append(x.weights(self.elastic.spacing) @ lattice[row])
                right.append(y.weights(self.elastic.spacing).T)
            point = np.concatenate(left, axis=1) @ np.concatenate(right)
            index.append(np.clip(point, 0, size - 1, out=point).astype(np.int32))
        return head.classes.ravel()[(index[2] * width + index[0]) * height + index[1]]

    def _displacement(self, planes: Array, dtype: str) -> Array | list[None]:
        """Elastic displacement on the lattice [planes, 3, knots, knots], in voxels of the head; None without one."""
        if self.elastic is None:
            return [None] * len(planes)
        lattices = np.clip(self.elastic.lattices(planes), -ELASTIC_LIMIT, ELASTIC_LIMIT)
        return np.einsum("ij,pjkl->pikl", (self.matrix * self.elastic_mm).astype(dtype), lattices)


def draw_head(config: AnatomyConfig, key: Key, number: int | None, dtype: str) -> WarpedHead:
    """Draws a head of the configured part and its deformation.

    Args:
        config: Which heads and how much variation.
        key: The subject's key.
        number: Takes the heads in turn by this number instead of at random.
        dtype: Precision of the deformation.
    """
    rng = key.stream("head")
    if config.heads == "phantom":
        variants = PHANTOM_VARIANTS[config.split]
        head = phantom_head(variants[_turn(rng, number, len(variants))])
    else:
        paths = head_paths(config.heads, config.split)
        head = load_head(paths[_turn(rng, number, len(paths))])
    rng = key.stream("warp")
    rotation = rotation_matrix(np.deg2rad(config.rotation_deg) * rng.uniform(-1, 1, 3))
    low, high = config.scale
    size = rng.uniform(low, high) ** 0.5 * rng.uniform(low, high, 3) ** 0.5
    flip = np.array([-1.0 if config.flip and rng.random() < 0.5 else 1.0, 1.0, 1.0])
    elastic = SmoothField(key, "elastic", 3, config.elastic_scale_mm, dtype) if config.elastic_mm > 0 else None
    ventricle_scale = float(rng.uniform(-1, 1)) * config.ventricle_scale
    return WarpedHead(head, np.diag(flip) @ rotation @ np.diag(1 / size), elastic, config.elastic_mm, ventricle_scale)


def rotation_matrix(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Product of the rotations [3, 3] about the first, second and third axis, angles in radians."""
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[[a, b], [a, b]], turn[a, b], turn[b, a] = np.cos(angle), -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    return rotation


def _turn(rng: np.random.Generator, number: int | None, count: int) -> int:
    return int(rng.integers(count)) if number is None else number % count
