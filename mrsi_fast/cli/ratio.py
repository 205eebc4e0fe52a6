"""``mrsi-fast ratio tCho/tNAA -i RESULTS``: ratio maps, sample by sample where samples were saved."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrsi_fast.cli.exits import CommandError, ExitCode, guarded
from mrsi_fast.cli.inputs import make_writable
from mrsi_fast.cli.options import Debug, Quiet
from mrsi_fast.cli.terminal import Terminal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mrsi_fast.mrsi.nifti import Volume
    from mrsi_fast.mrsi.ratios import Hotspot, RatioMaps, Reference
    from mrsi_fast.mrsi.regions import ReferenceRegion
    from mrsi_fast.publication import Place

_ENDINGS = r"[a-z]*_mrsi\.(?:nii\.gz|json)"

Ratios = Annotated[list[str], typer.Argument(help="Ratios of two maps, e.g. tCho/tNAA.")]
Results = Annotated[Path, typer.Option("--input", "-i", help="Folder that `mrsi-fast sr` wrote.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder for the ratio maps. Default: the input folder.")
]
ReferenceMask = Annotated[
    Path | None,
    typer.Option(help="Mask of the reference region on any grid, best normal-appearing white matter (NAWM)."),
]
Labels = Annotated[Path | None, typer.Option(help="Label image on any grid to take the reference region from.")]
ReferenceLabels = Annotated[
    str | None, typer.Option(help="Labels of the reference region in it, e.g. 2,41 (white matter in FreeSurfer).")
]
Mirror = Annotated[bool, typer.Option("--mirror", help="Reference region: mirror image of the hotspot.")]
Times = Annotated[
    float | None, typer.Option(min=0, help="Threshold of the hotspot as a multiple of the reference ratio, e.g. 2.")
]
Threshold = Annotated[float | None, typer.Option(help="Threshold of the hotspot as a ratio.")]
Cni = Annotated[
    bool, typer.Option("--cni", help="Also write the CNI-like z-score of tCho over tNAA (McKnight et al. 2001).")
]


@dataclass(frozen=True)
class Asked:
    """Where the reference level comes from and what counts as hot."""

    mask: Path | None
    labels: Path | None
    reference_labels: tuple[int, ...]
    mirror: bool
    times: float | None
    threshold: float | None
    cni: bool


@guarded
def ratio(
    ratios: Ratios,
    results: Results,
    output: Output = None,
    reference: ReferenceMask = None,
    labels: Labels = None,
    reference_labels: ReferenceLabels = None,
    mirror: Mirror = False,
    times: Times = None,
    threshold: Threshold = None,
    cni: Cni = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Divide super-resolved maps, and measure the hotspot above a threshold.

    With samples on disk (`sr --samples 16 --save-samples`) the ratio is taken in every sample and then summarised, so
    that its standard deviation, the probability of exceeding the threshold and the interval of the hotspot's volume
    are right. Without them it is the ratio of the mean maps; its standard deviation and probability follow to first
    order from those of the two maps, as of independent errors, and there is no interval. The reference region is all
    voxels unless a mask, labels or --mirror is given.
    """
    from mrsi_fast.mrsi.mapset import MapInputError
    from mrsi_fast.publication import RECORD_TAIL, Place

    terminal, pairs = Terminal(quiet), [_pair(text) for text in ratios]
    asked = _asked(reference, labels, reference_labels, mirror, times, threshold, cni)
    if cni and any(pair != ("tCho", "tNAA") for pair in pairs):
        raise CommandError("--cni is defined for tCho/tNAA alone.")
    records = sorted(results.glob(f"*{RECORD_TAIL}")) if results.is_dir() else []
    if not records:
        what = "holds no result of `mrsi-fast sr`" if results.exists() else "there is no such folder"
        raise CommandError(f"{results}: {what}. Give the output folder of `mrsi-fast sr`.", ExitCode.NO_VALID_INPUT)
    target = output or results
    make_writable(target)
    failed: list[str] = []
    for path in records:
        place = Place(results, path.name.removesuffix(RECORD_TAIL))
        try:
            with place.locked() if os.access(results, os.W_OK) else nullcontext():
                for above, below in pairs:
                    written = _write(path, above, below, asked, target, terminal)
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


def _asked(
    mask: Path | None,
    labels: Path | None,
    listed: str | None,
    mirror: bool,
    times: float | None,
    threshold: float | None,
    cni: bool,
) -> Asked:
    """The options, checked against each other.

    Raises:
        CommandError: Two of them contradict each other, one needs another, or a file is missing.
    """
    if sum((mask is not None, labels is not None, mirror)) > 1:
        raise CommandError("Give one reference region: --reference, --labels with --reference-labels, or --mirror.")
    if (labels is None) != (listed is None):
        raise CommandError("--labels and --reference-labels belong together: the image and its labels, e.g. 2,41.")
    if times is not None and threshold is not None:
        raise CommandError("Give --times or --threshold, not both.")
    if mirror and times is None:
        raise CommandError("--mirror needs --times: the mirrored hotspot is the region above that multiple.")
    for option, path in (("--reference", mask), ("--labels", labels)):
        if path is not None and not path.is_file():
            raise CommandError(f"{option} {path}: there is no such file.")
    try:
        numbers = tuple(int(part) for part in (listed or "").split(",") if part.strip())
    except ValueError:
        raise CommandError(f"--reference-labels {listed}: give whole numbers with commas, e.g. 2,41.") from None
    return Asked(mask, labels, numbers, mirror, times, threshold, cni)


def _pair(text: str) -> tuple[str, str]:
    from mrsi_fast.mrsi.names import canonical_name

    above, slash, below = text.partition("/")
    if not slash or not above.strip() or not below.strip():
        raise CommandError(f"'{text}' is not a ratio; write two maps with a slash between them, e.g. tCho/tNAA.")
    return canonical_name(above), canonical_name(below)


def _write(record: Path, above: str, below: str, asked: Asked, target: Path, terminal: Terminal) -> Path:
    """Writes the maps of one ratio and their JSON file; returns the ratio map."""
    from mrsi_fast.mrsi.export import write_map, write_sidecar
    from mrsi_fast.mrsi.names import bids_label
    from mrsi_fast.mrsi.ratios import hotspot, ratio_maps
    from mrsi_fast.publication import RECORD_TAIL, Place, read_record, sha256_of

    try:
        result, stem = read_record(record), record.name.removesuffix(RECORD_TAIL)
    except OSError as error:
        raise CommandError(f"{record.name}: cannot be read ({error.strerror}).", ExitCode.NO_VALID_INPUT) from error
    first, numerator = _stack(record, result, above, target)
    _, denominator = _stack(record, result, below, target)
    if len(numerator) != len(denominator):
        numerator, denominator = (_stack(record, result, name)[1] for name in (above, below))
    region = _region(asked, first.affine, numerator.shape[1:])
    reference: Reference = "mirror" if asked.mirror else region
    deviations = _deviations(record, result, above, below) if len(numerator) == 1 else None
    maps = ratio_maps(numerator, denominator, None, reference, asked.threshold, asked.times, first.affine, deviations)
    spot = None if maps.threshold is None else hotspot(maps, first.affine)
    volumes = _volumes(maps)
    if asked.cni:
        volumes["cni"] = _cni(record, result, above, below)
    identity = _identity(result, f"{above}/{below}", region, asked)
    base = f"{stem}_met-{bids_label(above)}Over{bids_label(below)}_desc-ratio"
    place = Place(target, base, "_mrsi.json", _ENDINGS)
    with place.locked(), place.staging() as staging:
        _refuse_another_results(place, identity)
        for what, volume in volumes.items():
            path = staging / f"{base}{what}_mrsi.nii.gz"
            write_map(path, volume, first.affine, kind="ratio", xform_code=first.xform_code)
        files = {path.name: {"sha256": sha256_of(path)} for path in sorted(staging.iterdir())}
        facts = _facts(f"{above}/{below}", maps, spot, asked)
        write_sidecar(
            staging / place.record_path.name, {**facts, "identity": identity, "result": result, "files": files}
        )
        place.publish(staging, keep=False)
    _tell(f"{above}/{below}", maps, spot, terminal)
    return target / f"{base}_mrsi.nii.gz"


def _facts(name: str, maps: RatioMaps, spot: Hotspot | None, asked: Asked) -> dict[str, Any]:
    from mrsi_fast.mrsi.ratios import FIRST_ORDER

    known = bool((maps.sd == maps.sd).any())
    return {
        "ratio": name,
        "samples": maps.samples if maps.samples > 1 else 0,
        "deviation": None if not known else "over samples" if maps.samples > 1 else FIRST_ORDER,
        "denominator_floor": maps.floor,
        "reference_ratio": maps.reference,
        "reference_region": maps.reference_source,
        "probability_threshold": maps.threshold,
        "times_reference": asked.times,
        "hotspot": None if spot is None else asdict(spot),
        "cni_method": "after McKnight et al. 2001, J Magn Reson Imaging 13:167-177" if asked.cni else None,
    }


def _tell(name: str, maps: RatioMaps, spot: Hotspot | None, terminal: Terminal) -> None:
    how = "of the mean maps (no samples were saved, and no deviations)"
    if maps.sd[maps.sd == maps.sd].size:
        how = "of the mean maps (no samples were saved; deviation to first order, as of independent errors)"
    if maps.samples > 1:
        how = f"median of {maps.samples} samples"
    terminal.say(f"{name}: {how}; {maps.reference:.3g} in the reference region ({maps.reference_source})")
    if spot is None:
        return
    interval = ""
    if spot.interval_ml is not None:
        interval = f", 90 % interval {spot.interval_ml[0]:.2f} to {spot.interval_ml[1]:.2f} mL"
    terminal.say(f"  hotspot above {maps.threshold:.3g}: {spot.volume_ml:.2f} mL{interval}")
    if spot.peak_mm is not None:
        where = ", ".join(f"{value:.1f}" for value in spot.peak_mm)
        terminal.say(f"  highest ratio in its largest part: {spot.peak:.3g} at x, y, z = {where} mm")


def _region(asked: Asked, affine: NDArray[np.float64], shape: tuple[int, ...]) -> ReferenceRegion | None:
    """The reference region from a mask or labels, on the grid of the result; None for all voxels and for mirroring."""
    import numpy as np

    from mrsi_fast.mrsi.mapset import MapInputError
    from mrsi_fast.mrsi.regions import ReferenceRegion, labels_on_grid

    source = asked.mask or asked.labels
    if source is None:
        return None
    labels = labels_on_grid(source, affine, shape)
    chosen = labels > 0 if asked.mask is not None else np.isin(labels, asked.reference_labels)
    if not chosen.any():
        raise MapInputError(f"{source.name}: holds none of the labels {', '.join(map(str, asked.reference_labels))}.")
    named = "" if asked.mask is not None else f" labels {', '.join(map(str, asked.reference_labels))}"
    return ReferenceRegion(chosen, f"{source.name}{named}, {int(chosen.sum())} voxels")


def _deviations(
    record: Path, result: dict[str, Any], above: str, below: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Standard deviations of both maps, if the result has them."""
    from mrsi_fast.mrsi.names import bids_label
    from mrsi_fast.mrsi.nifti import read_nifti
    from mrsi_fast.publication import RECORD_TAIL

    stem = record.name.removesuffix(RECORD_TAIL)
    files = [f"{stem}_met-{bids_label(name)}_desc-srstd_mrsi.nii.gz" for name in (above, below)]
    if any(file not in result["files"] for file in files):
        return None
    _check_files(record, result, files)
    first, second = (read_nifti(record.parent / file).data[0] for file in files)
    return first, second


def _cni(record: Path, result: dict[str, Any], cho: str, naa: str) -> NDArray[np.float32]:
    from mrsi_fast.mrsi.ratios import cni_map

    first, second = (_stack(record, result, name)[1][0] for name in (cho, naa))
    return cni_map(first, second)


def _identity(result: dict[str, Any], ratio: str, region: ReferenceRegion | None, asked: Asked) -> dict[str, Any]:
    """What the ratio maps are made of: one result, the region's voxels, and what was asked for."""
    import hashlib

    from mrsi_fast.identity import array_digest

    inputs = {"result": result["identity"]["sha256"]}
    settings = {
        "ratio": ratio,
        "region": None if region is None else array_digest(region.mask),
        "mirror": asked.mirror,
        "times": asked.times,
        "threshold": asked.threshold,
        "cni": asked.cni,
    }
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


def _stack(
    path: Path, record: dict[str, Any], name: str, samples_in: Path | None = None
) -> tuple[Volume, NDArray[np.float32]]:
    """The samples [S, X, Y, Z] of a map, or its mean as one sample, from the files of this result alone.

    Samples are asked for by ``samples_in``, a folder for a temporary file that holds them in place of memory.

    Raises:
        CommandError: The result has no such map, or a file is missing or not as it was written.
    """
    from mrsi_fast.mrsi.names import bids_label
    from mrsi_fast.mrsi.nifti import read_nifti
    from mrsi_fast.publication import RECORD_TAIL
    from mrsi_fast.sample_store import stored

    base = f"{path.name.removesuffix(RECORD_TAIL)}_met-{bids_label(name)}_desc-"
    mean = f"{base}sr_mrsi.nii.gz"
    if mean not in record["files"]:
        raise CommandError(f"{path.parent}: holds no super-resolved map of {name}.", ExitCode.NO_VALID_INPUT)
    drawn = sorted(one for one in record["files"] if samples_in and one.startswith(f"{base}sample"))
    files = drawn or [mean]
    _check_files(path, record, files)
    first = read_nifti(path.parent / files[0])
    if not drawn:
        return first, first.data
    found = stored((read_nifti(path.parent / one).data[0] for one in files), len(files), samples_in)
    assert found is not None
    return first, found


def _check_files(record: Path, result: dict[str, Any], names: list[str]) -> None:
    """Refuses files of a result that are not as the run wrote them.

    Raises:
        CommandError: One is missing or was changed since.
    """
    from mrsi_fast.publication import missing_files

    if bad := missing_files(record.parent, {"files": {name: result["files"][name] for name in names}}):
        raise CommandError(
            f"{record.parent}: {', '.join(bad[:3])} {'are' if len(bad) > 1 else 'is'} missing or not as written by the "
            "run that the JSON file describes. Run `mrsi-fast sr` again.",
            ExitCode.NO_VALID_INPUT,
        )


def _volumes(maps: RatioMaps) -> dict[str, Any]:
    """Parts of the file names and the maps to write under them."""
    import numpy as np

    volumes = {"": maps.median, "floored": maps.floored}
    if np.isfinite(maps.sd).any():
        volumes["std"] = maps.sd
    if maps.probability is not None:
        volumes["probability"] = maps.probability
    return volumes
