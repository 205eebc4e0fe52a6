"""How a result agrees with what was measured: figures for the record, and sentences where noise does not explain it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mrsi_fast.mrsi.consistency import DataConsistency

ALARM = 3.0
"""A residual above this multiple of its expectation from noise is a warning."""


def agreement(
    names: Sequence[str],
    consistency: DataConsistency,
    uncorrected: Tensor,
    mean: Tensor,
    order: Sequence[int] = (0, 1, 2),
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Figures for each map, and warnings.

    Args:
        names: M names.
        consistency: With the noise that the data support.
        uncorrected: [Z, M, X, Y] the network's estimate before data consistency.
        mean: [Z, M, X, Y] the estimate that the user gets, untrusted voxels not NaN yet.
        order: Which of (x, y, Z) each axis of the maps as given is.

    Returns:
        One JSON-serialisable record a map, and sentences.
    """
    over = (0, -2, -1)
    after, before = (consistency.residual(x, over) for x in (mean, uncorrected))
    far = {"after": consistency.whitened(mean).numpy(), "before": consistency.whitened(uncorrected).numpy()}
    facts, sentences = [], []
    for index, name in enumerate(names):
        expected = float(after.expected[index])
        times = {"after": float(after.whitened[index]) / expected, "before": float(before.whitened[index]) / expected}
        where = {stage: _where(u[:, index], order) for stage, u in far.items()}
        known = bool(np.isfinite(expected))
        facts.append(
            {
                "noise_factor": float(consistency.noise_factor[index]),
                "residual_relative": float(after.relative[index]),
                "residual_whitened": float(after.whitened[index]),
                "residual_expected": expected,
                "residual_before_consistency": float(before.whitened[index]),
                "largest_departure": where["after"] if known else None,
                "energy_outside_band": float(after.outside_band[index]),
            }
        )
        stage = next((one for one in ("after", "before") if times[one] > ALARM), None)
        if stage is not None:
            sentences.append(_sentence(name, stage, times[stage], where[stage]))
    return facts, tuple(sentences)


def outlier_sentences(names: Sequence[str], outliers: NDArray[np.bool_], order: Sequence[int]) -> tuple[str, ...]:
    """Sentences on gross outliers.

    Args:
        names: M names.
        outliers: [M, x, y, Z].
        order: As in ``agreement``.
    """
    sentences = []
    for name, found in zip(names, outliers, strict=True):
        places = [f"({', '.join(str(voxel[axis]) for axis in order)})" for voxel in np.argwhere(found)]
        if places:
            count, voxels = ("one outlier", "voxel") if len(places) == 1 else (f"{len(places)} outliers", "voxels")
            listed = ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
            sentences.append(
                f"{name}: {count} against neighbours, other maps and noise: {voxels} {listed} of the measured grid, "
                "counted from 0. Outliers count as failed fits."
            )
    return tuple(sentences)


def _where(whitened: NDArray[np.floating], order: Sequence[int]) -> dict[str, Any]:
    """Where [Z, x, y] departs most: the voxel, its departure, and how much of the whole lies in and next to it."""
    z, x, y = (int(i) for i in np.unravel_index(np.argmax(np.abs(whitened)), whitened.shape))
    power = whitened.astype(np.float64) ** 2
    near = power[z, max(x - 1, 0) : x + 2, max(y - 1, 0) : y + 2].sum()
    return {
        "voxel": [(x, y, z)[axis] for axis in order],
        "noise_sd": float(whitened[z, x, y]),
        "share_of_residual": float(near / power.sum()) if power.any() else 0.0,
    }


def _sentence(name: str, stage: str, times: float, where: dict[str, Any]) -> str:
    x, y, z = where["voxel"]
    place = (
        f"{100 * where['share_of_residual']:.0f} % of its square is in and next to voxel ({x}, {y}, {z}) of the "
        f"measured grid, counted from 0, whose residual is {abs(where['noise_sd']):.3g} noise standard deviations"
    )
    if stage == "after":
        return (
            f"{name}: the residual of the result is {times:.3g} times the residual expected from noise; {place}. Check "
            "the fits there, the declared k-space window and support, and the CRLB."
        )
    return (
        f"{name}: before data consistency, the residual of the network's estimate was {times:.3g} times the residual "
        f"expected from noise; {place}. The maps may be outside the training distribution, or the anatomical image may "
        "not fit them."
    )
