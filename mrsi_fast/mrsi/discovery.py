"""Finding the maps and their quality files in a folder by name: pure path logic, nothing is opened.

Three layouts are known:

- ``fsl_mrsi`` trees (FSL-MRS): ``concs/<scaling>/<Met>.nii.gz``, ``uncertainties/<Met>_sd.nii.gz`` (percent),
  ``qc/<Met>_{snr,fwhm}.nii.gz`` (fwhm in Hz), ``qc/fit_failed.nii.gz``;
- BIDS-like derivatives as MRSIPrep names them:
  ``sub-*_ses-*_space-orig[_res-*]_met-<Met>_desc-{signal,crlb,snr,fwhm}_mrsi.nii.gz``;
- a flat folder: ``conc_<Met>`` or plain ``<Met>``, with ``crlb_<Met>``, ``snr``, ``fwhm``, ``mask``, ``lipid_mask``,
  ``T1``.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.mrsi.names import ALIASES, STAND_INS, canonical_name

Role = Literal["map", "crlb", "snr", "fwhm", "mask", "lipid", "failed", "anatomy"]

ALL_MAPS = "*"
"""Key of an SNR or linewidth file that holds for every map."""

FSL_SCALINGS: dict[str, str] = {"molarity": "mM", "molality": "mmol/kg", "raw": "i.u.", "internal": "ratio to tCr"}
"""fsl_mrsi scalings in order of preference, with their units.

``internal`` comes last: it divides by the reference metabolite of the same voxel, and a ratio is not what the scanner
averages over a voxel, so the acquisition model does not hold for it.
"""

_MAX_DEPTH = 6
_DESC_ROLES: dict[str, Role] = {"signal": "map", "crlb": "crlb", "snr": "snr", "fwhm": "fwhm", "brain": "mask"}
_FLAT_PATTERNS: tuple[tuple[Role, str], ...] = (
    ("map", r"(?:conc|signal|map)[_-](?P<met>.+)"),
    ("crlb", r"(?:crlb|sd)[_-](?P<met>.+)|(?P<met2>.+)[_-](?:crlb|sd)"),
    ("snr", r"snr(?:[_-](?P<met>.+))?|(?P<met2>.+)[_-]snr"),
    ("fwhm", r"(?:fwhm|linewidth)(?:[_-](?P<met>.+))?|(?P<met2>.+)[_-](?:fwhm|linewidth)"),
    ("mask", r"(?:brain|mrsi)?[_-]?mask"),
    ("lipid", r"lipids?[_-](?:mask|flag)"),
    ("failed", r"fit[_-]failed"),
    ("anatomy", r"T1w?(?:[_-](?:bet|brain))?|.+_T1w"),
)


@dataclass
class MapFiles:
    """The files of one acquisition, by what they hold.

    Attributes:
        layout: Which of the three layouts was recognised.
        label: What tells this set from others in the same folder (``sub-01_ses-01``), empty for a flat folder.
        maps, crlb: Canonical metabolite name -> file.
        snr, fwhm: The same, or :data:`ALL_MAPS` -> file.
        single: Files that occur once: roles ``mask``, ``lipid``, ``failed``, ``anatomy``.
        units: Units of the maps, where the layout says so.
        fwhm_unit: ``Hz`` for fsl_mrsi, else ``ppm``.
    """

    layout: Literal["fsl_mrsi", "bids", "folder"]
    label: str = ""
    maps: dict[str, Path] = field(default_factory=dict)
    crlb: dict[str, Path] = field(default_factory=dict)
    snr: dict[str, Path] = field(default_factory=dict)
    fwhm: dict[str, Path] = field(default_factory=dict)
    single: dict[str, Path] = field(default_factory=dict)
    units: str = "i.u."
    fwhm_unit: Literal["ppm", "Hz"] = "ppm"

    def add(self, role: Role, name: str, path: Path) -> None:
        """File a path under its role; a second file for the same place is an error that names both.

        Raises:
            MapInputError: The place is taken.
        """
        table: dict = {"map": self.maps, "crlb": self.crlb, "snr": self.snr, "fwhm": self.fwhm}.get(role, self.single)
        key = name if table is not self.single else role
        if key in table and table[key] != path:
            what = f"{role} of {name}" if table is not self.single else role
            raise MapInputError(
                f"{table[key].name} and {path.name} both look like the {what}. Keep one of them in the "
                "folder, or pass the files by name."
            )
        table[key] = path


def discover(folder: str | Path, scaling: str | None = None) -> list[MapFiles]:
    """Find every set of maps in a folder.

    Args:
        folder: A flat folder, an fsl_mrsi output (or its ``concs`` or ``concs/<scaling>`` folder), or a folder
            with BIDS-like names at any level below it (to a depth of six).
        scaling: For fsl_mrsi, the scaling to take; default the first of :data:`FSL_SCALINGS` that is there.

    Returns:
        One entry per acquisition, sorted by label; more than one only for BIDS-like folders.

    Raises:
        MapInputError: No map was found, or two files claim to be the same one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MapInputError(f"{folder.name}: there is no such folder. Check the path.")
    if (root := _fsl_root(folder)) is not None:
        if root != folder and folder.parent.name == "concs":
            scaling = scaling or folder.name
        return [_discover_fsl(root, scaling)]
    found = [files for files in _discover_bids(folder) if files.maps] or [_discover_flat(folder)]
    if not found[0].maps:
        raise MapInputError(
            f"{folder.name}: no metabolite map was found by name. Known are conc_<name>.nii.gz, "
            "<name>.nii.gz with a usual metabolite name, fsl_mrsi output folders, and BIDS-like "
            "..._met-<name>_desc-signal_mrsi.nii.gz; or pass the files by name."
        )
    return found


def name_from_file(path: str | Path) -> str:
    """Metabolite name that a map's file name carries: its ``met-`` entity, what follows ``conc_``, or a known name.

    Returns:
        The canonical name; the whole stem where nothing in it is known.
    """
    stem = _stem(Path(path))
    if met := _entities(stem).get("met"):
        return canonical_name(met)
    if match := re.fullmatch(_FLAT_PATTERNS[0][1], stem, re.IGNORECASE):
        return canonical_name(match["met"])
    known = {canonical_name(part) for part in [stem, *stem.split("_")] if _is_known(part)}
    return known.pop() if len(known) == 1 else stem


def _stem(path: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def _is_known(name: str) -> bool:
    return bool(re.search(r"[0-9A-Za-z]", name)) and canonical_name(name) in ALIASES


def _nifti_files(folder: Path) -> list[Path]:
    """NIfTI files of one folder, without hidden ones (``._x`` copies, unfinished writes)."""
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name.lower().endswith((".nii", ".nii.gz")) and path.is_file()
    )


def _by_metabolite(files: Iterable[Path], suffix: str = "") -> Iterator[tuple[str, Path]]:
    for path in files:
        stem = _stem(path)
        if stem.endswith(suffix) and len(stem) > len(suffix):
            yield canonical_name(stem.removesuffix(suffix)), path


def _fsl_root(folder: Path) -> Path | None:
    candidates = {folder.name: folder.parent, folder.parent.name: folder.parent.parent}
    if (folder / "concs").is_dir():
        return folder
    return candidates.get("concs")


def _discover_fsl(root: Path, scaling: str | None) -> MapFiles:
    there = [name for name in FSL_SCALINGS if (root / "concs" / name).is_dir()]
    if not there or (scaling is not None and scaling not in there):
        raise MapInputError(
            f"concs: scaling {scaling or 'folders'} not found in this fsl_mrsi output; it has "
            f"{', '.join(there) or 'none'}. Choose one of those."
        )
    chosen = scaling or there[0]
    files = MapFiles("fsl_mrsi", units=FSL_SCALINGS[chosen], fwhm_unit="Hz")
    for name, path in _by_metabolite(_nifti_files(root / "concs" / chosen)):
        files.add("map", name, path)
    if not files.maps:
        raise MapInputError(f"concs/{chosen}: holds no map (.nii or .nii.gz). Check that fsl_mrsi finished.")
    for sub, suffix, role in (("uncertainties", "_sd", "crlb"), ("qc", "_snr", "snr"), ("qc", "_fwhm", "fwhm")):
        for name, path in _by_metabolite(_nifti_files(root / sub) if (root / sub).is_dir() else [], suffix):
            files.add(role, name, path)  # type: ignore[arg-type]
    for table in (files.snr, files.fwhm):  # fsl_mrsi has no QC of combined maps: their main component's stands in
        table.update(
            {
                total: table[part]
                for total, parts in STAND_INS.items()
                if total not in table
                for part in reversed(parts)
                if part in table
            }
        )
    if (failed := root / "qc" / "fit_failed.nii.gz").is_file():
        files.add("failed", ALL_MAPS, failed)
    return files


def _entities(stem: str) -> dict[str, str]:
    return dict(part.split("-", 1) for part in stem.split("_") if "-" in part and not part.startswith("-"))


def _walk(folder: Path) -> Iterator[Path]:
    """NIfTI files below a folder that have the suffix of a map or mask; links to folders are not followed."""
    for where, folders, names in os.walk(folder):
        depth = len(Path(where).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if depth < _MAX_DEPTH else []
        for name in sorted(names):
            if not name.startswith(".") and re.search(r"_(?:mrsi|mask)\.nii(?:\.gz)?$", name):
                yield Path(where) / name


def _discover_bids(folder: Path) -> list[MapFiles]:
    sets: dict[str, MapFiles] = defaultdict(lambda: MapFiles("bids"))
    rows: dict[tuple[str, Role, str], list[Path]] = defaultdict(list)
    for path in _walk(folder):
        entities = _entities(_stem(path))
        role = _DESC_ROLES.get(entities.get("desc", ""))
        if role is None or entities.get("space", "orig") not in ("orig", "mrsi"):
            continue
        if role == "map" and "met" not in entities:
            continue
        name = canonical_name(entities["met"]) if "met" in entities else ALL_MAPS
        label = "_".join(f"{key}-{value}" for key, value in entities.items() if key not in ("met", "desc", "space"))
        rows[label, role, name].append(path)
    for (label, role, name), paths in rows.items():
        first = [path for path in paths if "mrsi-orig" in path.parts] or paths  # its input tree before its output
        for path in first:
            sets[label].label = label
            sets[label].add(role, name, path)
    return [sets[label] for label in sorted(sets)]


def _discover_flat(folder: Path) -> MapFiles:
    files = MapFiles("folder")
    for path in _nifti_files(folder):
        stem = _stem(path)
        hits = ((role, re.fullmatch(pattern, stem, re.IGNORECASE)) for role, pattern in _FLAT_PATTERNS)
        role, hit = next(((role, hit) for role, hit in hits if hit), (None, None))
        if role is not None and hit is not None:
            groups: dict[str, str | None] = hit.groupdict()
            name = groups.get("met") or groups.get("met2")
            files.add(role, canonical_name(name) if name else ALL_MAPS, path)
        elif _is_known(stem):
            files.add("map", canonical_name(stem), path)
    return files
