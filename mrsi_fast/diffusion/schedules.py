"""Noise levels that a solver visits: decreasing tuples of sigma that end at 0.

Every schedule speaks of the EDM state `x = x0 + sigma * n`. A variance-preserving (VP) chain has instead
`x_vp = sqrt(abar) * x0 + sqrt(1 - abar) * n`; the two are the same chain with

    sigma = sqrt((1 - abar) / abar),    abar = 1 / (1 + sigma^2),    x_vp = x / sqrt(1 + sigma^2)

(Song et al., "Denoising Diffusion Implicit Models", ICLR 2021, section 4.3). Values are Python floats: solvers turn
them into coefficients once, and no tensor ever decides the control flow of a step.
"""

from __future__ import annotations

import math

import numpy as np

VP_STEPS = 1000  # length of the VP tables, Ho et al. 2020


def karras(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> tuple[float, ...]:
    """Levels spaced evenly in `sigma^(1/rho)`: Karras et al. 2022 (EDM), equation 5.

    Args:
        n: Number of levels above 0; 1 gives `(sigma_max, 0)`.
        sigma_min: The last level above 0, in units of the residual's RMS.
        sigma_max: The first level, same units.
        rho: Exponent; larger puts more levels near `sigma_min`.

    Returns:
        n + 1 strictly decreasing floats from `sigma_max` to 0.

    Raises:
        ValueError: If `n < 1`, `rho` is not positive, or not `0 < sigma_min < sigma_max < inf`.
    """
    _check_count(n)
    if not 0.0 < sigma_min < sigma_max < math.inf:
        raise ValueError(
            f"A Karras schedule needs 0 < sigma_min < sigma_max < inf, but got {sigma_min} and {sigma_max}; "
            "take the range that the denoiser was trained on."
        )
    if not rho > 0.0:
        raise ValueError(f"The exponent rho of a Karras schedule must be positive, but got {rho}; 7 is usual.")
    top, bottom = sigma_max ** (1.0 / rho), sigma_min ** (1.0 / rho)
    inner = tuple((top + i / (n - 1) * (bottom - top)) ** rho for i in range(1, n - 1))
    # The ends are stated, not computed: rounding must not lift the first level above the trained range.
    return (float(sigma_max), *inner, *((float(sigma_min),) if n > 1 else ()), 0.0)


def few_levels(n: int, sigma_last: float, sigma_second: float, sigma_max: float, rho: float) -> tuple[float, ...]:
    """`sigma_max`, then n - 1 Karras levels from `sigma_second` to `sigma_last`, then 0.

    Between `sigma_max` and a few times the residual's RMS the posterior mean hardly changes, so one step crosses it and
    none of a few levels is spent there. What it gains: docs/method.md.

    Args:
        n: Number of levels above 0; 1 gives `(sigma_max, 0)`.
        sigma_last: The last level above 0, in units of the residual's RMS.
        sigma_second: The level after the first, same units.
        sigma_max: The first level, same units.
        rho: Exponent of `karras`.

    Returns:
        n + 1 strictly decreasing floats from `sigma_max` to 0.

    Raises:
        ValueError: If `n < 1`, `rho` is not positive, or not `0 < sigma_last < sigma_second < sigma_max < inf`.
    """
    _check_count(n)
    if not sigma_second < sigma_max < math.inf:
        raise ValueError(f"The second level must be below the first, but {sigma_second} and {sigma_max} were given.")
    inner = karras(max(n - 1, 1), sigma_last, sigma_second, rho)
    return (float(sigma_max), *inner) if n > 1 else (float(sigma_max), 0.0)


def vp_linear(n: int = VP_STEPS, sigma_min: float = 0.0, sigma_max: float = math.inf) -> tuple[float, ...]:
    """The linear-beta VP chain mapped to sigma: beta from 1e-4 to 0.02 (Ho et al., DDPM, NeurIPS 2020, section 4).

    With all defaults this is the reference chain, sigma from 157 down to 0.01, one level per beta. Fewer levels, or a
    narrower range, are spaced evenly in the chain's time between the two ends.

    Args:
        n: Number of levels above 0; 1 gives the highest level and 0.
        sigma_min: Levels below are left out, in units of the residual's RMS.
        sigma_max: Levels above are left out, same units.

    Returns:
        n + 1 strictly decreasing floats that end at 0.

    Raises:
        ValueError: If `n < 1` or no part of the table lies between `sigma_min` and `sigma_max`.
    """
    return _vp(np.linspace(1e-4, 0.02, VP_STEPS), n, sigma_min, sigma_max)


def vp_cosine(n: int = VP_STEPS, sigma_min: float = 0.0, sigma_max: float = math.inf) -> tuple[float, ...]:
    """The cosine VP chain mapped to sigma (Nichol & Dhariwal, ICML 2021, equation 17, s = 0.008, beta at most 0.999).

    With all defaults this is the whole table, sigma from 20291 down to 0.0064. Arguments, result and errors are those
    of `vp_linear`.
    """

    def abar(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2.0) ** 2

    betas = np.array([min(1.0 - abar((i + 1) / VP_STEPS) / abar(i / VP_STEPS), 0.999) for i in range(VP_STEPS)])
    return _vp(betas, n, sigma_min, sigma_max)


def _vp(betas: np.ndarray, n: int, sigma_min: float, sigma_max: float) -> tuple[float, ...]:
    """Levels evenly spaced in time along a table of betas; ln(sigma) is interpolated between its entries."""
    _check_count(n)
    # sigma^2 = (1 - abar) / abar = exp(-ln abar) - 1, without the cancellation of 1 - abar at the clean end.
    log_sigma = 0.5 * np.log(np.expm1(-np.cumsum(np.log1p(-betas))))
    table = np.exp(log_sigma)
    low, high = max(float(sigma_min), float(table[0])), min(float(sigma_max), float(table[-1]))
    if not low < high:
        raise ValueError(
            f"The VP table covers sigma from {table[0]:.4g} to {table[-1]:.4g}, with no level between "
            f"sigma_min={sigma_min} and sigma_max={sigma_max}; widen the range."
        )
    time = np.arange(len(betas), dtype=np.float64)
    first, last = np.interp(np.log([high, low]), log_sigma, time)
    inner = np.exp(np.interp(np.linspace(first, last, n)[1:-1], time, log_sigma))
    return (high, *inner.tolist(), *((low,) if n > 1 else ()), 0.0)


def _check_count(n: int) -> None:
    if n < 1:
        raise ValueError(f"A schedule needs at least one noise level above 0, but {n} were requested.")
