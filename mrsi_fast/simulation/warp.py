"""How a head becomes a subject's head: affine and elastic deformation, ventricle scaling, tissue shares of a slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.simulation.anatomy import CLASSES, Head, head_paths, load_head
from mrsi_fast.simulation.config import AnatomyConfig
from mrsi_fast.simulation.fields import Array, Axis, SmoothField, upsample
from mrsi_fast.simulation.keys import Key
from mrsi_fast.simulation.phantom import phantom_head

PHANTOM_VARIANTS = {"train": range(0, 4), "val": range(4, 6), "test": range(6, 8), "all": range(0, 8)}

VENTRICLE_REACH_MM = 22.0  # width of the region that ventricle scaling moves
ELASTIC_LIMIT = 2.5  # the elastic field is cut at this many standard deviations, so that it never folds


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

    def fractions(self, x: Axis, y: Axis, planes: Array) -> Array:
        """Share of each tissue class [C, X, Y] on a slice, averaged over its planes."""
        labels = np.stack([self._labels(x, y, float(z)) for z in planes])
        counts = np.empty((len(CLASSES), x.count, y.count), np.uint8)
        for index in range(len(CLASSES)):
            np.sum(labels == index, axis=0, out=counts[index], dtype=np.uint8)
        fractions = counts.astype(x.dtype)
        fractions *= 1 / len(planes)
        return fractions

    def _labels(self, x: Axis, y: Axis, z: float) -> NDArray[np.uint8]:
        """Class of each point of one plane: the nearest voxel of the warped head."""
        head, matrix = self.head, self.matrix.tolist()
        gx, gy = x.points, y.points
        offset = (gx - head.ventricles[0], gy - head.ventricles[1], z - head.ventricles[2])
        bell_x, bell_y = (np.exp(-((o / VENTRICLE_REACH_MM) ** 2)) for o in offset[:2])
        depth_pull = -self.ventricle_scale * float(np.exp(-((offset[2] / VENTRICLE_REACH_MM) ** 2)))
        pull = (depth_pull * bell_x)[:, None] * bell_y[None, :]
        shift = self._elastic_shift(x, y, z)
        depth, width, height = head.classes.shape
        index = []
        for row, size in enumerate((width, height, depth)):
            a, b, c = matrix[row]
            point = pull * ((a * offset[0])[:, None] + (b * offset[1] + c * offset[2])[None, :])
            point += (a * gx)[:, None]
            point += (b * gy + (c * z + head.centre[row] + 0.5))[None, :]
            if shift is not None:
                point += shift[row]
            index.append(np.clip(point, 0, size - 1, out=point).astype(np.int32))
        return head.classes.ravel()[(index[2] * width + index[0]) * height + index[1]]

    def _elastic_shift(self, x: Axis, y: Axis, z: float) -> Array | None:
        """Displacement [3, X, Y] in voxels of the head."""
        if self.elastic is None:
            return None
        lattice = np.clip(self.elastic.lattice(np.array([z])), -ELASTIC_LIMIT, ELASTIC_LIMIT)
        mixed = np.tensordot((self.matrix * self.elastic_mm).astype(x.dtype), lattice, axes=(1, 0))
        return upsample(mixed, x, y, self.elastic.spacing)


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
    rotation = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(config.rotation_deg) * rng.uniform(-1, 1, 3)):
        a, b = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[[a, b], [a, b]], turn[a, b], turn[b, a] = np.cos(angle), -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    low, high = config.scale
    size = rng.uniform(low, high) ** 0.5 * rng.uniform(low, high, 3) ** 0.5
    flip = np.array([-1.0 if config.flip and rng.random() < 0.5 else 1.0, 1.0, 1.0])
    elastic = SmoothField(key, "elastic", 3, config.elastic_scale_mm, dtype) if config.elastic_mm > 0 else None
    ventricle_scale = float(rng.uniform(-1, 1)) * config.ventricle_scale
    return WarpedHead(head, np.diag(flip) @ rotation @ np.diag(1 / size), elastic, config.elastic_mm, ventricle_scale)


def _turn(rng: np.random.Generator, number: int | None, count: int) -> int:
    return int(rng.integers(count)) if number is None else number % count
