"""What a super-resolution returns: maps on the finer grid in the user's units, their spread, and their origin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.evidence.testimony import Evidence
from mrsi_fast.mrsi.export import refuse_overwrite, write_map, write_sidecar
from mrsi_fast.mrsi.geometry import factors_label
from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.mrsi.names import bids_label, canonical_name, refuse_equal_labels
from mrsi_fast.mrsi.ratios import RatioMaps, Reference, ratio_maps
from mrsi_fast.publication import Place, UnreadableRecord, sha256_of
from mrsi_fast.sample_store import forget_pages

Float32 = NDArray[np.float32]

_WRITERS = 2
"""Maps that are compressed and written at once."""


@dataclass(frozen=True, eq=False)
class _Map:
    """A file to be written: which metabolite, part of the file name, kind, [X, Y, Z], affine."""

    index: int
    what: str
    kind: str
    volume: Float32
    affine: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Result:
    """Super-resolved maps. Arrays are [M, X, Y, Z] float32 in the user's units, NaN where the data were not trusted.

    Attributes:
        names: M canonical metabolite names.
        mean: The one-step estimate of the posterior mean, always.
        std: Posterior standard deviation from the same evaluation; of a model without a head for it over the samples,
            if there are 8 or more, else NaN. ``provenance["standard_deviation"]`` names the source.
        samples: [S, M, X, Y, Z], or None if none were drawn. They take S times the memory of the mean, unless the call
            named a ``sample_folder``: then they are a read-only memory map of a file.
        zero_fill: Zero-filled interpolation of the measured maps, for comparison: what was measured, nothing inferred.
        affine: [4, 4] voxel index to RAS+ mm of the finer grid.
        lr: [M, x, y, z] the measured maps.
        lr_affine: Their affine.
        units: Units of the maps.
        xform_code: NIfTI code of the space.
        provenance: How the result came about; JSON-serialisable.
        warnings: Sentences for the user.
        evidence: The self-test of the scan, or None if none was run.
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
    evidence: Evidence | None = None

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
        reference: Reference = None,
        threshold: float | None = None,
        times_reference: float | None = None,
    ) -> RatioMaps:
        """Ratio of two maps, divided sample by sample and then summarised; without samples of the mean maps.

        Without samples the deviation is to first order that of two independent errors,
        ``sd^2 = (sd_a/b)^2 + (a sd_b/b^2)^2``, and a probability is that of a normal distribution: what the two maps'
        errors share is not in it. With samples it is.

        Args:
            numerator: Name of the upper map.
            denominator: Name of the lower map; floored at 30 % of its median in the reference region.
            reference: [X, Y, Z] bool, best normal-appearing white matter; ``"mirror"`` for the mirror image of the
                hotspot (with ``times_reference``); default every valid voxel.
            threshold: Ratio whose exceedance probability is wanted.
            times_reference: The same as a multiple of the reference region's ratio.

        Raises:
            MapInputError: A map is missing.
            ValueError: The denominator has no positive median in the reference region.
        """
        first, second = self.index(numerator), self.index(denominator)
        stack = self.mean[None] if self.samples is None else self.samples
        deviations = (self.std[first], self.std[second]) if self.samples is None else None
        return ratio_maps(
            stack[:, first], stack[:, second], None, reference, threshold, times_reference, self.affine, deviations
        )

    def stem(self, what: str, name: str | None = None) -> str:
        """BIDS-like file name without suffix: ``res-x4_met-NAANAAG_desc-sr_mrsi``."""
        metabolite = "" if name is None else f"_met-{bids_label(name)}"
        return f"{self._stem}{metabolite}_desc-{what}_mrsi"

    @property
    def _stem(self) -> str:
        return result_stem(self.provenance["factors"], self.provenance.get("slice_axis", 2))

    def write(
        self, folder: Path, prefix: str = "", samples: bool = False, inputs: Iterable[str | Path] = ()
    ) -> list[Path]:
        """Writes the maps and the JSON record into a folder as they are, without regard to existing files.

        Nothing waits for the disk: that is left to ``publication.Place.publish``.

        Args:
            folder: Existing folder.
            prefix: Leading entities of the file names, e.g. ``sub-01_ses-01_space-orig_``.
            samples: Write every sample too, if any were drawn.
            inputs: Files that must not be overwritten.

        Returns:
            The files written; the record, which names all others with their sha256, is the last.

        Raises:
            OSError: The folder cannot be written.
            MapInputError: A target is one of the inputs.
            ValueError: Two maps would have one file name.
        """
        inputs = tuple(inputs)
        files = self.write_maps(folder, prefix, samples, inputs)
        record = folder / f"{prefix}{self.stem('sr')}.json"
        self.seal(record, files, inputs)
        return [*files, record]

    def write_maps(
        self, folder: Path, prefix: str = "", samples: bool = False, inputs: Iterable[str | Path] = ()
    ) -> list[Path]:
        """``write`` without the record, for a caller who adds files before ``seal``."""
        refuse_equal_labels(self.names)
        inputs = tuple(inputs)

        def write_one(one: _Map) -> Path:
            path = folder / f"{prefix}{self.stem(one.what, self.names[one.index])}.nii.gz"
            write_map(
                path,
                one.volume,
                one.affine,
                kind=one.kind,
                name=self.names[one.index],
                xform_code=self.xform_code,
                window=_window(self.mean[one.index]) if one.kind in ("mean", "zerofilled", "measured") else None,
                inputs=inputs,
                durable=False,
            )
            if one.kind == "sample" and self.samples is not None:
                forget_pages(self.samples)
            return path

        with ThreadPoolExecutor(_WRITERS) as pool:  # most of the time goes to zlib, which lets other threads run
            return list(pool.map(write_one, self._volumes(samples)))

    def seal(self, record: Path, files: Iterable[Path], inputs: Iterable[str | Path] = ()) -> None:
        """Writes the JSON record of a result: provenance, warnings, and its files with their sha256.

        Nothing waits for the disk, as in ``write``.
        """
        sums = {path.name: {"sha256": sha256_of(path)} for path in sorted(files)}
        facts = {**self.provenance, "warnings": list(self.warnings), "files": sums}
        write_sidecar(record, facts, inputs, durable=False)

    def _volumes(self, samples: bool) -> Iterator[_Map]:
        """What is written, map by map.

        With the zero-filled and the measured map every later step, a new report included, needs these files alone.
        """
        pictures = {} if self.evidence is None else self.evidence.pictures()
        for index, name in enumerate(self.names):
            yield _Map(index, "sr", "mean", self.mean[index], self.affine)
            yield _Map(index, "zerofilled", "zerofilled", self.zero_fill[index], self.affine)
            yield _Map(index, "measured", "measured", self.lr[index], self.lr_affine)
            if np.isfinite(self.std[index]).any():
                yield _Map(index, "srstd", "std", self.std[index], self.affine)
            if tested := pictures.get(name, {}):
                yield _Map(index, "selftest", "selftest", tested["brought_back"], self.lr_affine)
                yield _Map(index, "selftestzerofilled", "selftestzerofilled", tested["cut_zero_filled"], self.lr_affine)
            if samples and self.samples is not None:
                for number, sample in enumerate(self.samples):
                    yield _Map(index, f"sample{number:03d}", "sample", sample[index], self.affine)

    def save(
        self,
        folder: str | Path,
        prefix: str = "",
        inputs: Iterable[str | Path] = (),
        samples: bool = False,
        overwrite: bool = False,
    ) -> list[Path]:
        """Writes one NIfTI per map (mean, and standard deviation where there is one) and the record as JSON.

        The files appear together: until all are written the folder is as it was.

        Args:
            folder: Created if needed. A former result of the same inputs is replaced.
            prefix: Leading entities of the file names, e.g. ``sub-01_ses-01_space-orig_``.
            inputs: Files that must not be overwritten.
            samples: Write every sample too, if any were drawn.
            overwrite: Replace a result of other inputs as well.

        Returns:
            The files written.

        Raises:
            OSError: The folder cannot be written.
            MapInputError: A target is one of the inputs, or the folder holds the result of other inputs.
            ValueError: Two maps would have one file name.
        """
        folder, inputs = Path(folder), tuple(inputs)
        place = Place(folder, f"{prefix}{self._stem}")
        with place.locked():
            self._refuse_other_inputs(place, overwrite)
            for name in place.files():
                refuse_overwrite(folder / name, inputs)
            with place.staging() as staging:
                written = self.write(staging, prefix, samples)
                place.publish(staging, keep=False)
        return [folder / path.name for path in written]

    def _refuse_other_inputs(self, place: Place, overwrite: bool) -> None:
        try:
            former = place.record()
        except UnreadableRecord:
            return  # its files are kept aside
        mine = self.provenance.get("identity", {}).get("inputs")
        if former is not None and former["identity"].get("inputs") != mine and not overwrite:
            raise MapInputError(
                f"{place.folder.name}: holds {place.record_path.name}, a result of other maps. Choose another folder "
                "or prefix, or pass overwrite=True to replace it."
            )


def result_stem(factors: Sequence[int], slice_axis: int) -> str:
    """Entity of the file names that separates results of different factors: ``res-x4``, ``res-x4x2``."""
    return f"res-{factors_label(factors, slice_axis)}"


def _window(volume: Float32) -> tuple[float, float] | None:
    """Display range of a map: 0 to its 99.5th percentile."""
    finite = volume[np.isfinite(volume)]
    return (0.0, float(np.percentile(finite, 99.5))) if finite.size and finite.max() > 0 else None
