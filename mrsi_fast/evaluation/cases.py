"""What is evaluated: a measured set of maps with its truth and whatever regions are known.

Cases come from the simulation (heads of a split, or any folder of label maps) or from a folder of measured and true
maps (``DIR/<subject>/lr`` and ``DIR/<subject>/hr``, each readable as a set of maps, optionally ``brain.nii.gz`` on the
grid of ``hr``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.evaluation.lesion import LesionRegions, lesion_regions
from mrsi_fast.mrsi.consistency import Mode
from mrsi_fast.mrsi.geometry import fov_corner_difference_mm, voxel_sizes_mm
from mrsi_fast.mrsi.io import read_maps, with_mask
from mrsi_fast.mrsi.mapset import MapInputError, MapSet
from mrsi_fast.mrsi.quality import TrustRules, fill_volume
from mrsi_fast.preparation import AcquisitionSettings, Prepared, prepare
from mrsi_fast.simulation.volume import SimulatedSubject

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

EVERYTHING_TRUSTED = TrustRules(min_snr=None, max_fwhm_ppm=None, max_crlb_of_median=None)


@dataclass(frozen=True, eq=False)
class Case:
    """One set of maps at one factor.

    Attributes:
        head: The statistical unit.
        measured: LR maps with their quality.
        truth: [M, X, Y, Z] in the same units.
        affine: Of the truth.
        factors: (fx, fy).
        brain: [X, Y, Z] bool.
        tissue: Shares ``GM``, ``WM``, ``CSF`` [X, Y, Z], or None where they are not known.
        regions: Where to measure the lesion and false lesions, or None where nothing is known of lesions.
        anatomy: T1 image and its affine, or None.
        acquisition: Declared support and window, or None.
        noise_free: Whether the maps are declared noise-free.
        facts: What the numbers depend on; goes into the results.
    """

    head: str
    measured: MapSet
    truth: Float32
    affine: NDArray[np.float64]
    factors: tuple[int, int]
    brain: Bool
    tissue: Mapping[str, Float32] | None
    regions: LesionRegions | None
    anatomy: tuple[Float32, NDArray[np.float64]] | None
    acquisition: AcquisitionSettings | None
    noise_free: bool
    facts: dict[str, Any]

    @property
    def mode(self) -> Mode:
        """Data consistency that fits these data: hard only where they are declared noise-free and linear."""
        return "hard" if self.noise_free else "auto"

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments that ``SuperResolver`` and ``prepare`` share for this case."""
        return {
            "scale": (*self.factors, 1),
            "acquisition": self.acquisition,
            "noise": 0.0 if self.noise_free else None,
            "rules": EVERYTHING_TRUSTED if self.noise_free else None,
        }


def simulated_case(subject: SimulatedSubject, factors: tuple[int, int]) -> Case:
    """The case of a simulated subject at one of the factors it was measured at."""
    low = subject.measured[factors]
    voxel = voxel_sizes_mm(subject.affine)
    facts = {key: subject.provenance[key] for key in ("preset", "subject", "seed", "split", "head", "lesion")}
    brain = subject.masks["brain"]
    core = subject.masks["lesion"].astype(np.float32)
    margin = max(voxel_sizes_mm(low.affine)[:2])
    return Case(
        head=str(subject.provenance["head"]),
        measured=subject.mapset((*factors, 1)),
        truth=subject.truth,
        affine=subject.affine,
        factors=factors,
        brain=brain,
        tissue=subject.tissue,
        regions=lesion_regions(subject.membership, core, subject.tissue["WM"], brain, voxel, margin),
        anatomy=(subject.anatomy, subject.affine),
        acquisition=AcquisitionSettings(support=low.operator.support, window=low.operator.window),
        noise_free=low.crlb is None,
        facts=facts,
    )


def pair_folders(folder: Path) -> list[Path]:
    """Subjects of a folder of pairs: every subfolder that holds ``hr`` and ``lr``, sorted; none in other folders."""
    return sorted(path for path in folder.iterdir() if (path / "hr").is_dir() and (path / "lr").is_dir())


def read_pair(folder: Path) -> Case:
    """Reads one subject's measured maps ``lr`` and true maps ``hr``.

    Raises:
        MapInputError: They hold different maps, or their grids do not cover the same field of view at a whole factor.
    """
    true, low = read_maps(folder / "hr", metabolites="all"), read_maps(folder / "lr", metabolites="all")
    names = [name for name in low.names if name in true.names]
    if not names:
        raise MapInputError(
            f"{folder.name}: lr and hr have no map in common ({', '.join(low.names)} against {', '.join(true.names)})."
        )
    true, low = true.select(names), low.select(names)
    factors = tuple(h / n for h, n in zip(true.shape, low.shape, strict=True))
    apart = fov_corner_difference_mm(low.affine, low.shape, true.affine, true.shape)
    if (
        factors[2] != 1
        or any(f not in (1, 2, 4, 8) for f in factors[:2])
        or apart > 0.01 * min(voxel_sizes_mm(low.affine))
    ):
        raise MapInputError(
            f"{folder.name}: hr has {true.shape} voxels and lr {low.shape}, field-of-view corners "
            f"{apart:.2f} mm apart. Give pairs of one field of view with factors 1, 2, 4 or 8."
        )
    brain = np.isfinite(true.maps).all(axis=0) & (true.maps != 0).any(axis=0)
    mask = next(iter(sorted(folder.glob("brain.nii*"))), None)
    if mask is not None:
        found = with_mask(true, mask).mask
        brain = brain if found is None else brain & found
    return Case(
        folder.name,
        low,
        np.nan_to_num(true.maps),
        true.affine,
        (int(factors[0]), int(factors[1])),
        brain,
        None,
        None,
        None,
        None,
        False,
        {"preset": "pairs", "head": folder.name, "split": "held-out"},
    )


@dataclass(frozen=True, eq=False)
class Problem:
    """A case as every method receives it, so that none has an advantage.

    Attributes:
        case: Truth, for scoring only.
        prepared: Trust, scale, operator and data consistency, made by the code that prepares a user's maps.
        low: [M, nx, ny, Z] LR maps, untrusted voxels filled.
        scale: [M, 1, 1, 1] scale of each map; 1 for a map that holds nothing.
    """

    case: Case
    prepared: Prepared
    low: Float32
    scale: NDArray[np.float64]


def pose(case: Case, mode: Mode) -> Problem:
    """Prepares a case the way ``SuperResolver`` does.

    Args:
        case: What was measured.
        mode: Data consistency that every method gets.
    """
    arguments = case.arguments()
    prepared = prepare(case.measured, arguments.pop("scale"), mode, **arguments)
    low = fill_volume(case.measured.maps, prepared.trust.trusted, prepared.trust.support)
    scale = np.where(prepared.volume.scale > 0, prepared.volume.scale, 1.0)
    return Problem(case, prepared, low, scale[:, None, None, None])
