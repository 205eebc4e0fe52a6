"""Image metrics under a named convention, because the convention moves them more than the method does.

The same zero-filled map scores 22.3, 24.2 or 18.5 dB depending only on the region and the data range, so a number is
never given without one of two names:

- ``yale``: the whole field of view, the estimate multiplied by the mask of non-zero truth, data range = range of the
  true slice, SSIM with scikit-image's defaults (7x7 uniform window). This is what the public MRSI codes report. It
  cleans the background with the truth and is printed for comparison only.
- ``brain``: voxels inside the brain mask only, data range = range of the truth inside it, SSIM as in Wang et al.
  (2004): Gaussian window of 1.5 voxels, population covariance, the SSIM map averaged inside the mask.

Everything is computed in float64, slice by slice and map by map, in the maps' own units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

Float64 = NDArray[np.float64]
Mask = NDArray[np.bool_]
ConventionName = Literal["yale", "brain"]

MIN_VOXELS = 16
"""A region smaller than this is not scored: one voxel more or less would decide."""

SMALLEST_SSIM_SIDE = 11


@dataclass(frozen=True)
class Convention:
    """What a number means.

    Attributes:
        name: Printed beside every number.
        region: The voxels that count, in words.
        data_range: What PSNR and SSIM are relative to, in words.
        ssim: Window and covariance, in words.
    """

    name: ConventionName
    region: str
    data_range: str
    ssim: str

    def describe(self) -> str:
        """Returns one sentence for tables and reports."""
        return f"{self.name}: {self.region}; data range = {self.data_range}; SSIM {self.ssim}."


YALE = Convention(
    "yale",
    "whole field, estimate times the mask of non-zero truth",
    "range of the true slice (its maximum)",
    "scikit-image default (7x7 uniform, K1 0.01, K2 0.03, sample covariance)",
)
BRAIN = Convention(
    "brain",
    "inside the brain mask and where the data were trusted",
    "range of the truth inside the region",
    "Gaussian 1.5 (K1 0.01, K2 0.03, population covariance), its map averaged in the region",
)
CONVENTIONS: dict[str, Convention] = {"yale": YALE, "brain": BRAIN}


def psnr(truth: NDArray, estimate: NDArray, data_range: float) -> float:
    """Peak signal-to-noise ratio, ``10 log10(range^2 / MSE)`` in dB over all values given; infinite if they agree."""
    error = np.mean((np.asarray(estimate, np.float64) - np.asarray(truth, np.float64)) ** 2)
    return float(10 * np.log10(data_range**2 / error)) if error > 0 else float("inf")


def nrmse(truth: NDArray, estimate: NDArray) -> float:
    """Root-mean-square error relative to the truth's root mean square (euclidean); NaN for an empty truth."""
    power = np.sum(np.asarray(truth, np.float64) ** 2)
    error = np.sum((np.asarray(estimate, np.float64) - np.asarray(truth, np.float64)) ** 2)
    return float(np.sqrt(error / power)) if power > 0 else float("nan")


def ssim_uniform(truth: NDArray, estimate: NDArray, data_range: float) -> float:
    """Mean structural similarity, scikit-image's defaults pinned: 7x7 uniform window, sample covariance."""
    truth, estimate = np.asarray(truth, np.float64), np.asarray(estimate, np.float64)
    return float(
        structural_similarity(
            truth,
            estimate,
            win_size=7,
            data_range=data_range,
            K1=0.01,
            K2=0.03,
            gaussian_weights=False,
            use_sample_covariance=True,
        )
    )


def ssim_gaussian_map(truth: NDArray, estimate: NDArray, data_range: float) -> tuple[float, Float64]:
    """Structural similarity of Wang et al. (2004, 10.1109/TIP.2003.819861), Eq. 13, and its map.

    Args:
        truth: [X, Y], each side at least 11 voxels.
        estimate: [X, Y].
        data_range: Range of the truth.

    Returns:
        Mean over the slice (without the border of half a window, as scikit-image does), and the map [X, Y].
    """
    truth, estimate = np.asarray(truth, np.float64), np.asarray(estimate, np.float64)
    mean, image = structural_similarity(
        truth,
        estimate,
        data_range=data_range,
        K1=0.01,
        K2=0.03,
        sigma=1.5,
        gaussian_weights=True,
        use_sample_covariance=False,
        full=True,
    )
    return float(mean), image


@dataclass(frozen=True)
class Prepared:
    """A true slice and an estimate as a convention wants them.

    Attributes:
        truth: [X, Y].
        estimate: [X, Y], masked if the convention requires it.
        region: [X, Y] voxels that count.
        data_range: Range that PSNR and SSIM are relative to.
    """

    truth: Float64
    estimate: Float64
    region: Mask
    data_range: float


def under_convention(truth: NDArray, estimate: NDArray, region: Mask, name: ConventionName) -> Prepared | None:
    """Applies a convention's region, mask and data range to one slice of one map.

    Args:
        truth: [X, Y].
        estimate: [X, Y], finite wherever it is scored.
        region: [X, Y] brain mask (and trust); only ``brain`` uses it.
        name: ``yale`` or ``brain``.

    Returns:
        The pair, or None where there is nothing to score: a truth without contrast, or too small a region.

    Raises:
        ValueError: The shapes differ, or the estimate is not finite inside the region.
    """
    if truth.shape != estimate.shape or truth.shape != region.shape or truth.ndim != 2:
        raise ValueError(
            f"Truth, estimate and region must be one slice [X, Y] each, got shapes {truth.shape}, "
            f"{estimate.shape} and {region.shape}."
        )
    true, found = np.asarray(truth, np.float64), np.asarray(estimate, np.float64)
    if name == "yale":
        found = np.where(true != 0, found, 0.0)
        region = np.ones(true.shape, bool)
    elif name != "brain":
        raise ValueError(f"There is no convention {name!r}; use 'yale' or 'brain'.")
    if not np.isfinite(found[region]).all():
        raise ValueError(
            "The estimate holds NaN or infinite values inside the region that is scored. Score filled "
            "estimates, or leave those voxels out of the region for every method alike."
        )
    if region.sum() < MIN_VOXELS:
        return None
    values = true[region]
    data_range = float(values.max() - values.min())
    return Prepared(true, found, region, data_range) if data_range > 0 else None


def score_slice(truth: NDArray, estimate: NDArray, region: Mask, name: ConventionName) -> dict[str, float] | None:
    """PSNR (dB), SSIM and NRMSE of one slice of one map.

    Args:
        truth: [X, Y].
        estimate: [X, Y].
        region: [X, Y] brain mask (and trust).
        name: Convention.

    Returns:
        ``psnr``, ``ssim``, ``nrmse``; SSIM is NaN on grids under 11 voxels. None where there is nothing to score.
    """
    pair = under_convention(truth, estimate, region, name)
    if pair is None:
        return None
    similarity = float("nan")
    if min(truth.shape) >= SMALLEST_SSIM_SIDE:
        if name == "yale":
            similarity = ssim_uniform(pair.truth, pair.estimate, pair.data_range)
        else:
            finite = np.where(np.isfinite(pair.estimate), pair.estimate, pair.truth)
            similarity = float(ssim_gaussian_map(pair.truth, finite, pair.data_range)[1][pair.region].mean())
    return {
        "psnr": psnr(pair.truth[pair.region], pair.estimate[pair.region], pair.data_range),
        "ssim": similarity,
        "nrmse": nrmse(pair.truth[pair.region], pair.estimate[pair.region]),
    }


@dataclass(frozen=True)
class RadialSpectrum:
    """Power by spatial frequency, averaged over directions.

    Attributes:
        frequency: [F] cycles per mm, centre of each ring.
        truth: [F] power of the truth.
        estimate: [F] power of the estimate.
        error: [F] power of their difference; relative to ``truth`` it is 1 where nothing was recovered.
    """

    frequency: Float64
    truth: Float64
    estimate: Float64
    error: Float64


def radial_spectrum(truth: NDArray, estimate: NDArray, voxel_mm: tuple[float, float], bins: int = 32) -> RadialSpectrum:
    """Radially averaged power spectra of truth, estimate and error.

    Args:
        truth: [..., X, Y]; powers are averaged over the leading axes.
        estimate: Same shape.
        voxel_mm: In-plane voxel size.
        bins: Rings from 0 to the smaller of the two axes' Nyquist frequencies; empty rings are NaN.

    Returns:
        Powers per coefficient: by Parseval their sum over all coefficients is the mean square over voxels.
    """
    shape = truth.shape[-2:]
    frequencies = [np.fft.fftfreq(n, d=size) for n, size in zip(shape, voxel_mm, strict=True)]
    radius = np.hypot(frequencies[0][:, None], frequencies[1][None, :])
    edges = np.linspace(0, min(0.5 / size for size in voxel_mm), bins + 1)
    ring = np.digitize(radius.ravel(), edges[1:-1])
    inside = radius.ravel() <= edges[-1] * (1 + 1e-12)
    counts = np.bincount(ring[inside], minlength=bins).astype(np.float64)

    def power(image: NDArray) -> Float64:
        spectrum = np.abs(np.fft.fft2(np.asarray(image, np.float64)) / np.prod(shape)) ** 2
        flat = spectrum.reshape(-1, radius.size).mean(axis=0)
        total = np.bincount(ring[inside], weights=flat[inside], minlength=bins)
        return np.divide(total, counts, out=np.full(bins, np.nan), where=counts > 0)

    difference = np.asarray(estimate, np.float64) - np.asarray(truth, np.float64)
    return RadialSpectrum((edges[:-1] + edges[1:]) / 2, power(truth), power(estimate), power(difference))
