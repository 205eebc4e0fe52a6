"""From classified files to sets of maps: which files belong together, and which is taken of several."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mrsi_fast.mrsi.findings import ALL_MAPS, Finding
from mrsi_fast.mrsi.foreign import unfetched
from mrsi_fast.mrsi.fsl_options import unit_in_place
from mrsi_fast.mrsi.mapfiles import MapFiles, Unused
from mrsi_fast.mrsi.names import STAND_INS
from mrsi_fast.mrsi.schemes import VARIANTS

_QUALITY = ("crlb", "snr", "fwhm")


@dataclass(frozen=True)
class Found:
    """One classified file.

    Attributes:
        path: The file.
        relative: Its path below the searched folder, without suffix.
        what: Its content by its name.
        home: The place of its set, a folder below the searched one.
        beside: The place by its folders alone, where its name has BIDS entities.
    """

    path: Path
    relative: str
    what: Finding
    home: str
    beside: str


def group(found: Sequence[Found], scaling: str | None = None, nested: bool = False) -> list[MapFiles]:
    """Make sets of files that were looked at.

    Args:
        found: The files.
        scaling: For fsl_mrsi, the scaling to take.
        nested: Take maps below a place that has maps too; else they are listed there as not used.

    Returns:
        The sets, and one with a ``problem`` for each place that has quality files alone.
    """
    places: dict[tuple[str, tuple[tuple[str, str], ...]], list[Found]] = {}
    for one in found:
        if one.what.role == "map":
            places.setdefault((one.home, tuple(sorted(one.what.tags.items()))), []).append(one)
    flat = {home for (home, _), maps in places.items() if maps[0].what.layout != "bids"}
    common = os.path.commonpath([home for home, _ in places]) if places else ""
    sets: list[tuple[MapFiles, str, dict[str, str]]] = []
    for (home, tags), maps in places.items():
        bids = maps[0].what.layout == "bids"
        if bids or nested or not any(is_above(other, home) for other in flat):
            beside = [one for one in found if one.what.role != "map" and home in (one.home, one.beside)]
            below = (
                []
                if bids or nested
                else [one for key, below in places.items() if is_above(home, key[0]) for one in below]
            )
            files = _make(home, dict(tags), maps, beside, below, scaling)
            files.label = label_of(home.removeprefix(common).strip("/"), dict(tags))
            sets.append((files, home, dict(tags)))
    _part_anatomy(sets, found)
    _list_unused(sets, found)
    return [files for files, _, _ in sets] + ([] if nested else _quality_alone(found, places))


def _part_anatomy(sets: Sequence[tuple[MapFiles, str, dict[str, str]]], found: Sequence[Found]) -> None:
    """An image whose name tells no person is used for none, where sets of several people lie in its place."""
    nameless = {one.path for one in found if one.what.role == "anatomy" and not {"sub", "id"} & set(one.what.tags)}
    for files, home, _ in sets:
        people = {tags.get("sub", tags.get("id")) for _, other, tags in sets if other == home}
        if len(people) > 1 and files.single.get("anatomy") in nameless:
            reason = f"an anatomical image whose name does not tell to which of {len(people)} sets it belongs"
            files.unused.append(Unused(files.single.pop("anatomy"), f"{reason}; name it with --anatomy"))


def is_above(other: str, home: str) -> bool:
    """Whether a folder (both below the searched one) lies above another."""
    return other != home and (other == "" or home.startswith(f"{other}/"))


def label_of(place: str, tags: dict[str, str]) -> str:
    """What to call a set: its folders and entities, those of subject and session first."""
    order = sorted(tags, key=lambda key: (key != "sub", key != "ses", key == "id", key))
    own = [tags[key] if key == "id" else f"{key}-{tags[key]}" for key in order]
    return "_".join(dict.fromkeys([*(part for part in place.split("/") if part), *own]))


def _make(
    home: str, tags: dict[str, str], maps: list[Found], beside: list[Found], below: list[Found], scaling: str | None
) -> MapFiles:
    """One set of the best version of its maps, with the quality files that fit it."""
    layout = "fsl_mrsi" if any(one.what.layout == "fsl_mrsi" for one in maps) else maps[0].what.layout
    files = MapFiles("bids" if layout == "bids" else "fsl_mrsi" if layout == "fsl_mrsi" else "folder")
    there = [variant for variant in VARIANTS if any(one.what.variant == variant for one in maps)]
    if scaling is not None and scaling not in there:
        files.problem = (
            f"concs: scaling {scaling} not found in this fsl_mrsi output; it has {', '.join(there)}. Choose one."
        )
    chosen = scaling if scaling in there else there[0]
    for one in maps:
        if one.what.variant != chosen:
            reason = f"another version ({one.what.variant or 'as acquired'}) of the maps"
            files.unused.append(Unused(one.path, reason))
    for one in below:
        files.unused.append(Unused(one.path, "a map of another set in a folder below: give that folder to use it"))
    used = [one for one in maps if one.what.variant == chosen]
    stacked = [one for one in used if one.what.name == ALL_MAPS]
    if stacked and len(stacked) < len(used):
        files.unused += [Unused(one.path, "a stack beside single maps") for one in stacked]
        used = [one for one in used if one not in stacked]
    ranks: dict[str, int] = {}
    for one in sorted(used, key=lambda one: (one.what.rank, one.relative)):
        _file(files, one, ranks)
        files.units = one.what.unit or files.units
    folders = [part.partition("-") for part in home.split("/") if re.match(r"(?:sub|ses)-", part)]
    own = tags | {key: value for key, _, value in folders}
    fitting = [one for one in beside if one.what.tags.items() <= own.items()]
    for one in sorted(fitting, key=lambda one: (one.what.rank, -len(one.what.tags), one.relative)):
        if one.what.role not in ("ratio", "other"):
            _file(files, one, ranks)
    if any(one.what.unit == "Hz" for one in fitting if one.path in files.fwhm.values()):
        files.fwhm_unit = "Hz"
    if files.layout == "fsl_mrsi":
        _borrow(files)
        files.units = unit_in_place(used[0].path) or files.units
    if ALL_MAPS not in files.maps:
        if ALL_MAPS in files.crlb:
            files.unused.append(Unused(files.crlb.pop(ALL_MAPS), "a stack in which the order of the maps is not known"))
        for table in (files.crlb, files.snr, files.fwhm):
            for name in [name for name in table if name != ALL_MAPS and name not in files.maps]:
                del table[name]
    return files


def _file(files: MapFiles, one: Found, ranks: dict[str, int]) -> None:
    """File a path under its role; ``ranks`` keeps those of the maps.

    Two maps of one name are a problem, unless they lie in two trees of which one goes first. Of other roles the first
    by rank is taken.
    """
    table, role = files.table(one.what.role), one.what.role
    key = role if table is files.single else one.what.name
    if key not in table:
        table[key] = one.path
        if role == "map":
            ranks[key] = one.what.rank
        return
    other = table[key]
    what = f"{role} of {one.what.name}" if table is not files.single else role
    if role == "map" and (one.what.layout != "bids" or one.what.rank == ranks[key]):
        files.problem = files.problem or (
            f"{other.name} and {one.path.name} both match the {what}. Keep one of them in the folder, or pass the "
            "files by name (--map)."
        )
    files.unused.append(Unused(one.path, f"{other.name} is taken for the {what}"))


def _borrow(files: MapFiles) -> None:
    """fsl_mrsi has no QC of combined maps: the QC of their main component is used."""
    for role in ("snr", "fwhm"):
        table = files.table(role)
        for total, parts in STAND_INS.items():
            if total in files.maps and total not in table:
                table |= {total: table[part] for part in parts[::-1] if part in table}  # noqa: B035 - the first part stays


def _list_unused(sets: Sequence[tuple[MapFiles, str, dict[str, str]]], found: Sequence[Found]) -> None:
    """Give every file that no set uses to the set that it lies beside (else to the first one) with its reason."""
    known = {path for files, _, _ in sets for path in [*files.paths(), *(left.path for left in files.unused)]}
    for one in found if sets else ():
        if one.path in known or (one.what.role in _QUALITY and not _near(sets, one)):
            continue  # quality files of a place without maps are a set of their own, with a problem
        reason = one.what.reason or _why_left(one.what)
        (_near(sets, one) or list(sets))[0][0].unused.append(Unused(one.path, reason, one.what.lost))
    for files, _, _ in sets:
        for path in files.paths():
            if (why := unfetched(path)) is not None:
                files.unused.append(Unused(path, why.partition(": ")[2].rstrip("."), problem=True))


def _why_left(what: Finding) -> str:
    if what.role == "anatomy":
        return "an anatomical image in a folder without maps; name it with --anatomy"
    return f"there is no map of {what.name} that it belongs to" if what.name != ALL_MAPS else "it serves no map here"


def _near(
    sets: Sequence[tuple[MapFiles, str, dict[str, str]]], one: Found
) -> list[tuple[MapFiles, str, dict[str, str]]]:
    """Sets of the place of a file, those of its own subject or identifier first."""
    near = [entry for entry in sets if entry[1] in (one.home, one.beside) or is_above(entry[1], one.home)]
    own = [entry for entry in near if set(one.what.tags.items()) & set(entry[2].items())]
    return own or [entry for entry in near if not (one.what.tags.get("sub") and entry[2].get("sub"))]


def _quality_alone(found: Sequence[Found], places: Iterable[tuple[str, object]]) -> list[MapFiles]:
    """Places that have quality files but no map by name, among others that have: a subject that would else be lost."""
    homes = {home for home, _ in places}
    lone: dict[str, list[Found]] = {}
    for one in found:
        if one.what.role in _QUALITY and one.home not in homes and not any(is_above(home, one.home) for home in homes):
            if one.what.layout != "bids":
                lone.setdefault(one.home, []).append(one)
    return [
        MapFiles(
            label=home.replace("/", "_"),
            problem=f"{home}: has quality files ({group[0].path.name} ...) but no map by name. Rename the maps, or "
            "give them by hand (--map NAME=FILE).",
        )
        for home, group in lone.items()
        if homes and home
    ]
