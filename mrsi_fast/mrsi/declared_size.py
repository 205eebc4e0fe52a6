"""How large maps are by the headers of their files, so that a run that cannot fit is refused before they are read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrsi_fast.memory import check_memory, needed_bytes
from mrsi_fast.mrsi.choice import chosen_names
from mrsi_fast.mrsi.discovery import discover
from mrsi_fast.mrsi.findings import ALL_MAPS
from mrsi_fast.mrsi.geometry import parse_factors
from mrsi_fast.mrsi.mapfiles import MapFiles
from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.mrsi.nifti import declared_grid
from mrsi_fast.mrsi.planes import find_slice_axis
from mrsi_fast.mrsi.schemes import classify
from mrsi_fast.mrsi.sources import of_mapping


@dataclass(frozen=True)
class DeclaredSize:
    """What headers say of a set of maps.

    Attributes:
        maps: How many will be read.
        shape: Voxels along the three axes.
        slice_axis: Axis of the slices; None where the user has to say it.
    """

    maps: int
    shape: tuple[int, ...]
    slice_axis: int | None


def declared_size(
    source: Any, metabolites: str | Sequence[str] | None = None, names: str | Sequence[str] | None = None
) -> DeclaredSize | None:
    """Number of maps and their grid, as NIfTI headers declare them; values are not read.

    Args:
        source: What ``read_maps`` takes.
        metabolites: As for ``read_maps``.
        names: Likewise.

    Returns:
        None where headers do not tell: arrays, tables, other formats, and whatever reading will refuse.
    """
    try:
        files = _files_of(source)
        if files is None or files.problem is not None or not files.maps:
            return None
        whole = files.maps.get(ALL_MAPS)
        chosen = [whole] if whole is not None else [files.maps[one] for one in chosen_names(metabolites, [*files.maps])]
        grids = [declared_grid(Path(one)) for one in chosen if isinstance(one, (str, Path))]
    except (MapInputError, OSError):
        return None
    if not grids or len(grids) < len(chosen):
        return None
    shape, affine = max(grids, key=lambda grid: math.prod(grid[0]))
    count = len(grids) if whole is None else _maps_of_stack(math.prod(shape[3:]), metabolites, names)
    shape = (*shape, 1)[:3]
    try:
        return DeclaredSize(count, shape, find_slice_axis(affine, shape, "maps"))
    except MapInputError:
        return DeclaredSize(count, shape, None)


def refuse_by_headers(
    source: Any,
    scale: Any,
    samples: int = 0,
    metabolites: str | Sequence[str] | None = None,
    names: str | Sequence[str] | None = None,
    slice_axis: int | None = None,
) -> None:
    """Refuses a run that would not fit, by the headers alone, where these tell.

    Where the axis of the slices is unknown, the estimate is that of the axis that takes least.

    Args:
        source: What ``read_maps`` takes.
        scale: Super-resolution factor, as for ``parse_factors``.
        samples: Posterior samples that are kept in memory.
        metabolites: As for ``read_maps``.
        names: Likewise.
        slice_axis: Likewise.

    Raises:
        NotEnoughMemory: It would not.
    """
    size = declared_size(source, metabolites, names)
    if size is None:
        return
    axis = size.slice_axis if slice_axis is None else slice_axis
    choices = [one for each in (range(3) if axis is None else [axis]) if (one := _factors(scale, each)) is not None]
    if choices:
        least = min(choices, key=lambda factors: needed_bytes(size.maps, size.shape, factors, samples))
        check_memory(size.maps, size.shape, least, samples)


def _factors(scale: Any, axis: int) -> tuple[int, int, int] | None:
    try:
        return parse_factors(scale, axis)
    except ValueError:
        return None


def _files_of(source: Any) -> MapFiles | None:
    if isinstance(source, MapFiles):
        return source
    if isinstance(source, Mapping):
        return of_mapping(source)
    if not isinstance(source, (str, Path)):
        return None
    if not Path(source).is_dir():
        return MapFiles("stack", maps={ALL_MAPS: source})
    found = discover(Path(source))
    return found[0] if len(found) == 1 else None


def _maps_of_stack(volumes: int, metabolites: str | Sequence[str] | None, names: str | Sequence[str] | None) -> int:
    """Fewest maps that will be read of a stack with so many volumes."""
    listed = names.split(",") if isinstance(names, str) else list(names or ())
    roles = [classify(name.strip()).role for name in listed]
    count = volumes - sum(role in ("crlb", "snr", "fwhm", "mask") for role in roles)
    asked = metabolites.split(",") if isinstance(metabolites, str) else list(metabolites or ())
    return max(1, min(count, len(asked)) if asked and [one.strip().lower() for one in asked] != ["all"] else count)
