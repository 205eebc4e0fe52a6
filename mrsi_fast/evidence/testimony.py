"""Results of the self-test, as numbers and as sentences."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.evidence.alignment import Alignment
from mrsi_fast.evidence.detail import Detail
from mrsi_fast.mrsi.planes import slices_back

TRUE_DETAIL = "adds true detail"
NOTHING = "adds nothing beyond interpolation"
FALSE_DETAIL = "adds false detail: prefer the zero-filled map"
NOT_ASKED = "No self-test was run."

ALARM = 1.2
"""Error over zero-filling's whose 90 % interval lies above this is a warning. Maps outside the training distribution
have 5 to 25; the worst of the measured scan K_01 has 1.04 [1.00, 1.08]."""
UNKNOWN = "unknown: too few trusted voxels"


@dataclass(frozen=True)
class MapEvidence:
    """The self-test of one map.

    Attributes:
        name: Of the map.
        detail: Error over zero-filling's, amplitude, noise floor.
        total_variation: Error of total variation over zero-filling's, with its best weight; NaN if not tried.
    """

    name: str
    detail: Detail
    total_variation: float

    @property
    def verdict(self) -> str:
        """By the 90 % interval of the error: below 1, above 1, or across it."""
        low, high = self.detail.error_interval
        if not np.isfinite(self.detail.error):
            return UNKNOWN
        return TRUE_DETAIL if high < 1 else FALSE_DETAIL if low > 1 else NOTHING


@dataclass(frozen=True)
class Guidance:
    """Whether the anatomical image guides the result.

    Attributes:
        used: Whether it does.
        reason: A sentence.
        error_with: Error of the self-test with the image, root mean square over maps; NaN untested.
        error_without: The same without it.
        alignment: Where the image was found to fit best; None if it was not aligned.
    """

    used: bool
    reason: str
    error_with: float
    error_without: float
    alignment: Alignment | None


@dataclass(frozen=True, eq=False)
class Picture:
    """The maps of the self-test on the measured grid, [M, X, Y, Z] each, for a report."""

    measured: NDArray[np.float32]
    brought_back: NDArray[np.float32]
    zero_filled: NDArray[np.float32]

    def cropped(self, x: int, y: int) -> Picture:
        """Without the voxels that the test added to axes of odd length."""
        return Picture(*(one[:, :x, :y] for one in (self.measured, self.brought_back, self.zero_filled)))

    def as_given(self, slice_axis: int) -> Picture:
        """With the slices on the axis that the measured maps have them on."""
        return Picture(*(slices_back(one, slice_axis) for one in (self.measured, self.brought_back, self.zero_filled)))


@dataclass(frozen=True, eq=False)
class Evidence:
    """Results of the self-test of a scan.

    Attributes:
        tested: Whether its own k-space was cut and brought back.
        reason: Why not, or how: a sentence.
        maps: One record per map, in order; empty if not tested.
        guidance: What became of the anatomical image; None without one.
        noise_scale: Factor on the noise level that the network is told.
        noise_errors: Error of the self-test, root mean square over maps, at each factor that was tried.
        picture: Maps to look at, or None.
    """

    tested: bool
    reason: str
    maps: tuple[MapEvidence, ...] = ()
    guidance: Guidance | None = None
    noise_scale: float = 1.0
    noise_errors: tuple[tuple[float, float], ...] = ()
    picture: Picture | None = None

    def as_given(self, slice_axis: int) -> Evidence:
        """The same with its maps on the axes of the measured ones, whose slices are stacked along ``slice_axis``."""
        return self if self.picture is None else replace(self, picture=self.picture.as_given(slice_axis))

    def pictures(self) -> dict[str, dict[str, NDArray[np.float32]]]:
        """Of every map, by name, what was ``brought_back`` and its ``cut_zero_filled``, [X, Y, Z] each."""
        if self.picture is None:
            return {}
        return {
            one.name: {"brought_back": found, "cut_zero_filled": plain}
            for one, found, plain in zip(self.maps, self.picture.brought_back, self.picture.zero_filled, strict=True)
        }

    def amplitudes(self) -> NDArray[np.float64]:
        """Share of the added detail to keep, [M] between 0 and 1; 1 for maps that were not judged."""
        found = np.array([one.detail.amplitude for one in self.maps], np.float64)
        return np.clip(np.where(np.isfinite(found), found, 1.0), 0.0, 1.0)

    def sentences(self) -> tuple[str, ...]:
        """What was found and decided, for terminals and reports."""
        lines = [self.reason]
        if self.guidance is not None:
            lines.append(self.guidance.reason)
        if len(self.noise_errors) > 1:
            tried = ", ".join(f"{error:.3f} at {scale:g}" for scale, error in self.noise_errors)
            lines.append(
                f"Noise level passed to the network: {self.noise_scale:g} times the stated one (error {tried})."
            )
        return tuple(lines)

    def alarms(self) -> tuple[str, ...]:
        """A sentence for each map whose added detail is far from what was measured."""
        return tuple(
            f"{one.name}: in the self-test the added detail errs {one.detail.error:.3g} times as much as zero-filling, "
            "which adds none: prefer the zero-filled map."
            for one in self.maps
            if one.detail.error_interval[0] > ALARM
        )

    def rows(self) -> list[tuple[str, ...]]:
        """A table: its heading, then a line a map; empty if nothing was tested.

        The column for total variation appears only where total variation was tried.
        """
        if not self.maps:
            return []
        lines: list[tuple[str, ...]] = [
            ("map", "error", "of total variation", "amplitude of the detail", "noise floor", "verdict")
        ]
        for one in self.maps:
            low, high = one.detail.amplitude_interval
            lines.append(
                (
                    one.name,
                    _number(one.detail.error, "{:.3f}"),
                    _number(one.total_variation, "{:.3f}"),
                    _number(one.detail.amplitude, f"{{:.2f}} [{low:.2f}, {high:.2f}]"),
                    _number(one.detail.noise_floor, "{:.2f}"),
                    one.verdict,
                )
            )
        if all(not np.isfinite(one.total_variation) for one in self.maps):
            return [(*line[:2], *line[3:]) for line in lines]
        return lines

    def as_dict(self) -> dict[str, Any]:
        """For JSON; numbers that are not known are None."""
        guidance: dict[str, Any] | None = None
        if self.guidance is not None:
            guidance = {
                "used": self.guidance.used,
                "reason": self.guidance.reason,
                "error_with": self.guidance.error_with,
                "error_without": self.guidance.error_without,
            }
            if (found := self.guidance.alignment) is not None:
                guidance["alignment"] = {
                    "shift_mm": list(found.placement.shift_mm),
                    "turn_deg": list(found.placement.turn_deg),
                    "centre_mm": list(found.placement.centre_mm),
                    "matrix": found.placement.matrix.tolist(),
                    "distance_mm": found.placement.distance_mm,
                    "angle_deg": found.placement.angle_deg,
                    "explained": found.explained,
                    "explained_before": found.explained_before,
                    "explained_mirrored": found.explained_mirrored,
                    "explained_by_field": found.explained_by_field,
                    "own_share": found.own_share,
                    "advantage": found.advantage,
                    "advantage_flipped": found.advantage_flipped,
                }
        maps = {
            one.name: asdict(one.detail) | {"total_variation": one.total_variation, "verdict": one.verdict}
            for one in self.maps
        }
        facts = {
            "tested": self.tested,
            "reason": self.reason,
            "maps": maps,
            "guidance": guidance,
            "noise_scale": self.noise_scale,
            "noise_errors": {f"{scale:g}": error for scale, error in self.noise_errors},
        }
        return _known(facts)


def _number(value: float, form: str) -> str:
    return form.format(value) if np.isfinite(value) else "?"


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _known(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_known(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
