"""What a super-resolution returns: maps on the finer grid in the user's units, their spread, and their origin."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.export import write_map, write_sidecar
from mrsi_fast.mrsi.geometry import in_plane_factors
from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.mrsi.names import bids_label, canonical_name
from mrsi_fast.mrsi.ratios import RatioMaps, ratio_maps

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Result:
    """Super-resolved maps. Arrays are [M, X, Y, Z] float32 in the user's units, NaN where the data were not trusted.

    Attributes:
        names: M canonical metabolite names.
        mean: Average of the samples if there are 8 or more, else the one-step estimate of the posterior mean.
        std: Standard deviation over the samples; NaN below 8 samples.
        samples: [S, M, X, Y, Z], or None if none were drawn.
        zero_fill: Zero-filled interpolation of the measured maps, for comparison: what was measured, nothing inferred.
        affine: [4, 4] voxel index to RAS+ mm of the finer grid.
        lr: [M, x, y, z] the measured maps.
        lr_affine: Their affine.
        units: Units of the maps.
        xform_code: NIfTI code of the space.
        provenance: How the result came about; JSON-serialisable.
        warnings: Sentences for the user.
    """

    names: tuple[str, ...]
    mean: Float32
    std: Float32
    samples: Float32 | None
    zero_fill: Float32
    affine: NDArray[np.float64]
    lr: Float32
    lr_affine: NDArray[np.float64]
    units: str
    xform_code: int
    provenance: dict[str, Any]
    warnings: tuple[str, ...]

    def index(self, name: str) -> int:
        """Position of a map.

        Raises:
            MapInputError: There is no map of that name.
        """
        canonical = canonical_name(name)
        if canonical not in self.names:
            raise MapInputError(f"There is no map called {canonical}; the maps are {', '.join(self.names)}.")
        return self.names.index(canonical)

    def ratio(
        self,
        numerator: str,
        denominator: str,
        reference: NDArray[np.bool_] | None = None,
        threshold: float | None = None,
        times_reference: float | None = None,
    ) -> RatioMaps:
        """Ratio of two maps, divided sample by sample and then summarised; of the mean maps if no samples were drawn.

        Args:
            numerator: Name of the upper map.
            denominator: Name of the lower map; floored at 30 % of its median in the reference region.
            reference: [X, Y, Z] bool, best normal-appearing white matter; default every valid voxel.
            threshold: Ratio whose exceedance probability is wanted.
            times_reference: The same as a multiple of the reference region's ratio.

        Raises:
            MapInputError: A map is missing.
            ValueError: The denominator has no positive median in the reference region.
        """
        stack = self.mean[None] if self.samples is None else self.samples
        above, below = stack[:, self.index(numerator)], stack[:, self.index(denominator)]
        return ratio_maps(above, below, None, reference, threshold, times_reference)

    def stem(self, what: str, name: str | None = None) -> str:
        """BIDS-like file name without suffix: ``res-x4_met-NAANAAG_desc-sr_mrsi``."""
        fx, fy = in_plane_factors(self.provenance["factors"])
        resolution = f"x{fx}" if fx == fy else f"x{fx}x{fy}"
        metabolite = "" if name is None else f"_met-{bids_label(name)}"
        return f"res-{resolution}{metabolite}_desc-{what}_mrsi"

    def save(self, folder: str | Path, prefix: str = "", inputs: Iterable[str | Path] = ()) -> list[Path]:
        """Writes one NIfTI per map (mean, and standard deviation from 8 samples on) and the provenance as JSON.

        Args:
            folder: Created if needed; existing files of the same names are replaced one by one, each whole.
            prefix: Leading entities of the file names, e.g. ``sub-01_ses-01_space-orig_``.
            inputs: Files that must not be overwritten.

        Returns:
            The files written.

        Raises:
            OSError: The folder cannot be written.
            MapInputError: A target is one of the inputs.
        """
        folder, inputs = Path(folder), tuple(inputs)
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for index, name in enumerate(self.names):
            finite = self.mean[index][np.isfinite(self.mean[index])]
            window = (0.0, float(np.percentile(finite, 99.5))) if finite.size and finite.max() > 0 else None
            kinds = [("sr", "mean", self.mean[index], window)]
            if np.isfinite(self.std[index]).any():
                kinds.append(("srstd", "std", self.std[index], None))
            for what, kind, volume, display in kinds:
                path = folder / f"{prefix}{self.stem(what, name)}.nii.gz"
                write_map(
                    path,
                    volume,
                    self.affine,
                    kind=kind,
                    name=name,
                    xform_code=self.xform_code,
                    window=display,
                    inputs=inputs,
                )
                written.append(path)
        sidecar = folder / f"{prefix}{self.stem('sr')}.json"
        write_sidecar(sidecar, {**self.provenance, "warnings": list(self.warnings)}, inputs)
        return [*written, sidecar]
