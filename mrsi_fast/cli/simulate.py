"""``mrsi-fast simulate``: writes simulated subjects as folders that ``sr`` reads, with their truth beside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrsi_fast.cli.exits import CommandError, guarded
from mrsi_fast.cli.options import Debug, Quiet
from mrsi_fast.cli.terminal import Terminal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mrsi_fast.simulation.config import SimulationConfig
    from mrsi_fast.simulation.volume import MeasuredVolume, SimulatedSubject

Preset = Annotated[str, typer.Option(help="Named settings, or a TOML file of your own.")]
Subjects = Annotated[str, typer.Option(help="How many subjects, or which, e.g. 0,3,5.")]
Scales = Annotated[str, typer.Option(help="Factors to measure each subject at, e.g. 2,4,8.")]
Heads = Annotated[
    str | None,
    typer.Option(help="'phantom' (needs no data), or a folder of label maps sub-*_dseg.nii.gz. Default: the preset's."),
]
Split = Annotated[
    str | None, typer.Option(help="train, val, test, or all for heads of your own. Default: the preset's.")
]


@guarded
def simulate(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the subjects.")],
    preset: Preset = "realistic-3T",
    subjects: Subjects = "1",
    scales: Scales = "4",
    heads: Heads = None,
    split: Split = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the set.")] = 0,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Simulate subjects with known truth.

    For every subject N and factor F: `sub-N_acq-xF/` with maps, CRLB, SNR, linewidth and mask, ready for
    `mrsi-fast sr -i`; and `sub-N_truth/` with the fine maps, tissue shares, lesion masks and a T1 image. Preset,
    subject and seed decide every value.
    """
    from mrsi_fast.config import ConfigError
    from mrsi_fast.simulation.volume import simulate as subjects_of

    terminal, numbers, factors = Terminal(quiet), _numbers(subjects, "--subjects"), _numbers(scales, "--scales")
    if not set(factors) <= {2, 4, 8}:
        raise CommandError(f"--scales {scales}: each factor has to be 2, 4 or 8.")
    chosen = range(numbers[0]) if "," not in subjects else numbers
    try:
        for subject in subjects_of(_settings(preset, heads, split), chosen, seed, factors):
            _write(subject, output, terminal)
    except ConfigError as error:
        raise CommandError(str(error)) from error


def _numbers(text: str, option: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0:
        raise CommandError(f"{option} {text}: give whole numbers, separated by commas.")
    return numbers


def _settings(preset: str, heads: str | None, split: str | None) -> SimulationConfig:
    from mrsi_fast.simulation.config import SimulationConfig

    config = SimulationConfig.load(preset) if preset.endswith(".toml") else SimulationConfig.preset(preset)
    changes = {key: value for key, value in (("heads", heads), ("split", split)) if value is not None}
    values = config.model_dump()
    values["anatomy"] |= changes
    return SimulationConfig.parse(values, "options")


def _write(subject: SimulatedSubject, output: Path, terminal: Terminal) -> None:
    from mrsi_fast.mrsi.export import write_sidecar

    label = f"sub-{subject.provenance['subject']:03d}"
    for (fx, fy), measured in subject.measured.items():
        factor = f"x{fx}" if fx == fy else f"x{fx}x{fy}"
        folder = output / f"{label}_acq-{factor}"
        _write_volumes(folder, _measured_volumes(subject.names, measured), measured.affine)
        write_sidecar(folder / "simulation.json", {**subject.provenance, "operator": measured.operator.describe()})
        terminal.say(f"{folder}: {len(subject.names)} maps of {'x'.join(map(str, measured.maps.shape[1:]))} voxels")
    folder = output / f"{label}_truth"
    _write_volumes(folder, _true_volumes(subject), subject.affine)
    write_sidecar(folder / "simulation.json", {**subject.provenance, "sha256": subject.checksum()})
    terminal.say(f"{folder}: lesion {subject.provenance['lesion']['kind']}, sha256 {subject.checksum()[:12]}")


def _measured_volumes(names: tuple[str, ...], measured: MeasuredVolume) -> dict[str, NDArray[np.generic] | None]:
    volumes: dict[str, NDArray[np.generic] | None] = {}
    for index, name in enumerate(names):
        volumes[f"conc_{name}"] = measured.maps[index]
        volumes[f"crlb_{name}"] = None if measured.crlb is None else measured.crlb[index]
    lipid = measured.lipid if measured.lipid.any() else None
    return volumes | {"snr": measured.snr, "fwhm": measured.fwhm_ppm, "mask": measured.mask, "lipid_mask": lipid}


def _true_volumes(subject: SimulatedSubject) -> dict[str, NDArray[np.generic] | None]:
    volumes: dict[str, NDArray[np.generic] | None] = dict(zip(subject.names, subject.truth, strict=True))
    volumes |= {f"tissue_{name}": share for name, share in subject.tissue.items()}
    volumes |= {f"mask_{name}": mask for name, mask in subject.masks.items()}
    return volumes | {"lesion_membership": subject.membership, "T1": subject.anatomy}


def _write_volumes(folder: Path, volumes: dict[str, NDArray[np.generic] | None], affine: NDArray[np.float64]) -> None:
    from mrsi_fast.mrsi.export import write_map

    folder.mkdir(parents=True, exist_ok=True)
    for name, volume in volumes.items():
        if volume is not None:
            write_map(folder / f"{name}.nii.gz", volume, affine, kind="simulated")
