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

DEPARTURE_ALARM = {"after": 2.0, "before": 3.0}
"""A mean that departs from its measurement by more than this multiple of the noise that the map can hold is a warning,
by stage: after data consistency, and before it. Figures behind it: docs/decisions/departure_from_the_measurement.md."""

SMALLEST_DEPARTURE = 0.02
"""Unless it departs by less than this share of the map."""

BELIEVED = 2.5
"""A stated noise level (CRLB) is believed up to this multiple of what the map can hold."""


def agreement(
    names: Sequence[str],
    consistency: DataConsistency,
    uncorrected: Tensor,
    mean: Tensor,
    order: Sequence[int] = (0, 1, 2),
    stated: Sequence[bool] = (),
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Figures for each map, and warnings.

    Args:
        names: M names.
        consistency: With the noise that the data support.
        uncorrected: [Z, M, X, Y] the network's estimate before data consistency.
        mean: [Z, M, X, Y] the estimate that the user gets, untrusted voxels not NaN yet.
        order: Which of (x, y, Z) each axis of the maps as given is.
        stated: For each map, whether its noise level was stated (CRLB or by the user) rather than assumed; if empty, of
            none.

    Returns:
        One JSON-serialisable record a map, and sentences.
    """
    over = (0, -2, -1)
    after, before = (consistency.residual(x, over) for x in (mean, uncorrected))
    far = {"after": consistency.whitened(mean).numpy(), "before": consistency.whitened(uncorrected).numpy()}
    (departure, room), (first, _) = (consistency.departure(x) for x in (mean, uncorrected))
    given = consistency.stated_noise()
    facts, sentences = [], []
    for index, name in enumerate(names):
        noise = float(room[index])
        if stated and stated[index]:
            noise = max(noise, min(float(given[index]), BELIEVED * noise))
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
                "departure": float(departure[index]),
                "departure_before_consistency": float(first[index]),
                "largest_noise": noise,
            }
        )
        stage = next((one for one in ("after", "before") if times[one] > ALARM), None)
        if stage is not None:
            sentences.append(_sentence(name, stage, times[stage], where[stage]))
        departed = {
            "after": (float(departure[index]), float(after.relative[index])),
            "before": (float(first[index]), float(before.relative[index])),
        }
        sentences += _departures(name, departed, noise)
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


def _departures(name: str, departed: dict[str, tuple[float, float]], noise: float) -> list[str]:
    """A sentence on the first stage whose departure (absolute, relative) noise does not explain, if there is one."""
    return [
        _departure_sentence(name, stage, share, size, noise)
        for stage, (size, share) in departed.items()
        if size > DEPARTURE_ALARM[stage] * noise and share > SMALLEST_DEPARTURE
    ][:1]


def _departure_sentence(name: str, stage: str, share: float, size: float, noise: float) -> str:
    subject = "the result departs" if stage == "after" else "before data consistency, the network's estimate departed"
    times = f"{size / noise:.3g} times the" if noise > size / 1e6 else "far above the"
    return (
        f"{name}: {subject} from the measured map by {100 * share:.2g} % (root mean square {size:.3g}), {times} noise "
        f"that the differences of neighbouring voxels leave room for ({noise:.2g}). A map this smooth was filtered "
        "(declare its k-space window), or is outside the training distribution: prefer the zero-filled map."
    )


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
