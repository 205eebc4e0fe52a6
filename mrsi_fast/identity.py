"""What makes a result the result it is: the content of its inputs, the settings, the model and the version.

Two runs with the same identity give the same files; two runs that differ in anything that can change a voxel have
different identities. File names, their order and their place do not count: inputs are known by their values.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.files import open_regular
from mrsi_fast.mrsi.mapset import MapSet

_NOT_CONTENT = frozenset({"names", "source", "warnings", "judged"})
"""Fields of a MapSet that are independent of its values (names are the keys of the maps' digests)."""

_HEADER_PAIRS = {".hdr": ".img", ".img": ".hdr"}


def array_digest(values: NDArray[Any]) -> str:
    """Sha256 of an array's type, shape and values; every NaN counts as the same one."""
    array = np.ascontiguousarray(values)
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), array.dtype.type(np.nan), array)
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(array.tobytes())
    return digest.hexdigest()


def content_digests(maps: MapSet) -> dict[str, str]:
    """Sha256 of everything that a set of maps holds, by what it is.

    Args:
        maps: The measured maps, as they go into the computation.

    Returns:
        For instance ``{"map of tNAA": ..., "crlb of tNAA": ..., "mask": ..., "affine": ..., "units": "mM"}``, sorted
        by key. Short texts and numbers are kept as they are.
    """
    digests: dict[str, str] = {}
    for field in dataclasses.fields(maps):
        value = getattr(maps, field.name)
        if value is None or field.name in _NOT_CONTENT:
            continue
        if not isinstance(value, np.ndarray):
            digests[field.name] = str(value)
        elif value.ndim == 4 and len(value) == len(maps.names):
            what = "map" if field.name == "maps" else field.name
            digests |= {f"{what} of {name}": array_digest(one) for name, one in zip(maps.names, value, strict=True)}
        else:
            digests[field.name] = array_digest(value)
    return dict(sorted(digests.items()))


def image_digest(source: Any) -> str:
    """Sha256 of an image: of a file's bytes (both files of a ``.hdr``/``.img`` pair), else of the values and affine.

    Args:
        source: A path, a NIfTI image, ``(array, affine)`` or an array.

    Raises:
        OSError: The file cannot be read.
    """
    if isinstance(source, (str, Path)):
        path, digest = Path(source), hashlib.sha256()
        twin = path.with_suffix(_HEADER_PAIRS.get(path.suffix.lower(), path.suffix))
        for one in sorted({path, twin}):
            if one == path or one.is_file():
                with open_regular(one) as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()
    values, affine = source if isinstance(source, tuple) else (source, getattr(source, "affine", None))
    values = np.asanyarray(values.dataobj) if hasattr(values, "dataobj") else np.asarray(values)
    place = "" if affine is None else array_digest(np.asarray(affine, dtype=np.float64))
    return hashlib.sha256(f"{array_digest(values)} {place}".encode()).hexdigest()


def identity_record(
    maps: MapSet, images: Mapping[str, Any], settings: Mapping[str, Any], model: str, version: str
) -> dict[str, Any]:
    """The identity of a result, as in its JSON file.

    Args:
        maps: The measured maps.
        images: Further images by role, such as ``anatomy``; None where there is none.
        settings: Everything else in the request.
        model: sha256 of its weights and settings.
        version: Of this package.

    Returns:
        ``inputs`` (digest by input), ``settings``, ``model``, ``version`` and ``sha256`` over all of these.
    """
    inputs = content_digests(maps) | {role: image_digest(one) for role, one in images.items() if one is not None}
    facts = {"inputs": inputs, "settings": _plain(settings), "model": model, "version": version}
    whole = json.dumps(facts, sort_keys=True, allow_nan=True).encode()
    return {"sha256": hashlib.sha256(whole).hexdigest(), **facts}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Differences of two identities, by name.

    Returns:
        The inputs that were changed, added or removed; the settings (``model`` and ``version`` among them) that differ.
    """

    def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
        return sorted(key for key in {*one, *other} if one.get(key) != other.get(key))

    first, second = ({**one.get("settings", {}), **_of(one)} for one in (before, now))
    return differing(before.get("inputs", {}), now.get("inputs", {})), differing(first, second)


def _of(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {key: identity.get(key) for key in ("model", "version")}


def _plain(value: Any) -> Any:
    """A JSON-ready copy: settings models to mappings, paths to names, arrays to digests."""
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump(mode="json"))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in sorted(value.items(), key=lambda item: str(item[0]))}
    if isinstance(value, np.ndarray):
        return array_digest(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, Path):
        return image_digest(value) if value.is_file() else value.name
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
