"""``mrsi-fast sr``: super-resolves sets of metabolite maps and writes NIfTI, JSON and an HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mrsi_fast.cli.batch import run_batch
from mrsi_fast.cli.cpus import usable_cpus
from mrsi_fast.cli.evidence_options import Align, AnatomyTrust, EvidenceMode, NoiseScale, Shrink, checks_of
from mrsi_fast.cli.exits import CommandError, ExitCode, guarded
from mrsi_fast.cli.hand import Crlb, Fwhm, Like, Maps, Patterns, Snr, TableAxes, by_hand
from mrsi_fast.cli.inputs import InputSet, check_output, collect, output_folders, with_anatomy
from mrsi_fast.cli.options import Debug, Inputs, Metabolites, MoreInputs, Names, Quiet, Units, Verbose, names_of
from mrsi_fast.cli.shard import shard_of
from mrsi_fast.cli.stated import (
    AcquiredMatrix,
    CrlbUnitName,
    FormName,
    FwhmUnitName,
    MaskLabels,
    MaxCrlb,
    MaxFwhm,
    Mhz,
    MinSnr,
    SliceAxis,
    limits_of_trust,
    matrix_of,
    stated_numbers,
)
from mrsi_fast.cli.summary import conclude
from mrsi_fast.cli.terminal import Terminal
from mrsi_fast.cli.work import Request, Worker, refuse_input_folders

if TYPE_CHECKING:
    from mrsi_fast.resolver import SuperResolver

"""As in the resolver, which is too heavy to be imported for a usage error."""

Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results; one folder an input if several.")]
Scale = Annotated[str, typer.Option(help="2, 4 or 8 in plane, or a factor for each axis, e.g. 4,2,1.")]
DEFAULT_SAVED = 8

Samples = Annotated[
    int | None,
    typer.Option(min=0, max=1024, help="Posterior samples beside mean and deviation. Default: none; 8 to be saved."),
]
Steps = Annotated[int, typer.Option(min=1, max=1000, help="Solver steps of a sample.")]
SolverName = Annotated[Literal["dpmpp_2m", "ddim", "heun", "ddpm"], typer.Option(help="Solver.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed; the same seed gives the same maps.")]
Consistency = Annotated[
    Literal["auto", "soft", "hard", "off"],
    typer.Option(help="How the result is held to the data; hard is for noise-free data only."),
]
WindowName = Annotated[
    Literal["none", "hamming", "hann"] | None, typer.Option(help="k-space window that was applied. Assumed none.")
]
SupportName = Annotated[Literal["square", "ellipse"] | None, typer.Option(help="k-space support. Assumed square.")]
Anatomy = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|auto|PATTERN",
        help="Coregistered T1 image to guide the result; auto: the one beside the maps; a pattern: with {sub}, {ses}.",
    ),
]
Mask = Annotated[Path | None, typer.Option(help="Region where the maps are valid; resampled if on another grid.")]
Model = Annotated[Path | None, typer.Option(help="Model folder. Default: the weights shipped with mrsi-fast.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
EngineName = Annotated[
    Literal["auto", "eager", "compile", "native", "native-amx", "cuda-graph"], typer.Option(help="What runs the loop.")
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="CPU threads. Default: what affinity, SLURM and the container allow.")
]
KeepFilled = Annotated[bool, typer.Option("--keep-filled", help="Keep estimates in untrusted voxels instead of NaN.")]
SaveSamples = Annotated[
    bool, typer.Option("--save-samples", help="Write every sample too; `mrsi-fast ratio` uses them.")
]
Pictures = Annotated[bool, typer.Option("--pictures", help="Write PNG pictures of the maps beside the report.")]
Shard = Annotated[
    str | None,
    typer.Option(help="Do one part of the inputs, e.g. 2/8; auto takes it from SLURM or torchrun. Default: all."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Redo inputs whose results are finished.")]


@guarded
def sr(
    output: Output,
    inputs: Inputs = None,
    more: MoreInputs = None,
    scale: Scale = "2",
    metabolites: Metabolites = None,
    names: Names = None,
    units: Units = None,
    maps: Maps = None,
    crlb: Crlb = None,
    snr: Snr = None,
    fwhm: Fwhm = None,
    pattern: Patterns = None,
    like: Like = None,
    table_axes: TableAxes = None,
    samples: Samples = None,
    steps: Steps = 8,
    solver: SolverName = "dpmpp_2m",
    seed: Seed = 0,
    data_consistency: Consistency = "auto",
    window: WindowName = None,
    support: SupportName = None,
    anatomy: Anatomy = None,
    mask: Mask = None,
    mask_labels: MaskLabels = None,
    crlb_unit: CrlbUnitName = None,
    fwhm_unit: FwhmUnitName = None,
    mhz: Mhz = None,
    slice_axis: SliceAxis = None,
    acquired_matrix: AcquiredMatrix = None,
    form: FormName = "auto",
    min_snr: MinSnr = None,
    max_fwhm: MaxFwhm = None,
    max_crlb: MaxCrlb = None,
    evidence: EvidenceMode = "auto",
    align: Align = "auto",
    anatomy_trust: AnatomyTrust = "check",
    noise_scale: NoiseScale = "auto",
    shrink: Shrink = "off",
    keep_filled: KeepFilled = False,
    save_samples: SaveSamples = False,
    pictures: Pictures = False,
    model: Model = None,
    device: Device = "auto",
    engine: EngineName = "auto",
    threads: Threads = None,
    overwrite: Overwrite = False,
    shard: Shard = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Super-resolve metabolite maps: finer maps on the same field of view, with their uncertainty.

    Each input gives NIfTI files (mean and standard deviation), a JSON file that says how they
    came about, and an HTML page. Detail beyond the measured k-space is inferred, not measured. Research use only.
    """
    terminal = Terminal(quiet, verbose)
    index, count = shard_of(shard)
    sets = collect(inputs, more, by_hand(maps, crlb, snr, fwhm, pattern, like, table_axes))
    sets = with_anatomy(sets, anatomy)
    request = Request(
        scale, _how_many(samples, save_samples), steps, seed, data_consistency, window, support, keep_filled,
        save_samples,
        names_of(metabolites), names_of(names), units, Path(anatomy) if anatomy else None, mask,
        stated_numbers(crlb_unit, fwhm_unit, mhz, mask_labels, slice_axis, form),
        limits_of_trust(min_snr, max_fwhm, max_crlb), matrix_of(acquired_matrix),
        pictures,
        checks_of(evidence, align, anatomy_trust, noise_scale, shrink),
    )  # fmt: skip
    _check(sets, request)
    check_output(output, sets)
    refuse_input_folders(sets, output_folders(sets, output))
    _say_what_was_found(sets, anatomy, terminal)
    if not sets[index::count]:
        terminal.say(f"Nothing to do: {len(sets)} inputs, and this is part {index + 1} of {count}.")
        return
    resolver = load_resolver(model, device=device, engine=engine, solver=solver, threads=threads or usable_cpus()[0])
    if verbose:
        terminal.say(resolver.explain())
    worker = Worker(resolver, request, output, overwrite, terminal)
    folders = output_folders(sets, output)[index::count]
    sets = sets[index::count]
    outcomes = run_batch(sets, worker, folders, terminal, debug)
    conclude(sets, outcomes, output, terminal)


def _how_many(samples: int | None, saved: bool) -> int:
    if samples is None:
        return DEFAULT_SAVED if saved else 0
    if saved and samples == 0:
        raise CommandError("--samples 0 draws none, so --save-samples has nothing to save. Leave one of them out.")
    return samples


def _check(sets: list[InputSet], request: Request) -> None:
    from mrsi_fast.mrsi.geometry import parse_factors

    try:
        parse_factors(request.scale)  # per set again, once the axis of its slices is known
    except ValueError as error:
        raise CommandError(str(error)) from error
    if request.mask is not None and len(sets) > 1:
        raise CommandError(f"--mask belongs to one set of maps, but {len(sets)} were given. Run them one by one.")
    if request.mask is not None and not request.mask.is_file():
        raise CommandError(f"--mask {request.mask}: there is no such file.")


def _say_what_was_found(sets: list[InputSet], anatomy: str | None, terminal: Terminal) -> None:
    """Names what lies beside the maps and is not used."""
    for entry in sets:
        lines = [f"not used: {line}" for line in entry.left_out()]
        found = entry.t1_found()
        if found is not None and anatomy is None:
            lines.append(f"not used: {found.name}: an anatomical image; --anatomy auto guides the result by it")
        if anatomy is not None and entry.anatomy is None:
            lines.append(f"no anatomical image was found ({anatomy}), so none guides the result")
        for line in lines:
            terminal.say(f"{entry.label}: {line}")


def load_resolver(model: Path | None, **options: Any) -> SuperResolver:
    """The model on the asked device and engine.

    Raises:
        CommandError: It cannot be loaded, or cannot run there.
    """
    from mrsi_fast.engine.job import EngineError
    from mrsi_fast.models.pretrained import ModelFolderError
    from mrsi_fast.resolver import SuperResolver

    try:
        return SuperResolver.from_pretrained(model, **options)
    except ModelFolderError as error:
        raise CommandError(str(error), ExitCode.MODEL) from error
    except EngineError as error:
        raise CommandError(str(error)) from error
