"""From prepared maps to the posterior: mean and standard deviation of one evaluation, and consistent samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mrsi_fast import three_planes, three_planes_samples
from mrsi_fast.agreement import Departure, departure
from mrsi_fast.diffusion.solvers import Step
from mrsi_fast.mrsi import slabs
from mrsi_fast.mrsi.consistency import DataConsistency
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.names import ABSENT_IN_HEALTHY_BRAIN
from mrsi_fast.preparation import Prepared, prepare, without
from mrsi_fast.sampling import Sampler

Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]
Progress = Callable[[int, int], None]

SAMPLES_FOR_STD = 8
"""Samples from which their standard deviation is given, where the model has no head for it."""

OUTLIER_PASSES = 3
"""How often gross outliers are looked for; the largest hide others."""

UNCHANGED = "Data consistency moves the mean inside the measured band and leaves the standard deviation as it is."


class NotFinite(ValueError):
    """The network's output is no number somewhere; the message says in which maps."""


@dataclass(frozen=True, eq=False)
class Posterior:
    """What is known of one set of maps. Arrays are [M, X, Y, Z] in the maps' units, without NaN but in ``std``.

    Attributes:
        prepared: As it was used, gross outliers no longer taken for data.
        outliers: [M, x, y, Z] the measured voxels that were found to be gross outliers.
        consistency: With the noise that the data support.
        before: How the one-step posterior mean departed from the data before data consistency.
        mean: That mean after it.
        std: Posterior standard deviation; NaN where there is none.
        std_source: Where it comes from, a sentence for the record.
    """

    prepared: Prepared
    outliers: Bool
    consistency: DataConsistency
    before: Departure
    mean: Float32
    std: Float32
    std_source: str


def estimate(prepared: Prepared, sampler: Sampler, counter: Counter) -> Posterior:
    """Estimates the posterior of one set of maps: mean and standard deviation.

    The first estimate shows which voxels are gross outliers; they are bridged and the estimate is made again. The noise
    that data consistency goes by is scaled to what the mean's residual supports, for the samples too.

    Args:
        prepared: The maps.
        sampler: Runs the network.
        counter: Counts its evaluations.
    """
    if prepared.factors[2] == 1:
        prepared, outliers, (mean, sd) = _without_outliers(prepared, sampler, counter)
    else:
        outliers = _outliers_of_slices(prepared, sampler, counter)
        prepared = without(prepared, outliers) if outliers.any() else prepared
        mean, sd = _mean(prepared, sampler, counter)
    consistency = slabs.supported_by(prepared.consistency, mean)
    before = departure(consistency, mean)
    std, source = _deviation(prepared, sd)
    return Posterior(prepared, outliers, consistency, before, slabs.hold(consistency, mean), std, source)


@dataclass(frozen=True)
class Draws:
    """Which samples to draw.

    Attributes:
        samples: How many.
        steps: The solver's.
        seed: Of their noise.
    """

    samples: int
    steps: tuple[Step, ...]
    seed: int

    def evaluations(self, prepared: Prepared, sampler: Sampler) -> int:
        """Batched network evaluations that :meth:`of` will report."""
        if not self.samples:
            return 0
        if prepared.factors[2] > 1:
            return three_planes_samples.sample_evaluations(prepared, sampler, self.samples, self.steps)
        return sampler.evaluations(prepared.volume, self.samples, len(self.steps))

    def of(self, found: Posterior, sampler: Sampler, counter: Counter) -> Iterator[Float32]:
        """Each sample [M, X, Y, Z] in turn, after data consistency; none is kept here."""
        prepared, numbers = found.prepared, range(self.samples)
        if prepared.factors[2] > 1:
            drawn = three_planes_samples.draws(prepared, sampler, numbers, self.steps, self.seed, counter)
        else:
            drawn = sampler.draws(prepared.volume, numbers, self.steps, self.seed, _projection(prepared), counter)
        for one in drawn:
            yield slabs.hold(found.consistency, _passed_on(prepared, one))
            del one  # else it lives until the next one is whole


class Spread:
    """Standard deviation over samples that come one after the other (Welford 1962, Technometrics 4:419)."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, sample: Float32) -> None:
        """Takes a sample into account."""
        self.count += 1
        if self.count == 1:
            self._mean, self._squares = sample.astype(np.float64), np.zeros(sample.shape)
            return
        change = sample - self._mean
        self._mean += change / self.count
        self._squares += change * (sample - self._mean)

    def given_to(self, found: Posterior) -> Posterior:
        """The posterior with this deviation, if there were samples enough."""
        if self.count < SAMPLES_FOR_STD:
            return found
        deviation = np.sqrt(self._squares / (self.count - 1)).astype(np.float32)
        return replace(found, std=deviation, std_source=f"over {self.count} samples, each after data consistency")


def _without_outliers(
    prepared: Prepared, sampler: Sampler, counter: Counter
) -> tuple[Prepared, Bool, tuple[Float32, Float32 | None]]:
    """The maps without their gross outliers, which voxels those are, and mean and deviation."""
    found = _mean(prepared, sampler, counter)
    outliers = np.zeros_like(prepared.trust.trusted)
    for _ in range(OUTLIER_PASSES):
        more = _gross_outliers(prepared, found[0])
        if not more.any():
            break
        outliers |= more
        prepared = without(prepared, outliers)
        found = _mean(prepared, sampler, counter)
    return prepared, outliers, found


def _outliers_of_slices(prepared: Prepared, sampler: Sampler, counter: Counter) -> Bool:
    """Gross outliers of maps that are refined through the plane, as the measured slices show them in their plane.

    One evaluation of the few measured slices tells them; the passes over the finer planes are then made once.
    """
    if max(prepared.factors[:2]) == 1:
        return np.zeros_like(prepared.trust.trusted)
    asked = prepared.request
    scale, mode = (*prepared.factors[:2], 1), asked.data_consistency
    flat = prepare(
        prepared.maps,
        scale,
        mode,
        asked.acquisition,
        noise=asked.noise,
        rules=asked.rules,
        noise_scale=asked.noise_scale,
    )
    return _without_outliers(flat, sampler, counter)[1]


def _mean(prepared: Prepared, sampler: Sampler, counter: Counter) -> tuple[Float32, Float32 | None]:
    if prepared.factors[2] > 1:
        counter.expect(three_planes.mean_evaluations(prepared, sampler))
        mean, sd = three_planes.mean(prepared, sampler, counter)
    else:
        counter.expect(sampler.evaluations(prepared.volume, 1, 1))
        mean, sd = sampler.mean(prepared.volume, _projection(prepared), counter)
    if sd is not None:
        _require_numbers(prepared, sd, "standard deviation")
    return _passed_on(prepared, mean), sd


def _require_numbers(prepared: Prepared, values: Float32, what: str) -> None:
    """Refuses a result that the network made no number of.

    Raises:
        NotFinite: One of the values [M, X, Y, Z] is NaN or infinite.
    """
    lost = {name: int(one.size - np.isfinite(one).sum()) for name, one in zip(prepared.maps.names, values, strict=True)}
    if any(lost.values()):
        listed = ", ".join(f"{name} {count}" for name, count in lost.items() if count)
        raise NotFinite(
            f"The network's {what} is NaN or infinite (voxels: {listed} of {values[0].size}). Its weights, or the "
            "engine that ran them, are at fault: try --engine eager, or another model. No result was written."
        )


def _projection(prepared: Prepared) -> Acquisition | None:
    return prepared.plane if prepared.consistency.applied == "hard" else None


def _passed_on(prepared: Prepared, values: Float32) -> Float32:
    """Maps of noise or of one value as they were measured, in place of what the network made of them.

    Raises:
        NotFinite: The network made no number of a value.
    """
    _require_numbers(prepared, values, "estimate")
    noise = [index for index, kind in enumerate(prepared.content) if kind == "noise"]
    values[noise] = prepared.volume.z[noise]
    for index, kind in enumerate(prepared.content):
        if kind == "constant":
            values[index] = prepared.maps.maps[index][prepared.trust.trusted[index] & prepared.trust.support][0]
    return values


def _deviation(prepared: Prepared, sd: Float32 | None) -> tuple[Float32, str]:
    """The standard deviation of the model and where it comes from; of a map of noise it is that noise."""
    if sd is not None:
        for index, kind in enumerate(prepared.content):
            if kind in ("noise", "constant"):
                sd[index] = prepared.volume.noise[index]
        if prepared.factors[2] > 1:
            return sd, three_planes.SPREAD_SOURCE
        return sd, f"of the posterior, from the same evaluation as the mean. {UNCHANGED}"
    few = f"none: the model has no head for it, and a deviation over samples needs at least {SAMPLES_FOR_STD}"
    return np.full_like(prepared.volume.z, np.nan), few


def _gross_outliers(prepared: Prepared, uncorrected: Float32) -> Bool:
    """[M, x, y, Z] voxels that are no data, as an estimate shows; none in maps of what healthy brain lacks.

    There a high value in a low map is the finding itself.
    """
    found = slabs.gross_outliers(prepared.consistency, uncorrected)
    found[[name in ABSENT_IN_HEALTHY_BRAIN for name in prepared.maps.names]] = False
    return found


class Counter:
    """Counts evaluations for a progress bar whose end may move."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._done, self._total = progress, 0, 0

    def expect(self, more: int) -> None:
        """Adds evaluations that are still to come."""
        self._total += more

    def __call__(self) -> None:
        """Counts one."""
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)
