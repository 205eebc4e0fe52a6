"""Baselines for volumes that are refined along all three axes: the planar ones, one axis further.

Zero-filling and cubic interpolation act axis by axis. Total variation (Rudin et al. 1992) is solved by the algorithm of
``mrsi.total_variation`` with a gradient of three components. The ridge regression sees the neighbouring slices too.
Every estimate is held to all measured data in three dimensions, as ours is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrsi_fast.evaluation.cases import EVERYTHING_TRUSTED
from mrsi_fast.evaluation.interpolation import interpolation_matrix
from mrsi_fast.evaluation.ridge import Ridge, fit_ridge
from mrsi_fast.mrsi.consistency import Mode
from mrsi_fast.mrsi.mapset import MapSet
from mrsi_fast.mrsi.quality import fill_volume
from mrsi_fast.mrsi.slabs import to_slices, to_volume
from mrsi_fast.mrsi.through_plane import axis_operator
from mrsi_fast.mrsi.volume_operator import VolumeAcquisition, across_planes
from mrsi_fast.preparation import AcquisitionSettings, Prepared, prepare
from mrsi_fast.simulation.volume import SimulatedSubject

Float32 = NDArray[np.float32]

FIDELITIES: tuple[float, ...] = (10.0, 30.0, 100.0, 300.0)
"""Weights of the data term that are tried for total variation on noisy data; maps are divided by their scale."""

ITERATIONS, TUNING_ITERATIONS = 200, 50
_STEP = 1 / math.sqrt(12.0)  # the discrete gradient in three dimensions has norm sqrt(12)


@dataclass(frozen=True, eq=False)
class VolumeProblem:
    """A simulated subject whose slices are refined too, as every method receives it.

    Attributes:
        subject: Truth, for scoring only.
        scale: (fx, fy, g).
        maps: What was measured.
        noise_free: Whether it is declared free of noise.
        prepared: Trust, operator and data consistency, made by the code that prepares a user's maps.
        low: [M, nx, ny, n] LR maps, untrusted voxels filled.
    """

    subject: SimulatedSubject
    scale: tuple[int, int, int]
    maps: MapSet
    noise_free: bool
    prepared: Prepared
    low: Float32

    @classmethod
    def of(cls, subject: SimulatedSubject, scale: tuple[int, int, int]) -> VolumeProblem:
        """The problem that a subject poses at one of the scales it was measured at."""
        maps, free = subject.mapset(scale), subject.measured[scale].crlb is None
        options = call_options(subject, scale)
        mode: Mode = options["data_consistency"]
        prepared = prepare(maps, scale, mode, options["acquisition"], options["noise"], rules=options["rules"])
        low = fill_volume(maps.maps, prepared.trust.trusted, prepared.trust.support)
        return cls(subject, scale, maps, free, prepared, low)

    @property
    def unit(self) -> NDArray[np.float64]:
        """[M, 1, 1, 1] scale of each map; 1 for a map that holds nothing."""
        scale = self.prepared.volume.scale
        return np.where(scale > 0, scale, 1.0)[:, None, None, None]

    @property
    def operator(self) -> VolumeAcquisition:
        """The acquisition."""
        assert isinstance(self.prepared.acquisition, VolumeAcquisition)
        return self.prepared.acquisition

    def held(self, found: NDArray) -> Float32:
        """An estimate after the data consistency that every method gets."""
        planes = to_slices(np.asarray(found, np.float32))
        held = self.prepared.consistency.supported_by(planes).at_end(planes)
        return to_volume(held).astype(np.float32, copy=False)


def call_options(subject: SimulatedSubject, scale: tuple[int, int, int]) -> dict:
    """What is declared of a simulated subject: keyword arguments of ``SuperResolver``."""
    low = subject.measured[scale]
    operator, free = low.operator, low.crlb is None
    assert isinstance(operator, VolumeAcquisition)
    return {
        "acquisition": AcquisitionSettings(
            support=operator.support, window=operator.window, through_plane=operator.axis.kind
        ),
        "data_consistency": "hard" if free else "auto",
        "noise": 0.0 if free else None,
        "rules": EVERYTHING_TRUSTED if free else None,
    }


def cubic(maps: NDArray, factor: int, axis: int) -> NDArray[np.float64]:
    """Cubic interpolation (Keys) of [M, X, Y, Z] along axis 0, 1 or 2 of the volume."""
    matrix = interpolation_matrix(maps.shape[axis + 1], factor, "bicubic")
    turned = np.moveaxis(maps, axis + 1, -1).astype(np.float64) @ matrix.T
    return np.ascontiguousarray(np.moveaxis(turned, -1, axis + 1))


def cubic_everywhere(problem: VolumeProblem) -> NDArray[np.float64]:
    """Cubic interpolation along all three axes."""
    found: NDArray[np.float64] = problem.low.astype(np.float64)
    for axis, factor in enumerate(problem.scale):
        found = cubic(found, factor, axis)
    return found


def fit_volume_ridge(problems: list[VolumeProblem]) -> Ridge:
    """Fits the regression on subjects of train heads, two or more."""

    def detail(one: VolumeProblem) -> NDArray:
        return (one.subject.truth - one.prepared.volume.z) / one.unit

    pairs = ((str(one.subject.provenance["head"]), one.low / one.unit, detail(one)) for one in problems)
    return fit_ridge(pairs, problems[0].scale)


def ridge_estimate(problem: VolumeProblem, ridge: Ridge) -> NDArray:
    """The regression's estimate."""
    return ridge.estimate(problem.low / problem.unit, problem.prepared.volume.z / problem.unit) * problem.unit


def tuned_fidelity(problem: VolumeProblem) -> float | None:
    """Weight of total variation's data term with the least error in a train head's brain; None without noise."""
    if problem.noise_free:
        return None
    brain, errors = problem.subject.masks["brain"], []
    for fidelity in FIDELITIES:
        found = problem.held(total_variation(problem, fidelity, TUNING_ITERATIONS))
        errors.append(float((((found - problem.subject.truth) / problem.unit)[:, brain] ** 2).sum()))
    return FIDELITIES[int(np.argmin(errors))]


def total_variation(problem: VolumeProblem, fidelity: float | None, iterations: int = ITERATIONS) -> NDArray:
    """``min TV(x) + mu/2 |A x - y|^2``, or ``min TV(x)`` subject to ``A x = y`` where ``fidelity`` is None.

    Chambolle and Pock 2011, 10.1007/s10851-010-0251-1, Algorithm 1; see ``mrsi.total_variation``.
    """
    unit = torch.from_numpy(problem.unit[:, 0]).float()
    y = to_slices(problem.low) / unit
    step = _DataStep(problem.operator, y, fidelity)
    x = to_slices(problem.prepared.volume.z) / unit
    ahead = x.clone()
    dual = torch.zeros((3, *x.shape))
    for _ in range(iterations):
        dual += _STEP * gradient(ahead)
        dual /= dual.square().sum(dim=0).sqrt().clamp_min(1.0)
        new = step(x + _STEP * divergence(dual))
        ahead = 2 * new - x
        x = new
    return to_volume(x * unit)


class _DataStep:
    """The proximal step of the data term, exact in the operator's modes."""

    def __init__(self, operator: VolumeAcquisition, y: Tensor, fidelity: float | None) -> None:
        rows, samples, gains = (torch.tensor(array, dtype=y.dtype) for array in axis_operator(operator.axis))
        self._rows, self._plane, self._fidelity = rows, operator.plane.modes(y.dtype, y.device), fidelity
        plane = self._plane
        self._data = plane.lr_x @ across_planes(samples, y) @ plane.lr_y.T
        along = gains.view(-1, *[1] * (y.ndim - 1))
        self._gains, self._inverse = along * plane.gains, plane.inverse / along

    def __call__(self, x: Tensor) -> Tensor:
        plane = self._plane
        seen = plane.hr_x @ across_planes(self._rows, x) @ plane.hr_y.T
        if self._fidelity is None:
            change = self._inverse * self._data - seen
            change = change if plane.kept is None else plane.kept * change
        else:
            weight = _STEP * self._fidelity * self._gains
            change = (weight * self._data - weight * self._gains * seen) / (1 + weight * self._gains)
        return x + across_planes(self._rows.T, plane.hr_x.T @ change @ plane.hr_y)


_AXES = (0, -2, -1)


def gradient(x: Tensor) -> Tensor:
    """Forward differences [3, Z, ..., X, Y] of [Z, ..., X, Y], 0 at the far ends."""
    result = torch.zeros((3, *x.shape), dtype=x.dtype)
    for component, axis in zip(result, _AXES, strict=True):
        count = x.shape[axis] - 1
        component.narrow(axis, 0, count).copy_(x.narrow(axis, 1, count) - x.narrow(axis, 0, count))
    return result


def divergence(p: Tensor) -> Tensor:
    """Minus the transpose of :func:`gradient`."""
    result = torch.zeros_like(p[0])
    for component, axis in zip(p, _AXES, strict=True):
        count = result.shape[axis] - 1
        part = component.narrow(axis, 0, count)
        result.narrow(axis, 0, count).add_(part)
        result.narrow(axis, 1, count).sub_(part)
    return result
