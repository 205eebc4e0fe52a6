"""Schedules: shape and order for any length, the published formulas, and the ends stated to the bit."""

import math

import numpy as np
import pytest

from mrsi_fast.diffusion.schedules import few_levels, karras, vp_cosine, vp_linear

ALL = [karras, vp_linear, vp_cosine]
COUNTS = [1, 2, 3, 8, 100, 1000, 1777]


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize(("low", "high"), [(0.02, 30.0), (0.05, 40.0), (0.5, 0.5001)])
def test_decreases_strictly_from_sigma_max_through_sigma_min_to_zero(schedule, n: int, low: float, high: float) -> None:
    levels = schedule(n, low, high)
    assert len(levels) == n + 1 and all(type(level) is float for level in levels)
    assert levels[0] == high and levels[-1] == 0.0
    assert n == 1 or levels[-2] == low
    assert all(a > b for a, b in zip(levels, levels[1:], strict=False))


def test_karras_is_equation_5() -> None:
    n, low, high, rho = 13, 0.02, 30.0, 7.0
    i = np.arange(n)
    expected = (high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    np.testing.assert_allclose(karras(n, low, high)[:-1], expected, rtol=1e-13)
    np.testing.assert_allclose(karras(n, low, high, rho=1.0)[:-1], np.linspace(high, low, n), rtol=1e-13)


@pytest.mark.parametrize("n", COUNTS)
def test_few_levels_start_at_sigma_max_and_go_on_from_the_second(n: int) -> None:
    levels = few_levels(n, 0.06, 8.0, 30.0, 6.0)
    assert len(levels) == n + 1 and levels[0] == 30.0 and levels[-1] == 0.0
    if n > 1:
        assert levels[1:] == karras(n - 1, 0.06, 8.0, 6.0)


def test_a_second_level_above_the_first_is_refused() -> None:
    with pytest.raises(ValueError, match="must be below"):
        few_levels(8, 0.06, 30.0, 30.0, 6.0)


def test_whole_vp_tables_are_one_level_per_beta() -> None:
    linear = np.linspace(1e-4, 0.02, 1000)
    t = np.arange(1001) / 1000
    alphas_bar = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    cosine = np.minimum(1 - alphas_bar[1:] / alphas_bar[:-1], 0.999)
    for levels, betas in ((vp_linear(), linear), (vp_cosine(), cosine)):
        abar = np.cumprod(1 - betas)
        # 1 - abar cancels at the clean end of this plain form, hence 1e-11 and not 1e-15.
        np.testing.assert_allclose(levels[:-1], np.sqrt((1 - abar) / abar)[::-1], rtol=1e-11)
        assert len(levels) == 1001 and levels[-1] == 0.0


@pytest.mark.parametrize("schedule", [vp_linear, vp_cosine])
def test_fewer_vp_levels_are_spaced_evenly_in_the_chains_time(schedule) -> None:
    table = schedule()[:-1]
    np.testing.assert_allclose(schedule(112)[:-1], table[::9], rtol=1e-12)  # 999 = 9 * 111


@pytest.mark.parametrize("schedule", [vp_linear, vp_cosine])
def test_a_range_beyond_the_vp_table_changes_nothing(schedule) -> None:
    assert schedule(50, 1e-9, 1e9) == schedule(50)


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize("n", [0, -3])
def test_no_levels_are_refused(schedule, n: int) -> None:
    with pytest.raises(ValueError, match="at least one noise level"):
        schedule(n, 0.02, 30.0)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (2.0, 1.0), (1.0, 1.0), (0.1, math.inf), (math.nan, 1.0)])
def test_impossible_karras_range_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="0 < sigma_min < sigma_max"):
        karras(8, low, high)


def test_impossible_karras_exponent_is_refused() -> None:
    with pytest.raises(ValueError, match="exponent rho"):
        karras(8, 0.02, 30.0, rho=0.0)


@pytest.mark.parametrize("schedule", [vp_linear, vp_cosine])
@pytest.mark.parametrize(("low", "high"), [(3.0, 2.0), (1e5, 1e6), (1e-6, 1e-5), (math.nan, math.nan)])
def test_vp_range_without_levels_is_refused(schedule, low: float, high: float) -> None:
    with pytest.raises(ValueError, match="with no level between"):
        schedule(8, low, high)
