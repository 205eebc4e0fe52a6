"""How noise is correlated from voxel to voxel, as support, window and zero-filling leave it.

Noise of the receiver is white in k-space and passes through whatever the lines pass through. Of noise under a Hamming
window neighbouring voxels share 0.64, so what they share in a residual need not be signal, and nine of them tell as
much about its size as four independent ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.forward import Acquisition


@dataclass(frozen=True)
class NoiseShape:
    """Correlation of noise between voxels; of white noise as constructed.

    Attributes:
        one: Correlation of voxels one apart, mean over both axes.
        two: Two apart.
        mixed: Variance of ``(n00 - n10 - n01 + n11)/2`` over that of a voxel.
        independent: Independent values in a 3x3 neighbourhood over its nine voxels, for a mean of squares.
        spread: Variance of the estimate of the noise's variance from ``n`` voxels (``residuals.sd_of_products``), over
            that variance squared, times ``n/2``.
    """

    one: float = 0.0
    two: float = 0.0
    mixed: float = 1.0
    independent: float = 1.0
    spread: float = 53 / 36

    @property
    def white(self) -> float:
        """Share of the variance that a parabola through lags one and two does not foretell at lag none, 0 to 1."""
        return min(1.0, max(0.0, 1.0 - (4.0 * self.one - self.two) / 3.0))


@lru_cache(maxsize=64)
def noise_shape(plane: Acquisition) -> NoiseShape:
    """The shape of the noise of maps that an operator made.

    The mean of squares of ``n`` values with correlations ``r_ij`` varies as that of ``n^2 / sum r_ij^2`` independent
    ones. A sum of products at fixed distances, which weighs the power ``S`` at each spatial frequency by ``q``, has the
    relative variance ``2/n mean((q S)^2) / mean(q S)^2``.

    Args:
        plane: The operator; only what it does on the grid of the maps counts.
    """
    if plane.separable and plane.window == "none" and plane.acquired is None or min(plane.lr_shape) < 5:
        return NoiseShape()
    kernel = Acquisition(plane.lr_shape, (1, 1), plane.support, plane.window, acquired=plane.acquired)
    point = np.zeros(plane.lr_shape)
    point[0, 0] = 1.0
    correlation = kernel.forward(kernel.adjoint(point))
    correlation = correlation / correlation[0, 0]
    apart = np.subtract.outer(np.arange(3), np.arange(3)).ravel()
    pairs = correlation[np.ix_(apart, apart)] ** 2
    one, two = ((correlation[lag, 0] + correlation[0, lag]) / 2 for lag in (1, 2))
    mixed = 1.0 - 2.0 * one + correlation[1, 1]
    power = _unshared(plane.lr_shape) * np.fft.fft2(correlation).real
    spread = (power**2).mean() / power.mean() ** 2
    return NoiseShape(float(one), float(two), float(mixed), float(9 / pairs.sum()), float(spread))


def _unshared(shape: tuple[int, int]) -> NDArray[np.float64]:
    """Weight of each spatial frequency in ``C(0) - (4 C(1) - C(2))/3``, covariances averaged over both axes."""
    x, y = (2 * np.pi * np.fft.fftfreq(size) for size in shape)
    one, two = (np.add.outer(np.cos(lag * x), np.cos(lag * y)) / 2 for lag in (1, 2))
    return 1.0 - (4.0 * one - two) / 3.0
