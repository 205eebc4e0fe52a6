"""Finding sets of maps in a folder: which files belong together, what each of them holds, and what was left out.

The names are read by the table in :mod:`~mrsi_fast.mrsi.schemes`, files become sets in
:mod:`~mrsi_fast.mrsi.grouping`. Images are not opened.

- Files belong to one set if they lie in one place and carry the same identifier or the same BIDS entities. Folders that
  only sort files by what they hold (``concs/raw``, ``crlb``, ``Orig``, ``mrsi``) do not part them.
- A quality file serves every set of its place whose identifier or entities include its own.
- A set is made of one version of the maps (acquired before filtered, the preferred fsl_mrsi scaling).
- What is not used is listed with the reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from mrsi_fast.mrsi.findings import ALL_MAPS, Finding
from mrsi_fast.mrsi.foreign import describe_folder
from mrsi_fast.mrsi.grouping import Found, group, is_above, label_of
from mrsi_fast.mrsi.images import image_stem, is_image
from mrsi_fast.mrsi.lcmodel import is_table, place_of
from mrsi_fast.mrsi.mapfiles import MapFiles, Unused
from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.mrsi.names import is_known
from mrsi_fast.mrsi.patterns import Pattern
from mrsi_fast.mrsi.schemes import FSL_SCALINGS, classify, split_name

_MAX_DEPTH = 10
_SORTING_FOLDER = re.compile(
    r"concs?|raw|internal|molarity|molality|uncertainties|qc|quality|maps?|orig|extras?|crlbs?|sd|std|snr|fwhm|masks?"
    r"|(?:crlb|conc|concs|snr|fwhm|sd|ratio|metabolite|met)_?maps|ratios?|amps?|metabolites|nifti|nii|confounds|anat|mrs|mrsi"
    r"|csi|spectroscopy|orig-.*|(?:.*_)?(?:clip|filt|smooth)\w*|tables?|coords?|lcm(?:odel)?|sl(?:ice)?_?\d+",
    re.IGNORECASE,
)
"""Folders that sort files by what they hold; they do not part sets."""
_ROLE_FOLDER = re.compile(
    r"(?:concs?|crlbs?|snr|fwhm|(?:brain|q)?_?masks?|ratios?|z_?scores?)(?:[\s_-]?maps?)?", re.IGNORECASE
)
"""Folders whose name alone tells what the files in and below them hold."""
_DATASET_FOLDER = re.compile(
    r"derivatives|rawdata|sourcedata|mrsi-\w+|mrsiprep|skullstrip|cat12|mrsi_fast", re.IGNORECASE
)
_MAPS_FOLDER = re.compile(r"concs|conc_maps|orig", re.IGNORECASE)
"""Folders of maps whose quality files lie in folders beside them: given one, the search starts above."""
_SKIPPED = frozenset({"__MACOSX", "__pycache__", "node_modules", "site-packages"})


def discover(folder: str | Path, scaling: str | None = None, patterns: Sequence[Pattern] = ()) -> list[MapFiles]:
    """Find every set of maps in a folder and below it.

    Args:
        folder: A folder of maps, an fsl_mrsi output (or a folder in it), a BIDS-like tree, a cohort of any of these,
            or a folder of LCModel's tables.
        scaling: For fsl_mrsi, the scaling to take; default the first of :data:`FSL_SCALINGS` that is there.
        patterns: The user's own naming schemes, which go before the table's.

    Returns:
        One entry per acquisition, sorted by label; those that cannot be used have a ``problem``.

    Raises:
        MapInputError: There is no map, or none that can be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MapInputError(f"{folder.name}: there is no such folder. Check the path.")
    if folder.name in ("", ".", ".."):
        folder = folder.resolve()
    start = _start(folder)
    files, others, failed = _walk(start)
    found = [_look_at(path, start, patterns) for path in files]
    if start != folder:
        scaling = scaling or (folder.name.lower() if folder.name.lower() in FSL_SCALINGS else None)
        found = [one for one in found if one.what.role != "map" or folder in one.path.parents or scaling]
    sets = group(found, scaling) + _table_sets(found, others, start)
    closed = [
        Unused(Path(one.filename), f"a folder that cannot be read ({one.strerror})", problem=True) for one in failed
    ]
    if not sets:
        raise MapInputError(
            " ".join([_nothing(folder, found, others), *(f"{c.path.name}: {c.reason}." for c in closed)])
        )
    sets[0].unused += closed
    if all(one.problem for one in sets):
        raise MapInputError(" ".join(str(one.problem) for one in sets))
    return sorted(
        sets, key=lambda one: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", one.label)]
    )


def discover_files(paths: Sequence[str | Path]) -> list[MapFiles]:
    """Group files that were given one by one into sets, as if they lay alone in their folders.

    Returns:
        Sets; a file that is no map, and serves none, is a set of its own with a ``problem``.
    """
    given = list(dict.fromkeys(Path(path) for path in paths))
    start = Path(os.path.commonpath([os.path.abspath(path.parent) for path in given])) if given else Path()
    tables = [path for path in given if is_table(path)]
    found = [_look_at(path, start, ()) for path in given if path not in tables]
    grouped = group(found, nested=True)
    used = {path for one in grouped for path in one.paths()}
    for one in grouped:
        one.unused = [left for left in one.unused if left.problem]
    reasons = {one.path: one.what.reason or refusal(one.what) for one in found if one.path not in used}
    refused = [MapFiles(label=image_stem(path), problem=f"{path.name}: {why}.") for path, why in reasons.items()]
    return [one for one in grouped if one.paths()] + _table_sets([], tables, start) + refused


def quality_beside(maps: Sequence[Path], given: Sequence[Path]) -> list[Unused]:
    """Quality files of maps that were given one by one, which lie beside them and are not among what was given."""
    wanted = [what for path in maps if (what := content_of(path)).role == "map"]
    left: list[Unused] = []
    for folder in dict.fromkeys(path.parent for path in maps):
        try:
            others = sorted(path for path in folder.iterdir() if is_image(path) and path not in given)
        except OSError:
            continue
        for path in others:
            what = content_of(path)
            fits = [
                one for one in wanted if what.name in (ALL_MAPS, one.name) and what.tags.items() <= one.tags.items()
            ]
            if what.role in ("crlb", "snr", "fwhm") and fits:
                left.append(Unused(path, f"was not given; give the folder, or --{what.role}, to use it"))
    return left


def content_of(path: Path) -> Finding:
    """What a lone file holds: by its name, and by that of its folder where it tells (``crlb/tNAA.nii.gz``)."""
    near = Path(os.path.abspath(path)).parent.name
    return classify(f"{near}/{image_stem(path)}" if _ROLE_FOLDER.fullmatch(near) else image_stem(path))


def is_named(path: Path) -> bool:
    """Whether a file's name matches a scheme, or it is one of LCModel's tables."""
    if is_table(path):
        return True
    what = content_of(path)
    return is_image(path) and not (what.role == "other" and what.reason.startswith("no "))


NOUNS: dict[str, str] = {
    "map": "a map of a metabolite",
    "crlb": "an uncertainty (CRLB, %SD)",
    "snr": "a signal-to-noise ratio",
    "fwhm": "a linewidth",
    "mask": "a mask",
    "lipid": "a lipid mask",
    "failed": "a mark of failed fits",
    "anatomy": "an anatomical image",
    "ratio": "a ratio",
}
"""Role -> what a file of it is called in sentences."""


def refusal(what: Finding) -> str:
    """Why a file that was given as a map is none, to be read after a colon."""
    if what.role in ("ratio", "other"):
        return what.reason
    options = {"crlb": "--crlb", "snr": "--snr", "fwhm": "--fwhm", "mask": "--mask", "anatomy": "--anatomy"}
    if what.role == "map":
        return "a second file for one map"
    step = f": give it with {options[what.role]} beside a map" if what.role in options else ""
    return f"{NOUNS[what.role]} by its name, not a map of concentrations{step}"


UNNAMED = "map"
"""Name of the map of a lone file or array that nobody named."""


def name_from_file(path: str | Path) -> str:
    """Metabolite name that a map's file name carries, by the table of naming schemes.

    Returns:
        The canonical name; :data:`UNNAMED` where nothing in it is known, or where the file is no map by its name: a
        name of a person must not become one of a metabolite, in every file and picture of the result.
    """
    what = content_of(Path(path))
    return what.name if what.role == "map" and what.name != ALL_MAPS else UNNAMED


def names_in(stem: str, count: int) -> tuple[str, ...]:
    """Names of a stack's volumes from its file name (``NAA_Cr_Cho``); empty unless it names ``count`` metabolites."""
    parts = [parted[1] for part in re.split(r"[_\s]+", stem) if (parted := split_name(part))]
    return tuple(parts) if len(parts) == count == len(set(parts)) else ()


def _start(folder: Path) -> Path:
    """Where to search from: above a folder of maps whose quality files lie beside it."""
    if folder.parent.name.lower() == "concs" and folder.name.lower() in FSL_SCALINGS:
        return folder.parent.parent
    if folder.name.lower() == "concs" or (_MAPS_FOLDER.fullmatch(folder.name) and any(map(is_image, folder.iterdir()))):
        return folder.parent
    return folder


def _walk(start: Path) -> tuple[list[Path], list[Path], list[OSError]]:
    """Images and other files below a folder, without hidden ones, and the folders in it that cannot be read.

    Links to folders are followed, loops are not.
    """
    images: list[Path] = []
    others: list[Path] = []
    failed: list[OSError] = []
    seen: set[str] = set()
    for where, folders, names in os.walk(start, followlinks=True, onerror=failed.append):
        real = os.path.realpath(where)
        depth = len(Path(where).relative_to(start).parts)
        if real in seen or depth > _MAX_DEPTH:
            folders[:] = []
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED)
        paths = [Path(where) / name for name in sorted(names) if not name.startswith(".")]
        images += [path for path in paths if is_image(path) and not _is_second_half(path, names)]
        others += [path for path in paths if not is_image(path)]
    return images, others, failed


def _is_second_half(path: Path, names: Iterable[str]) -> bool:
    """The .img of a .hdr/.img pair, which counts once."""
    if path.suffix.lower() != ".img":
        return False
    return path.with_suffix(".hdr").name.casefold() in {name.casefold() for name in names}


def _look_at(path: Path, start: Path, patterns: Sequence[Pattern]) -> Found:
    relative = _below(path, start)
    parent = relative.rpartition("/")[0]
    stem = f"{parent}/{image_stem(path)}".lstrip("/")
    what = next((taken for one in patterns if (taken := one.read(relative)) is not None), None)
    what = what or classify(f"{start.name}/{stem}" if _ROLE_FOLDER.fullmatch(start.name) else stem)
    return Found(path, stem, what, _home(parent, what.layout), _home(parent, ""))


def _below(path: Path, start: Path) -> str:
    return Path(os.path.abspath(path)).relative_to(os.path.abspath(start)).as_posix()


def _home(parent: str, layout: str) -> str:
    """The place of a set: the folder without those that only sort files, in BIDS trees without those of a subject."""
    parts = parent.split("/") if parent else []
    if layout == "bids":
        first = next((number for number, part in enumerate(parts) if re.match(r"(?:sub|ses)-", part)), len(parts))
        parts = parts[:first]
        while parts and (_DATASET_FOLDER.fullmatch(parts[-1]) or _SORTING_FOLDER.fullmatch(parts[-1])):
            if parts[-2:-1] == ["derivatives"] and not _DATASET_FOLDER.fullmatch(parts[-1]):
                break  # another pipeline's derivatives
            parts.pop()
        return "/".join(part for part in parts if part != "derivatives")
    parts = [part for part in parts if not _ROLE_FOLDER.fullmatch(part)]  # crlb/P07 is the place of conc/P07
    while parts and (_SORTING_FOLDER.fullmatch(parts[-1]) or is_known(parts[-1])):
        parts.pop()
    return "/".join(parts)


def _table_sets(found: Sequence[Found], others: Sequence[Path], start: Path) -> list[MapFiles]:
    """Sets of LCModel's tables, for places that have no maps as images."""
    taken = {one.home for one in found if one.what.role == "map"}
    places: dict[tuple[str, str], list[Path]] = {}
    for path in others:
        if is_table(path):
            relative = _below(path, start)
            home = _home(relative.rpartition("/")[0], "lcmodel")
            if home not in taken and not any(is_above(other, home) for other in taken):
                places.setdefault((home, place_of(relative).id), []).append(path)
    voxelwise = {home for (home, _), paths in places.items() if any(path.suffix.lower() != ".csv" for path in paths)}
    runs = {key: paths for key, paths in places.items() if key[0] not in voxelwise or paths[0].suffix.lower() != ".csv"}
    common = os.path.commonpath([home for home, _ in runs]) if runs else ""
    several = len(runs) > 1 or bool(taken)
    return [
        MapFiles(
            "lcmodel",
            label_of(home.removeprefix(common).strip("/"), {"id": own} if own and several else {}),
            tables=sorted(paths),
        )
        for (home, own), paths in runs.items()
    ]


def _nothing(folder: Path, found: Sequence[Found], others: Sequence[Path]) -> str:
    """Why no map was found, with what lies there instead."""
    if (folder / "concs").is_dir():
        return f"{folder.name}: its folder concs holds no map (.nii or .nii.gz). Check that fsl_mrsi finished."
    start = f"{folder.name}: no metabolite map was found by name."
    instead = describe_folder(list(others)) if not found else ""
    if instead:
        return f"{start} {instead}"
    listed = "; ".join(f"{one.path.name}: {one.what.reason or refusal(one.what)}" for one in found[:4])
    more = f" and {len(found) - 4} more" if len(found) > 4 else ""
    there = f" Not used: {listed}{more}." if found else ""
    return (
        f"{start}{there} Known are conc_<name>.nii.gz, <id>_<name>.nii.gz and <name>.nii.gz with a usual metabolite "
        "name, fsl_mrsi output folders, BIDS-like ..._met-<name>_desc-signal_mrsi.nii.gz and LCModel tables; or name "
        "the files by hand (--map NAME=FILE), or their pattern (--pattern)."
    )
