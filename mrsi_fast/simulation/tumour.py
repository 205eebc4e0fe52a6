"""Lesions: shapes (analytic or real masks), infiltration, satellites, necrosis, and what they do to each metabolite.

A shape is a signed distance in mm, negative inside. The core's membership is logistic in it, infiltration decays
outside along white matter, and the concentration inside is a mixture of tissue and tumour values with its own texture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mrsi_fast.simulation.anatomy import BRAIN_CLASSES, CLASSES, TUMOUR_SPLITS, read_labels, resolve_folder
from mrsi_fast.simulation.concentrations import metabolite
from mrsi_fast.simulation.config import SimulationConfig, TumourConfig
from mrsi_fast.simulation.fields import Array, Axis, SmoothField, correlate, upsample
from mrsi_fast.simulation.keys import Key, log_uniform
from mrsi_fast.simulation.warp import WarpedHead

TRUE_VOXEL_MM = (0.9, 0.9, 6.5)  # of Brain-Tumor-Progression; the headers say 1 mm
MASK_GRID_MM = 2.0
TAIL = float(np.exp(-3.5))  # infiltration ends here, 3.5 decay lengths away
WAVES = 8  # plane waves of the irregular outline


@dataclass(frozen=True)
class Blob:
    """An ellipsoid-like body with an irregular outline.

    Attributes:
        centre: mm in subject space.
        radius: mm.
        waves: [J, 3] wave vectors over direction; phases: [J]; irregularity: SD of the relative radius.
    """

    centre: tuple[float, float, float]
    radius: float
    waves: Array
    phases: Array
    irregularity: float

    @property
    def reach(self) -> float:
        """No point of the body is farther from the centre, mm."""
        return self.radius * (1 + 3 * self.irregularity)

    def distance(self, x: Array, y: Array, z: float) -> Array:
        """Signed distance to the outline [X, Y], mm (exact for a sphere, radial otherwise)."""
        dx, dy, dz = x - self.centre[0], y - self.centre[1], z - self.centre[2]
        radius = np.sqrt((dx**2)[:, None] + (dy**2 + dz**2)[None, :]) + 1e-3
        outline = np.zeros_like(radius)
        if self.irregularity:
            inverse = 1 / radius
            for wave, phase in zip(self.waves.tolist(), self.phases.tolist(), strict=True):
                outline += np.cos(((wave[0] * dx)[:, None] + (wave[1] * dy + wave[2] * dz)[None, :]) * inverse + phase)
            outline *= self.irregularity * float(np.sqrt(2 / len(self.phases)))
        return radius - self.radius * (1 + np.clip(outline, -0.6, 3 * self.irregularity))


@dataclass(frozen=True)
class MaskShape:
    """A real tumour's outline, moved, turned about z, mirrored and scaled.

    Attributes:
        field: Signed distance of the mask [X, Y, Z] in mm, ``MASK_GRID_MM`` voxels, centred on the mask.
        centre: mm in subject space.
        matrix: In-plane rotation and mirror.
        size: Relative size.
        natural_reach: Distance of the farthest point of the mask from its centre at size 1, mm.
    """

    field: Array
    centre: tuple[float, float, float]
    matrix: tuple[tuple[float, float], tuple[float, float]]
    size: float
    natural_reach: float

    @property
    def reach(self) -> float:
        """No point of the body is farther from the centre, mm."""
        return self.natural_reach * self.size

    def distance(self, x: Array, y: Array, z: float) -> Array:
        """Signed distance [X, Y], mm; outside the field the distance to it is added."""
        scale = 1 / (self.size * MASK_GRID_MM)
        last = [n - 1 for n in self.field.shape]
        dx, dy = (x - self.centre[0]) * scale, (y - self.centre[1]) * scale
        m = self.matrix
        u = (m[0][0] * dx)[:, None] + (m[0][1] * dy)[None, :] + last[0] / 2
        v = (m[1][0] * dx)[:, None] + (m[1][1] * dy)[None, :] + last[1] / 2
        w = (z - self.centre[2]) * scale + last[2] / 2
        inside = [np.clip(place, 0, end) for place, end in zip((u, v, w), last, strict=True)]
        beyond = (u - inside[0]) ** 2 + (v - inside[1]) ** 2 + float(w - inside[2]) ** 2
        low = min(int(inside[2]), last[2] - 1)
        part = float(inside[2]) - low
        plane = (1 - part) * self.field[:, :, low] + part * self.field[:, :, low + 1]
        near = ndimage.map_coordinates(plane, inside[:2], order=1, mode="nearest").astype(x.dtype)
        return (near + MASK_GRID_MM * np.sqrt(beyond)) * self.size


@dataclass(frozen=True)
class Lesion:
    """One lesion with its satellites.

    Attributes:
        kind: ``IDHmut``, ``IDHwt`` or ``single`` (one map only).
        shapes: The main body first.
        edge_mm: Width of the logistic edge.
        infiltration: Membership just outside; infiltration_mm: its decay length.
        necrosis_mm: Depth at which necrosis begins (infinite without).
        values: [M] mM in the core; necrotic: [M] mM in necrosis.
        changed: [M] bool, the maps that the lesion changes.
        texture: Heterogeneity field; texture_sd: its SD; mixing: [M, M] of its channels.
    """

    kind: str
    shapes: tuple[Blob | MaskShape, ...]
    edge_mm: float
    infiltration: float
    infiltration_mm: float
    necrosis_mm: float
    values: Array
    necrotic: Array
    changed: NDArray[np.bool_]
    texture: SmoothField
    texture_sd: float
    mixing: Array

    @property
    def centre(self) -> tuple[float, float, float]:
        """Centre of the main body, mm."""
        return self.shapes[0].centre

    def window(self, x: Axis, y: Axis, planes: Array) -> tuple[slice, slice] | None:
        """The part of a slice that the lesion reaches, or None."""
        margin = 3.5 * max(1.4 * self.edge_mm, self.infiltration_mm)
        low, high = np.full(2, np.inf), np.full(2, -np.inf)
        for shape in self.shapes:
            reach = shape.reach + margin
            if shape.centre[2] + reach < planes.min() or shape.centre[2] - reach > planes.max():
                continue
            centre = np.array(shape.centre[:2])
            low, high = np.minimum(low, centre - reach), np.maximum(high, centre + reach)
        if not np.isfinite(low).all():
            return None
        parts = []
        for axis, a, b in zip((x, y), low, high, strict=True):
            first = max(0, int(np.floor((a - axis.start) / axis.step)))
            last = min(axis.count, int(np.ceil((b - axis.start) / axis.step)) + 1)
            if first >= last:
                return None
            parts.append(slice(first, last))
        return parts[0], parts[1]

    def _distance(self, x: Array, y: Array, z: float) -> Array:
        distance = self.shapes[0].distance(x, y, z)
        for shape in self.shapes[1:]:
            distance = np.minimum(distance, shape.distance(x, y, z))
        return distance

    def memberships(self, fractions: Array, x: Array, y: Array, planes: Array) -> tuple[Array, Array, Array]:
        """Membership of lesion, core and necrosis [X, Y] inside the brain, averaged over the planes."""
        white = fractions[CLASSES.index("WM")]
        core, outside, dead = np.zeros((3, *white.shape), white.dtype)
        for z in planes:
            distance = self._distance(x, y, float(z))
            core += _logistic(-distance / self.edge_mm)
            outside += np.maximum(np.exp(-np.maximum(distance, 0) / self.infiltration_mm) - TAIL, 0)
            if np.isfinite(self.necrosis_mm):
                dead += _logistic(-(distance + self.necrosis_mm) / self.edge_mm)
        share = 1 / len(planes)
        inside = np.minimum(fractions[BRAIN_CLASSES].sum(0), 1)
        along = self.infiltration / (1 - TAIL) * (0.25 + 0.75 * white) * outside * share
        return np.maximum(core * share, along) * inside, core * share * inside, dead * share * inside

    def membership_into(self, out: Array, fractions: Array, x: Axis, y: Axis, planes: Array) -> None:
        """Writes the lesion's membership into ``out`` [X, Y]."""
        window = self.window(x, y, planes)
        if window is not None:
            part = (slice(None), *window)
            gx, gy = x.points[window[0]], y.points[window[1]]
            out[window] = self.memberships(fractions[part], gx, gy, planes)[0]

    def apply(
        self,
        maps: Array,
        lesion: Array,
        core: Array,
        fractions: Array,
        x: Axis,
        y: Axis,
        planes: Array,
        b1: Callable[[Axis, Axis, float], Array],
    ) -> None:
        """Mixes the lesion into ``maps`` [M, X, Y] (mM) and writes its memberships into ``lesion`` and ``core``.

        ``b1(x, y, z)`` is the field [X, Y] that the maps already carry.
        """
        window = self.window(x, y, planes)
        if window is None:
            return
        part = (slice(None), *window)
        axes = x.part(window[0].start, window[0].stop), y.part(window[1].start, window[1].stop)
        gx, gy = axes[0].points, axes[1].points
        lesion[window], core[window], dead = self.memberships(fractions[part], gx, gy, planes)
        pattern = np.tensordot(self.mixing, self.texture.lattice(planes), axes=(1, 0))
        texture = upsample(pattern, *axes, self.texture.spacing)
        inside = np.exp(self.texture_sd * texture) * self.values.astype(x.dtype)[:, None, None]
        inside += dead * (self.necrotic.astype(x.dtype)[:, None, None] - inside)
        inside *= b1(*axes, float(np.mean(planes)))
        for index in np.flatnonzero(self.changed):
            target = maps[index][window]
            target += lesion[window] * (inside[index] - target)


def _logistic(value: Array) -> Array:
    return 1 / (1 + np.exp(-np.clip(value, -30, 30)))


def draw_lesions(
    config: SimulationConfig, key: Key, names: Sequence[str], anatomy: WarpedHead
) -> tuple[Lesion | None, Lesion | None]:
    """Draws the subject's lesion and, independently, a lesion that only its T1 image shows, both inside the brain.

    Returns:
        The lesion or None, and the T1-only lesion or None.
    """
    rng = key.stream("lesion")
    lesion = None
    if rng.random() < config.tumour.probability:
        lesion = _make_lesion(config, key, rng, names, anatomy)
    rng = key.stream("lesion on T1 only")
    only = None
    if rng.random() < config.tumour.t1_only:
        only = _make_lesion(config, key, rng, names, anatomy)
    return lesion, only


def _make_lesion(
    config: SimulationConfig, key: Key, rng: np.random.Generator, names: Sequence[str], anatomy: WarpedHead
) -> Lesion:
    settings = config.tumour
    kind = "IDHmut" if rng.random() < settings.idh_mutant else "IDHwt"
    radius = log_uniform(rng, *settings.radius_mm)
    values, necrotic, changed = _draw_values(kind, rng, names)
    if rng.random() < settings.single_metabolite:
        kind, only = "single", int(rng.integers(len(names)))
        changed = np.arange(len(names)) == only
        if values[only] < 0.05:  # 2HG of a wild type: the lesion must show in its only map
            values[only] = metabolite(names[only]).cells["IDHmut"].draw(rng)
    centre = _place(rng, anatomy)
    shapes = [_main_shape(config, rng, centre, radius)]
    if rng.random() < settings.satellites:
        for _ in range(int(rng.integers(1, 4))):
            direction = rng.normal(size=3)
            step = shapes[0].reach + rng.uniform(3, 15)
            moved = np.array(centre) + direction / np.linalg.norm(direction) * step
            shapes.append(_blob(rng, tuple(moved.tolist()), float(rng.uniform(2, 4)), settings))
    necrosis = rng.uniform(3, 8) if kind == "IDHwt" and radius > 8 and rng.random() < 0.7 else np.inf
    return Lesion(
        kind,
        tuple(shapes),
        float(rng.uniform(*settings.edge_mm)),
        settings.infiltration * float(rng.uniform(0.3, 1.0)),
        float(rng.uniform(*settings.infiltration_mm)),
        float(necrosis),
        values,
        necrotic,
        changed,
        SmoothField(key, "lesion texture", len(names), 6.0, config.precision),
        settings.texture_sd,
        correlate(names, "tNAA", "tCho", -0.5, config.precision),
    )


def _place(rng: np.random.Generator, anatomy: WarpedHead) -> tuple[float, float, float]:
    """A point in white or grey matter of the cerebrum; the last of several tries where none is."""
    for _ in range(6):
        side = -1.0 if rng.random() < 0.5 else 1.0
        x, y, z = side * float(rng.uniform(8, 50)), float(rng.uniform(-60, 52)), float(rng.uniform(-12, 42))
        if CLASSES[anatomy.class_near((x, y, z))] in ("WM", "GM"):
            break
    return x, y, z


def _draw_values(kind: str, rng: np.random.Generator, names: Sequence[str]) -> tuple[Array, Array, NDArray[np.bool_]]:
    values = np.array([metabolite(name).cells[kind].draw(rng) for name in names])
    necrotic = np.array([1.3 * v if name == "Lac" else 0.08 * v for name, v in zip(names, values, strict=True)])
    return values, necrotic, np.ones(len(names), bool)


def _blob(rng: np.random.Generator, centre: tuple[float, float, float], radius: float, settings: TumourConfig) -> Blob:
    waves = rng.normal(size=(WAVES, 3)) * max(radius / 10.0, 0.3)  # outline correlated over 10 mm
    phases = rng.uniform(0, 2 * np.pi, WAVES)
    return Blob(centre, radius, waves, phases, settings.irregularity)


def _main_shape(
    config: SimulationConfig, rng: np.random.Generator, centre: tuple[float, float, float], radius: float
) -> Blob | MaskShape:
    blob = _blob(rng, centre, radius, config.tumour)
    anatomy = config.anatomy
    if anatomy.tumour_masks is None or anatomy.heads == "phantom" or rng.random() >= config.tumour.real_shape:
        return blob
    masks = mask_paths(config.anatomy.tumour_masks, config.anatomy.split)
    field, natural, reach = mask_distance(masks[int(rng.integers(len(masks)))])
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    (a, b), (c, d) = (turn @ np.diag([1.0, -1.0 if rng.random() < 0.5 else 1.0])).tolist()
    return MaskShape(field, centre, ((a, b), (c, d)), float(np.clip(radius / natural, 0.3, 1.5)), reach)


@lru_cache(maxsize=32)
def mask_paths(folder: str, split: str) -> tuple[str, ...]:
    """Tumour masks of one part, both dates of each patient, sorted."""
    patients = sum(TUMOUR_SPLITS.values(), ()) if split == "all" else TUMOUR_SPLITS[split]
    files = sorted(resolve_folder(folder).glob("sub-*_mask.nii.gz"))
    return tuple(str(f) for f in files if f.name.split("_")[0].removeprefix("sub-") in patients)


@lru_cache(maxsize=32)
def mask_distance(path: str) -> tuple[Array, float, float]:
    """Signed distance of a real tumour (negative inside), the radius of the sphere of its volume, and its reach, mm.

    Rims are filled slice by slice, the largest body is kept, and the anisotropic voxels of the source are brought to
    ``MASK_GRID_MM`` by interpolating the distance itself, which rounds the 6.5 mm steps off.
    """
    mask = read_labels(path)[0] > 0
    closed = ndimage.binary_closing(mask, np.ones((5, 5, 1)))
    filled = np.stack([ndimage.binary_fill_holes(closed[:, :, k]) for k in range(mask.shape[2])], axis=2)
    bodies, count = ndimage.label(filled, np.ones((3, 3, 3)))
    largest = bodies == 1 + int(np.argmax(ndimage.sum(filled, bodies, np.arange(1, count + 1))))
    box = ndimage.find_objects(largest.astype(np.uint8))[0]
    body = np.pad(largest[box], [(20, 20), (20, 20), (3, 3)])
    distance = ndimage.distance_transform_edt(~body, sampling=TRUE_VOXEL_MM) - ndimage.distance_transform_edt(
        body, sampling=TRUE_VOXEL_MM
    )
    zoom = [v / MASK_GRID_MM for v in TRUE_VOXEL_MM]
    field = ndimage.zoom(distance.astype(np.float32), zoom, order=1, mode="nearest", grid_mode=True)
    points = np.argwhere(field < 0) - (np.array(field.shape) - 1) / 2
    radius = (3 * len(points) * MASK_GRID_MM**3 / (4 * np.pi)) ** (1 / 3)
    return field, float(radius), float(np.linalg.norm(points, axis=1).max() * MASK_GRID_MM)
