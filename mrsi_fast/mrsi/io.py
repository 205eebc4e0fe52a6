"""Metabolite maps in: any of the usual sources becomes one :class:`~mrsi_fast.mrsi.mapset.MapSet` on one grid.

This module decides what belongs together and that it lies on the same grid; finding files by name is ``discovery``,
reading one file safely is ``nifti``, writing is ``export``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.choice import chosen_names, wanted_names
from mrsi_fast.mrsi.discovery import NOUNS, UNNAMED, content_of, name_from_file
from mrsi_fast.mrsi.findings import ALL_MAPS
from mrsi_fast.mrsi.mapfiles import MapFiles
from mrsi_fast.mrsi.mapset import Float32, MapInputError, MapSet, checked_name
from mrsi_fast.mrsi.marks import shared_values
from mrsi_fast.mrsi.masks import remarks_on_mask
from mrsi_fast.mrsi.nifti import Form, Volume
from mrsi_fast.mrsi.oddities import oddities
from mrsi_fast.mrsi.planes import find_slice_axis
from mrsi_fast.mrsi.read_options import QualitySource, ReadOptions
from mrsi_fast.mrsi.reader import Reader, Source
from mrsi_fast.mrsi.sources import looks_like_one_slice_each, named_sources
from mrsi_fast.mrsi.units import CrlbUnit, FwhmUnit, check_levels, check_mhz, judge_crlb, judge_fwhm


def read_maps(source: MapSet | MapFiles | Source | Mapping[str, Source], **options: Unpack[ReadOptions]) -> MapSet:
    """Read metabolite maps and what is known about their quality.

    Args:
        source: A file, a folder (flat, fsl_mrsi, BIDS-like: see ``discovery``) or one set found in it, a NIfTI image,
            ``(array, affine)``, a mapping from name to any of these, or a MapSet (which ``metabolites`` and ``mask``
            alone act on, and whose values are judged as those of files are).
            Stacks are [X, Y, Z, M] in NIfTI, [M, X, Y, Z] as arrays, or [M, X, Y] with M ``names``. A
            mapping may name roles: ``{"maps": {"tNAA": ...}, "crlb": {"tNAA": ...}, "snr": ...}``.
        **options: See :class:`~mrsi_fast.mrsi.read_options.ReadOptions`.

    Returns:
        One MapSet; its ``warnings`` hold what was remarkable about the inputs.

    Raises:
        MapInputError: A source cannot be used, lies on another grid, or names are missing or ambiguous.
    """
    return _read(source, **options)


def _read(
    source: MapSet | MapFiles | Source | Mapping[str, Source],
    *,
    metabolites: str | Sequence[str] | None = None,
    names: str | Sequence[str] | None = None,
    crlb: QualitySource = None,
    snr: QualitySource = None,
    fwhm: QualitySource = None,
    mask: Source | None = None,
    lipid: Source | None = None,
    crlb_unit: CrlbUnit | None = None,
    fwhm_unit: FwhmUnit | None = None,
    mhz: float | None = None,
    mask_labels: Sequence[int] | None = None,
    slice_axis: int | None = None,
    units: str | None = None,
    scaling: str | None = None,
    form: Form = "auto",
    like: Source | None = None,
    table_axes: str | None = None,
    clip_negative: bool = False,
) -> MapSet:
    if isinstance(source, MapSet):
        source = _judged(source.select(wanted_names(metabolites, source.names)) if metabolites else source)
        return source if mask is None else with_mask(source, mask, mask_labels)
    check_mhz(mhz)
    reader = Reader(form)
    listed = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
    files, source, listed = named_sources(source, listed, scaling=scaling, like=like, table_axes=table_axes, form=form)
    maps, found = _read_values(reader, files.maps or source, metabolites, listed)
    for text in files.remarks:
        reader.remark("LCModel tables" if files.layout == "lcmodel" else "the maps", text)
    for left in files.unused:
        if left.problem:
            reader.remark(left.path.name, left.reason)
    given = {"crlb": crlb, "snr": snr, "fwhm": fwhm, "mask": mask, "lipid": lipid}
    quality, flags = _read_quality(reader, given, files, maps, found, mask_labels)
    by_layout: FwhmUnit | None = files.fwhm_unit if files.layout == "fsl_mrsi" else None
    stated = _judge(reader, maps, found, quality, crlb_unit, (fwhm_unit, by_layout), clip_negative)
    grid = reader.grid
    assert grid is not None
    result = MapSet(
        maps,
        grid.affine,
        found,
        **quality,
        **flags,
        **stated,
        spectrometer_mhz=mhz,
        slice_axis=find_slice_axis(grid.affine, maps.shape[1:], reader.first) if slice_axis is None else slice_axis,
        units=units or files.units,
        source=_describe(files, source),
        xform_code=grid.xform_code,
        judged=True,
    )
    told = remarks_on_mask(result) if result.mask is not None else []
    return replace(result, warnings=(*reader.sentences(), *told))


def _judge(
    reader: Reader,
    maps: Float32,
    names: tuple[str, ...],
    quality: dict[str, Any],
    crlb_unit: CrlbUnit | None,
    fwhm_unit: tuple[FwhmUnit | None, FwhmUnit | None],
    clip_negative: bool = False,
) -> dict[str, Any]:
    """Judge values, levels and units; marks become NaN in ``maps``, fractions percent in ``quality``.

    Args:
        reader: Takes the remarks.
        maps: [M, X, Y, Z], changed in place.
        names: Of the maps.
        quality: ``crlb`` and ``fwhm``, each an array or None.
        crlb_unit: What the user states.
        fwhm_unit: What the user states, and what the layout of the files says.
        clip_negative: Set negative values to 0.

    Returns:
        ``crlb_unit`` and ``fwhm_unit`` of the MapSet, for what there is.

    Raises:
        MapInputError: A map holds nothing, or values or bounds are implausible.
    """
    for name, one in zip(names, maps, strict=True):
        _check_values(reader, name, one, clip_negative)
    check_levels(maps, names)
    for name, odd in oddities(maps, names):
        reader.remark(name, odd)
    units: dict[str, Any] = {}
    if quality["crlb"] is not None:
        unit, told = (crlb_unit, None) if crlb_unit else judge_crlb(maps, quality["crlb"], names)
        if told:
            reader.remark("crlb", told)
        if unit == "fraction":
            quality["crlb"] = quality["crlb"] * np.float32(100.0)
        units["crlb_unit"] = "absolute" if unit == "absolute" else "percent"
    if quality["fwhm"] is not None:
        units["fwhm_unit"], told = judge_fwhm(quality["fwhm"], *fwhm_unit)
        if told:
            reader.remark("fwhm", told)
    return units


def _judged(source: MapSet) -> MapSet:
    """A MapSet that a caller built, judged as files are; units that are not the default ones count as stated.

    Raises:
        MapInputError: A map holds nothing, or values or bounds are implausible.
    """
    if source.judged:
        return source
    reader, maps = Reader("auto"), source.maps.astype(np.float32)
    quality: dict[str, Any] = {"crlb": source.crlb, "fwhm": source.fwhm}
    stated = None if source.crlb_unit == "percent" else source.crlb_unit
    width: FwhmUnit | None = None if source.fwhm_unit == "ppm" else source.fwhm_unit
    units = _judge(reader, maps, source.names, quality, stated, (width, None))
    return replace(source, maps=maps, **quality, **units, warnings=(*source.warnings, *reader.sentences()), judged=True)


def with_mask(maps: MapSet, mask: Source, labels: Sequence[int] | None = None) -> MapSet:
    """Return the maps with another mask (path, image, ``(array, affine)`` or array on their grid).

    Args:
        maps: The maps.
        mask: The mask; on another grid it is resampled, and that is said.
        labels: Values of the mask that are inside; default those above half of its largest.

    Raises:
        MapInputError: The mask cannot be read or understood, is empty, or lies elsewhere.
    """
    reader = Reader("auto", Volume(maps.maps, maps.affine, maps.xform_code, ()), "the maps")
    result = replace(maps, mask=reader.mask(mask, "mask", None if labels is None else tuple(labels)))
    return replace(result, warnings=(*maps.warnings, *reader.sentences(), *remarks_on_mask(result)))


def _read_values(
    reader: Reader, source: Source, metabolites: str | Sequence[str] | None, names: Sequence[str] | None
) -> tuple[Float32, tuple[str, ...]]:
    """Return the maps asked for as [M, X, Y, Z], with their canonical names."""
    if isinstance(source, Mapping):
        return _read_named(reader, _choose(_canonical(list(source), source), metabolites, reader))
    maps, found = _read_stack(reader, source, names)
    if not metabolites:
        return maps, found
    wanted = wanted_names(metabolites, found)
    return maps[[found.index(name) for name in wanted]], tuple(wanted)


def _read_quality(
    reader: Reader,
    given: Mapping[str, Any],
    files: MapFiles,
    maps: Float32,
    found: tuple[str, ...],
    mask_labels: Sequence[int] | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what was given, else what the folder holds; failed fits become NaN in ``maps``."""
    tables = {"crlb": files.crlb, "snr": files.snr, "fwhm": files.fwhm}
    stored: dict[str, Any] = {role: table for role, table in tables.items() if table} | files.single
    chosen = {
        role: given[role] if given.get(role) is not None else stored.get(role)
        for role in ("crlb", "snr", "fwhm", "mask", "lipid", "failed")
    }
    for role, source in given.items():
        _remark_on_names(reader, role, source)
    quality = {role: _quality(reader, chosen[role], found, role) for role in ("crlb", "snr", "fwhm")}
    labels = None if mask_labels is None else tuple(mask_labels)
    flags = {
        "mask": None if chosen["mask"] is None else reader.mask(chosen["mask"], "mask", labels),
        "lipid": _flag(reader, chosen["lipid"], "lipid"),
    }
    failed = _flag(reader, chosen["failed"], "failed")
    if failed is not None and failed.any():
        maps[:, failed] = np.nan
        reader.remark("fit_failed", f"{int(failed.sum())} voxels are marked as failed fits and hold no value")
    if files.units.startswith("ratio"):
        reader.remark(
            "concs/internal",
            "fsl_mrsi's internal scaling divides by the reference of the same voxel; the "
            "acquisition model holds for concentrations: prefer raw or molarity and take ratios afterwards",
        )
    return quality, flags


def _remark_on_names(reader: Reader, role: str, source: Any) -> None:
    """Remark on a file that was given for a role and is another thing by its name."""
    for one in source.values() if isinstance(source, Mapping) else [source]:
        if isinstance(one, (str, Path)) and (what := content_of(Path(one))).role not in (role, "map", "other"):
            reader.remark(Path(one).name, f"is {NOUNS[what.role]} by its name, but was given as {NOUNS[role]}")


def _describe(files: MapFiles, source: Source) -> str:
    if source is None:
        return {
            "fsl_mrsi": "fsl_mrsi output",
            "bids": "BIDS-like folder",
            "folder": "folder of maps",
            "lcmodel": "LCModel tables",
            "named": "maps given by name",
            "stack": "stack of maps",
        }[files.layout]
    return "NIfTI file" if isinstance(source, (str, Path)) else "image or array in memory"


def _canonical(names: Sequence[str], values: Mapping[str, Source]) -> dict[str, Source]:
    """Rename to canonical names; refuses none and twice the same."""
    renamed: dict[str, Source] = {}
    for name in names:
        if checked_name(name) in renamed:
            raise MapInputError(f"{name}: a second map of {checked_name(name)}. Give each map its own name.")
        renamed[checked_name(name)] = values.get(name)
    if not renamed:
        raise MapInputError("maps: there is none. Give at least one map.")
    return renamed


def _choose(found: Mapping[str, Source], metabolites: str | Sequence[str] | None, reader: Reader) -> dict[str, Source]:
    """Take the maps asked for; by default those with a channel, or with a component's map in its place."""
    chosen = chosen_names(metabolites, list(found))
    if not metabolites and (left := [name for name in found if name not in chosen]):
        reader.remark("maps", f"{len(left)} more were found and not read ({', '.join(left)}); choose with metabolites")
    return {name: found[name] for name in chosen}


def _read_named(reader: Reader, sources: Mapping[str, Source]) -> tuple[Float32, tuple[str, ...]]:
    volumes = []
    for name, source in sources.items():
        data, where = reader.volume(source, name)
        if data.shape[0] != 1:
            raise MapInputError(
                f"{where}: holds {data.shape[0]} volumes where one map of {name} is expected. Give the "
                "stack alone, with names for its maps."
            )
        volumes.append(data)
    return np.concatenate(volumes), tuple(sources)


def _read_stack(reader: Reader, source: Source, names: Sequence[str] | None) -> tuple[Float32, tuple[str, ...]]:
    data, where = reader.volume(source, "maps")
    if names is None and isinstance(source, tuple) and looks_like_one_slice_each(np.shape(source[0])):
        count = len(source[0])
        reader.remark(
            where,
            f"an array of shape {tuple(np.shape(source[0]))} without names is one map [X, Y, Z] with its slices along "
            f"the first axis; if it holds {count} maps of one slice, give their {count} names",
        )
    if names is None and data.shape[0] == 1:
        named = isinstance(source, (str, Path))
        names = [name_from_file(source) if named else UNNAMED]
        if named and names == [UNNAMED]:
            reader.remark(
                where, f"its name holds no metabolite, so its map is called '{UNNAMED}'; give names, e.g. tNAA"
            )
    if names is None or len(names) != data.shape[0]:
        raise MapInputError(
            f"{where}: holds {data.shape[0]} maps but {len(names or ())} names were given. Name each "
            "map, in order, e.g. tNAA,tCr,tCho."
        )
    return data.copy(), tuple(_canonical(names, {}))


def _quality(reader: Reader, source: Any, names: tuple[str, ...], role: str) -> Float32 | None:
    """Quality data as [M, X, Y, Z]; NaN for maps that have none; None if no map has any."""
    if source is None:
        return None
    assert reader.grid is not None
    shape = (len(names), *reader.grid.data.shape[1:])
    if not isinstance(source, Mapping):
        data, where = _quality_volume(reader, source, role)
        if data.shape[0] not in (1, len(names)) or (role == "crlb" and data.shape[0] != len(names)):
            raise MapInputError(f"{where}: holds {data.shape[0]} volumes for {len(names)} maps. Give one for each map.")
        return np.broadcast_to(data, shape).copy()
    table = {ALL_MAPS if name == ALL_MAPS else checked_name(name): value for name, value in source.items()}
    result = np.full(shape, np.nan, dtype=np.float32)
    for index, name in enumerate(names):
        if (one := table.get(name, table.get(ALL_MAPS))) is not None:
            data, where = _quality_volume(reader, one, f"{role} of {name}")
            if data.shape[0] != 1:
                raise MapInputError(f"{where}: holds {data.shape[0]} volumes where one {role} of {name} is expected.")
            result[index] = data[0]
        else:
            reader.remark(name, f"has no {role}, so it is not judged by it")
    return result if any(name in table or ALL_MAPS in table for name in names) else None


def _quality_volume(reader: Reader, source: Any, what: str) -> tuple[Float32, str]:
    """As ``Reader.volume``, with a remark where the file holds no number."""
    data, where = reader.volume(source, what)
    if not np.isfinite(data).any():
        reader.remark(where, "holds no number, so it is not used")
    return data, where


def _flag(reader: Reader, source: Source | None, role: str) -> NDArray[np.bool_] | None:
    if source is None:
        return None
    data, _ = reader.volume(source, role)
    return np.nan_to_num(data[0], nan=0.0) != 0


def _check_values(reader: Reader, name: str, values: Float32, clip_negative: bool) -> None:
    """Refuse a map without any value, replace infinities by NaN in place, and remark on what looks odd."""
    infinite = np.isinf(values)
    if infinite.any():
        values[infinite] = np.nan
        reader.remark(name, f"{int(infinite.sum())} values are infinite and count as missing")
    for value, count in shared_values(values):
        values[values == np.float32(value)] = np.nan
        reader.remark(name, f"{count} voxels hold {value:g}, a mark and no concentration; they count as missing")
    known = values[np.isfinite(values)]
    if known.size == 0:
        raise MapInputError(f"{name}: has no valid voxel, every value is NaN or infinite. Leave this map out.")
    if infinite.any() and not known.any():
        raise MapInputError(
            f"{name}: all its values are infinite or 0: they exceed 32-bit numbers. Check how the file was written "
            "(scl_slope, order of bytes)."
        )
    if known.min() == known.max():
        reader.remark(name, f"is the same everywhere ({known[0]:g})")
    elif (known < 0).any():
        told = "set to 0 as asked" if clip_negative else "they are kept"
        reader.remark(name, f"{100 * float((known < 0).mean()):.1f} % of its values are negative; {told}")
        if clip_negative:
            np.maximum(values, 0, out=values)
