"""One simulated subject: everything random about it, drawn from its key, and its object on any slice.

``draw_subject`` makes the choices (head, warp, concentrations, textures, lesion, B1 field); ``Subject.slab`` evaluates
them on the fine grid of one slice of any position and thickness. A volume is a stack of such slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt

from mrsi_fast.simulation.anatomy import BRAIN_CLASSES, CLASSES, TISSUE_OF_CLASS
from mrsi_fast.simulation.concentrations import metabolite
from mrsi_fast.simulation.config import SimulationConfig, VariationConfig
from mrsi_fast.simulation.fields import Array, Axis, SmoothField
from mrsi_fast.simulation.keys import Key
from mrsi_fast.simulation.texture import Rim, Texture, draw_rim, draw_textures
from mrsi_fast.simulation.tumour import Lesion, draw_lesions
from mrsi_fast.simulation.warp import Orientation, WarpedHead, draw_head

B1_LENGTH_MM = 90.0  # the B1 polynomial's unit of length: about half a head


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
        anatomy: The deformed head.
        concentrations: [M, C] mM per class.
        gradient: [M] relative change per mm along anterior-posterior.
        region: Smooth regional field.
        region_sd: Its SD (of the logarithm).
        textures: Fine textures.
        rim: Change towards the edge of the brain, or None.
        bias: [9] coefficients of the second-order B1 polynomial (see ``bias_field``).
        lesion: The lesion, or None.
        anatomy_lesion: A lesion that only the T1 image shows, or None.
    """

    key: Key
    names: tuple[str, ...]
    anatomy: WarpedHead
    concentrations: Array
    gradient: Array
    region: SmoothField
    region_sd: float
    textures: tuple[Texture, ...]
    rim: Rim | None
    bias: Array
    lesion: Lesion | None
    anatomy_lesion: Lesion | None

    @property
    def noise_sd(self) -> Array:
        """Noise SD of one unwindowed LR voxel per map [M], mM: the table's, at the mean of grey and white matter."""
        middle = self.concentrations[:, [CLASSES.index("GM"), CLASSES.index("WM")]].mean(1)
        return np.array([metabolite(n).noise(float(v)) for n, v in zip(self.names, middle, strict=True)])

    def slab(self, x: Axis, y: Axis, planes: Array, refine: int = 1) -> Slab:
        """The object on a fine grid: concentrations (mM) with the B1 field, tissue shares and lesion membership.

        Args:
            x: Points of the object, mm.
            y: Points of the object, mm.
            planes: Heights to average over, mm.
            refine: Tissue labels are looked up at ``refine`` x ``refine`` places in the cell of each point.
        """
        fractions = self.anatomy.fractions(x, y, planes, refine)
        maps = np.tensordot(self.concentrations.astype(x.dtype), fractions, axes=(1, 0))
        maps *= self._modulation(x, y, planes)
        if self.rim is not None:
            inside = fractions[BRAIN_CLASSES].sum(0) > 0.5
            self.rim.apply(maps, distance_transform_edt(inside, (x.step, y.step)))
        lesion, core, only_t1 = np.zeros((3, x.count, y.count), x.dtype)
        if self.lesion is not None:
            self.lesion.apply(maps, lesion, core, fractions, x, y, planes, self.bias_field)
        if self.anatomy_lesion is not None:
            self.anatomy_lesion.membership_into(only_t1, fractions, x, y, planes)
        return Slab(x, y, planes, fractions, maps, lesion, core, only_t1)

    def _modulation(self, x: Axis, y: Axis, planes: Array) -> Array:
        """Regional variation, gradient, fine texture and B1 of every map [M, X, Y], around 1.

        All four are sums of separable terms in the logarithm, so one matrix product per map gives their sum.
        """
        count = len(self.names)
        u, v = self._bias_terms(x, y, float(np.mean(planes)))
        left = [np.broadcast_to(u, (count, *u.shape)), np.ones((count, x.count, 1), x.dtype)]
        right = [np.broadcast_to(v, (count, *v.shape)), np.log1p(self.gradient[:, None, None] * y.points)]
        for texture in self.textures:
            field = texture.field
            left.append(x.weights(field.spacing) @ texture.lattice(planes))
            right.append(np.broadcast_to(y.weights(field.spacing).T, (count, field.knots, y.count)))
        if self.region_sd > 0:
            left.append(x.weights(self.region.spacing) @ (self.region_sd * self.region.lattice(planes)))
            right.append(np.broadcast_to(y.weights(self.region.spacing).T, (count, self.region.knots, y.count)))
        log = np.concatenate(left, axis=2, dtype=x.dtype) @ np.concatenate(right, axis=1, dtype=x.dtype)
        return np.exp(log, out=log)

    def bias_field(self, x: Axis, y: Axis, z: float) -> Array:
        """B1 field of all metabolites [X, Y]: exp of a second-order polynomial of position."""
        left, right = self._bias_terms(x, y, z)
        return np.exp(left @ right)

    def _bias_terms(self, x: Axis, y: Axis, z: float) -> tuple[Array, Array]:
        """Factors [X, 3] and [3, Y] of the B1 field's logarithm."""
        c = self.bias
        u, v, w = x.points / B1_LENGTH_MM, y.points / B1_LENGTH_MM, z / B1_LENGTH_MM
        along_x = c[0] * w + c[1] * w * w + c[2] * u + c[3] * u * u + c[4] * u * w
        along_y = c[5] * v + c[6] * v * v + c[7] * v * w
        left = np.stack([along_x, np.ones_like(u), c[8] * u], axis=1)
        return left.astype(x.dtype), np.stack([np.ones_like(v), along_y, v]).astype(x.dtype)


def draw_subject(
    config: SimulationConfig,
    key: Key,
    names: Sequence[str],
    head: int | None = None,
    orientation: Orientation = "axial",
) -> Subject:
    """Draws a subject.

    Args:
        config: All settings.
        key: The subject's key; the subject is a pure function of it, the settings and ``head``.
        names: Metabolites to simulate, canonical names of the concentration table.
        head: Takes the heads in turn by this number; at random without it.
        orientation: What the slices of the subject are.
    """
    variation, precision = config.variation, config.precision
    anatomy = draw_head(config.anatomy, key, head, precision).reoriented(orientation)
    lesion, on_t1 = draw_lesions(config, key, names, anatomy)
    rng = key.stream("bias")
    polynomial = rng.uniform(-1, 1, 9)
    polynomial *= 2 * np.log1p(config.signal.bias) * rng.uniform(0.3, 1.0) / np.abs(polynomial).sum()
    slope = key.stream("gradient").uniform(-1, 1, len(names)) * variation.gradient / variation.gradient_length_mm
    return Subject(
        key=key,
        names=tuple(names),
        anatomy=anatomy,
        concentrations=draw_concentrations(variation, key, names),
        gradient=slope,
        region=SmoothField(key, "region", len(names), variation.region_scale_mm, precision),
        region_sd=variation.region_sd,
        textures=draw_textures(variation, key, len(names), precision),
        rim=draw_rim(variation, key, len(names)),
        bias=polynomial,
        lesion=lesion,
        anatomy_lesion=on_t1,
    )


def draw_concentrations(config: VariationConfig, key: Key, names: Sequence[str]) -> Array:
    """Concentration of each metabolite in each class [M, C], mM: table times subject and region variation."""
    contrast = config.contrast_sd * float(key.stream("contrast").standard_normal()) / 2
    lockstep = {"GM": np.exp(contrast), "WM": np.exp(-contrast), "CSF": 1.0}
    rng = key.stream("concentrations")
    values = np.zeros((len(names), len(CLASSES)))
    for row, name in enumerate(names):
        cells = metabolite(name).cells
        means = {tissue: cell.mean for tissue, cell in cells.items()}
        share = {"3T": 0.0, "7T": 1.0, "any": 0.5}[config.concentration_set]
        if rng.random() < share and "WM-7T" in means:
            means["WM"] = means["WM-7T"]
        factor = dict(zip(("GM", "WM", "CSF"), np.exp(config.subject_sd * rng.standard_normal(3)), strict=True))
        region = np.exp(config.region_sd * rng.standard_normal(len(CLASSES)))
        for column, label in enumerate(CLASSES):
            if (tissue := TISSUE_OF_CLASS.get(label)) is not None:
                regional = region[column] if label not in factor else 1.0
                values[row, column] = means[tissue] * factor[tissue] * regional * lockstep[tissue]
    return values
