"""``mrsi-fast ratio tCho/tNAA -i RESULTS``: ratio maps, sample by sample where samples were saved."""

from __future__ import annotations

import glob
import json
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

_SIDECAR = "_desc-sr_mrsi.json"

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

    terminal, pairs = Terminal(quiet), [_pair(text) for text in ratios]
    sidecars = sorted(results.glob(f"*{_SIDECAR}")) if results.is_dir() else []
    if not sidecars:
        raise CommandError(
            f"{results}: holds no result of `mrsi-fast sr`. Give its output folder.", ExitCode.NO_VALID_INPUT
        )
    target = output or results
    target.mkdir(parents=True, exist_ok=True)
    try:
        for sidecar in sidecars:
            for above, below in pairs:
                path = _write(sidecar, above, below, reference, times, target, terminal)
                terminal.say(f"  {path}")
    except (MapInputError, ValueError) as error:
        raise CommandError(str(error), ExitCode.NO_VALID_INPUT) from error


def _pair(text: str) -> tuple[str, str]:
    from mrsi_fast.mrsi.names import canonical_name

    above, slash, below = text.partition("/")
    if not slash or not above.strip() or not below.strip():
        raise CommandError(f"'{text}' is not a ratio; write two maps with a slash between them, e.g. tCho/tNAA.")
    return canonical_name(above), canonical_name(below)


def _write(
    sidecar: Path, above: str, below: str, reference: Path | None, times: float | None, target: Path, terminal: Terminal
) -> Path:
    """Writes the maps of one ratio and their JSON file; returns the ratio map."""
    from mrsi_fast.mrsi.export import write_map, write_sidecar
    from mrsi_fast.mrsi.names import bids_label
    from mrsi_fast.mrsi.ratios import ratio_maps

    stem = sidecar.name.removesuffix(_SIDECAR)
    first, numerator = _stack(sidecar, stem, above)
    _, denominator = _stack(sidecar, stem, below)
    if len(numerator) != len(denominator):
        numerator, denominator = (_stack(sidecar, stem, name, samples=False)[1] for name in (above, below))
    region = None if reference is None else _region(reference, numerator.shape[1:])
    maps = ratio_maps(numerator, denominator, reference=region, times_reference=times)
    base = f"{stem}_met-{bids_label(above)}Over{bids_label(below)}_desc-ratio"
    path = target / f"{base}_mrsi.nii.gz"
    for what, volume in _volumes(maps).items():
        write_map(target / f"{base}{what}_mrsi.nii.gz", volume, first.affine, kind="ratio", xform_code=first.xform_code)
    samples = len(numerator) if len(numerator) > 1 else 0
    facts = {
        "ratio": f"{above}/{below}",
        "samples": samples,
        "denominator_floor": maps.floor,
        "reference_ratio": maps.reference,
        "reference_region": reference and reference.name,
        "probability_threshold": maps.threshold,
        "result": json.loads(sidecar.read_text(encoding="utf-8")),
    }
    write_sidecar(target / f"{base}_mrsi.json", facts)
    how = f"median of {samples} samples" if samples else "of the mean maps (no samples were saved, so no deviation)"
    terminal.say(f"{above}/{below}: {how}; {maps.reference:.3g} in the reference region")
    return path


def _stack(sidecar: Path, stem: str, name: str, samples: bool = True) -> tuple[Volume, NDArray[np.float32]]:
    """The samples [S, X, Y, Z] of a map, or its mean as one sample.

    Raises:
        CommandError: The result has no such map.
    """
    import numpy as np

    from mrsi_fast.mrsi.names import bids_label
    from mrsi_fast.mrsi.nifti import read_nifti

    base = f"{stem}_met-{bids_label(name)}_desc-"
    mean = sidecar.parent / f"{base}sr_mrsi.nii.gz"
    if not mean.is_file():
        raise CommandError(f"{sidecar.parent}: holds no super-resolved map of {name}.", ExitCode.NO_VALID_INPUT)
    pattern = glob.escape(str(sidecar.parent / base)) + "sample*_mrsi.nii.gz"
    volumes = [read_nifti(path) for path in sorted(glob.glob(pattern)) if samples] or [read_nifti(mean)]
    return volumes[0], np.concatenate([volume.data for volume in volumes])


def _region(path: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    from mrsi_fast.mrsi.nifti import read_nifti

    region = read_nifti(path).data[0] > 0
    if region.shape != tuple(shape):
        raise CommandError(f"{path}: the reference region has the grid {region.shape}, the maps have {tuple(shape)}.")
    return region


def _volumes(maps: RatioMaps) -> dict[str, Any]:
    """Parts of the file names and the maps to write under them."""
    import numpy as np

    volumes = {"": maps.median, "floored": maps.floored}
    if np.isfinite(maps.sd).any():
        volumes["std"] = maps.sd
    if maps.probability is not None:
        volumes["probability"] = maps.probability
    return volumes
