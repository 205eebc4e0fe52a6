"""One slice from subject to data: its grid, its HR truth, its tissue shares and the object it is measured from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter

from mrsi_fast.simulation.acquisition import PressBox, excite
from mrsi_fast.simulation.fields import Array, Axis
from mrsi_fast.simulation.subject import Slab, Subject


@dataclass(frozen=True)
class Geometry:
    """Place of one slice in subject space (mm, RAS+, origin at the centre of the cerebrum).

    Attributes:
        matrix: HR voxels.
        voxel: HR voxel per axis, mm.
        centre: Centre of the field of view, mm.
        height: Centre of the slice, mm.
        thickness: mm.
        fine: Points of the object per HR voxel and axis.
        refine: Places per point and axis at which tissue labels are looked up.
        plane_mm: Largest distance of the planes that the slice is averaged over.
        dtype: Precision.
    """

    matrix: tuple[int, int]
    voxel: tuple[float, float]
    centre: tuple[float, float]
    height: float
    thickness: float
    fine: int
    refine: int
    plane_mm: float
    dtype: str

    @property
    def fov_mm(self) -> tuple[float, float]:
        """Field of view per axis."""
        return self.matrix[0] * self.voxel[0], self.matrix[1] * self.voxel[1]

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """Fine axes."""
        x, y = (
            Axis.centred(c, extent, n * self.fine, self.dtype)
            for c, extent, n in zip(self.centre, self.fov_mm, self.matrix, strict=True)
        )
        return x, y

    @property
    def planes(self) -> Array:
        """Heights that the slice is averaged over, evenly spaced, mm."""
        count = max(1, int(np.ceil(self.thickness / self.plane_mm - 1e-9)))
        return self.height + self.thickness * ((np.arange(count) + 0.5) / count - 0.5)


@dataclass(frozen=True)
class Slice:
    """A slice of a subject on the HR grid, with the fine object behind it.

    Attributes:
        slab: The excited object on the fine grid.
        truth: Box means of the object over HR voxels [M, X, Y], mM.
        fractions: Share of each tissue class [C, X, Y].
        lesion: Membership of the lesion [X, Y]; core: of its core; anatomy_lesion: of a lesion on T1 only.
    """

    slab: Slab
    truth: Array
    fractions: Array
    lesion: Array
    core: Array
    anatomy_lesion: Array


def render(subject: Subject, geometry: Geometry, press: PressBox | None) -> Slice:
    """Evaluates a subject on one slice.

    Args:
        subject: Who.
        geometry: Where.
        press: Excited box, or None.

    Returns:
        HR truth and the object that realistic measurements start from.
    """
    slab = excite(subject.slab(*geometry.axes, geometry.planes, geometry.refine), subject.names, press)
    fine = geometry.fine
    return Slice(
        slab,
        pool(slab.maps, fine),
        pool(slab.fractions, fine),
        pool(slab.lesion, fine),
        pool(slab.core, fine),
        pool(slab.anatomy_lesion, fine),
    )


def blurred(part: Slice, geometry: Geometry, sd_voxels: float) -> Slice:
    """The slice with its maps smoothed by a Gaussian of the given SD (HR voxels), object and truth alike."""
    sd = sd_voxels * geometry.fine
    maps = gaussian_filter(part.slab.maps, (0, sd, sd), mode="constant", truncate=3.0)
    return replace(part, slab=replace(part.slab, maps=maps), truth=pool(maps, geometry.fine))


def pool(image: Array, fine: int) -> Array:
    """Box mean of [..., X fine, Y fine] over blocks of ``fine`` x ``fine`` points."""
    if fine == 1:
        return image
    rows = image[..., ::fine, :].copy()
    for offset in range(1, fine):
        rows += image[..., offset::fine, :]
    block = rows[..., ::fine].copy()
    for offset in range(1, fine):
        block += rows[..., offset::fine]
    block *= 1 / fine**2
    return block
