"""Posterior samples of a volume refined through the plane: solver steps that alternate between directions.

The state of a run is a volume, so that the detail of one direction is there when the next one is evaluated, and
neighbouring planes agree; samples drawn plane by plane do not. The idea is that of Lee et al. 2023, "Improving 3D
Imaging with Pre-Trained Perpendicular 2D Diffusion Models". Written as estimate and noise, ``x = x0 + sigma u eps``, a
step of DDIM (Song et al. 2021, equation 12 with eta = 0) at noise level ``sigma`` along planes of one direction is

    x0' = z + u D((x0 - z)/u + sigma eps, sigma),      eps' = eps + (x0 - x0')/(sigma u),

with ``z`` the estimate that the network is given for these planes (sharp across them as far as ``x0`` is) and ``u`` the
RMS of the residual, which depends on the two factors in the plane. The first noise is white in all three directions and
keyed by what was measured.

Maps with noise differ in two things (docs/decisions/through_plane.md). The measured band that the planes are given is
that of a sample of the measured slices in their own plane, as the mean's later passes are given the first one's
estimate of it; otherwise the spread of that band is missing. And neighbouring planes share a part of the first noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.diffusion.noise import batch_normal, slice_key
from mrsi_fast.diffusion.solvers import Step
from mrsi_fast.mrsi.names import assign_channels
from mrsi_fast.mrsi.slabs import to_slices, to_volume
from mrsi_fast.preparation import Prepared
from mrsi_fast.sampling import Sampler, Volume
from mrsi_fast.three_planes import AXIAL, Stack, planes_back, planes_last

Float32 = NDArray[np.float32]

NEIGHBOURS_SHARE = 0.1
"""Weight of each neighbouring plane's noise beside a plane's own, in maps with noise."""


def noise_levels(steps: Sequence[Step]) -> tuple[float, ...]:
    """The noise levels of a solver's steps, each once, falling."""
    return tuple(dict.fromkeys(step.sigma for step in steps))


def sample_evaluations(prepared: Prepared, sampler: Sampler, samples: int, steps: Sequence[Step]) -> int:
    """Batched network evaluations that ``draws`` will report."""
    stack, levels = Stack.of(prepared), noise_levels(steps)
    directions = stack.directions()
    nothing = np.zeros_like(prepared.volume.z)
    each = {across: sampler.evaluations(stack.planes(across, nothing), 1, 1) for across in directions}
    count = sum(each[directions[index % len(directions)]] for index in range(len(levels)))
    if (slices := _slices_to_sample(stack)) is not None:
        count += sampler.evaluations(slices, 1, len(steps))
    return samples * count


def draws(
    prepared: Prepared,
    sampler: Sampler,
    samples: Sequence[int],
    steps: Sequence[Step],
    seed: int,
    on_evaluation: Callable[[], None] | None = None,
) -> Iterator[Float32]:
    """Samples of a volume, one after the other, before data consistency at the end.

    Args:
        prepared: The maps.
        sampler: Runs the network.
        samples: Sample indices, each a key of the noise.
        steps: Of a solver. Its noise levels count, the steps between them are DDIM's; the measured slices of maps with
            noise are sampled by the solver itself.
        seed: The user's seed.
        on_evaluation: Called after every network evaluation of a batch; raises to cancel.

    Yields:
        [M, X, Y, Z] in the maps' units; empty maps are 0.
    """
    stack, levels = Stack.of(prepared), noise_levels(steps)
    directions, slices = stack.directions(), _slices_to_sample(stack)
    for sample in samples:
        given = stack
        if slices is not None:
            given, _ = stack.holding(next(sampler.draws(slices, [sample], tuple(steps), seed, None, on_evaluation)))
        found, noise = given.prepared.volume.z, white_noise(prepared.volume, seed, sample)
        noise = np.where(np.array(stack.noisy)[:, None, None, None], shared(noise), noise)
        for index, level in enumerate(levels):
            across = directions[index % len(directions)]
            planes = given.planes(across, unmeasured(stack, found) if index else np.zeros_like(found))
            turned = (planes_last(found, across), planes_last(noise, across))
            better, left = sampler.denoise(planes, *turned, level, on_evaluation)
            noise = planes_back(left, across)
            found = planes_back(better, across)
            if prepared.consistency.applied == "hard":
                found = to_volume(prepared.consistency.at_end(to_slices(found)))
        yield found


def _slices_to_sample(stack: Stack) -> Volume | None:
    """The measured slices, whose samples give the band of maps with noise; None where there are no such maps."""
    if not any(stack.noisy) or AXIAL not in stack.directions():
        return None
    slices = stack.measured_slices()
    return replace(slices, content_key=slices.content_key + b"slices")  # noise of their own


def unmeasured(stack: Stack, maps: Float32) -> Float32:
    """The part of maps [M, X, Y, Z] outside the measured band in three dimensions."""
    return to_volume(stack.operator.null(to_slices(maps)))


def white_noise(volume: Volume, seed: int, sample: int) -> Float32:
    """Standard normal noise [M, X, Y, Z] of a sample, keyed by what was measured, plane and channel of each map."""
    maps, *plane, count = volume.z.shape
    noise = np.zeros(volume.z.shape, np.float32)
    done: set[int] = set()
    for layout in assign_channels(volume.names):
        keys = [(slice_key(volume.content_key, index), sample) for index in range(count)]
        fields = batch_normal(seed, keys, 0, (len(layout), *plane)).numpy()
        for channel, index in enumerate(layout):
            if index is not None and index not in done:
                noise[index] = np.moveaxis(fields[:, channel], 0, -1)
                done.add(index)
    return noise


def shared(noise: Float32) -> Float32:
    """Noise [M, X, Y, Z] of which neighbouring planes share a part; of unit variance where ``noise`` is."""
    beside = np.pad(noise, ((0, 0), (0, 0), (0, 0), (1, 1)))
    there = np.pad(np.ones(noise.shape[-1]), 1)  # 0 for the planes that the ends lack
    sums = noise + NEIGHBOURS_SHARE * (beside[..., :-2] + beside[..., 2:])
    return (sums / np.sqrt(1 + NEIGHBOURS_SHARE**2 * (there[:-2] + there[2:]))).astype(np.float32)
