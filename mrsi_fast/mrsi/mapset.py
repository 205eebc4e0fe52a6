"""One set of metabolite maps in memory, as every other part of the package takes it, and the error of bad inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.names import canonical_name, refuse_equal_labels

Float32 = NDArray[np.float32]


class MapInputError(ValueError):
    """An input that cannot be used. The message is a sentence: what, where, and what to do about it."""


def checked_name(name: Any) -> str:
    """The canonical name of a metabolite that a user or a file gives.

    Raises:
        MapInputError: It is no name.
    """
    try:
        return canonical_name(name)
    except ValueError as error:
        raise MapInputError(str(error)) from error


@dataclass(frozen=True, eq=False)
class MapSet:
    """Metabolite maps on one grid, with what is known about their quality.

    Attributes:
        maps: Concentrations in the user's units, [M, X, Y, Z] float32; NaN where there is none.
        affine: Voxel index to RAS+ mm, [4, 4] float64.
        names: One canonical metabolite name per map.
        crlb: Cramér-Rao lower bound of each fit in ``crlb_unit``, [M, X, Y, Z], or None. NaN and 0, and 999 % and more,
            mean that there was no fit.
        snr: Spectral signal-to-noise ratio, [M, X, Y, Z] (the same for all maps if the program gives one), or None.
        fwhm: Linewidth in ``fwhm_unit``, [M, X, Y, Z], or None.
        mask: The region where maps are valid, [X, Y, Z] bool, or None when it was not given.
        lipid: Voxels that the user or the fitting program flags as lipid-contaminated, [X, Y, Z] bool, or None.
        crlb_unit: ``percent`` of the concentration (%SD) or ``absolute``, a standard deviation in the maps' units.
        fwhm_unit: ``ppm`` or ``Hz`` (fsl_mrsi).
        spectrometer_mhz: Frequency of the nucleus, to judge linewidths in Hz (123.2 for protons at 2.9 T), or None.
        slice_axis: The array axis along which the slices are stacked, 0 to 2; the others are in plane.
        units: Name of the units of ``maps``; ``i.u.`` (institutional units) when not known.
        source: Where the maps came from, in words, without paths.
        xform_code: NIfTI code of the space the affine refers to (1 scanner, 2 aligned ...).
        warnings: What a careful reader of the inputs would remark on, one sentence each.
        judged: Whether levels, marks and units were judged from the values; ``read_maps`` does that, once.
    """

    maps: Float32
    affine: NDArray[np.float64]
    names: tuple[str, ...]
    crlb: Float32 | None = None
    snr: Float32 | None = None
    fwhm: Float32 | None = None
    mask: NDArray[np.bool_] | None = None
    lipid: NDArray[np.bool_] | None = None
    crlb_unit: Literal["percent", "absolute"] = "percent"
    fwhm_unit: Literal["ppm", "Hz"] = "ppm"
    spectrometer_mhz: float | None = None
    slice_axis: int = 2
    units: str = "i.u."
    source: str = "arrays"
    xform_code: int = 1
    warnings: tuple[str, ...] = ()
    judged: bool = False

    def __post_init__(self) -> None:
        if self.maps.ndim != 4 or len(self.names) != self.maps.shape[0]:
            raise MapInputError(
                f"{len(self.names)} names were given for maps of shape {self.maps.shape}; "
                "maps have shape [M, X, Y, Z] with one name each."
            )
        try:
            refuse_equal_labels(self.names)
        except ValueError as error:
            raise MapInputError(str(error)) from error
        for field in ("crlb", "snr", "fwhm", "mask", "lipid"):
            array = getattr(self, field)
            expected = self.maps.shape if field in ("crlb", "snr", "fwhm") else self.shape
            if array is not None and array.shape != expected:
                raise MapInputError(f"{field} has shape {array.shape}, the maps need {expected}.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along X, Y, Z."""
        _, nx, ny, nz = self.maps.shape
        return nx, ny, nz

    def select(self, names: Sequence[str]) -> MapSet:
        """Return the maps called ``names`` (any spelling), in that order.

        Raises:
            MapInputError: A name is not among the maps.
        """
        wanted = [canonical_name(name) for name in names]
        missing = [name for name in wanted if name not in self.names]
        if missing:
            raise MapInputError(f"There is no map called {', '.join(missing)}; the maps are {', '.join(self.names)}.")
        index = [self.names.index(name) for name in wanted]

        def pick(array: Float32 | None) -> Float32 | None:
            return None if array is None else array[index]

        return replace(
            self,
            maps=self.maps[index],
            names=tuple(wanted),
            crlb=pick(self.crlb),
            snr=pick(self.snr),
            fwhm=pick(self.fwhm),
        )
