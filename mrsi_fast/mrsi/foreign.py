"""Files that are no readable map: what they are, and the next step for whoever has them. One sentence each."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from mrsi_fast.files import open_regular

_FIT = "Convert them with spec2nii, fit them with fsl_mrsi, LCModel or Osprey, and give the fitted maps"
_DICOM = "Convert maps with dcm2niix; spectra with spec2nii, then fit them and give the fitted maps"
_TABLES = "Give the .table, .csv or .coord files of the same run, with --like IMAGE for the grid"
_ANNEX = "Fetch it: git annex get, or datalad get."
_PLACE = "and no place in the head: save NIfTI with an affine, or in Python give (array, affine)"


@dataclass(frozen=True)
class Kind:
    """One kind of file that is not read.

    Attributes:
        what: What it holds.
        step: What to do with it.
        suffix: Regular expression for the end of the name, case apart; empty if only its first bytes tell.
        start: First bytes, at ``offset``.
    """

    what: str
    step: str
    suffix: str = ""
    start: bytes = b""
    offset: int = 0


KINDS: tuple[Kind, ...] = (
    Kind("DICOM data", _DICOM, r"\.(?:dcm|ima)", b"DICM", 128),
    Kind("Siemens spectra", _FIT, r"\.rda|meas_.*\.dat"),
    Kind("Philips spectra", _FIT, r"\.(?:sdat|spar|sin|lab|list|data)"),
    Kind("GE spectra", _FIT, r"P\d{4,}\.7|\.7"),
    Kind("Bruker data", _FIT, r"2dseq|fid|ser|fid_proc\.64|acqp"),
    Kind("spectra for a fitting program", "Fit them and give the fitted maps", r"\.(?:raw|h2o|mrui|mrs|basis|rfd|tqn)"),
    Kind("LCModel's printed output", _TABLES, r"\.(?:ps|print|control|corraw|coraw)"),
    Kind("an NRRD image", "Convert it to NIfTI, e.g. with 3D Slicer or SimpleITK", r"\.(?:nrrd|nhdr)", b"NRRD"),
    Kind("a MetaImage", "Convert it to NIfTI, e.g. with 3D Slicer or SimpleITK", r"\.(?:mha|mhd)"),
    Kind("a MINC image", "Convert it to NIfTI with mnc2nii", r"\.mnc2?"),
    Kind("an AFNI image", "Convert it to NIfTI with 3dAFNItoNIFTI", r"\.(?:brik|head)(?:\.gz)?"),
    Kind("a Philips PAR/REC image", "Convert it to NIfTI with dcm2niix", r"\.(?:par|rec)"),
    Kind("a NumPy array", f"It has an array alone {_PLACE}", r"\.np[yz]", b"\x93NUMPY"),
    Kind("a MATLAB file", f"It has arrays alone {_PLACE}", r"\.mat", b"MATLAB"),
    Kind("HDF5 data", f"It has arrays alone {_PLACE}", r"\.(?:h5|hdf5?)", b"\x89HDF"),
    Kind("a picture", "Give the map that it was drawn from, as NIfTI", r"\.(?:tiff?|png|jpe?g|bmp|gif|svg|pdf)"),
    Kind("an archive", "Unpack it and give the folder", r"\.(?:zip|tar|tgz|tar\.gz|7z|rar)", b"PK\x03\x04"),
    Kind("a MIDAS project", "Export its maps as NIfTI", r"\.(?:sid|xml)"),
    Kind("a table", "Of tables, LCModel's are read (.table, .csv, .coord)", r"\.(?:xlsx?|ods)"),
)  # fmt: skip
"""Kinds of file that users have and this package does not read, the most telling first."""

_SPECTRA = frozenset(kind.what for kind in KINDS if "it them" in kind.step)


def kind_of(path: Path) -> Kind | None:
    """Tell what a file is that is no NIfTI image, by its name, else by its first bytes."""
    name = path.name.lower()
    for kind in KINDS:
        if kind.suffix and re.search(rf"(?:{kind.suffix.lower()})$", name):
            return kind
    try:
        with open_regular(path) as stream:
            head = stream.read(256)
    except OSError:
        return None
    return next((kind for kind in KINDS if kind.start and head[kind.offset :].startswith(kind.start)), None)


def describe(path: Path) -> str | None:
    """One sentence on a file that cannot be read as a map, with the next step; None where nothing is known of it."""
    kind = kind_of(path)
    return None if kind is None else f"{path.name}: holds {kind.what}, not a map that can be read here. {kind.step}."


def describe_folder(names: list[Path]) -> str:
    """What a folder without maps holds instead, with the next step; empty where nothing is known of its files."""
    counts: dict[Kind, int] = {}
    for path in names[:200]:
        if kind := kind_of(path):
            counts[kind] = counts.get(kind, 0) + 1
    telling = {kind: n for kind, n in counts.items() if kind.what in _SPECTRA} or counts
    if not telling:
        return ""
    kind = max(telling, key=lambda one: telling[one])
    files = "file" if telling[kind] == 1 else "files"
    return f"It holds {telling[kind]} {files} of another kind ({kind.what}). {kind.step}."


def unfetched(path: Path) -> str | None:
    """Why a file has no content here, as a sentence: a broken link or a pointer of git-annex or Git LFS; else None."""
    if path.is_symlink() and not path.exists():
        target = os.readlink(path)
        if "annex" in target:
            return f"{path.name}: its content is not here (a link into git-annex). {_ANNEX}"
        return f"{path.name}: is a broken link to {Path(target).name}. Restore the file, or remove the link."
    try:
        if not path.is_file() or not 0 < path.stat().st_size < 1024:
            return None
        head = path.read_bytes()
    except OSError as error:
        return f"{path.name}: cannot be read ({(error.strerror or str(error)).lower()}). Check its permissions."
    if head.startswith(b"version https://git-lfs"):
        return f"{path.name}: its content is not here (a Git LFS pointer). Fetch it: git lfs pull."
    if b"/annex/objects/" in head and b"\n" in head + b"\n" and len(head.split()) <= 2:
        return f"{path.name}: its content is not here (a git-annex pointer). {_ANNEX}"
    return None
