"""One image file in, whatever its format: NIfTI by our own careful reader, FreeSurfer's and Analyze's by nibabel.

Also the names that a JSON file beside a stack gives its volumes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
from nibabel.spatialimages import SpatialImage

from mrsi_fast.files import each_key_once
from mrsi_fast.mrsi.foreign import describe, unfetched
from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.mrsi.nifti import MAX_VALUES, Form, Volume, read_nifti, volume_from_image

_SUFFIX = re.compile(r"(?:\.nii\.gz|\.nii|\.mgz|\.mgh|\.mgh\.gz|\.(?:hdr|img)(?:\.gz)?)$", re.IGNORECASE)
_NIFTI = re.compile(r"\.nii(?:\.gz)?$", re.IGNORECASE)
_NAME_KEYS = (
    "metabolites",
    "metabolitenames",
    "metabolite_names",
    "names",
    "labels",
    "maps",
    "channels",
    "volumes",
    "dim_5_info",
)
MAX_JSON_BYTES = 2**22


def is_image(path: Path) -> bool:
    """Tell by its name whether a file is an image that is read here."""
    return bool(_SUFFIX.search(path.name))


def image_stem(path: str | Path) -> str:
    """The name of a file without the suffix of an image format."""
    return _SUFFIX.sub("", Path(path).name)


def read_image(source: str | Path, form: Form = "auto", max_values: int = MAX_VALUES) -> Volume:
    """Read one image file.

    Args:
        source: ``.nii``, ``.nii.gz``, ``.mgz``, ``.mgh``, ``.hdr`` or ``.img`` (NIfTI pair or Analyze).
        form: Orientation to take from a NIfTI header.
        max_values: Largest number of values accepted, checked before the data are read.

    Returns:
        The volume(s), [N, X, Y, Z].

    Raises:
        MapInputError: Anything that keeps the file from being used, with the next step.
    """
    path = Path(source)
    if (problem := unfetched(path)) is not None:
        raise MapInputError(problem)
    if _NIFTI.search(path.name) or not path.is_file():
        return read_nifti(path, form, max_values)
    if _SUFFIX.search(path.name):
        return _read_by_nibabel(path, form, max_values)
    raise MapInputError(
        describe(path) or f"{path.name}: is not an image by its name. Give a .nii, .nii.gz, .mgz or .hdr/.img file."
    )


def _read_by_nibabel(path: Path, form: Form, max_values: int) -> Volume:
    other = {".hdr": ".img", ".img": ".hdr"}.get(path.suffix.lower())
    halves = {name.name.lower() for name in path.parent.iterdir()} if other is not None else set()
    if other is not None and path.with_suffix(other).name.lower() not in halves:
        raise MapInputError(
            f"{path.name}: belongs to a .hdr/.img pair whose other file is not here. Put both into one folder."
        )
    try:
        image = nib.load(path)
    except Exception as error:  # nibabel's parsers raise many types for damaged files
        detail = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise MapInputError(
            f"{path.name}: is not a readable image ({detail}). Copy or export the file again."
        ) from error
    if not isinstance(image, SpatialImage):
        raise MapInputError(f"{path.name}: holds no image on a grid ({type(image).__name__}).")
    volume = volume_from_image(image, path.name, form, max_values)
    if type(image).__name__ in ("AnalyzeImage", "Spm99AnalyzeImage", "Spm2AnalyzeImage"):
        remark = "an Analyze header does not define left and right; check the orientation, or convert it to NIfTI"
        return Volume(volume.data, volume.affine, volume.xform_code, (*volume.remarks, remark))
    return volume


@dataclass(frozen=True)
class StackNames:
    """Content of a JSON file beside a stack: the names of its volumes, and their unit (may be empty)."""

    names: tuple[str, ...]
    units: str = ""


def names_beside(path: str | Path) -> StackNames | None:
    """Names of a stack's volumes from the JSON file of the same name; None where there is none or it has none.

    Raises:
        MapInputError: The JSON file cannot be read.
    """
    sidecar = Path(path).with_name(f"{image_stem(path)}.json")
    if not sidecar.is_file():
        return None
    try:
        if sidecar.stat().st_size > MAX_JSON_BYTES:
            return None
        record = json.loads(sidecar.read_text(encoding="utf-8-sig"), object_pairs_hook=each_key_once)
    except (OSError, ValueError, RecursionError) as error:
        raise MapInputError(f"{sidecar.name}: cannot be read as JSON ({error}). Correct it, or give names.") from error
    if isinstance(record, list):
        record = {"names": record}
    if not isinstance(record, dict):
        return None
    table = {str(key).lower(): value for key, value in record.items()}
    for key in _NAME_KEYS:
        if names := _texts(table.get(key)):
            units = table.get("units", table.get("unit"))
            return StackNames(names, units if isinstance(units, str) else "")
    return None


def _texts(value: Any) -> tuple[str, ...]:
    """A list of names as JSON files hold it: a list, a text with commas, or an object from number to name."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if isinstance(value, dict):
        keys = list(value)
        if keys and all(str(key).strip().isdecimal() for key in keys):
            value = [value[key] for key in sorted(keys, key=lambda key: int(key))]
        elif keys and all(isinstance(one, int) and not isinstance(one, bool) for one in value.values()):
            value = sorted(value, key=lambda key: value[key])
        else:
            return ()
    if isinstance(value, list):
        value = [one.get("name", one.get("Name")) if isinstance(one, dict) else one for one in value]
        if value and all(isinstance(one, str) and one.strip() for one in value):
            return tuple(one.strip() for one in value)
    return ()
