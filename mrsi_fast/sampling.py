"""From prepared slices to posterior mean, spread and samples: channel layout, noise, batches, engine."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from operator import itemgetter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrsi_fast.config import DiffusionConfig
from mrsi_fast.diffusion.noise import batch_normal, slice_key
from mrsi_fast.diffusion.schedules import few_levels, karras, vp_linear
from mrsi_fast.diffusion.solvers import Solver, Step, make_steps
from mrsi_fast.engine.job import Engine, SamplingJob
from mrsi_fast.models.condition import Condition, batch_condition, residual_rms
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.names import assign_channels

Float32 = NDArray[np.float32]

_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Volume:
    """Inputs of the network for one set of maps, in the maps' units.

    Attributes:
        names: M canonical names.
        z: [M, X, Y, Z] estimate from the measured data alone.
        trusted: [M, X, Y, Z] bool, on the high-resolution grid.
        scale: [M] scale of each map; 0 for a map with nothing in it.
        noise: [M] noise standard deviation of one low-resolution voxel.
        factors: How many times finer than the measurement, per in-plane axis.
        voxel_mm: In-plane high-resolution voxel size.
        anatomy: [X, Y, Z] standardised anatomical image on the high-resolution grid, or None.
        slices: Indices of the slices that hold any trusted voxel.
        content_key: Of what was measured; the noise of samples is keyed by it, so that it differs between subjects.
    """

    names: tuple[str, ...]
    z: Float32
    trusted: NDArray[np.bool_]
    scale: NDArray[np.float64]
    noise: NDArray[np.float64]
    factors: tuple[float, float]
    voxel_mm: tuple[float, float]
    anatomy: Float32 | None
    slices: tuple[int, ...]
    content_key: bytes = b""


def solver_steps(solver: Solver, steps: int, diffusion: DiffusionConfig) -> tuple[Step, ...]:
    """The solver's steps from the model's largest noise level to 0.

    ``dpmpp_2m`` takes the coefficients that were fitted to the model where it has some for this number of steps. Else,
    like ``ddim``, it takes ``schedules.few_levels``. ``heun`` takes plain Karras levels: its average of two slopes goes
    astray where a step divides the noise by more than about 3. ``ddpm`` follows the linear variance-preserving chain of
    Ho et al. (2020), cut to the model's trained range.

    Args:
        solver: Solver name.
        steps: Intervals of the schedule; for ``heun`` each but the last costs two evaluations.
        diffusion: The model's noise range.
    """
    if solver == "dpmpp_2m" and steps == len(diffusion.fitted_steps):
        return tuple(Step(sigma, base, now, prev) for sigma, base, now, prev in diffusion.fitted_steps)
    if solver == "ddpm":
        sigmas = vp_linear(steps, diffusion.sigma_min, diffusion.sigma_max)
    elif solver == "heun":
        sigmas = karras(steps, diffusion.sigma_min, diffusion.sigma_max)
    else:
        sigmas = few_levels(steps, diffusion.sigma_last, diffusion.sigma_second, diffusion.sigma_max, diffusion.rho)
    return make_steps(solver, sigmas)


def channel_batch(volume: Volume, layout: Sequence[int | None], used: Sequence[int]) -> dict[str, Tensor]:
    """Lays slices ``used`` of a volume out on the network's channels: the layout of ``Simulator.batch``."""
    slices, (width, height), used = len(used), volume.z.shape[1:3], list(used)
    shape = (slices, len(layout), width, height)
    z, mask = torch.zeros(shape), torch.zeros(shape)
    presence, scale, noise = (torch.zeros(slices, len(layout)) for _ in range(3))
    for channel, index in enumerate(layout):
        if index is None or volume.scale[index] <= 0:
            continue
        z[:, channel] = torch.from_numpy(np.moveaxis(volume.z[index][..., used], -1, 0).copy())
        mask[:, channel] = torch.from_numpy(np.moveaxis(volume.trusted[index][..., used], -1, 0).copy())
        presence[:, channel] = 1.0
        scale[:, channel] = float(volume.scale[index])
        noise[:, channel] = float(volume.noise[index])
    anatomy = torch.zeros(slices, 1, width, height)
    if volume.anatomy is not None:
        anatomy[:, 0] = torch.from_numpy(np.moveaxis(volume.anatomy[..., used], -1, 0).copy())
    return {
        "z": z,
        "mask": mask,
        "presence": presence,
        "scale": scale,
        "noise": noise,
        "factors": torch.tensor(volume.factors, dtype=torch.float32).expand(slices, 2),
        "voxel_mm": torch.tensor(volume.voxel_mm, dtype=torch.float32).expand(slices, 2),
        "anatomy": anatomy,
        "anatomy_present": torch.full((slices,), float(volume.anatomy is not None)),
    }


@dataclass(frozen=True)
class Sampler:
    """Draws from the posterior of a volume with one engine.

    Attributes:
        engine: Runs the batches.
        diffusion: Noise range and residual scales of the model.
        batch_size: Slices (times samples) that run together.
    """

    engine: Engine
    diffusion: DiffusionConfig
    batch_size: int = 8

    @property
    def tells_spread(self) -> bool:
        """Whether the model has a head for the standard deviation."""
        return self.engine.denoiser.tells_spread

    def evaluations(self, volume: Volume, samples: int, steps: int) -> int:
        """Batched network evaluations that ``draws`` will report, for a progress bar."""
        rows = len(volume.slices) * max(samples, 1)
        return -(-rows // self.batch_size) * steps * len(assign_channels(volume.names))

    def draws(
        self,
        volume: Volume,
        samples: Sequence[int],
        steps: tuple[Step, ...],
        seed: int,
        projection: Acquisition | None = None,
        on_evaluation: Callable[[], None] | None = None,
    ) -> Iterator[Float32]:
        """Samples the maps, all maps of a slice in one draw; no more samples are held than share a batch.

        Args:
            volume: The prepared maps.
            samples: Sample indices, each a key of the noise.
            steps: From ``solver_steps``.
            seed: The user's seed.
            projection: For hard data consistency.
            on_evaluation: Called after every network evaluation of a batch; raises to cancel.

        Yields:
            Each sample in turn, [M, X, Y, Z] in the maps' units; slices outside ``volume.slices`` and empty maps are 0.
        """

        def job(batch: _Batch) -> SamplingJob:
            shape = batch.cond.z.shape[1:]
            keys = [(slice_key(volume.content_key, index), sample) for index, sample in batch.keys]
            return SamplingJob(
                cond=batch.cond,
                initial=steps[0].sigma * batch_normal(seed, keys, 0, shape),
                steps=steps,
                projection=projection,
                step_noise=lambda step: batch_normal(seed, keys, step + 1, shape),
                on_step=_after_each(on_evaluation),
            )

        begun: dict[int, Float32] = {}

        def draw(batch: _Batch) -> None:
            batch.place(batch.z + self.engine.run(job(batch)) * batch.unit, begun)

        waiting = list(samples)
        for rows in self._rows(volume, samples):
            for _, sample in rows:
                if sample not in begun:
                    begun[sample] = np.zeros(volume.z.shape, dtype=np.float32)
            for batch in self._passes(volume, rows):
                in_halves(draw, batch)
            while waiting[0] != rows[-1][1]:
                yield begun.pop(waiting.pop(0))
        for sample in waiting:
            yield begun.pop(sample) if begun else np.zeros(volume.z.shape, dtype=np.float32)

    def mean(
        self, volume: Volume, projection: Acquisition | None = None, on_evaluation: Callable[[], None] | None = None
    ) -> tuple[Float32, Float32 | None]:
        """Posterior mean and standard deviation from one evaluation at sigma_max from a state of 0, without noise.

        Args:
            volume: The prepared maps.
            projection: For hard data consistency; it acts on the mean.
            on_evaluation: As for ``draws``.

        Returns:
            Mean and standard deviation, each [M, X, Y, Z] in the maps' units, 0 where ``draws`` gives 0. The standard
            deviation is None if the model has no head for it.
        """
        mean, sd = (np.zeros(volume.z.shape, dtype=np.float32) for _ in range(2))

        def evaluate(batch: _Batch) -> None:
            estimate = self.engine.estimate(batch.cond, projection, _after_each(on_evaluation))
            batch.place(batch.z + estimate.mean * batch.unit, {0: mean})
            if estimate.sd is not None:
                batch.place(estimate.sd * batch.unit, {0: sd})

        for rows in self._rows(volume, [0]):
            for batch in self._passes(volume, rows):
                in_halves(evaluate, batch)
        return mean, sd if self.tells_spread else None

    def denoise(
        self,
        volume: Volume,
        found: Float32,
        noise: Float32,
        sigma: float,
        on_evaluation: Callable[[], None] | None = None,
    ) -> tuple[Float32, Float32]:
        """One evaluation at a noise level: ``x = found + sigma u noise`` split anew into estimate and noise.

        Args:
            volume: The prepared maps.
            found: [M, X, Y, Z] estimate, in the maps' units.
            noise: [M, X, Y, Z] of unit variance; ``u`` is the RMS of the residual at the volume's factors.
            sigma: The noise level.
            on_evaluation: As for ``draws``.

        Returns:
            Estimate and noise, each [M, X, Y, Z]. Slices outside ``volume.slices`` keep both; empty maps are 0.
        """
        better, left = found.copy(), noise.copy()
        better[volume.scale <= 0] = 0
        step = (Step(sigma=sigma, base=0.0, now=1.0),)

        def evaluate(batch: _Batch) -> None:
            before, state = batch.take(found), batch.take(noise)
            state = torch.where(batch.unit > 0, (before - batch.z) / batch.unit.clamp_min(_TINY), 0.0) + sigma * state
            job = SamplingJob(batch.cond, state, step, on_step=_after_each(on_evaluation))
            estimate = self.engine.run(job)
            batch.place(batch.z + estimate * batch.unit, {0: better})
            batch.place((state - estimate) / sigma, {0: left})

        for rows in self._rows(volume, [0]):
            for batch in self._passes(volume, rows):
                in_halves(evaluate, batch)
        return better, left

    def _rows(self, volume: Volume, samples: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
        """(slice, sample) of what runs together: every slice, sample after sample."""
        largest = max(map(float, self.diffusion.residual_rms))
        if (asked := (volume.factors[0] * volume.factors[1]) ** 0.5) > 1.01 * largest:
            raise ValueError(
                f"The model serves factors up to x{largest:g}; asked is x{asked:.3g}. Choose a smaller scale."
            )
        every = ((index, sample) for sample in samples for index in volume.slices)
        while rows := list(islice(every, self.batch_size)):
            yield rows

    def _passes(self, volume: Volume, rows: list[tuple[int, int]]) -> Iterator[_Batch]:
        """The rows as the network takes them; maps that it has no channel left for come in another pass."""
        done: set[int] = set()
        for layout in assign_channels(volume.names):
            whole = channel_batch(volume, layout, [index for index, _ in rows])
            unit = residual_rms(self.diffusion.residual_rms, whole["factors"]) * whole["scale"]
            fresh = [(channel, index) for channel, index in enumerate(layout) if index is not None]
            seen = [(channel, index) for channel, index in fresh if volume.scale[index] > 0]
            maps = [(channel, index) for channel, index in seen if index not in done]
            yield _Batch(batch_condition(whole), whole["z"], unit[:, :, None, None], rows, maps, seen)
            done.update(index for _, index in fresh)


@dataclass(frozen=True)
class _Batch:
    """Slices that run together.

    Attributes:
        cond: Condition of the network.
        z: [B, K, X, Y] estimate from the measured data alone, in the maps' units.
        unit: [B, K, 1, 1] RMS of the residual, in the maps' units.
        keys: (slice, sample) of each row.
        maps: (channel, map) of what these slices give.
        channels: (channel, map) of all that the network sees of them.
    """

    cond: Condition
    z: Tensor
    unit: Tensor
    keys: list[tuple[int, int]]
    maps: list[tuple[int, int]]
    channels: list[tuple[int, int]]

    def take(self, volume: Float32) -> Tensor:
        """The batch's part [B, K, X, Y] of [M, X, Y, Z]; 0 in channels without a map."""
        values = torch.zeros_like(self.z)
        for row, (slice_index, _) in enumerate(self.keys):
            for channel, map_index in self.channels:
                values[row, channel] = torch.from_numpy(volume[map_index, ..., slice_index])
        return values

    def halves(self) -> tuple[_Batch, _Batch]:
        """The first and the second half of the rows."""
        middle = len(self.keys) // 2

        def part(rows: slice) -> _Batch:
            cond = self.cond.map(itemgetter(rows))
            return replace(self, cond=cond, z=self.z[rows], unit=self.unit[rows], keys=self.keys[rows])

        return part(slice(None, middle)), part(slice(middle, None))

    def place(self, values: Tensor, results: Mapping[int, Float32]) -> None:
        """Writes [B, K, X, Y] to where it belongs in the [M, X, Y, Z] of each sample."""
        array = values.numpy()
        for row, (slice_index, sample) in enumerate(self.keys):
            for channel, map_index in self.maps:
                results[sample][map_index, ..., slice_index] = array[row, channel]


def in_halves(run: Callable[[_Batch], None], batch: _Batch) -> None:
    """Runs a batch; where the memory does not hold it, its halves one after the other, down to single slices.

    Results do not depend on how slices are batched, but for rounding.

    Raises:
        MemoryError: One slice alone does not fit.
    """
    try:
        run(batch)
        return
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if len(batch.keys) == 1:
            width, height = batch.z.shape[-2:]
            raise MemoryError(
                f"Not enough memory for one slice of {width}x{height} voxels. Choose a smaller scale or device='cpu'."
            ) from error
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
    # Outside the handler: its traceback would keep the tensors of the failed run alive.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    warnings.warn(f"{len(batch.keys)} slices at once do not fit into memory ({reason}); halved.", stacklevel=2)
    for half in batch.halves():
        in_halves(run, half)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was refused: Python's, CUDA's, or that of PyTorch's CPU allocator."""
    told = ("DefaultCPUAllocator", "out of memory", "can't allocate memory", "bad_alloc")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(one in str(error) for one in told)


def _after_each(on_evaluation: Callable[[], None] | None) -> Callable[[int, int], None] | None:
    """As ``SamplingJob.on_step``."""
    return None if on_evaluation is None else lambda done, total: on_evaluation()
