"""Data consistency: correction of an HR estimate toward the measured LR maps, and its residual.

Three ways, chosen by the caller for a whole run:

- ``hard``: the estimate is projected onto the maps that reproduce the data, ``P(x) = x - Q'Qx + z`` with
  ``z = A+ y``. Right only for data declared to be noise-free and linear; noise would be taken for anatomy.
- ``soft``: once, at the end, the smallest change that brings the whitened residual ``u = (y - A x)/sigma`` to the size
  that noise explains (the discrepancy principle): ``x + A+[(1 - min(1, size of noise/size of u)) r]``, ``r = y - A x``.
  Size is measured over the slice with the pull of each voxel bounded, and over each voxel's neighbourhood, so that what
  departs in one place is corrected there. A voxel that departs alone, with neighbours that do not, is taken for an
  outlier and pulls the less the further it lies (``residuals.unexplained``).
  Voxels that carry no weight take the residual that makes the change smallest: zeros there would be jumps, which
  undoing a window blows up (Hann, 17x17 voxels, 8 % holes: 50-fold; Hamming: 1.8-fold). Along the slices of a volume
  the inverse is damped instead (``conditioning.WINDOW_DAMPING``).
- ``off``: the estimate stays as the network made it; the residual is still reported.

``auto`` is soft where a noise level is known or assumed and off where there is none. It never becomes hard. Why the
size is bounded and local, and how the data scale the noise: docs/decisions/noise_of_measured_maps.md.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from mrsi_fast.mrsi.conditioning import WINDOW_DAMPING
from mrsi_fast.mrsi.forward import Modes
from mrsi_fast.mrsi.noise_shape import noise_shape
from mrsi_fast.mrsi.residuals import gross_outliers, noise_factor, products, room_for_noise, unexplained
from mrsi_fast.mrsi.volume_operator import Operator, VolumeAcquisition, VolumeModes

# Conjugate-gradient steps for voxels without weight; the change is then within a few percent of the smallest. Without
# a window all measured lines have about the same gain, and zeros in those voxels are as good.
FILL_ITERATIONS = {"none": 0, "hamming": 8, "hann": 16}

Mode = Literal["auto", "hard", "soft", "off"]

_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Residual:
    """What is left between the measured maps and an HR estimate; one number per map (shape of the kept axes).

    Attributes:
        relative: ``|y - A x| / |y|`` over trusted voxels; 0 where ``y`` is empty.
        absolute: root mean square of ``y - A x`` over trusted voxels, in the unit of ``y``.
        whitened: ``sqrt(sum(((y - A x)/sigma)^2))`` over trusted voxels of known noise level; NaN where there are none.
        expected: what noise alone gives, the square root of the number of those voxels; NaN where there are none.
        outside_band: share of ``|x|^2`` outside the measured band, which the data cannot confirm; 0 for an empty map.
    """

    relative: Tensor
    absolute: Tensor
    whitened: Tensor
    expected: Tensor
    outside_band: Tensor


class DataConsistency:
    """Holds HR estimates ``[..., M, X, Y]`` to measured maps ``[..., M, nx, ny]``, in any common unit.

    With the operator of a volume the estimates are ``[Z, M, X, Y]`` and the measured maps ``[n, M, nx, ny]``: residuals
    are judged slice by slice, and corrections reach the finer planes through the pseudo-inverse of all three axes.

    All that depends on the data is computed here, once; ``at_end`` is plain tensor operations without a branch on
    values. In the course of sampling ``hard`` is the engines' business: they remove the measured band from every
    estimate of the residual (``SamplingJob.projection``), which is the same projection.

    Attributes:
        mode: what was asked for.
        applied: what is done: ``"hard"``, ``"soft"`` or ``"off"``.
        z: ``[..., M, X, Y]`` the estimate that the data alone give, ``A+ y`` in float64, in the dtype of ``y``; None
            unless ``hard``.
        trusted: ``[..., M, nx, ny]`` 1 for voxels that count as data, 0 for others.
        weight: ``[..., M, nx, ny]`` 1/sigma, and 0 where a voxel is untrusted or its noise level unknown.
        noise_factor: ``[M, 1, 1]`` what the noise was multiplied with because the data support it; 1 as constructed.
    """

    def __init__(
        self,
        mode: Mode,
        acquisition: Operator,
        y: Tensor,
        noise_sd: Tensor | None = None,
        trusted: Tensor | None = None,
        exact: Tensor | None = None,
        largest_factor: Tensor | None = None,
    ) -> None:
        """Prepare for one batch of measured maps.

        Args:
            mode: ``"auto"``, ``"hard"``, ``"soft"`` or ``"off"``.
            acquisition: the operator that made ``y``.
            y: ``[..., M, nx, ny]`` LR maps, untrusted voxels filled. NaN counts as untrusted, and as 0 in ``z``.
            noise_sd: noise standard deviation of each LR voxel, in the unit of ``y``; broadcasts to ``y`` (for
                example CRLB times concentration). NaN, infinite, zero and negative values mean "not known".
            trusted: true where a voxel is data; broadcasts to ``y``. All voxels without it.
            exact: ``[..., M, X, Y]`` ``A+ y``, if the caller has computed it already; only ``hard`` needs it.
            largest_factor: ``[M]`` how far ``supported_by`` may raise the noise of each map; 1 without it.

        Raises:
            ValueError: for an unknown mode, ``soft`` without ``noise_sd``, or shapes that do not fit ``y``.
        """
        if mode not in ("auto", "hard", "soft", "off"):
            raise ValueError(f"Data consistency {mode!r} is not known: use 'auto', 'soft', 'hard' or 'off'.")
        if mode == "soft" and noise_sd is None:
            raise ValueError(
                "Soft data consistency needs the noise level of the measured maps: give CRLB maps or a noise standard"
                " deviation, or use 'auto', which leaves the estimate alone without one."
            )
        self.mode: Mode = mode
        self.applied: Literal["hard", "soft", "off"] = mode if mode != "auto" else "off" if noise_sd is None else "soft"
        self.acquisition = acquisition
        finite = torch.isfinite(y)
        valid = finite if trusted is None else finite & _broadcast("trusted", trusted, y).bool()
        self.trusted = valid.to(y.dtype)
        filled = torch.where(finite, y, 0.0)
        self.z = None
        if self.applied == "hard":
            self.z = acquisition.pinv(filled) if exact is None else exact
        self._data = filled * self.trusted
        sd = torch.zeros_like(y) if noise_sd is None else _broadcast("noise_sd", noise_sd, y).to(y)
        known = valid & torch.isfinite(sd) & (sd > torch.finfo(sd.dtype).tiny)
        self.weight = torch.where(known, 1.0 / torch.where(known, sd, 1.0), 0.0)
        self._expected = known.sum(dim=(-2, -1), keepdim=True).to(y.dtype).sqrt()
        self._known = known.to(y.dtype)
        self.noise_factor = torch.ones(y.shape[-3] if y.ndim > 2 else 1, 1, 1, dtype=torch.float64)
        limit = self.noise_factor if largest_factor is None else largest_factor.double().reshape(-1, 1, 1)
        self._largest_factor = limit.expand_as(self.noise_factor)
        self._shape = noise_shape(acquisition.plane if isinstance(acquisition, VolumeAcquisition) else acquisition)
        # Kept alive here, because a captured graph points into them.
        self._modes = acquisition.modes(y.dtype, y.device)
        self._wide_modes = acquisition.modes(y.dtype if y.device.type == "mps" else torch.float64, y.device)
        self._correcting = self._wide_modes
        if isinstance(acquisition, VolumeAcquisition) and isinstance(self._wide_modes, VolumeModes):
            # What is put back differs from slice to slice; undoing a window along them would blow up these jumps.
            damped = torch.tensor(acquisition.axis.matrices(WINDOW_DAMPING).inverse).to(self._wide_modes.up)
            self._correcting = replace(self._wide_modes, up=damped)

    def of_slices(self, chosen: slice) -> DataConsistency:
        """Return the same for some of the slices on the first axis, which the operator must act on one by one."""
        part = copy.copy(self)
        for name in ("trusted", "weight", "_data", "_known", "_expected"):
            setattr(part, name, getattr(self, name)[chosen])
        part.z = None if self.z is None else self.z[chosen]
        return part

    def supported_by(self, x0: Tensor) -> DataConsistency:
        """Return the same with the noise of each map scaled to what the residual of an estimate supports.

        The stated level is a lower bound. The part of the whitened residual that neighbouring voxels do not share is
        noise: its variance over all slices of a map, extrapolated from the covariances at one and two voxels to none,
        is the square of the factor where neither chance nor misfit explains the excess (``residuals.noise_factor``);
        never below 1, never above ``largest_factor``. What support, window and interpolation let neighbours share of
        noise counts as noise too (``noise_shape``).

        Args:
            x0: ``[..., M, X, Y]`` estimate that was not corrected yet, in the unit of ``y``.
        """
        return self.scaled_to(self.products(x0).flatten(0, -4).sum(0))

    def products(self, x0: Tensor) -> Tensor:
        """Return ``residuals.products`` of the whitened residual of an estimate, ``[..., 3, 2, M]``."""
        return products(self.whitened(x0), self._known)

    def scaled_to(self, sums: Tensor) -> DataConsistency:
        """As ``supported_by``, from the ``products`` of the estimate's slices, summed over these."""
        if self.applied == "hard" or not bool((self._largest_factor > 1).any()):
            return self
        found = noise_factor(sums, self._shape).to("cpu", torch.float64)
        scaled = copy.copy(self)
        scaled.noise_factor = torch.minimum(found, self._largest_factor)
        scaled.weight = self.weight / scaled.noise_factor.to(self.weight)
        return scaled

    def gross_outliers(self, x0: Tensor) -> Tensor:
        """Return the voxels ``[..., M, nx, ny]`` (bool) that no noise and no neighbour explains; none if ``hard``.

        Args:
            x0: ``[..., M, X, Y]`` estimate that was not corrected yet, in the unit of ``y``.
        """
        found = gross_outliers(self.whitened(x0), self._known)
        return torch.zeros_like(found) if self.applied == "hard" else found

    def at_end(self, x0: Tensor) -> Tensor:
        """Apply what belongs after the last step: the projection if hard, the soft correction if soft.

        The soft correction treats each map of each slice alone. Where the residual is within its expectation from
        noise, the estimate is returned as it is. Untrusted voxels and voxels without a noise level have no weight.

        Args:
            x0: ``[..., M, X, Y]`` final estimate, in the unit of ``y``.
        """
        if self.applied == "off":
            return x0
        if self.z is not None:
            return x0 - self._modes.measured(x0) + self.z
        residual = self._misfit(x0)
        pull, held = unexplained(residual * self.weight, self._known, self._shape)
        iterations = FILL_ITERATIONS[self.acquisition.window]
        wanted = fill_smallest(self._wide_modes, pull * residual, self._known * held, iterations)
        return x0 + self._correcting.pinv(wanted).to(x0)

    def _misfit(self, x: Tensor) -> Tensor:
        """``y - A x`` where the noise level is known, in double precision where there is one."""
        modes = self._wide_modes
        return (self._data.to(modes.gains) - modes.forward(x.to(modes.gains))) * self._known

    def whitened(self, x: Tensor) -> Tensor:
        """Return ``(y - A x)/sigma`` as ``[..., M, nx, ny]``, 0 where the noise level is unknown."""
        return self._misfit(x) * self.weight

    def residual(self, x: Tensor, over: tuple[int, ...] = (-2, -1)) -> Residual:
        """Measure the residual of an estimate.

        Args:
            x: ``[..., M, X, Y]`` HR maps, in the unit of ``y``.
            over: axes to sum over; ``(0, -2, -1)`` gives one number per map for a volume whose slices lie on axis 0.
        """
        return residual_of(self.squares(x, over))

    def squares(self, x: Tensor, over: tuple[int, ...] = (-2, -1)) -> Tensor:
        """Return the sums that ``residual_of`` takes, ``[7, ...]``; those of parts of a volume add up."""
        modes = self._wide_modes
        misfit = (self._data.to(modes.gains) - modes.forward(x.to(modes.gains))) * self.trusted
        invented = x - self._modes.measured(x)
        every = (misfit, self.trusted, self._data, misfit * self.weight, self._known, invented, x)
        return torch.stack([one.to(modes.gains).square().sum(dim=over) for one in every])

    def room(self) -> Tensor:
        """``[M]`` the most noise that each measured map leaves room for (``residuals.room_for_noise``)."""
        return room_for_noise(self._data, self.trusted, self._shape)

    def stated_noise(self) -> Tensor:
        """``[M]`` root mean square over voxels of the noise level as it was given, without ``noise_factor``."""
        known = self.weight > 0
        variance = (
            torch.where(known, 1.0 / (self.weight * self.noise_factor.to(self.weight)).clamp_min(_TINY), 0.0) ** 2
        )
        return (variance.sum((0, -2, -1)) / known.sum((0, -2, -1)).clamp_min(1)).sqrt()

    def describe(self) -> str:
        """Return two sentences for logs and reports: what is done and why, and the operator."""
        maps = self._expected.numel()
        known = int((self._expected > 0).sum())
        if self.applied == "hard":
            text = "Data consistency: hard, every estimate reproduces the data (declared noise-free)"
        elif self.applied == "soft":
            text = (
                "Data consistency: soft, one correction at the last step, to the residual expected from noise, with a "
                f"bounded weight per voxel (noise level stated or assumed for {known} of {maps} map slices, no "
                "correction of the others)"
            )
            factors = [float(factor) for factor in self.noise_factor.flatten()]
            if max(factors) > 1:
                text += (
                    f", noise level raised by a factor of {min(factors):.2g} to {max(factors):.2g} (from the residual)"
                )
        elif self.mode == "auto":
            text = "Data consistency: off, because no map has a noise level"
        else:
            text = "Data consistency: off, as requested"
        return f"{text}. Operator: {self.acquisition.describe()}"


def _broadcast(name: str, value: Tensor, y: Tensor) -> Tensor:
    try:
        return value.to(y.device).broadcast_to(y.shape)
    except RuntimeError:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}, which does not broadcast to the measured maps {tuple(y.shape)}."
        ) from None


def fill_smallest(modes: Modes[Tensor] | VolumeModes, values: Tensor, known: Tensor, iterations: int) -> Tensor:
    """Fill the voxels where ``known`` is 0 so that ``|A+ values|`` is smallest (conjugate gradients on its square).

    Args:
        modes: Of the operator.
        values: ``[..., M, nx, ny]``; only those where ``known`` is 1 count.
        known: The same shape, 1 or 0.
        iterations: How many steps; 0 leaves zeros.
    """
    free = 1.0 - known
    tiny = torch.finfo(values.dtype).tiny
    filled = values * known
    downhill = -free * modes.gram_pinv(filled)
    direction = downhill
    slope = (downhill * downhill).sum((-2, -1), keepdim=True)
    for _ in range(iterations):  # a fixed number: nothing here may depend on values
        curved = free * modes.gram_pinv(direction)
        length = slope / (direction * curved).sum((-2, -1), keepdim=True).clamp_min(tiny)
        filled = filled + length * direction
        downhill = downhill - length * curved
        next_slope = (downhill * downhill).sum((-2, -1), keepdim=True)
        direction = downhill + next_slope / slope.clamp_min(tiny) * direction
        slope = next_slope
    return filled


def residual_of(squares: Tensor) -> Residual:
    """Make a residual of the sums ``[7, ...]`` that ``DataConsistency.squares`` gives."""
    misfit, trusted, data, whitened, voxels, invented, image = squares
    unknown = torch.where(voxels > 0, 0.0, torch.nan)
    return Residual(
        relative=_ratio(misfit, data).sqrt(),
        absolute=(misfit / trusted.clamp_min(1.0)).sqrt(),
        whitened=whitened.sqrt() + unknown,
        expected=voxels.sqrt() + unknown,
        outside_band=_ratio(invented, image),
    )


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1.0), 0.0)
