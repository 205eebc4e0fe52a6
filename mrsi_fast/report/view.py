"""Content of a report on one result, taken from memory right after the run or from the files that it left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.files import read_json
from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.mrsi.names import bids_label
from mrsi_fast.mrsi.nifti import Volume, read_nifti
from mrsi_fast.result import Result
from mrsi_fast.sample_store import stored

SIDECAR = "_desc-sr_mrsi.json"

Float32 = NDArray[np.float32]


class ReportError(ValueError):
    """Files that no report can be made from; the message gives the reason."""


@dataclass(frozen=True, eq=False)
class MapView:
    """One map in its stages.

    Attributes:
        name: Metabolite.
        mean: [X, Y, Z] super-resolved map.
        std: [X, Y, Z] its standard deviation, or None.
        measured: [x, y, z] what was measured, or None if it is not known any more.
        zero_filled: [X, Y, Z] zero-filled interpolation, or None.
        samples: [S, X, Y, Z], or None.
        brought_back: [x, y, z] the self-test's map: cut to half its matrix and super-resolved, or None.
        cut_zero_filled: [x, y, z] the same cut map, zero-filled, or None.
    """

    name: str
    mean: Float32
    std: Float32 | None
    measured: Float32 | None
    zero_filled: Float32 | None
    samples: Float32 | None
    brought_back: Float32 | None = None
    cut_zero_filled: Float32 | None = None


@dataclass(frozen=True, eq=False)
class ResultView:
    """One result.

    Attributes:
        title: What to call it.
        record: The content of its JSON file, warnings included.
        maps: Its maps.
        affine: [4, 4] of the finer grid.
        lr_affine: [4, 4] of the measured grid.
        xform_code: NIfTI code of the space.
    """

    title: str
    record: dict[str, Any]
    maps: tuple[MapView, ...]
    affine: NDArray[np.float64]
    lr_affine: NDArray[np.float64]
    xform_code: int = 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the finer grid."""
        x, y, z = self.maps[0].mean.shape
        return x, y, z

    def get(self, name: str) -> MapView | None:
        """The map of that name, if there is one."""
        return next((one for one in self.maps if one.name == name), None)


def view_of(result: Result, title: str) -> ResultView:
    """A result in memory."""
    tested = {} if result.evidence is None else result.evidence.pictures()
    maps = tuple(
        MapView(
            name=name,
            mean=result.mean[index],
            std=result.std[index] if np.isfinite(result.std[index]).any() else None,
            measured=result.lr[index],
            zero_filled=result.zero_fill[index],
            samples=None if result.samples is None else result.samples[:, index],
            **tested.get(name, {}),
        )
        for index, name in enumerate(result.names)
    )
    record = {**result.provenance, "warnings": list(result.warnings)}
    return ResultView(title, record, maps, result.affine, result.lr_affine, result.xform_code)


def read_view(sidecar: Path, title: str, scratch: Path | None = None) -> ResultView:
    """A result from its JSON file and the maps that belong to it, and no other file beside them.

    Args:
        sidecar: The JSON file.
        title: See :class:`ResultView`.
        scratch: Folder for a temporary file of each map's samples; None to hold them in memory.

    Raises:
        ReportError: The JSON file is damaged or a map is missing.
        MapInputError: A map cannot be read.
        OSError: The temporary file cannot be written.
    """
    stem = sidecar.name.removesuffix(SIDECAR)
    try:
        record = read_json(sidecar)
        names, files = list(record["maps"]), set(record["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise ReportError(f"{sidecar.name}: is not a result of `mrsi-fast sr`, or is damaged ({error!r}).") from error
    if not names:
        raise ReportError(f"{sidecar.name}: lists no map, so there is nothing to show.")
    read = [_read_map(sidecar.parent, stem, name, files, scratch) for name in names]
    first = read[0][1]
    lr_affine = next((volume.affine for _, _, volume in read if volume is not None), first.affine)
    maps = tuple(one for one, _, _ in read)
    return ResultView(title, record, maps, first.affine, lr_affine, first.xform_code)


def _read_map(
    folder: Path, stem: str, name: str, files: set[str], scratch: Path | None
) -> tuple[MapView, Volume, Volume | None]:
    """One map's stages, its mean as read, and the measured map as read."""
    base = f"{stem}_met-{bids_label(name)}_desc-"

    def read(what: str) -> Volume | None:
        file = f"{base}{what}_mrsi.nii.gz"
        if file in files and not (folder / file).is_file():
            raise ReportError(f"{folder}: {file} is missing. Run it again.")
        return read_nifti(folder / file) if file in files else None

    mean = read("sr")
    if mean is None:
        raise ReportError(f"{folder}: {stem}{SIDECAR} names no map of {name}. Run it again.")
    drawn = sorted(
        file.removeprefix(base).removesuffix("_mrsi.nii.gz") for file in files if file.startswith(f"{base}sample")
    )
    std, measured, zero_filled = read("srstd"), read("measured"), read("zerofilled")
    tested = [read(what) for what in ("selftest", "selftestzerofilled")]

    def on_one_grid(volume: Volume | None) -> NDArray[np.float32] | None:
        if volume is not None and volume.data.shape != mean.data.shape:
            raise MapInputError(f"{folder}: the maps of {name} are not on one grid. Run it again with --overwrite.")
        return None if volume is None else volume.data[0]

    samples = (one for one in (on_one_grid(read(what)) for what in drawn) if one is not None)
    return (
        MapView(
            name=name,
            mean=mean.data[0],
            std=on_one_grid(std),
            measured=None if measured is None else measured.data[0],
            zero_filled=on_one_grid(zero_filled),
            samples=stored(samples, len(drawn), scratch),
            brought_back=None if tested[0] is None else tested[0].data[0],
            cut_zero_filled=None if tested[1] is None else tested[1].data[0],
        ),
        mean,
        measured,
    )
