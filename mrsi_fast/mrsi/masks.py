"""What the values of a mask image mean: programs write 0 and 1, 0 and 255, probabilities, labels, or -1 for outside."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.mapset import Float32, MapInputError, MapSet
from mrsi_fast.mrsi.support import estimate_support

Bool = NDArray[np.bool_]

_MOST_LABELS_NAMED = 8
_SCALED_PROBABILITY = 100.0  # whole numbers up to this or more may be probabilities in percent or in bytes
_NOTHING_COVERED = 0.01
_SURE_SHARE = 0.4  # of a probability map's voxels lie within a tenth of its largest value


def as_mask(values: Float32, where: str, labels: Iterable[int] | None = None) -> tuple[Bool, tuple[str, ...]]:
    """Turn a mask image into true and false.

    Without labels a voxel is inside where its value is above half of the largest one: right for 0 and 1, 0 and 255,
    probabilities and interpolated masks; zero, negative and NaN are outside. Several whole numbers are labels, of which
    only the user can name the intended ones.

    Args:
        values: [X, Y, Z].
        where: How to call it in messages.
        labels: Values that are inside; default as above.

    Returns:
        The mask, [X, Y, Z], and remarks without full stop.

    Raises:
        MapInputError: It holds labels and none was chosen, or none of the chosen ones; or it is empty.
    """
    inside = np.isfinite(values) & (values > 0)
    found, counts = np.unique(values[inside], return_counts=True)
    whole = bool(found.size) and bool((np.abs(found - np.round(found)) < 1e-3).all())
    if labels is not None:
        chosen = np.isfinite(values) & np.isin(np.round(values), list(labels))
        if not chosen.any():
            raise MapInputError(f"{where}: none of the labels {_listed(labels)} is in it; it holds {_listed(found)}.")
        return chosen, ()
    if found.size == 0:
        raise MapInputError(f"{where}: is empty, so no voxel is used. Check that it is the right file.")
    if whole and found.size > 1 and not _is_scaled_probability(found, counts):
        held = ", ".join(f"{v:g} ({n} voxels)" for v, n in list(zip(found, counts, strict=True))[:_MOST_LABELS_NAMED])
        more = " and more" if found.size > _MOST_LABELS_NAMED else ""
        raise MapInputError(
            f"{where}: holds the labels {held}{more}. Say which of them are inside the mask, "
            f"e.g. --mask-labels {found[0]:g}."
        )
    mask = inside & (np.nan_to_num(values, nan=0.0, posinf=0.0) > 0.5 * found[-1])
    told = (
        () if found.size == 1 else (f"is taken as inside where it is above half of its largest value, {found[-1]:.4g}",)
    )
    return mask, told


def remarks_on_mask(maps: MapSet) -> list[str]:
    """What looks wrong about a mask beside its maps: it covers everything, or background instead of tissue.

    Raises:
        MapInputError: It covers hardly any voxel in which the maps hold signal.
    """
    assert maps.mask is not None
    if maps.mask.all():
        return ["The mask covers every voxel of the maps, so it does not locate the head."]
    tissue = estimate_support(maps)
    if tissue.all() or not tissue.any():
        return []
    of_tissue, of_rest = float(maps.mask[tissue].mean()), float(maps.mask[~tissue].mean())
    if of_tissue == 0 or (of_tissue < _NOTHING_COVERED and of_rest > 0.5):
        raise MapInputError(
            f"mask: covers {100 * of_tissue:.0f} % of where the maps hold signal and {100 * of_rest:.0f} % of the "
            "rest, so nothing of the head would be left. It may be inverted, or belong to other maps."
        )
    if of_tissue < 0.3 and of_rest > 0.5:
        return [
            f"The mask covers {100 * of_tissue:.0f} % of where the maps hold signal and {100 * of_rest:.0f} % of the "
            "rest: it may be inverted, or belong to other maps."
        ]
    return []


def _is_scaled_probability(found: Float32, counts: NDArray[np.int64]) -> bool:
    sure = counts[found >= 0.9 * found[-1]].sum() / counts.sum()
    return bool(found[-1] >= _SCALED_PROBABILITY and sure >= _SURE_SHARE)


def _listed(values: Iterable[float]) -> str:
    several = [f"{v:g}" for v in values]
    return (
        ", ".join(several[:_MOST_LABELS_NAMED]) + (" and more" if len(several) > _MOST_LABELS_NAMED else "")
        or "nothing"
    )
