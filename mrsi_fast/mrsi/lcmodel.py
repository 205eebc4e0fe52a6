"""LCModel's per-voxel results (``.table``, ``.coord``, ``.csv``) as maps on the grid of another image.

LCModel writes no images: one ``.table`` (and ``.coord``) a voxel, with concentrations, %SD, linewidth and S/N, and a
``.csv`` with a row a voxel. A voxel's place is in the file's name (``sl2_3-4``: slice 2, row 3, column 4) or in the
columns ``Row`` and ``Col``; rows count from the top of the displayed slice, columns from its left, as the scanner shows
it (LCModel manual, multi-voxel data). An image on the same grid gives the position in the head.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from mrsi_fast.files import read_regular
from mrsi_fast.mrsi.geometry import voxel_sizes_mm
from mrsi_fast.mrsi.mapset import Float32, MapInputError
from mrsi_fast.mrsi.names import canonical_name

SUFFIXES = (".table", ".coord", ".csv")
"""In order of preference: a ``.coord`` repeats the ``.table``; a ``.csv`` has neither S/N nor linewidth."""

MAX_BYTES = 2**24
_SLICE = r"sl(?:ice)?[_-]?(?P<slice>\d+)"
_ROWCOL = r"(?:r(?:ow)?[_-]?)?(?P<row>\d+)[_\s-]+(?:c(?:ol)?[_-]?)?(?P<col>\d+)"
_PLACES = (
    re.compile(rf"{_SLICE}[_\s/-]*{_ROWCOL}$", re.IGNORECASE),
    re.compile(rf"r(?:ow)?[_-]?(?P<row>\d+)[_\s-]*c(?:ol)?[_-]?(?P<col>\d+)(?:[_\s-]*{_SLICE})?$", re.IGNORECASE),
    re.compile(r"(?:^|[_\s/])(?P<row>\d+)-(?P<col>\d+)$"),
    re.compile(rf"{_SLICE}$", re.IGNORECASE),
)
_ROW = re.compile(
    r"^\s*(?P<conc>[-+.\dEe]+|NaN|\*+)\s+(?P<sd>\d+|\*+)\s*%\s+(?P<ratio>[-+.\dEe]+|\*+)\s+(?P<name>\S+)\s*$"
)
_HEAD = re.compile(r"lines in following concentration table", re.I)
_FWHM = re.compile(r"FWHM\s*=\s*([-+.\dEe]+)\s*ppm", re.I)
_SNR = re.compile(r"S/N\s*=\s*([-+.\dEe]+)", re.I)
NO_FIT_PERCENT = 999.0


@dataclass(frozen=True)
class Place:
    """Position of a table's voxel, counted from 1; 0 where the name has none."""

    slice: int = 0
    row: int = 0
    col: int = 0
    id: str = ""


@dataclass
class Voxel:
    """What LCModel found in one voxel: name -> (concentration, %SD); S/N and linewidth (ppm), NaN where not written."""

    place: Place
    values: dict[str, tuple[float, float]] = field(default_factory=dict)
    snr: float = float("nan")
    fwhm: float = float("nan")


@dataclass(frozen=True, eq=False)
class TableMaps:
    """Maps made of tables.

    Attributes:
        names: Canonical names, in the order of the tables.
        conc, crlb: [M, X, Y, Z] float32, NaN where there is no table.
        snr, fwhm: [X, Y, Z] float32, or None where no table has them.
        affine: [4, 4], of the image that gave the grid.
        remarks: Sentences for the reader.
    """

    names: tuple[str, ...]
    conc: Float32
    crlb: Float32
    snr: Float32 | None
    fwhm: Float32 | None
    affine: NDArray[np.float64]
    remarks: tuple[str, ...]


def is_table(path: Path) -> bool:
    """Tell whether a file is one of LCModel's tables with a place in a grid, by its name (a ``.csv``: first line)."""
    suffix = path.suffix.lower()
    if suffix in (".table", ".coord"):
        return place_of(path.as_posix()).row > 0
    if suffix != ".csv":
        return False
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as stream:
            first = [cell.strip().lower() for cell in stream.readline(100_000).split(",")]
    except OSError:
        return False
    return {"row", "col"} <= set(first[:3]) and any(cell.endswith("%sd") for cell in first)


def place_of(path: str) -> Place:
    """Read slice, row and column from a file's path; what stands before them in its name is the identifier."""
    stem = re.sub(r"\.\w+$", "", path)
    for pattern in _PLACES:
        if match := pattern.search(stem):
            numbers = {key: int(value) for key, value in match.groupdict().items() if value}
            if "slice" not in numbers and (above := re.search(r"sl(?:ice)?[_-]?(\d+)/[^/]*$", stem, re.I)):
                numbers["slice"] = int(above[1])
            before = stem[: match.start()].rpartition("/")[2] if "/" not in match[0] else ""
            return Place(**numbers, id=before.strip("_- "))
    return Place(id=stem.rpartition("/")[2])


def read_tables(
    paths: Sequence[Path], affine: NDArray[np.float64], shape: Sequence[int], axes: str | None = None
) -> TableMaps:
    """Put the voxels of a run's tables on a grid.

    Args:
        paths: Tables of one run; of each voxel the most telling kind is read (see :data:`SUFFIXES`).
        affine: [4, 4] of the grid, mm.
        shape: Voxels of the grid along X, Y, Z.
        axes: Directions in which rows, columns and slices count, as three of R L A P S I; default by the slices'
            orientation: ``PLS`` (axial: rows to posterior, columns to the left of the patient, slices upwards), ``ILA``
            (coronal) or ``IPL`` (sagittal).

    Returns:
        The maps.

    Raises:
        MapInputError: A table cannot be read, two hold one voxel, or they do not fit the grid.
    """
    voxels, remarks = _read_all(paths)
    if not any(voxel.values for voxel in voxels):
        raise MapInputError(f"{paths[0].name}: holds no voxel's concentrations (nor do the other tables).")
    names = tuple(dict.fromkeys(name for voxel in voxels for name in voxel.values))
    letters = (axes or _default_axes(affine)).upper()
    index = _indices(voxels, affine, tuple(int(n) for n in shape[:3]), letters)
    conc = np.full((len(names), *shape[:3]), np.nan, dtype=np.float32)
    crlb, snr, fwhm = conc.copy(), conc[0].copy(), conc[0].copy()
    for voxel, where in zip(voxels, index, strict=True):
        snr[where], fwhm[where] = voxel.snr, voxel.fwhm
        for number, name in enumerate(names):
            conc[(number, *where)], crlb[(number, *where)] = voxel.values.get(name, (np.nan, NO_FIT_PERCENT))
    if axes is None:
        remarks.append(
            f"rows are taken to count towards {letters[0]}, columns towards {letters[1]}, slices towards {letters[2]}; "
            "--table-axes overrides this"
        )
    if (covered := len(voxels)) < int(np.prod(shape[:3])):
        remarks.append(
            f"{covered} of {int(np.prod(shape[:3]))} voxels of the grid have a table; the others hold no value"
        )
    return TableMaps(
        names, conc, crlb, snr if np.isfinite(snr).any() else None, fwhm if np.isfinite(fwhm).any() else None,
        np.asarray(affine, dtype=np.float64), tuple(remarks),
    )  # fmt: skip


def parse_table(text: str, place: Place) -> Voxel:
    """Read a ``.table`` or the tables in a ``.coord`` file; a voxel without a concentration table has no values."""
    voxel, lines = Voxel(place), iter(text.splitlines())
    for line in lines:
        if _HEAD.search(line):
            break
    for line in lines:
        if match := _ROW.match(line):
            percent = _number(match["sd"])
            _put(voxel, match["name"], _number(match["conc"]), percent if percent == percent else NO_FIT_PERCENT)
        elif voxel.values and ("$$" in line or "misc" in line):
            break
    if match := _FWHM.search(text):
        voxel.fwhm = _number(match[1])
    if match := _SNR.search(text):
        voxel.snr = _number(match[1])
    return voxel


def _number(text: str) -> float:
    """A number as Fortran writes it; NaN for the asterisks of one that did not fit its columns."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def parse_csv(text: str, where: str, place: Place) -> list[Voxel]:
    """Read LCModel's spreadsheet: columns ``Row, Col, <name>, <name> %SD, <name>/<reference>``, a line a voxel.

    Raises:
        MapInputError: A row is cut short or holds no numbers.
    """
    try:
        table = list(csv.reader(io.StringIO(text), skipinitialspace=True))
    except csv.Error as error:
        raise MapInputError(f"{where}: cannot be read as a table ({error}). Check the file.") from error
    heads = [cell.strip() for cell in table[0]] if table else []
    column = {head.lower(): number for number, head in enumerate(heads)}
    names = [head for head in heads if f"{head} %sd".lower() in column]
    voxels = []
    for number, cells in enumerate(table[1:], 2):
        if not any(cell.strip() for cell in cells):
            continue
        try:
            numbers = [float(cell) if cell.strip() else float("nan") for cell in cells]
            row, col = int(numbers[column["row"]]), int(numbers[column["col"]])
            sl = int(numbers[column["slice"]]) if "slice" in column else place.slice
            voxel = Voxel(Place(sl, row, col, place.id))
            for name in names:
                _put(voxel, name, numbers[column[name.lower()]], numbers[column[f"{name} %sd".lower()]])
        except (ValueError, IndexError, KeyError, OverflowError) as error:
            raise MapInputError(
                f"{where}: its line {number} cannot be read ({error}). Check whether it is cut."
            ) from error
        voxels.append(voxel)
    return voxels


def _put(voxel: Voxel, name: str, conc: float, percent: float) -> None:
    try:
        key = canonical_name(name)
    except ValueError:
        return
    if key not in voxel.values or "+" in name:  # where a part shares the total's name (Cho), the sum is the total
        voxel.values[key] = (conc, percent)


def _read_all(paths: Sequence[Path]) -> tuple[list[Voxel], list[str]]:
    root = Path(*Path(paths[0]).parts[:-3])
    chosen = next(kind for kind in SUFFIXES if any(path.suffix.lower() == kind for path in paths))
    voxels: list[Voxel] = []
    failed = 0
    for path in [path for path in paths if path.suffix.lower() == chosen]:
        relative = path.relative_to(root).as_posix() if root in path.parents else path.name
        place, text = place_of(relative), _text(path)
        read = parse_csv(text, path.name, place) if chosen == ".csv" else [parse_table(text, place)]
        failed += sum(not voxel.values for voxel in read)
        voxels += read
    twice = [place for place, n in Counter((v.place.slice, v.place.row, v.place.col) for v in voxels).items() if n > 1]
    if twice:
        sl, row, col = twice[0]
        raise MapInputError(
            f"{paths[0].parent.name}: {len(twice)} voxels have more than one table, first slice {sl or 1} row {row} "
            f"column {col}. Give the tables of one run, or put each slice's into a folder of its own (sl1, sl2 ...)."
        )
    remarks = [f"{failed} tables hold no concentrations (no fit)"] if failed else []
    return voxels, remarks


def _text(path: Path) -> str:
    try:
        raw = read_regular(path, MAX_BYTES)
        if len(raw) > MAX_BYTES:
            raise MapInputError(f"{path.name}: is over {MAX_BYTES} bytes, which no table is. Check the file.")
        return raw.decode("utf-8-sig", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise MapInputError(f"{path.name}: cannot be read ({error.strerror or error}).") from error


def _default_axes(affine: NDArray[np.float64]) -> str:
    """Rows, columns and slices of the plane that the thickest axis of the grid is normal to; axial if there is none."""
    codes = nib.orientations.aff2axcodes(affine)
    sizes = voxel_sizes_mm(affine)
    thick = (
        int(np.argmax(sizes)) if max(sizes) > 1.05 * sorted(sizes)[1] else next(i for i in range(3) if codes[i] in "SI")
    )
    return {"S": "PLS", "I": "PLS", "A": "ILA", "P": "ILA"}.get(str(codes[thick]), "IPL")


def directions_of(letters: str) -> list[str]:
    """The pair of directions (``RL``, ``AP``, ``SI``) that each of three letters belongs to.

    Raises:
        MapInputError: The letters do not name each pair once.
    """
    groups = [next((pair for pair in ("RL", "AP", "SI") if letter in pair), "") for letter in letters.upper()]
    if len(letters) != 3 or set(groups) != {"RL", "AP", "SI"}:
        raise MapInputError(f"table axes {letters}: give three letters, one each of R/L, A/P and S/I, e.g. PLS.")
    return groups


def _indices(
    voxels: Sequence[Voxel], affine: NDArray[np.float64], shape: tuple[int, ...], letters: str
) -> list[tuple[int, int, int]]:
    """Index of each voxel on the grid."""
    groups = directions_of(letters)
    codes = [str(code) for code in nib.orientations.aff2axcodes(affine)]
    axes = [next(axis for axis in range(3) if codes[axis] in pair) for pair in groups]
    flips = [codes[axis] != letter for axis, letter in zip(axes, letters, strict=True)]
    last = max(voxel.place.row for voxel in voxels), max(voxel.place.col for voxel in voxels)
    if all(2 * number <= shape[axis] for number, axis in zip(last, axes[:2], strict=True)):
        raise MapInputError(
            f"the tables end at row {last[0]} and column {last[1]}, but the grid has {shape[axes[0]]} rows and "
            f"{shape[axes[1]]} columns. Give an image on the spectra's own grid (--like), such as a map or a mask."
        )
    result = []
    for voxel in voxels:
        counted = (voxel.place.row, voxel.place.col, voxel.place.slice or 1)
        where = [0, 0, 0]
        for number, axis, flip, what in zip(counted, axes, flips, ("row", "column", "slice"), strict=True):
            if not 1 <= number <= shape[axis]:
                raise MapInputError(
                    f"{what} {number} is outside the grid of {'x'.join(map(str, shape))} voxels (its {what}s are "
                    f"{shape[axis]}). Give an image on the spectra's grid (--like), or the directions (--table-axes)."
                )
            where[axis] = shape[axis] - number if flip else number - 1
        result.append((where[0], where[1], where[2]))
    return result
