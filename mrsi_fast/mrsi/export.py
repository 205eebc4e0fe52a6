"""Maps out: fresh NIfTI headers that carry nothing of the input's but its place, and JSON sidecars without identities.

Reusing an input's header would copy its description and extensions, and with them a patient's name (NIfTI-MRS keeps it
in the extension of code 44), and would quantise to the input's integer type. Every field written here is chosen here.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike

from mrsi_fast.files import atomic_path, write_text
from mrsi_fast.mrsi.geometry import check_affine
from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.mrsi.names import ALIASES, bids_label, canonical_name

DESCRIPTIONS: dict[str, str] = {
    "mean": "mrsi_fast: super-resolved map, mean",
    "std": "mrsi_fast: standard deviation",
    "sample": "mrsi_fast: one posterior sample",
    "zerofilled": "mrsi_fast: zero-filled interpolation of the measured map",
    "measured": "mrsi_fast: measured map, as read",
    "selftest": "mrsi_fast: self-test, map cut to half its matrix and super-resolved",
    "selftestzerofilled": "mrsi_fast: self-test, map cut to half its matrix and zero-filled",
    "ratio": "mrsi_fast: ratio of super-resolved maps",
    "map": "mrsi_fast: metabolite map",
    "simulated": "mrsi_fast: simulated metabolite map",
}
"""The only texts that reach a header's ``descrip`` (79 characters at most)."""

_ESTIMATE = 1001  # NIFTI_INTENT_ESTIMATE
_PERSONAL_KEYS = frozenset({"host", "hostname", "node", "user", "username", "login", "cwd", "home"})
_EMBEDDED_PATH = re.compile(r"(?<![\w.:/\\~-])(?:~?/|~?\\|[A-Za-z]:[\\/])[^\s'\",;:()]*[\\/][^\s'\",;:()]*")


def write_map(
    path: str | Path,
    volume: ArrayLike,
    affine: ArrayLike,
    *,
    kind: str,
    name: str = "",
    xform_code: int = 1,
    window: tuple[float, float] | None = None,
    inputs: Iterable[str | Path] = (),
    durable: bool = True,
) -> None:
    """Write one map as float32 NIfTI with a header of its own: slope 1, mm, qform = sform.

    Args:
        path: ``.nii`` or ``.nii.gz`` file; an existing file is replaced at once, or left whole if writing fails.
        volume: [X, Y, Z].
        affine: [4, 4], mm. A sheared one is kept in the sform; the qform then holds the nearest orthogonal one.
        kind: Key of :data:`DESCRIPTIONS`.
        name: Metabolite; stored as intent name if it is a known one, else nothing is stored (free text may identify).
        xform_code: NIfTI code of the space, as read from the input; codes outside 1 to 5 become 1 (scanner).
        window: Display range (``cal_min``, ``cal_max``) in the map's units.
        inputs: Files that must not be overwritten.
        durable: As for ``files.atomic_path``.

    Raises:
        MapInputError: The target is one of the inputs or has another suffix, the volume is not 3-D, or the affine is
            unusable.
        OSError: The target cannot be written.
    """
    path = Path(path)
    refuse_overwrite(path, inputs)
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise MapInputError(f"{path.name}: maps are written as .nii or .nii.gz. Choose such a name.")
    data = np.ascontiguousarray(volume, dtype=np.float32)
    if data.ndim != 3:
        raise MapInputError(f"{path.name}: shape {data.shape} cannot be written; one file holds one map [X, Y, Z].")
    matrix = check_affine(affine, path.name)
    code = int(xform_code) if 1 <= int(xform_code) <= 5 else 1
    image = nib.Nifti1Image(data, matrix)
    image.set_sform(matrix, code)
    image.set_qform(matrix, code, strip_shears=True)
    header = image.header
    header.set_xyzt_units("mm")
    header["descrip"] = DESCRIPTIONS[kind].encode()
    canonical = canonical_name(name) if name else ""
    header.set_intent(_ESTIMATE, (), name=bids_label(canonical)[:15] if canonical in ALIASES else "")
    if window is not None:
        header["cal_min"], header["cal_max"] = window
    content = image.to_bytes()
    if path.name.lower().endswith(".gz"):
        # No time or name: equal maps give equal bytes. Level 6 takes 1.7 times as long for files 2.4 % smaller.
        content = gzip.compress(content, compresslevel=1, mtime=0)
    with atomic_path(path, durable) as temporary:
        temporary.write_bytes(content)


def refuse_overwrite(path: str | Path, inputs: Iterable[str | Path]) -> None:
    """Refuse a target that is one of the input files, by whatever link or spelling.

    Raises:
        MapInputError: It is.
    """
    path = Path(path)
    if path.exists() and any(Path(other).exists() and os.path.samefile(path, other) for other in inputs):
        raise MapInputError(f"{path.name}: is an input of this run and would be overwritten. Choose another output.")


def write_sidecar(
    path: str | Path, provenance: Mapping[str, Any], inputs: Iterable[str | Path] = (), durable: bool = True
) -> None:
    """Write provenance as JSON beside a map, without absolute paths; NaN and infinities become null.

    Args:
        path: The ``.json`` file, replaced at once.
        provenance: What to record: nested mappings, sequences, numbers (NumPy's too), strings, paths.
        inputs: Files that must not be overwritten.
        durable: As for ``files.atomic_path``.

    Raises:
        MapInputError: The target is one of the inputs.
        ValueError: A key names a person or machine (``user``, ``host`` ...), which is not recorded.
        TypeError: A value has no JSON form.
    """
    refuse_overwrite(path, inputs)
    write_text(path, json.dumps(without_identity(provenance), indent=2, allow_nan=False) + "\n", durable)


def without_identity(value: Any) -> Any:
    """Return a JSON-ready copy: absolute paths cut to their last part, NumPy to Python, non-finite numbers to None.

    Raises:
        ValueError: A mapping has a key that names a person or machine.
        TypeError: A value has no JSON form.
    """
    if isinstance(value, Mapping):
        if personal := sorted(str(key) for key, one in value.items() if _is_personal(key, one)):
            raise ValueError(f"Provenance must not hold {', '.join(personal)}: outputs are shared. Leave it out.")
        return {str(key): without_identity(one) for key, one in value.items()}
    if isinstance(value, (str, os.PathLike)):
        return _without_paths(os.fspath(value))
    if isinstance(value, np.ndarray):
        return without_identity(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [without_identity(one) for one in value]
    if isinstance(value, np.generic):
        return without_identity(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise TypeError(f"Provenance holds a {type(value).__name__}, which has no JSON form. Convert it first.")


def _is_personal(key: Any, value: Any) -> bool:
    """Texts under a key such as ``user``; facts and figures under it belong to a map that happens to have this name."""
    return str(key).lower() in _PERSONAL_KEYS and isinstance(value, (str, os.PathLike, list, tuple))


def _without_paths(text: str) -> str:
    if PurePosixPath(text).is_absolute() or text.startswith("~/"):
        return PurePosixPath(text).name
    if PureWindowsPath(text).is_absolute() or text.startswith("\\\\"):
        return PureWindowsPath(text).name
    return _EMBEDDED_PATH.sub(lambda match: re.split(r"[\\/]", match[0].rstrip("\\/"))[-1], text)
