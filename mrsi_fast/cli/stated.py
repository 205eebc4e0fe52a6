"""What the user states about the numbers in the files where their values leave doubt; for ``sr`` and ``validate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mrsi_fast.cli.exits import CommandError

if TYPE_CHECKING:
    from mrsi_fast.mrsi.quality import TrustRules

CrlbUnitName = Annotated[
    Literal["percent", "fraction", "absolute"] | None,
    typer.Option(help="Unit of the CRLB maps. Default: inferred from their values."),
]
FwhmUnitName = Annotated[
    Literal["ppm", "Hz"] | None, typer.Option(help="Unit of the linewidth maps. Default: inferred from their values.")
]
Mhz = Annotated[
    float | None, typer.Option(help="Frequency of the nucleus, to judge linewidths in Hz, e.g. 123.2 at 2.9 T.")
]
MaskLabels = Annotated[
    str | None, typer.Option(help="Values of the mask that are inside, e.g. 1,3. Default: above half of the largest.")
]
AcquiredMatrix = Annotated[
    str | None,
    typer.Option(help="In-plane matrix that was measured, e.g. 16,16, where the maps were interpolated since."),
]
SliceAxis = Annotated[
    Literal["first", "second", "third"] | None,
    typer.Option(help="Array axis along which slices are stacked. Default: found from voxel sizes and matrix."),
]
ThroughPlane = Annotated[
    Literal["encoded", "slices"] | None,
    typer.Option(help="Where the scale refines the slices: 3D phase encoding, or slices each excited by itself."),
]
SliceThickness = Annotated[
    float | None, typer.Option(help="Thickness of a slice, mm; for --through-plane slices. Adjacent: their distance.")
]
FormName = Annotated[
    Literal["auto", "s", "q"], typer.Option(help="Orientation to take where sform and qform differ: auto, s or q.")
]
ClipNegative = Annotated[bool, typer.Option("--clip-negative", help="Set negative concentrations to 0. Default: kept.")]
MinSnr = Annotated[
    float | None, typer.Option(help="Smallest spectral SNR that is trusted. Default 4; 0 switches it off.")
]
MaxFwhm = Annotated[
    float | None, typer.Option(help="Largest linewidth that is trusted, ppm. Default 0.1; 0 switches it off.")
]
MaxCrlb = Annotated[
    float | None,
    typer.Option(help="Largest CRLB that is trusted, % of the map's median (absolute). Default 30; 0 switches it off."),
]


def stated_numbers(
    crlb_unit: str | None = None,
    fwhm_unit: str | None = None,
    mhz: float | None = None,
    mask_labels: str | None = None,
    slice_axis: str | None = None,
    form: str = "auto",
    clip_negative: bool = False,
) -> dict[str, Any]:
    """The options as keywords of ``read_maps``, without those that were not given; JSON-serialisable.

    Raises:
        CommandError: A value is no number of its kind.
    """
    from mrsi_fast.mrsi.mapset import MapInputError
    from mrsi_fast.mrsi.units import check_mhz

    try:
        check_mhz(mhz)
    except MapInputError as error:
        raise CommandError(f"--{error}") from error
    labels = None
    if mask_labels is not None:
        try:
            labels = [int(part) for part in mask_labels.split(",")]
        except ValueError:
            raise CommandError(f"--mask-labels {mask_labels}: give whole numbers, e.g. 1 or 1,3.") from None
    given: dict[str, Any] = {"crlb_unit": crlb_unit, "fwhm_unit": fwhm_unit, "mhz": mhz, "mask_labels": labels}
    given["clip_negative"] = clip_negative or None
    given["slice_axis"] = None if slice_axis is None else ("first", "second", "third").index(slice_axis)
    return {key: value for key, value in given.items() if value is not None} | (
        {"form": form} if form != "auto" else {}
    )


def matrix_of(listed: str | None) -> tuple[int, int] | None:
    """Two whole numbers.

    Raises:
        CommandError: They are not.
    """
    if listed is None:
        return None
    try:
        first, second = (int(part) for part in listed.replace("x", ",").split(","))
    except ValueError:
        first = second = 0
    if min(first, second) < 1:
        raise CommandError(f"--acquired-matrix {listed}: give two whole numbers, e.g. 16,16.")
    return first, second


def limits_of_trust(
    min_snr: float | None = None, max_fwhm: float | None = None, max_crlb: float | None = None
) -> dict[str, float]:
    """The limits that were given, under the names of the options; JSON-serialisable.

    Raises:
        CommandError: One is negative.
    """
    given = {"min_snr": min_snr, "max_fwhm": max_fwhm, "max_crlb": max_crlb}
    limits = {key: value for key, value in given.items() if value is not None}
    for key, value in limits.items():
        if not 0 <= value < float("inf"):
            raise CommandError(f"--{key.replace('_', '-')} {value:g}: give a number of at least 0 (0 switches it off).")
    return limits


def trust_rules(limits: dict[str, float]) -> TrustRules:
    """The trust rules with these limits in place of the default ones."""
    from mrsi_fast.mrsi.quality import TrustRules

    fields = {"min_snr": ("min_snr", 1.0), "max_fwhm": ("max_fwhm_ppm", 1.0), "max_crlb": ("max_crlb_of_median", 0.01)}
    changed: dict[str, Any] = {fields[key][0]: value * fields[key][1] or None for key, value in limits.items()}
    return TrustRules(**changed)
