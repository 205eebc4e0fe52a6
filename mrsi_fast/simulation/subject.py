"""One simulated subject: everything random about it, drawn from its key, and its object on any slice.

``draw_subject`` makes the choices (head, warp, concentrations, textures, lesion, B1 field); ``Subject.slab`` evaluates
them on the fine grid of one slice of any position and thickness. A volume is a stack of such slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.simulation.anatomy import CLASSES, TISSUE_OF_CLASS, Head, head_paths, load_head
from mrsi_fast.simulation.concentrations import metabolite
from mrsi_fast.simulation.config import AnatomyConfig, SimulationConfig, VariationConfig
from mrsi_fast.simulation.fields import Axis, SmoothField, upsample
from mrsi_fast.simulation.keys import Key
from mrsi_fast.simulation.phantom import phantom_head
from mrsi_fast.simulation.tumour import Lesion, draw_lesion

Array = NDArray[np.float32]

PHANTOM_VARIANTS = {"train": range(0, 4), "val": range(4, 6), "test": range(6, 8), "all": range(0, 8)}


@dataclass(frozen=True)
class Warp:
    """Map from subject space to a head's voxels: elastic field, ventricle scaling, affine.

    Attributes:
        matrix: [3, 3], rotation, scaling and flip.
        elastic: Displacement field of unit variance per axis, or None.
        elastic_mm: Its standard deviation.
        ventricle_scale: Relative size change of the ventricles.
    """

    matrix: NDArray[np.float64]
    elastic: SmoothField | None
    elastic_mm: float
    ventricle_scale: float


@dataclass(frozen=True)
class Slab:
    """The object on the fine grid of one slice.

    Attributes:
        x: Fine axis, mm in subject space.
        y: Fine axis.
        planes: Heights that were averaged, mm.
        fractions: Share of each class [C, X, Y].
        maps: Concentrations with the B1 field [M, X, Y], mM.
        lesion: Membership of the lesion (core and infiltration) [X, Y].
        core: Membership of its core [X, Y].
        anatomy_lesion: Membership of a lesion on T1 only [X, Y].
    """

    x: Axis
    y: Axis
    planes: Array
    fractions: Array
    maps: Array
    lesion: Array
    core: Array
    anatomy_lesion: Array


@dataclass(frozen=True)
class Subject:
    """A drawn subject.

    Attributes:
        key: Source of all further randomness.
        names: Metabolites, canonical names.
        head: Its anatomy.
        warp: How the head is deformed.
        concentrations: [M, C] mM per class.
        gradient: [M] relative change per mm along anterior-posterior.
        region: Smooth regional field and its SD.
        texture: Fine texture, its SD and the share common to all metabolites.
        bias: [9] coefficients of the second-order B1 polynomial over 90 mm (see ``bias_field``).
        lesion: The lesion, or None.
        anatomy_lesion: A lesion that only the T1 image shows, or None.
    """

    key: Key
    names: tuple[str, ...]
    head: Head
    warp: Warp
    concentrations: Array
    gradient: Array
    region: SmoothField
    region_sd: float
    texture: SmoothField
    texture_sd: float
    texture_shared: float
    bias: Array
    lesion: Lesion | None
    anatomy_lesion: Lesion | None

    @property
    def noise_sd(self) -> Array:
        """Noise SD of one unwindowed LR voxel per map [M], mM: the table's, at the mean of grey and white matter."""
        middle = self.concentrations[:, [CLASSES.index("GM"), CLASSES.index("WM")]].mean(1)
        return np.array([metabolite(n).noise(float(v)) for n, v in zip(self.names, middle, strict=True)], np.float32)

    def fractions(self, x: Axis, y: Axis, planes: Array) -> Array:
        """Share of each tissue class [C, X, Y] on a slice, averaged over its planes."""
        counts = np.zeros((len(CLASSES), x.count, y.count), np.uint8)
        labels = np.stack([self._labels(x, y, float(z)) for z in planes])
        for index in range(len(CLASSES)):
            np.sum(labels == index, axis=0, out=counts[index], dtype=np.uint8)
        return counts.astype(np.float32) * np.float32(1 / len(planes))

    def _labels(self, x: Axis, y: Axis, z: float) -> NDArray[np.uint8]:
        """Class of each point of one plane, nearest voxel of the warped head."""
        head, warp = self.head, self.warp
        gx, gy = x.points, y.points
        near = zip((gx, gy, np.float32(z)), head.ventricles, strict=True)
        swell = [np.exp(-(((points - centre) / 22.0) ** 2)) for points, centre in near]
        pull = (-warp.ventricle_scale * swell[2]) * swell[0][:, None] * swell[1][None, :]
        matrix = warp.matrix.astype(np.float32)
        shift = None
        if warp.elastic is not None:
            lattice = np.clip(warp.elastic.lattice(np.array([z], np.float32)), -2.5, 2.5) * np.float32(warp.elastic_mm)
            mixed = np.tensordot(matrix, lattice, axes=(1, 0))
            shift = upsample(mixed, x, y, warp.elastic.spacing)
        index = []
        sizes = (head.classes.shape[1], head.classes.shape[2], head.classes.shape[0])
        offset = [gx - head.ventricles[0], gy - head.ventricles[1], z - head.ventricles[2]]
        for row in range(3):
            a, b, c = (float(v) for v in matrix[row])
            point = pull * ((a * offset[0])[:, None] + (b * offset[1] + c * offset[2])[None, :])
            point += (a * gx)[:, None]
            point += (b * gy + (c * z + head.centre[row] + 0.5))[None, :]
            if shift is not None:
                point += shift[row]
            index.append(np.clip(point, 0, sizes[row] - 1, out=point).astype(np.int32))
        flat = (index[2] * sizes[0] + index[0]) * sizes[1] + index[1]
        return head.classes.ravel()[flat]

    def slab(self, x: Axis, y: Axis, planes: Array) -> Slab:
        """The object on a fine grid: concentrations (mM) with the B1 field, tissue shares and lesion membership."""
        fractions = self.fractions(x, y, planes)
        maps = np.tensordot(self.concentrations, fractions, axes=(1, 0))
        maps *= self._modulation(x, y, planes)
        lesion, core = np.zeros((2, x.count, y.count), np.float32)
        if self.lesion is not None:
            self.lesion.apply(maps, lesion, core, fractions, x, y, planes, self.bias_field)
        only_t1 = np.zeros((x.count, y.count), np.float32)
        if self.anatomy_lesion is not None:
            self.anatomy_lesion.membership_into(only_t1, fractions, x, y, planes)
        return Slab(x, y, planes, fractions, maps, lesion, core, only_t1)

    def _modulation(self, x: Axis, y: Axis, planes: Array) -> Array:
        """Regional variation, gradient, fine texture and B1 of every map [M, X, Y], around 1.

        All four are sums of separable terms in the logarithm, so one matrix product per map gives their sum.
        """
        count = len(self.names)
        u, v = self._bias_terms(x, y, float(np.mean(planes)))
        left = [np.broadcast_to(u, (count, *u.shape)), np.ones((count, x.count, 1), np.float32)]
        right = [np.broadcast_to(v, (count, *v.shape)),
                 np.log1p(self.gradient[:, None] * y.points[None, :])[:, None, :].astype(np.float32)]
        if self.texture_sd > 0:
            own, shared = np.float32(np.sqrt([1 - self.texture_shared, self.texture_shared])) * self.texture_sd
            lattice = self.texture.lattice(planes)
            left.append(x.weights(self.texture.spacing) @ (own * lattice[:count] + shared * lattice[count:]))
            right.append(np.broadcast_to(y.weights(self.texture.spacing).T, (count, self.texture.knots, y.count)))
        if self.region_sd > 0:
            left.append(x.weights(self.region.spacing) @ (np.float32(self.region_sd) * self.region.lattice(planes)))
            right.append(np.broadcast_to(y.weights(self.region.spacing).T, (count, self.region.knots, y.count)))
        log = np.concatenate(left, axis=2, dtype=np.float32) @ np.concatenate(right, axis=1, dtype=np.float32)
        return np.exp(log, out=log)

    def bias_field(self, x: Axis, y: Axis, z: float) -> Array:
        """B1 field of all metabolites [X, Y]: exp of a second-order polynomial of position."""
        left, right = self._bias_terms(x, y, z)
        return np.exp(left @ right)

    def _bias_terms(self, x: Axis, y: Axis, z: float) -> tuple[Array, Array]:
        """Factors [X, 3] and [3, Y] of the B1 field's logarithm."""
        c = self.bias
        u, v, w = x.points / 90, y.points / 90, z / 90
        along_x = c[0] * w + c[1] * w * w + c[2] * u + c[3] * u * u + c[4] * u * w
        along_y = c[5] * v + c[6] * v * v + c[7] * v * w
        left = np.stack([along_x, np.ones_like(u), c[8] * u], axis=1)
        return left.astype(np.float32), np.stack([np.ones_like(v), along_y, v]).astype(np.float32)


def draw_subject(config: SimulationConfig, key: Key, names: Sequence[str], lesion_allowed: bool = True) -> Subject:
    """Draws a subject.

    Args:
        config: All settings.
        key: The subject's key; the subject is a pure function of it and the settings.
        names: Metabolites to simulate, canonical names of the concentration table.
        lesion_allowed: False draws the same subject without its lesion.
    """
    variation = config.variation
    rng = key.stream("texture settings")
    texture_sd = float(rng.uniform(*variation.texture_sd))
    texture_mm = float(rng.uniform(*variation.texture_scale_mm))
    shared = float(rng.uniform(0, variation.texture_shared)) if variation.texture_shared else 0.0
    lesion, on_t1 = draw_lesion(config, key, names)
    rng = key.stream("bias")
    coefficients = rng.uniform(-1, 1, 9)
    strength = np.log1p(config.signal.bias) * rng.uniform(0.3, 1.0) / max(np.abs(coefficients).sum() / 2, 1e-9)
    return Subject(
        key=key,
        names=tuple(names),
        head=draw_head(config.anatomy, key),
        warp=draw_warp(config.anatomy, key),
        concentrations=draw_concentrations(variation, key, names),
        gradient=(key.stream("gradient").uniform(-1, 1, len(names)) * variation.gradient
                  / variation.gradient_length_mm).astype(np.float32),
        region=SmoothField(key, "region", len(names), variation.region_scale_mm),
        region_sd=variation.region_sd,
        texture=SmoothField(key, "texture", len(names) + 1, texture_mm),
        texture_sd=texture_sd,
        texture_shared=shared,
        bias=(coefficients * strength).astype(np.float32),
        lesion=lesion if lesion_allowed else None,
        anatomy_lesion=on_t1,
    )


def draw_head(config: AnatomyConfig, key: Key) -> Head:
    """The subject's head: one of the split's label maps, or a variant of the phantom."""
    rng = key.stream("head")
    if config.heads == "phantom":
        return phantom_head(int(rng.choice(np.array(PHANTOM_VARIANTS[config.split]))))
    paths = head_paths(config.heads, config.split)
    return load_head(paths[int(rng.integers(len(paths)))])


def draw_warp(config: AnatomyConfig, key: Key) -> Warp:
    """The subject's deformation."""
    rng = key.stream("warp")
    angles = np.deg2rad(config.rotation_deg) * rng.uniform(-1, 1, 3)
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[[a, b], [a, b]], turn[a, b], turn[b, a] = np.cos(angle), -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    low, high = config.scale
    size = rng.uniform(low, high) ** 0.5 * rng.uniform(low, high, 3) ** 0.5
    flip = np.array([-1.0 if config.flip and rng.random() < 0.5 else 1.0, 1.0, 1.0])
    matrix = np.diag(flip) @ rotation @ np.diag(1 / size)
    elastic = SmoothField(key, "elastic", 3, config.elastic_scale_mm) if config.elastic_mm > 0 else None
    return Warp(matrix, elastic, config.elastic_mm, float(rng.uniform(-1, 1)) * config.ventricle_scale)


def draw_concentrations(config: VariationConfig, key: Key, names: Sequence[str]) -> Array:
    """Concentration of each metabolite in each class [M, C], mM: table times subject and region variation."""
    rng = key.stream("concentrations")
    values = np.zeros((len(names), len(CLASSES)), np.float32)
    for row, name in enumerate(names):
        cells = metabolite(name).cells
        means = {tissue: cell.mean for tissue, cell in cells.items()}
        share = {"3T": 0.0, "7T": 1.0, "any": 0.5}[config.concentration_set]
        if rng.random() < share and "WM-7T" in means:
            means["WM"] = means["WM-7T"]
        factor = dict(zip(("GM", "WM", "CSF"), np.exp(config.subject_sd * rng.standard_normal(3)), strict=True))
        region = np.exp(config.region_sd * rng.standard_normal(len(CLASSES)))
        for column, label in enumerate(CLASSES):
            tissue = TISSUE_OF_CLASS.get(label)
            if tissue is None:
                continue
            regional = region[column] if label not in ("GM", "WM", "CSF") else 1.0
            values[row, column] = means[tissue] * factor[tissue] * regional
    return values
