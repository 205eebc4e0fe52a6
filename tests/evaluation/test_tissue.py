"""Tissue levels by regression and Bland-Altman against exact cases."""

from __future__ import annotations

import numpy as np
import pytest

from mrsi_fast.evaluation.tissue import bland_altman, relative_bias_percent, tissue_levels


def test_levels_are_recovered_from_mixed_voxels() -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet((1, 1, 1), size=(9, 7, 2))
    fractions = {name: shares[..., k] for k, name in enumerate(("GM", "WM", "CSF"))}
    image = 8.0 * fractions["GM"] + 10.0 * fractions["WM"]
    region = rng.random((9, 7, 2)) > 0.3
    image[~region] = 1e6
    levels = tissue_levels(image, fractions, region)
    assert levels == pytest.approx({"GM": 8.0, "WM": 10.0, "CSF": 0.0}, abs=1e-9)


def test_undetermined_levels_are_nan() -> None:
    fractions = {"GM": np.full((6, 6), 0.5), "WM": np.full((6, 6), 0.5)}
    assert all(np.isnan(v) for v in tissue_levels(np.ones((6, 6)), fractions, np.ones((6, 6), bool)).values())


def test_relative_bias() -> None:
    assert relative_bias_percent(9.0, 10.0) == pytest.approx(-10)
    assert np.isnan(relative_bias_percent(1.0, 0.0))


def test_bland_altman() -> None:
    true = [1.0, 2.0, 3.0, 4.0]
    found = [1.5, 1.5, 3.5, 3.5]
    agreement = bland_altman(found, true)
    spread = 1.96 * np.std([0.5, -0.5, 0.5, -0.5], ddof=1)
    assert (agreement.count, agreement.bias) == (4, 0.0)
    assert (agreement.lower, agreement.upper) == pytest.approx((-spread, spread))
    assert bland_altman([1.0, np.nan], [0.0, 1.0]).count == 1
    assert np.isnan(bland_altman([1.0, 2.0], [1.0, 1.0]).lower)
    assert bland_altman([], []).count == 0
    with pytest.raises(ValueError, match="pairs"):
        bland_altman([1.0], [])
