"""Simulated subjects to disk: LR maps in folders that every ``mrsi-fast`` command reads, and their truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.export import write_map, write_sidecar
from mrsi_fast.mrsi.geometry import factors_label
from mrsi_fast.simulation.volume import MeasuredVolume, SimulatedSubject

Volumes = dict[str, "NDArray[np.generic] | None"]


def write_subject(subject: SimulatedSubject, output: str | Path) -> list[Path]:
    """Writes one subject as NIfTI and JSON.

    ``sub-N_acq-xF/`` holds what a scan would give at factor F: ``conc_*``, ``crlb_*``, ``snr``, ``fwhm``, ``mask``,
    ``lipid_mask``. ``sub-N_truth/`` holds the HR maps, tissue shares, masks, the lesion's membership and the T1 image.
    Each folder has a ``simulation.json`` with preset, seed, head and lesion; the truth's has the checksum too.

    Args:
        subject: What to write.
        output: Parent folder; made if needed, files of the same names are replaced.

    Returns:
        The folders, the truth's last.

    Raises:
        OSError: A file cannot be written.
    """
    label, folders = f"sub-{subject.provenance['subject']:03d}", []
    for factors, measured in subject.measured.items():
        folder = Path(output) / f"{label}_acq-{factors_label((*factors, 1)[:3], 2)}"
        _write_volumes(folder, _measured_volumes(subject.names, measured), measured.affine)
        write_sidecar(folder / "simulation.json", {**subject.provenance, "operator": measured.operator.describe()})
        folders.append(folder)
    folder = Path(output) / f"{label}_truth"
    _write_volumes(folder, _true_volumes(subject), subject.affine)
    write_sidecar(folder / "simulation.json", {**subject.provenance, "sha256": subject.checksum()})
    return [*folders, folder]


def _measured_volumes(names: tuple[str, ...], measured: MeasuredVolume) -> Volumes:
    volumes: Volumes = {}
    for index, name in enumerate(names):
        volumes[f"conc_{name}"] = measured.maps[index]
        volumes[f"crlb_{name}"] = None if measured.crlb is None else measured.crlb[index]
    lipid = measured.lipid if measured.lipid.any() else None
    return volumes | {"snr": measured.snr, "fwhm": measured.fwhm_ppm, "mask": measured.mask, "lipid_mask": lipid}


def _true_volumes(subject: SimulatedSubject) -> Volumes:
    volumes: Volumes = dict(zip(subject.names, subject.truth, strict=True))
    volumes |= {f"tissue_{name}": share for name, share in subject.tissue.items()}
    volumes |= {f"mask_{name}": mask for name, mask in subject.masks.items()}
    return volumes | {"lesion_membership": subject.membership, "T1": subject.anatomy}


def _write_volumes(folder: Path, volumes: Mapping[str, NDArray | None], affine: NDArray[np.float64]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, volume in volumes.items():
        if volume is not None:
            write_map(folder / f"{name}.nii.gz", volume, affine, kind="simulated")
