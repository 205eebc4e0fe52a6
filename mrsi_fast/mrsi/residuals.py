"""Statistics of maps and residuals: expectation from noise, departures, the noise they support and leave room for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mrsi_fast.mrsi.noise_shape import NoiseShape

WHITE = NoiseShape()

OUTLIER_SD = 3.0
"""Robust standard deviations of the residual beyond which a voxel counts no more than this for the size of the slice's
residual, and, if its neighbours do not depart with it, pulls the less the further it lies."""

SUPPORTED = 2.0
"""How many times its second most departing neighbour a voxel may depart without standing alone."""

GROSS_SD = 10.0
"""Robust standard deviations beyond which a voxel that stands alone is no measurement at all (``gross_outliers``). In
nine simulated volumes of six maps with fit errors it holds for at most 3 voxels of 2,000, and for none in a lesion."""

DOUBTFUL = (1.5, 2.0)
"""Times the stated variance that misfit alone may feign. Of 45 maps of ``realistic-3T``, whose noise is stated
correctly, the variance that chance does not explain lies beyond the first in three and beyond the second in one, all at
x8."""

FEWEST_DIFFERENCES = 16
"""Mixed differences from which ``room_for_noise`` says anything."""

SLAB = 8
"""Slices that are judged together: statistics of a slice take many times its memory."""

_ALARM = 2.326  # noise alone is taken for a departure, or for more noise than was stated, in one case of a hundred


def unexplained(whitened: Tensor, known: Tensor, noise: NoiseShape = WHITE) -> tuple[Tensor, Tensor]:
    """Share of each voxel's residual that noise does not explain, and which voxels hold (1) or are outliers (0).

    Args:
        whitened: ``[..., nx, ny]`` residual in noise standard deviations, 0 where unknown.
        known: 1 where the noise level is known, else 0.
        noise: How noise is correlated.
    """
    bound = OUTLIER_SD * _robust_sd(whitened, known)
    weight = known * _lone_weights(whitened, known, bound)
    power = weight * whitened**2
    tiny = torch.finfo(power.dtype).tiny
    voxels = weight.sum((-2, -1), keepdim=True)
    size = torch.minimum(power, bound**2).sum((-2, -1), keepdim=True)
    near = _box_sum(weight)
    freedom = 2.0 / (9.0 * (noise.independent * near).clamp_min(1.0))
    by_chance = (1.0 - freedom + _ALARM * freedom.sqrt()) ** 3  # of a mean of squares (Wilson & Hilferty 1931)
    shares = (voxels / size.clamp_min(tiny), by_chance * near / _box_sum(power).clamp_min(tiny))
    explained = torch.minimum(*(share.clamp_max(1.0).sqrt() for share in shares))
    return (1.0 - explained) * weight, (weight > 0.5).to(weight)


def gross_outliers(whitened: Tensor, known: Tensor) -> Tensor:
    """Voxels (bool) that stand alone by more than :data:`GROSS_SD`, from the residual of an uncorrected estimate.

    A gross outlier disturbs the estimate of its neighbours and of the other maps; what is less than a third of the
    largest departure next to it, in any map, may be its doing and does not count.

    Args:
        whitened: ``[..., M, nx, ny]`` residual in noise standard deviations, 0 where unknown.
        known: 1 where the noise level is known, else 0.
    """
    return _by_slices(_gross_outliers, whitened, known)


def _gross_outliers(whitened: Tensor, known: Tensor) -> Tensor:
    bound = GROSS_SD * _robust_sd(whitened, known)
    size = whitened.abs() * known
    nearby = size.amax(dim=-3, keepdim=True).flatten(0, -3)
    nearby = torch.nn.functional.max_pool2d(nearby, 3, stride=1, padding=1).reshape(size[..., :1, :, :].shape)
    return (known > 0) & (_lone_weights(whitened, known, bound) < 1) & (size >= nearby / 3)


def _lone_weights(whitened: Tensor, known: Tensor, bound: Tensor) -> Tensor:
    """Weight of each voxel: 1, or ``(bound/d)^2`` where it departs by ``d > bound`` beyond its neighbours.

    ``d = |u| - 2 s`` with ``s`` the second largest departure to the same side among the (up to eight) known neighbours:
    a lesion that the estimate missed departs together, if not evenly, and keeps its weight; an outlier stands alone,
    and its pull ``u (bound/d)^2`` falls as it grows.
    """
    nx, ny = whitened.shape[-2:]
    padded = torch.nn.functional.pad(whitened * known, (1, 1, 1, 1))  # what is unknown departs nowhere
    shifts = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    beside = torch.stack([padded[..., i : i + nx, j : j + ny] for i, j in shifts]) * whitened.sign()
    second = beside.topk(2, dim=0).values[1].clamp_min(0.0)
    alone = whitened.abs() - SUPPORTED * second
    return (bound / torch.maximum(alone, bound)) ** 2


def _robust_sd(whitened: Tensor, known: Tensor) -> Tensor:
    """1.4826 times the median of ``|u|`` over the known voxels of each slice, at least 1."""
    size = torch.where(known > 0, whitened.abs(), torch.nan).flatten(-2).nanmedian(dim=-1).values
    return (1.4826 * size.nan_to_num(0.0)).clamp_min(1.0)[..., None, None]


def supported_sd(whitened: Tensor, known: Tensor, noise: NoiseShape = WHITE) -> Tensor:
    """Standard deviation of the part of a residual that noise may be, ``[M, 1, 1]``.

    Covariances within slices, over both axes and all slices; lone outliers left out, what else is large clipped. A
    covariance that falls off as a parabola from lag 0 has ``C(0) = (4 C(1) - C(2))/3``; what ``C(0)`` holds beyond that
    is white, or the white share of noise that is correlated. It is never more than ``C(0)``.

    Args:
        whitened: ``[..., M, nx, ny]`` residual in noise standard deviations, 0 where unknown.
        known: 1 where the noise level is known, else 0.
        noise: How noise is correlated.
    """
    return sd_of_products(_by_slices(products, whitened, known).flatten(0, -4).sum(0), noise)


def sd_of_products(sums: Tensor, noise: NoiseShape = WHITE) -> Tensor:
    """:func:`supported_sd` from ``[3, 2, M]`` :func:`products`, summed over slices."""
    totals, pairs = sums.unbind(1)
    whole, one, two = totals / pairs.clamp_min(1.0)
    shared = (4.0 * one - two) / 3.0
    white = (whole - shared.clamp_min(0.0)).clamp_min(0.0)
    return torch.minimum(white / max(noise.white, 1e-6), whole).sqrt()[:, None, None]


def noise_factor(sums: Tensor, noise: NoiseShape = WHITE) -> Tensor:
    """By how much the stated noise is exceeded, ``[M, 1, 1]``, at least 1, from :func:`products` summed over slices.

    The estimate has the relative standard error ``sqrt(2 spread/n)`` in the variance, and part of it is misfit of the
    object that neighbours do not share. So the excess over the stated variance counts by how much of it is beyond
    chance and misfit: not at all where noise of ``DOUBTFUL[0]`` times the stated variance gives as much in one case of
    a hundred, wholly beyond ``DOUBTFUL[1]``, linearly in between.
    """
    error = (2.0 * noise.spread / sums[0, 1].clamp_min(1.0)).sqrt()[:, None, None]
    found = sd_of_products(sums, noise) ** 2
    least, most = DOUBTFUL
    share = ((found / (1.0 + _ALARM * error) - least) / (most - least)).clamp(0.0, 1.0)
    return (1.0 + share * (found - 1.0)).clamp_min(1.0).sqrt()


def room_for_noise(data: Tensor, known: Tensor, noise: NoiseShape = WHITE) -> Tensor:
    """The most noise that each measured map can hold, as a standard deviation ``[M]``, from the map alone.

    The mixed difference ``(y00 - y10 - y01 + y11)/2`` of neighbouring voxels has the standard deviation of white noise,
    less where the acquisition made noise smooth (``noise.mixed``), and whatever detail the object has on top. So its
    root mean square bounds the noise from above without any stated level: a map that is smooth from voxel to voxel has
    little, whatever its CRLB. NaN where fewer than :data:`FEWEST_DIFFERENCES` can be formed.

    Args:
        data: ``[..., M, nx, ny]`` measured maps.
        known: 1 where a voxel is data, else 0.
        noise: correlation of the maps' noise.
    """
    count, power = _by_slices(_mixed_differences, data, known).reshape(-1, 2, data.shape[-3]).sum(0)
    power = power / 4.0 / count.clamp_min(1.0)
    return torch.where(count >= FEWEST_DIFFERENCES, (power / max(noise.mixed, 1e-6)).sqrt(), torch.nan)


def _mixed_differences(data: Tensor, known: Tensor) -> Tensor:
    """Of each slice ``[..., 2, M]``: how many mixed differences there are, and the sum of their squares times 4."""
    corners = [(..., rows, columns) for rows in _ENDS for columns in _ENDS]
    whole = torch.stack([known[one] for one in corners]).prod(0)
    first, second, third, fourth = (data[one].double() for one in corners)
    squares = whole * (first - second - third + fourth) ** 2
    return torch.stack((whole.double().sum((-2, -1)), squares.sum((-2, -1))), dim=-2)


_ENDS = (slice(None, -1), slice(1, None))


def products(whitened: Tensor, known: Tensor) -> Tensor:
    """Sums over the pairs of voxels 0, 1 and 2 apart in each slice, ``[..., 3, 2, M]``: of products, and of pairs.

    Voxels that stand alone are left out, what else is large is clipped.
    """
    bound = OUTLIER_SD * _robust_sd(whitened, known)
    used = known * (_lone_weights(whitened, known, bound) == 1)
    clipped = used * torch.minimum(torch.maximum(whitened, -bound), bound)
    sums = torch.zeros((*whitened.shape[:-3], 3, 2, whitened.shape[-3]), dtype=whitened.dtype, device=whitened.device)
    for lag in range(3):
        for axis in (-2, -1) if lag else (-1,):
            count = max(clipped.shape[axis] - lag, 0)
            for kind, values in enumerate((clipped, used)):
                first, second = values.narrow(axis, 0, count), values.narrow(axis, values.shape[axis] - count, count)
                sums[..., lag, kind, :] += (first * second).sum((-2, -1))
    return sums


def _by_slices(function: Callable[[Tensor, Tensor], Tensor], whitened: Tensor, known: Tensor) -> Tensor:
    """What a function of slices gives for ``[Z, M, nx, ny]``, a few slices at a time to bound the memory."""
    if whitened.ndim != 4 or len(whitened) <= SLAB:
        return function(whitened, known)
    parts = zip(whitened.split(SLAB), known.expand_as(whitened).split(SLAB), strict=True)
    return torch.cat([function(*part) for part in parts])


def _box_sum(values: Tensor) -> Tensor:
    """Sum over each voxel's 3x3 neighbourhood."""
    nx, ny = values.shape[-2:]
    padded = torch.nn.functional.pad(values, (1, 1, 1, 1))
    return torch.stack([padded[..., i : i + nx, j : j + ny] for i in range(3) for j in range(3)]).sum(0)
