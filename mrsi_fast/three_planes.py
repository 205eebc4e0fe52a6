"""Posterior of a volume that is refined through the plane too: the planar network on planes of three directions.

Three passes give the mean. The first refines the measured slices in their own plane. What it adds there is carried to
the finer planes along the slices' axis, so that coronal and sagittal planes are cut from maps that are sharp across
them: each is what the network was trained on, a thin slice of which the measured band is known in both of its axes.
Within that band they hold the first pass's estimate too, unless the maps are free of noise. The second and third pass
refine those; their mean is the estimate, and it is held to all measured data in three dimensions (``posterior``).
docs/decisions/through_plane.md compares the orders that were tried.

Arrays are [M, X, Y, Z], slices last. A plane is named by the axis across it: 2 axial, 1 coronal, 0 sagittal, whatever
the orientation of the scan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.conditioning import WINDOW_DAMPING, estimate, standardise_anatomy
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.geometry import voxel_sizes_mm
from mrsi_fast.mrsi.quality import upsample_nearest
from mrsi_fast.mrsi.slabs import to_slices, to_volume
from mrsi_fast.mrsi.through_plane import along_slices
from mrsi_fast.mrsi.volume_operator import VolumeAcquisition
from mrsi_fast.preparation import Prepared
from mrsi_fast.sampling import Sampler, Volume

Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]

AXIAL, CORONAL, SAGITTAL = 2, 1, 0

SPREAD_SOURCE = (
    "of the posterior: root mean square of those that the passes over coronal and sagittal planes gave; of maps with "
    "noise, half of the first pass's variance is added. Data consistency moves the mean inside the measured band and "
    "leaves the standard deviation as it is."
)


@dataclass(frozen=True, eq=False)
class Stack:
    """A set of maps as planes of any direction.

    Attributes:
        prepared: Of the whole volume.
        operator: Its acquisition.
        noisy: [M] whether a map's estimate is damped where a window is undone.
    """

    prepared: Prepared
    operator: VolumeAcquisition
    noisy: tuple[bool, ...]

    @classmethod
    def of(cls, prepared: Prepared) -> Stack:
        """The stack of maps that are refined through the plane."""
        assert isinstance(prepared.acquisition, VolumeAcquisition)
        return cls(prepared, prepared.acquisition, tuple(bool(level > 0) for level in prepared.volume.noise))

    def directions(self) -> list[int]:
        """Planes of which at least one axis is refined, in the order of the passes."""
        factors = self.prepared.factors
        return [a for a in (AXIAL, CORONAL, SAGITTAL) if max(factors[axis] for axis in in_plane(a)) > 1]

    def measured_slices(self) -> Volume:
        """The measured slices in their own plane, as if nothing were refined through it."""
        prepared, axis = self.prepared, self.operator.axis
        factors = (*prepared.factors[:2], 1)
        trusted = upsample_nearest(prepared.trust.trusted, factors)
        image = prepared.volume.anatomy
        if image is not None:
            image = image.reshape(*image.shape[:2], axis.count, axis.factor).mean(axis=3)
        z = along_slices(axis.matrices().forward, prepared.volume.z)
        return self._planes(AXIAL, z, trusted, image)

    def planes(self, across: int, sharp: Float32) -> Volume:
        """Planes of the finer volume: the measured band in their two axes, whatever is known along the third.

        Args:
            across: The axis across the planes.
            sharp: [M, X, Y, Z] detail beyond what was measured; what lies beyond the band in a plane is left out.
        """
        prepared = self.prepared
        return self._planes(
            across, prepared.volume.z + self.seen(across, sharp), prepared.volume.trusted, prepared.volume.anatomy
        )

    def seen(self, across: int, maps: Float32) -> Float32:
        """Maps as the acquisition shows them in planes across an axis, with what the network takes for it."""
        found = maps
        for axis in in_plane(across) if across != AXIAL else ():
            found = self._seen_along(axis, found)
        return found if across != AXIAL else self._by_map(self.operator.plane, found)

    def _seen_along(self, axis: int, maps: Float32) -> Float32:
        if axis == AXIAL:
            return self.along(along_slices(self.operator.axis.matrices().forward, maps))
        plane = self.operator.plane
        size, acquired = (plane.lr_shape[axis], 1), None if plane.acquired is None else (plane.acquired[axis], 1)
        line = Acquisition(size, (plane.factors[axis], 1), "square", plane.window, plane.box, acquired)
        turned = np.moveaxis(maps, axis + 1, -1)[..., None]  # the line is a plane one voxel wide
        return np.ascontiguousarray(np.moveaxis(self._by_map(line, turned, last=True)[..., 0], -1, axis + 1))

    def along(self, slices: Float32) -> Float32:
        """Maps [M, X, Y, n] of measured slices on the finer planes, as smooth as these tell."""
        axis = self.operator.axis
        each = [axis.matrices(WINDOW_DAMPING if noisy else 0.0).smooth for noisy in self.noisy]
        return np.stack([along_slices(matrix, one) for matrix, one in zip(each, slices, strict=True)])

    def holding(self, slices: Float32) -> tuple[Stack, Float32]:
        """The stack whose measured band is that of refined slices [M, X, Y, n] in maps with noise, and their detail.

        Maps without noise keep what was measured. The detail is what the slices add beyond the band in their plane.
        """
        detail = to_volume(self.operator.plane.null(to_slices(slices)))
        volume, noisy = self.prepared.volume, np.array(self.noisy)[:, None, None, None]
        z = np.where(noisy, self.along(slices - detail), volume.z).astype(np.float32)
        return replace(self, prepared=replace(self.prepared, volume=replace(volume, z=z))), detail

    def _by_map(self, operator: Acquisition, maps: Float32, last: bool = False) -> Float32:
        """``A_lambda+ A`` of maps [M, X, Y, Z], or with the operator's axes last."""
        slices = maps if last else np.moveaxis(maps, -1, 1)
        each = [estimate(operator, operator.forward(one), noisy) for one, noisy in zip(slices, self.noisy, strict=True)]
        return np.stack(each) if last else np.ascontiguousarray(np.moveaxis(np.stack(each), 1, -1))

    def _planes(self, across: int, z: Float32, trusted: Bool, image: Float32 | None) -> Volume:
        """A volume whose planes lie across the last axis, as the sampler takes it."""
        volume = self.prepared.volume
        first, second = in_plane(across)
        sizes = voxel_sizes_mm(self.prepared.affine)
        factors = (*volume.factors, float(self.operator.axis.factor))
        return replace(
            volume,
            z=planes_last(z, across),
            trusted=planes_last(trusted, across),
            factors=(factors[first], factors[second]),
            voxel_mm=(sizes[first], sizes[second]),
            anatomy=None if image is None else _standardised(planes_last(image, across)),
            slices=tuple(int(i) for i in np.flatnonzero(planes_last(trusted, across).any(axis=(0, 1, 2)))),
        )


def in_plane(across: int) -> tuple[int, int]:
    """The two axes of planes across an axis, in order."""
    first, second = (axis for axis in range(3) if axis != across)
    return first, second


def planes_last(maps: NDArray, across: int) -> NDArray:
    """[..., X, Y, Z] with the axis across the planes moved to the end."""
    return np.ascontiguousarray(np.moveaxis(maps, across - 3, -1))


def planes_back(maps: NDArray, across: int) -> NDArray:
    """Undoes :func:`planes_last`."""
    return np.ascontiguousarray(np.moveaxis(maps, -1, across - 3))


def mean_evaluations(prepared: Prepared, sampler: Sampler) -> int:
    """Batched network evaluations that ``mean`` will report."""
    stack = Stack.of(prepared)
    volumes = [
        stack.measured_slices() if across == AXIAL else stack.planes(across, np.zeros_like(prepared.volume.z))
        for across in stack.directions()
    ]
    return sum(sampler.evaluations(volume, 1, 1) for volume in volumes)


def mean(
    prepared: Prepared, sampler: Sampler, on_evaluation: Callable[[], None] | None = None
) -> tuple[Float32, Float32 | None]:
    """Posterior mean and standard deviation of a volume, before data consistency.

    Args:
        prepared: The maps.
        sampler: Runs the network.
        on_evaluation: Called after every network evaluation of a batch; raises to cancel.

    Returns:
        Each [M, X, Y, Z] in the maps' units; the standard deviation is None if the model has no head for it.
    """
    stack, means, variances = Stack.of(prepared), [], []
    sharp = first = np.zeros_like(prepared.volume.z)
    for across in stack.directions():
        if across == AXIAL:
            stack, sharp, first = _refined_in_plane(stack, sampler, on_evaluation)
            continue
        found, sd = sampler.mean(stack.planes(across, sharp), None, on_evaluation)
        means.append(planes_back(found, across))
        if sd is not None:
            variances.append(planes_back(sd, across) ** 2)
    spread = np.sqrt(_mean_of(variances) + first) if variances else None
    return _mean_of(means), spread


def _refined_in_plane(
    stack: Stack, sampler: Sampler, on_evaluation: Callable[[], None] | None
) -> tuple[Stack, Float32, Float32]:
    """The stack with what the first pass makes of the measured band, what it adds beyond, and half of its variance.

    The later passes take the band for measured, so its error is theirs too; half, since each axis lies in two planes.
    """
    found, sd = sampler.mean(stack.measured_slices(), None, on_evaluation)
    stack, detail = stack.holding(found)
    axis, noisy = stack.operator.axis, np.array(stack.noisy)[:, None, None, None]
    sharp = along_slices(axis.matrices(WINDOW_DAMPING).smooth, detail)
    half = np.where(noisy, 0.5, 0.0) * (0.0 if sd is None else np.repeat(sd, axis.factor, axis=-1) ** 2)
    return stack, sharp, half.astype(np.float32)


def _mean_of(volumes: Sequence[Float32]) -> Float32:
    total = volumes[0].copy()
    for volume in volumes[1:]:
        total += volume
    return total / np.float32(len(volumes))


def _standardised(image: Float32) -> Float32:
    """An anatomical image [X, Y, Z] with each plane across the last axis in standard units."""
    return np.stack([standardise_anatomy(image[..., index]) for index in range(image.shape[2])], axis=-1)
