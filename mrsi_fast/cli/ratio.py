"""``mrsi-fast ratio tCho/tNAA -i RESULTS``: ratio maps, sample by sample where samples were saved."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrsi_fast.cli.exits import CommandError, ExitCode, guarded
from mrsi_fast.cli.options import Debug, Quiet
from mrsi_fast.cli.terminal import Terminal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mrsi_fast.mrsi.nifti import Volume
    from mrsi_fast.mrsi.ratios import RatioMaps
    from mrsi_fast.publication import Place

_ENDINGS = r"[a-z]*_mrsi\.(?:nii\.gz|json)"

Ratios = Annotated[list[str], typer.Argument(help="Ratios of two maps, e.g. tCho/tNAA.")]
Results = Annotated[Path, typer.Option("--input", "-i", help="Folder that `mrsi-fast sr` wrote.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder for the ratio maps. Default: the input folder.")
]
Reference = Annotated[
    Path | None,
    typer.Option(help="Reference region on the finer grid, best normal-appearing white matter. Default: all voxels."),
]
Times = Annotated[
    float | None,
    typer.Option(min=0, help="Also map the probability that the ratio exceeds this times the reference's."),
]


@guarded
def ratio(
    ratios: Ratios,
    results: Results,
    output: Output = None,
    reference: Reference = None,
    times: Times = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Divide super-resolved maps.

    With samples on disk (`sr --save-samples`) the ratio is taken in every sample and then summarised, so that its
    standard deviation is right; without them it is the ratio of the mean maps, without a standard deviation.
    """
    from mrsi_fast.mrsi.mapset import MapInputError
    from mrsi_fast.publication import RECORD_TAIL, Place

    terminal, pairs = Terminal(quiet), [_pair(text) for text in ratios]
    records = sorted(results.glob(f"*{RECORD_TAIL}")) if results.is_dir() else []
    if not records:
        raise CommandError(
            f"{results}: holds no result of `mrsi-fast sr`. Give its output folder.", ExitCode.NO_VALID_INPUT
        )
    target = output or results
    target.mkdir(parents=True, exist_ok=True)
    region = None if reference is None else _region(reference)
    failed: list[str] = []
    for path in records:
        place = Place(results, path.name.removesuffix(RECORD_TAIL))
        try:
            with place.locked() if os.access(results, os.W_OK) else nullcontext():
                for above, below in pairs:
                    written = _write(path, above, below, region, times, target, terminal)
                    terminal.say(f"  {written}")
        except (CommandError, MapInputError, ValueError) as error:
            failed.append(str(error))
            if len(records) == 1:
                code = error.code if isinstance(error, CommandError) else ExitCode.NO_VALID_INPUT
                raise CommandError(str(error), code) from error
            terminal.error(f"{path.name}: {error}")
    if failed:
        code = ExitCode.NO_VALID_INPUT if len(failed) == len(records) else ExitCode.SOME_FAILED
        raise CommandError(f"no ratio of {len(failed)} of {len(records)} results.", code)


def _pair(text: str) -> tuple[str, str]:
    from mrsi_fast.mrsi.names import canonical_name

    above, slash, below = text.partition("/")
    if not slash or not above.strip() or not below.strip():
        raise CommandError(f"'{text}' is not a ratio; write two maps with a slash between them, e.g. tCho/tNAA.")
    return canonical_name(above), canonical_name(below)


def _write(
    record: Path,
    above: str,
    below: str,
    region: tuple[str, NDArray[np.bool_]] | None,
    times: float | None,
    target: Path,
    terminal: Terminal,
) -> Path:
    """Writes the maps of one ratio and their JSON file; returns the ratio map."""
    from mrsi_fast.mrsi.export import write_map, write_sidecar
    from mrsi_fast.mrsi.names import bids_label
    from mrsi_fast.mrsi.ratios import ratio_maps
    from mrsi_fast.publication import RECORD_TAIL, Place, read_record, sha256_of

    result, stem = read_record(record), record.name.removesuffix(RECORD_TAIL)
    first, numerator = _stack(record, result, above)
    _, denominator = _stack(record, result, below)
    if len(numerator) != len(denominator):
        numerator, denominator = (_stack(record, result, name, samples=False)[1] for name in (above, below))
    if region is not None and region[1].shape != numerator.shape[1:]:
        raise CommandError(
            f"{region[0]}: the reference region has the grid {region[1].shape}, the maps have {numerator.shape[1:]}."
        )
    maps = ratio_maps(numerator, denominator, reference=region and region[1], times_reference=times)
    samples = len(numerator) if len(numerator) > 1 else 0
    identity = _identity(result, f"{above}/{below}", region, times)
    facts = {
        "ratio": f"{above}/{below}",
        "samples": samples,
        "denominator_floor": maps.floor,
        "reference_ratio": maps.reference,
        "reference_region": region and region[0],
        "probability_threshold": maps.threshold,
        "identity": identity,
        "result": result,
    }
    base = f"{stem}_met-{bids_label(above)}Over{bids_label(below)}_desc-ratio"
    place = Place(target, base, "_mrsi.json", _ENDINGS)
    with place.locked(), place.staging() as staging:
        _refuse_another_results(place, identity)
        for what, volume in _volumes(maps).items():
            path = staging / f"{base}{what}_mrsi.nii.gz"
            write_map(path, volume, first.affine, kind="ratio", xform_code=first.xform_code)
        files = {path.name: {"sha256": sha256_of(path)} for path in sorted(staging.iterdir())}
        write_sidecar(staging / place.record_path.name, {**facts, "files": files})
        place.publish(staging, keep=False)
    how = f"median of {samples} samples" if samples else "of the mean maps (no samples were saved, so no deviation)"
    terminal.say(f"{above}/{below}: {how}; {maps.reference:.3g} in the reference region")
    return target / f"{base}_mrsi.nii.gz"


def _identity(
    result: dict[str, Any], ratio: str, region: tuple[str, NDArray[np.bool_]] | None, times: float | None
) -> dict[str, Any]:
    """What the ratio maps are made of: one result, the region's voxels, and what was asked for."""
    import hashlib

    from mrsi_fast.identity import array_digest

    inputs = {"result": result["identity"]["sha256"]}
    settings = {"ratio": ratio, "region": None if region is None else array_digest(region[1]), "times": times}
    whole = json.dumps([inputs, settings], sort_keys=True)
    return {"sha256": hashlib.sha256(whole.encode()).hexdigest(), "inputs": inputs, "settings": settings}


def _refuse_another_results(place: Place, identity: dict[str, Any]) -> None:
    """Refuses to replace ratio maps that were made from another result.

    Raises:
        CommandError: They were.
    """
    from mrsi_fast.publication import UnreadableRecord

    try:
        former = place.record()
    except UnreadableRecord:
        return  # its files are kept aside
    if former is not None and former["identity"].get("inputs") != identity["inputs"]:
        raise CommandError(
            f"{place.folder}: holds {place.record_path.name}, made from another result. Choose another folder for -o, "
            "or remove it."
        )


def _stack(path: Path, record: dict[str, Any], name: str, samples: bool = True) -> tuple[Volume, NDArray[np.float32]]:
    """The samples [S, X, Y, Z] of a map, or its mean as one sample, from the files of this result alone.

    Raises:
        CommandError: The result has no such map, or a file is missing or not as it was written.
    """
    import numpy as np

    from mrsi_fast.mrsi.names import bids_label
    from mrsi_fast.mrsi.nifti import read_nifti
    from mrsi_fast.publication import RECORD_TAIL, missing_files

    base = f"{path.name.removesuffix(RECORD_TAIL)}_met-{bids_label(name)}_desc-"
    mean = f"{base}sr_mrsi.nii.gz"
    if mean not in record["files"]:
        raise CommandError(f"{path.parent}: holds no super-resolved map of {name}.", ExitCode.NO_VALID_INPUT)
    drawn = sorted(one for one in record["files"] if samples and one.startswith(f"{base}sample"))
    files = {one: record["files"][one] for one in drawn or [mean]}
    if bad := missing_files(path.parent, {"files": files}):
        raise CommandError(
            f"{path.parent}: {', '.join(bad[:3])} {'are' if len(bad) > 1 else 'is'} missing or not as written by the "
            "run that the JSON file describes. Run `mrsi-fast sr` again.",
            ExitCode.NO_VALID_INPUT,
        )
    volumes = [read_nifti(path.parent / one) for one in files]
    return volumes[0], np.concatenate([volume.data for volume in volumes])


def _region(path: Path) -> tuple[str, NDArray[np.bool_]]:
    """Name of the file, and the voxels [X, Y, Z] that belong to the region."""
    from mrsi_fast.mrsi.nifti import read_nifti

    return path.name, read_nifti(path).data[0] > 0


def _volumes(maps: RatioMaps) -> dict[str, Any]:
    """Parts of the file names and the maps to write under them."""
    import numpy as np

    volumes = {"": maps.median, "floored": maps.floored}
    if np.isfinite(maps.sd).any():
        volumes["std"] = maps.sd
    if maps.probability is not None:
        volumes["probability"] = maps.probability
    return volumes
