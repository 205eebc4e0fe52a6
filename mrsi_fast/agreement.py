"""How a result agrees with what was measured: figures for the record, and sentences where noise does not explain it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.consistency import DataConsistency, Residual, residual_of
from mrsi_fast.mrsi.slabs import parts, to_slices

ALARM = 3.0
"""A residual above this multiple of its expectation from noise is a warning."""

DEPARTURE_ALARM = {"after": 2.0, "before": 3.0}
"""A mean that departs from its measurement by more than this multiple of the noise that the map can hold is a warning,
by stage: after data consistency, and before it. Figures behind it: docs/decisions/departure_from_the_measurement.md."""

SMALLEST_DEPARTURE = 0.02
"""Unless it departs by less than this share of the map."""

BELIEVED = 2.5
"""A stated noise level (CRLB) is believed up to this multiple of what the map can hold."""


@dataclass(frozen=True, eq=False)
class Departure:
    """How an estimate departs from what was measured.

    Attributes:
        residual: [M] figures, one a map.
        places: Per map where it departs most, see ``_Place``.
    """

    residual: Residual
    places: tuple[_Place, ...]


@dataclass
class _Place:
    """Where one map departs most.

    Attributes:
        voxel: (x, y, z) of the measured grid.
        noise_sd: The departure there, in noise standard deviations.
        near: Sum of the squared whitened residual in and next to it, within its slice.
        power: Sum over all slices.
    """

    voxel: tuple[int, int, int] = (0, 0, 0)
    noise_sd: float = 0.0
    near: float = 0.0
    power: float = 0.0

    def add(self, whitened: NDArray[np.floating], first: int) -> None:
        """Takes slices [z, nx, ny] into account, ``first`` of which is the number of slices before them."""
        power = whitened.astype(np.float64) ** 2
        self.power += float(power.sum())
        z, x, y = (int(i) for i in np.unravel_index(np.argmax(np.abs(whitened)), whitened.shape))
        if first == 0 or abs(whitened[z, x, y]) > abs(self.noise_sd):
            self.voxel, self.noise_sd = (x, y, first + z), float(whitened[z, x, y])
            self.near = float(power[z, max(x - 1, 0) : x + 2, max(y - 1, 0) : y + 2].sum())

    def facts(self, order: Sequence[int]) -> dict[str, Any]:
        """For the record; ``order`` as in ``agreement``."""
        return {
            "voxel": [self.voxel[axis] for axis in order],
            "noise_sd": self.noise_sd,
            "share_of_residual": self.near / self.power if self.power else 0.0,
        }


def departure(consistency: DataConsistency, estimate: NDArray[np.float32]) -> Departure:
    """How an estimate [M, X, Y, Z] departs from the data, a few slices at a time.

    Args:
        consistency: With the noise that the data support.
        estimate: The network's, or the one that the user gets, untrusted voxels not NaN yet.
    """
    total, places, first = None, tuple(_Place() for _ in estimate), 0
    for chosen, part in parts(consistency, estimate.shape[-1]):
        slices = to_slices(estimate[..., chosen])
        squares = part.squares(slices, over=(0, -2, -1))
        total = squares if total is None else total + squares
        whitened = part.whitened(slices).numpy()
        for index, place in enumerate(places):
            place.add(whitened[:, index], first)
        first += len(whitened)
    assert total is not None
    return Departure(residual_of(total), places)


def agreement(
    names: Sequence[str],
    consistency: DataConsistency,
    before: Departure,
    after: Departure,
    order: Sequence[int] = (0, 1, 2),
    stated: Sequence[bool] = (),
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Figures for each map, and warnings.

    Args:
        names: M names.
        consistency: With the noise that the data support.
        before: Of the network's estimate, before data consistency.
        after: Of the estimate that the user gets.
        order: Which of (x, y, Z) each axis of the maps as given is.
        stated: For each map, whether its noise level was stated (CRLB or by the user) rather than assumed; if empty, of
            none.

    Returns:
        One JSON-serialisable record a map, and sentences.
    """
    room, given = consistency.room(), consistency.stated_noise()
    facts, sentences = [], []
    for index, name in enumerate(names):
        noise = float(room[index])
        if stated and stated[index]:
            noise = max(noise, min(float(given[index]), BELIEVED * noise))
        now, expected = after.residual, float(after.residual.expected[index])
        norms = {"after": float(now.whitened[index]), "before": float(before.residual.whitened[index])}
        times = {stage: norm / expected for stage, norm in norms.items()}
        where = {"after": after.places[index].facts(order), "before": before.places[index].facts(order)}
        known = bool(np.isfinite(expected))
        facts.append(
            {
                "noise_factor": float(consistency.noise_factor[index]),
                "residual_relative": float(now.relative[index]),
                "residual_whitened": norms["after"],
                "residual_expected": expected,
                "residual_before_consistency": norms["before"],
                "largest_departure": where["after"] if known else None,
                "energy_outside_band": float(now.outside_band[index]),
                "departure": float(now.absolute[index]),
                "departure_before_consistency": float(before.residual.absolute[index]),
                "largest_noise": noise,
            }
        )
        stage = next((one for one in ("after", "before") if times[one] > ALARM), None)
        if stage is not None:
            sentences.append(_sentence(name, stage, times[stage], where[stage]))
        departed = {
            stage: (float(one.residual.absolute[index]), float(one.residual.relative[index]))
            for stage, one in (("after", after), ("before", before))
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
