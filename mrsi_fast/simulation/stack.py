"""A volume that is refined through the plane: planes of the object, and slices measured from all of them together.

The truth is a stack of contiguous planes, ``g`` to the distance of two slices. Along the third axis the measurement is
the operator of ``mrsi.through_plane``: phase encoding, or a box for each slice. From the object (``source``) the
measurement takes twice as many planes as the truth has, so that it is no inverse crime along the third axis either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mrsi_fast.mrsi.through_plane import SliceAxis
from mrsi_fast.simulation.acquisition import Measurement, PressBox, Protocol, VolumePart, clean_maps, measure
from mrsi_fast.simulation.config import SimulationConfig, VolumeConfig
from mrsi_fast.simulation.fields import Array
from mrsi_fast.simulation.keys import Key
from mrsi_fast.simulation.slices import Geometry, Slice, render
from mrsi_fast.simulation.subject import Subject

OBJECT_PLANES = 2
"""Planes of the object in one of the truth, where the measurement is made from the object."""

SLAB_EDGE_MM = 2.5  # width of the logistic edge of the excited slab (assumed)


class Stack:
    """The planes of a subject and what is measured of them.

    Args:
        config: All settings.
        subject: Who.
        through: Planes of the truth in the distance of two slices.
        press: Excited box in the plane, or None.
    """

    def __init__(self, config: SimulationConfig, subject: Subject, through: int, press: PressBox | None) -> None:
        self.config, self.subject, self.through = config, subject, through
        self._over = OBJECT_PLANES if config.volume.source == "object" else 1
        settings = config.volume
        heights = plane_heights(settings, through * self._over)
        thickness = settings.step_mm / (through * self._over)
        excited = slab_profile(settings, heights)
        self._fine = [
            _excited(render(subject, geometry(config, float(height), thickness), press), float(share))
            for height, share in zip(heights, excited, strict=True)
        ]
        groups = np.arange(len(heights)).reshape(-1, self._over)
        self.parts = [merged([self._fine[index] for index in group]) for group in groups]
        self.excited = excited.reshape(-1, self._over).mean(axis=1) > 0.5

    def axis(self, planes: int) -> SliceAxis:
        """The slices' axis, refined into this many planes a slice."""
        settings = self.config.volume
        if settings.through_plane == "encoded":
            return SliceAxis(settings.slices, planes, "encoded", settings.window)
        return SliceAxis(
            settings.slices, planes, "slices", thickness=min(settings.thickness_mm / settings.step_mm, 1.0)
        )

    def measure(self, protocol: Protocol, key: Key) -> list[Measurement]:
        """Every slice.

        Args:
            protocol: How, in the plane.
            key: The subject's.
        """
        planes = np.stack([clean_maps(part.slab, part.truth, protocol) for part in self._fine])
        clean = _along(self.axis(self.through * self._over), planes)
        keys = [key.child("slice", index) for index in range(len(clean))]
        draws = [one.stream("volume noise").standard_normal(clean.shape[1:], dtype=clean.dtype) for one in keys]
        own = self.axis(1)
        white = _along(own, np.stack(draws))
        measured = []
        for index, slice_key in enumerate(keys):
            group = self._fine[index * self.through * self._over : (index + 1) * self.through * self._over]
            part = merged(group)
            whole = VolumePart(clean[index], white[index], own.noise_gain)
            arguments = (part.slab, part.truth, self.subject.names, self.subject.noise_sd, protocol)
            measured.append(measure(*arguments, self.config.signal, key, slice_key, whole=whole))
        return measured


def geometry(config: SimulationConfig, height: float, thickness: float) -> Geometry:
    """A plane of a volume."""
    volume = config.volume
    x, y = (extent / count for extent, count in zip(volume.fov_mm, volume.matrix, strict=True))
    fine = max(1, int(np.ceil(max(x, y) / config.object_voxel_mm - 1e-9)))
    return Geometry(
        volume.matrix,
        (x, y),
        (0.0, 0.0),
        height,
        thickness,
        fine,
        config.label_refinement,
        config.object_plane_mm,
        config.precision,
    )


def plane_heights(settings: VolumeConfig, planes: int) -> Array:
    """Centres of contiguous planes, this many to the distance of two slices, mm."""
    within = (np.arange(planes) + 0.5) / planes - 0.5
    slices = settings.first_mm + settings.step_mm * np.arange(settings.slices)
    return (slices[:, None] + settings.step_mm * within).ravel()


def slab_profile(settings: VolumeConfig, heights: Array) -> Array:
    """Excitation of planes, 0 to 1."""
    if settings.excited_mm is None:
        return np.ones(len(heights))
    middle = settings.first_mm + settings.step_mm * (settings.slices - 1) / 2
    beyond = (np.abs(heights - middle) - settings.excited_mm / 2) / SLAB_EDGE_MM
    return 1 / (1 + np.exp(np.clip(beyond, -30, 30)))


def merged(parts: Sequence[Slice]) -> Slice:
    """Contiguous planes of equal thickness as one."""
    if len(parts) == 1:
        return parts[0]

    def mean(arrays: Sequence[Array]) -> Array:
        return np.mean(np.stack(arrays), axis=0, dtype=arrays[0].dtype)

    slabs = [part.slab for part in parts]
    slab = replace(
        slabs[0],
        planes=np.concatenate([one.planes for one in slabs]),
        fractions=mean([one.fractions for one in slabs]),
        maps=mean([one.maps for one in slabs]),
        lesion=mean([one.lesion for one in slabs]),
        core=mean([one.core for one in slabs]),
        anatomy_lesion=mean([one.anatomy_lesion for one in slabs]),
    )
    images = ("truth", "fractions", "lesion", "core", "anatomy_lesion")
    return Slice(slab, *(mean([getattr(part, name) for part in parts]) for name in images))


def _excited(part: Slice, share: float) -> Slice:
    weight = np.asarray(share, part.truth.dtype)
    return replace(part, slab=replace(part.slab, maps=part.slab.maps * weight), truth=part.truth * weight)


def _along(axis: SliceAxis, planes: Array) -> Array:
    """``A_z`` of planes [Z, ...]."""
    matrix = axis.matrices().forward.astype(planes.dtype)
    return (matrix @ planes.reshape(len(planes), -1)).reshape(axis.count, *planes.shape[1:])
