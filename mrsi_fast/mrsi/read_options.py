"""What the user can say about maps that are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from mrsi_fast.mrsi.nifti import Form
from mrsi_fast.mrsi.reader import Source
from mrsi_fast.mrsi.units import CrlbUnit, FwhmUnit

QualitySource = Source | Mapping[str, Source] | None


class ReadOptions(TypedDict, total=False):
    """Options of :func:`~mrsi_fast.mrsi.io.read_maps`; None, or leaving one out, stands for its default.

    Attributes:
        metabolites: Maps to take, in any spelling, as a list or ``"tNAA,tCr"``; ``"all"`` for every map. Default: those
            with a channel of their own in the network, or all if there is none.
        names: Names of a stack's maps, as a list or ``"tNAA,tCr"``, or of a map whose file name does not tell; default
            those that a JSON file beside it (``Metabolites``) or its own name tells. ``crlb_tNAA`` is the CRLB of tNAA.
        crlb: Cramér-Rao bounds in place of what a folder holds: a stack with one volume per map, or a mapping by name
            (or one volume for a single map). Arrays without an affine are on the maps' grid; so for all that follow.
        snr: Signal-to-noise ratio: one source for all maps, a stack or a mapping.
        fwhm: Linewidth, likewise.
        mask: Region where maps are valid (see ``masks``); on another grid it is resampled.
        lipid: Voxels flagged as lipid-contaminated, likewise.
        crlb_unit: Unit of ``crlb``: ``percent``, ``fraction`` or ``absolute``; default as its values tell.
        fwhm_unit: Unit of ``fwhm``; default as its values tell.
        mhz: Frequency of the nucleus, MHz, to judge linewidths in Hz.
        mask_labels: Values of the mask that are inside; default those above half of its largest.
        slice_axis: Array axis along which the slices are stacked, 0 to 2; default as voxel sizes and matrix tell.
        units: Units of the maps, for labels.
        scaling: fsl_mrsi scaling to take (molarity, molality, raw, internal).
        form: Orientation to use where sform and qform differ: ``auto``, ``s`` or ``q``.
        like: An image on the grid of the spectra, for LCModel's tables, which hold no positions.
        table_axes: Directions in which rows, columns and slices of the tables count, by default ``PLS`` (axial).
        clip_negative: Set negative concentrations to 0; by default they are kept, since noise is negative as often as
            positive, and clipping it raises the mean of a weak map.
    """

    metabolites: str | Sequence[str] | None
    names: str | Sequence[str] | None
    crlb: QualitySource
    snr: QualitySource
    fwhm: QualitySource
    mask: Source | None
    lipid: Source | None
    crlb_unit: CrlbUnit | None
    fwhm_unit: FwhmUnit | None
    mhz: float | None
    mask_labels: Sequence[int] | None
    slice_axis: int | None
    units: str | None
    scaling: str | None
    form: Form
    like: Source | None
    table_axes: str | None
    clip_negative: bool
