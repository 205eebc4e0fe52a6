"""From whatever a user gives as maps to one set of named sources, each with its role: what ``read_maps`` then reads.

Stacks are parted into their maps (and uncertainties, by their names), LCModel's tables become maps, mappings
are sorted by role. Files that are no maps by their name are refused here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mrsi_fast.mrsi.arrays import plain_array
from mrsi_fast.mrsi.discovery import content_of, discover, name_from_file, names_in, refusal
from mrsi_fast.mrsi.entities import RATIO, is_ratio
from mrsi_fast.mrsi.findings import ALL_MAPS, Finding
from mrsi_fast.mrsi.fsl_options import unit_in_place
from mrsi_fast.mrsi.geometry import check_affine
from mrsi_fast.mrsi.images import image_stem, is_image, names_beside, read_image
from mrsi_fast.mrsi.lcmodel import TableMaps, is_table, read_tables
from mrsi_fast.mrsi.mapfiles import MapFiles
from mrsi_fast.mrsi.mapset import MapInputError, checked_name
from mrsi_fast.mrsi.nifti import MAX_MAP_VALUES, Form, Volume
from mrsi_fast.mrsi.planes import FEW_SHARE
from mrsi_fast.mrsi.schemes import classify

_ROLE_KEYS: dict[str, str] = {"maps": "map", "map": "map", "conc": "map", "crlb": "crlb", "snr": "snr", "fwhm": "fwhm"}
_SINGLE_KEYS = ("mask", "lipid", "failed", "anatomy")


def named_sources(
    source: Any,
    names: Sequence[str] | None = None,
    *,
    scaling: str | None = None,
    like: Any = None,
    table_axes: str | None = None,
    form: Form = "auto",
) -> tuple[MapFiles, Any, Sequence[str] | None]:
    """Sort a source of maps by roles.

    Args:
        source: What ``read_maps`` takes.
        names: Names of a stack's volumes; they may name uncertainties too (``tNAA,crlb_tNAA``).
        scaling: fsl_mrsi scaling.
        like: Image on the grid of LCModel's tables.
        table_axes: Directions in which their rows, columns and slices count.
        form: Orientation to take from NIfTI headers.

    Returns:
        The set, whose tables hold sources; the source itself where it stays one (a lone image or array, a stack without
        roles), else None; the names of its volumes.

    Raises:
        MapInputError: It is no map, or cannot be told apart.
    """
    files, rest, names = _sorted(source, names, scaling, like, table_axes, form)
    paths = [one for one in (*files.maps.values(), rest) if isinstance(one, (str, Path))]
    told = [unit_in_place(Path(path)) for path in paths]
    units = {unit for unit in told if unit is not None}
    if len(units) > 1:
        raise MapInputError(
            f"the maps: come from several scalings of fsl_mrsi ({', '.join(sorted(units))}). Give maps of one of them."
        )
    if files.units == "i.u." and units and None not in told:
        files.units = units.pop()
    return files, rest, names


def _sorted(
    source: Any, names: Sequence[str] | None, scaling: str | None, like: Any, table_axes: str | None, form: Form
) -> tuple[MapFiles, Any, Sequence[str] | None]:
    """``named_sources`` but for the unit that the place of files tells."""
    if isinstance(source, str) and not source.strip():
        raise MapInputError("maps: the path is empty. Give a file or a folder.")
    if isinstance(source, (str, Path)):
        path = Path(source)
        if path.is_dir():
            source = _one_set(path, scaling)
        elif is_table(path):
            source = MapFiles("lcmodel", tables=[path])
    if isinstance(source, MapFiles):
        return _of_set(source, names, like, table_axes, form)
    if isinstance(source, Mapping):
        return of_mapping(source), None, names
    if isinstance(source, (str, Path)):
        return _of_file(Path(source), names, form)
    source = one_slice_each(source, names)
    return _parted(MapFiles("stack"), source, names) if names and _has_roles(names) else (MapFiles(), source, names)


def one_slice_each(source: Any, names: Sequence[str] | None) -> Any:
    """``([M, X, Y], affine)`` with M names as ``([M, X, Y, 1], affine)``; anything else as it is."""
    if names is None or len(names) < 2 or not (isinstance(source, tuple) and len(source) == 2):
        return source
    array = plain_array(source[0], "maps")
    return (array[..., None], source[1]) if array.ndim == 3 and len(array) == len(names) else source


def looks_like_one_slice_each(shape: Sequence[int]) -> bool:
    """Whether an array read as [X, Y, Z] may be [M, X, Y]: far fewer entries along its first axis than the others."""
    return len(shape) == 3 and 1 < shape[0] <= FEW_SHARE * min(shape[1:])


def _one_set(folder: Path, scaling: str | None) -> MapFiles:
    found = discover(folder, scaling)
    if len(found) > 1:
        labels = ", ".join(files.label or folder.name for files in found[:6]) + (" ..." if len(found) > 6 else "")
        raise MapInputError(
            f"{folder.name}: holds {len(found)} sets of maps ({labels}). Give the folder of one of "
            "them, or run them one after the other."
        )
    return found[0]


def _of_set(
    files: MapFiles, names: Sequence[str] | None, like: Any, table_axes: str | None, form: Form
) -> tuple[MapFiles, Any, Sequence[str] | None]:
    if files.problem is not None:
        raise MapInputError(files.problem)
    if files.tables:
        return _of_tables(files, like, table_axes, form), None, None
    if set(files.maps) != {ALL_MAPS}:
        if names:
            files = replace(
                files, remarks=(*files.remarks, "its maps are single files, so the names given are not used")
            )
        return files, None, None
    stack = files.maps[ALL_MAPS]
    sorted_files, source, told = _of_file(stack, names, form, named=True)
    if ALL_MAPS not in files.crlb or sorted_files.crlb:
        rest = replace(files, maps=sorted_files.maps, crlb=sorted_files.crlb, units=sorted_files.units)
        return rest, source, told
    volume, bounds = read_image(stack, form, MAX_MAP_VALUES), read_image(files.crlb[ALL_MAPS], form, MAX_MAP_VALUES)
    wanted = _names_of(stack, told, volume.data.shape[0])
    if bounds.data.shape[0] != len(wanted):
        raise MapInputError(
            f"{files.crlb[ALL_MAPS].name}: holds {bounds.data.shape[0]} volumes, but {stack.name} {len(wanted)} maps."
        )
    keys = [checked_name(name) for name in wanted]
    maps = dict(zip(keys, _volumes(volume), strict=True))
    crlb = dict(zip(keys, _volumes(bounds), strict=True))
    return replace(files, maps=maps, crlb=crlb, units=sorted_files.units), None, None


def _of_file(
    path: Path, names: Sequence[str] | None, form: Form, named: bool = False
) -> tuple[MapFiles, Any, Sequence[str] | None]:
    """A lone file: refused if it is no map by its name and the user does not say otherwise; a stack gets its names."""
    told = names_beside(path) if names is None and is_image(path) else None
    names = names if told is None else told.names
    files = MapFiles("stack", units=(told.units if told is not None else "") or "i.u.")
    if names is None and not named:
        what = content_of(path)
        if what.role != "map" and not _is_unknown(what):
            raise MapInputError(
                f"{path.name}: {refusal(what)}. If it is a metabolite map, name it: --map NAME={path.name}"
            )
    if names is None or len(names) == 1:
        count = read_image(path, form, MAX_MAP_VALUES).data.shape[0]
        if count > 1:
            if names is None and names_in(image_stem(path), count):
                files.remarks = ("the volume names come from the file name; --names overrides them",)
            return files, path, _names_of(path, names, count)
    if names is not None and _has_roles(names):
        return _parted(files, read_image(path, form, MAX_MAP_VALUES), names)
    return files, path, names


def _is_unknown(what: Finding) -> bool:
    return what.role == "other" and what.reason.startswith("no ")


def _names_of(path: Path, names: Sequence[str] | None, count: int) -> Sequence[str]:
    """Names of a stack's volumes: those given or beside it, else those in its file name."""
    found = names or names_in(image_stem(path), count)
    if len(found) != count:
        raise MapInputError(
            f"{path.name}: holds {count} maps but {len(found)} names were given. Name each map, in order, e.g. "
            "tNAA,tCr,tCho (--names, or a JSON file beside it with Metabolites)."
        )
    return found


def _has_roles(names: Sequence[str]) -> bool:
    return any(
        isinstance(name, str) and _content_of_name(name).role in ("crlb", "snr", "fwhm", "mask", "ratio")
        for name in names
    )


def _content_of_name(name: str) -> Finding:
    """What a name that is no path stands for: ``crlb_tNAA``; with a stroke a ratio, or a name such as ``GABA/MM``."""
    if is_ratio(name):
        return Finding("ratio", reason=RATIO)
    return classify(name) if "/" not in name else Finding("map", checked_name(name))


def _volumes(stack: Volume) -> list[Volume]:
    return [replace(stack, data=one[None]) for one in stack.data]


def _parted(files: MapFiles, stack: Any, names: Sequence[str]) -> tuple[MapFiles, Any, Sequence[str] | None]:
    """Part a stack whose names tell uncertainties and maps apart."""
    if isinstance(stack, tuple) and len(stack) == 2:
        array = plain_array(stack[0], "maps").astype(np.float32)
        stack = Volume(array, check_affine(stack[1], "maps"), 1, ())
    if not isinstance(stack, Volume):
        return files, stack, names
    if stack.data.ndim != 4 or stack.data.shape[0] != len(names):
        raise MapInputError(f"the stack holds {stack.data.shape[0]} maps but {len(names)} names were given.")
    for name, one in zip(names, _volumes(stack), strict=True):
        _put(files, _content_of_name(name), name, one)
    if not files.maps:
        raise MapInputError(f"the stack: holds no map by the names of its volumes ({', '.join(names)}).")
    quality = (("crlb", files.crlb), ("snr", files.snr), ("fwhm", files.fwhm))
    lone = [f"{role} of {name}" for role, table in quality for name in table if name not in (*files.maps, ALL_MAPS)]
    if lone:
        files.remarks = (*files.remarks, f"there is no map for the {', '.join(lone)}")
    return files, None, None


def _put(files: MapFiles, what: Finding, name: str, one: Any) -> None:
    if what.role in ("ratio", "other") and not _is_unknown(what):
        raise MapInputError(f"{name}: {refusal(what)}. Leave it out, or give it another name.")
    role = "map" if what.role in ("ratio", "other") else what.role
    table = files.table(role)
    unnamed = what.role != role or (role == "map" and what.name == ALL_MAPS)
    key = role if table is files.single else checked_name(name) if unnamed else what.name
    if key in table:
        raise MapInputError(f"{name}: a second {role} of {key}. Give each its own name.")
    table[key] = one


def of_mapping(source: Mapping[Any, Any]) -> MapFiles:
    """Sort ``{"maps": {...}, "crlb": {...}, "snr": ...}``, or names of maps with names of quality data among them.

    Raises:
        MapInputError: A key or role that is none, or no map.
    """
    files = MapFiles("named")
    if not all(isinstance(key, str) for key in source):
        odd = next(key for key in source if not isinstance(key, str))
        raise MapInputError(f"maps: {odd!r} is no name of a metabolite. Use texts such as 'tNAA' as keys.")
    if isinstance(source.get("maps", source.get("map")), Mapping):
        for key, value in source.items():
            if key in _SINGLE_KEYS:
                files.single[key] = value
            elif key not in _ROLE_KEYS:
                raise MapInputError(f"maps: there is no role {key}; use {', '.join((*_ROLE_KEYS, *_SINGLE_KEYS))}.")
            elif value is not None:
                entries = value if isinstance(value, Mapping) else {ALL_MAPS: value}
                table = files.table(_ROLE_KEYS[key])  # type: ignore[arg-type]
                for name, one in entries.items():
                    table[name if name == ALL_MAPS else checked_name(name)] = one
        return files
    for name, value in source.items():
        _put(files, _content_of_name(name), name, value)
    if not files.maps:
        raise MapInputError("maps: there is none. Give at least one map.")
    return files


def _of_tables(files: MapFiles, like: Any, table_axes: str | None, form: Form) -> MapFiles:
    if like is None:
        raise MapInputError(
            f"{files.tables[0].name}: LCModel tables hold no voxel positions. Give an image on the grid of "
            "the spectra: --like IMAGE (in Python like=)."
        )
    grid = read_image(like, form) if isinstance(like, (str, Path)) else _grid(like)
    made: TableMaps = read_tables(files.tables, grid.affine, grid.data.shape[1:], table_axes)
    code = replace(grid, remarks=())
    return replace(
        files,
        tables=[],
        maps={name: replace(code, data=one[None]) for name, one in zip(made.names, made.conc, strict=True)},
        crlb={name: one for name, one in zip(made.names, made.crlb, strict=True)},
        snr={} if made.snr is None else {ALL_MAPS: made.snr},
        fwhm={} if made.fwhm is None else {ALL_MAPS: made.fwhm},
        remarks=made.remarks,
    )


def _grid(like: Any) -> Volume:
    affine = like[1] if isinstance(like, tuple) and len(like) == 2 else getattr(like, "affine", None)
    shape = np.shape(like[0]) if isinstance(like, tuple) and len(like) == 2 else getattr(like, "shape", ())
    if affine is None or len(shape) < 3:
        raise MapInputError("like: give a path, a NIfTI image or (array, affine) on the grid of the spectra.")
    return Volume(np.zeros((1, *shape[:3]), dtype=np.float32), check_affine(affine, "like"), 1, ())


__all__ = ["name_from_file", "named_sources"]
