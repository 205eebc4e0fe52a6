"""``mrsi-fast sr``: super-resolves sets of metabolite maps and writes NIfTI, JSON and an HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mrsi_fast.cli.batch import Outcome, failed_by_warnings, run_batch
from mrsi_fast.cli.evidence_options import EvidenceOptions
from mrsi_fast.cli.exits import CommandError, guarded
from mrsi_fast.cli.groups import grouped
from mrsi_fast.cli.inputs import InputSet, check_output, with_anatomy
from mrsi_fast.cli.layout import Home, LayoutName, Output, home_of
from mrsi_fast.cli.options import Debug, Quiet, Verbose
from mrsi_fast.cli.reading import ReadOptions, TrustOptions
from mrsi_fast.cli.running import (
    AcquisitionOptions,
    Anatomy,
    MaxMemory,
    ModelOptions,
    Scale,
    WorkerOptions,
    limit_memory,
)
from mrsi_fast.cli.shard import shard_of
from mrsi_fast.cli.summary import conclude, refuse_files_of_others
from mrsi_fast.cli.terminal import Terminal
from mrsi_fast.cli.work import Request, Worker, refuse_input_folders
from mrsi_fast.cli.workers import Job, run_on_workers

if TYPE_CHECKING:
    from mrsi_fast.resolver import SuperResolver

DEFAULT_SAVED = 8

Samples = Annotated[
    int | None,
    typer.Option(min=0, max=1024, help="Posterior samples beside mean and deviation. Default: none; 8 to be saved."),
]
Steps = Annotated[int, typer.Option(min=1, max=1000, help="Solver steps of a sample.")]
SolverName = Annotated[Literal["dpmpp_2m", "ddim", "heun", "ddpm"], typer.Option(help="Solver.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed; the same seed gives the same maps.")]
KeepFilled = Annotated[bool, typer.Option("--keep-filled", help="Keep estimates in untrusted voxels instead of NaN.")]
SaveSamples = Annotated[
    bool, typer.Option("--save-samples", help="Write every sample too; `mrsi-fast ratio` uses them.")
]
Pictures = Annotated[bool, typer.Option("--pictures", help="Write PNG pictures of the maps beside the report.")]
Shard = Annotated[
    str | None,
    typer.Option(help="Do one part of the inputs, e.g. 2/8; auto takes it from SLURM or torchrun. Default: all."),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Inputs with warnings count as failed; their results are written all the same.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Redo inputs whose results are finished.")]


@guarded
@grouped
def sr(
    *,
    output: Output = None,
    layout: LayoutName = "auto",
    read: ReadOptions,
    scale: Scale = "2",
    samples: Samples = None,
    steps: Steps = 8,
    solver: SolverName = "dpmpp_2m",
    seed: Seed = 0,
    anatomy: Anatomy = None,
    acquisition: AcquisitionOptions,
    trust: TrustOptions,
    checks: EvidenceOptions,
    machine: ModelOptions,
    workers: WorkerOptions,
    keep_filled: KeepFilled = False,
    save_samples: SaveSamples = False,
    pictures: Pictures = False,
    overwrite: Overwrite = False,
    shard: Shard = None,
    max_memory: MaxMemory = None,
    strict: Strict = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Super-resolve metabolite maps: finer maps on the same field of view, with their uncertainty.

    Each input gives NIfTI files (mean and standard deviation), a JSON record of how they were made, and an HTML
    report. Detail beyond the measured k-space is inferred, not measured. Research use only.
    """
    limit_memory(max_memory)
    terminal, (index, count) = Terminal(quiet, verbose), shard_of(shard)
    sets = with_anatomy(read.sets(), anatomy)
    drawn = {"samples": _how_many(samples, save_samples), "steps": steps, "seed": seed, "keep_filled": keep_filled}
    files = {"save_samples": save_samples, "pictures": pictures}
    image = Path(anatomy) if anatomy else None
    request = Request.of(read, acquisition, trust, checks, scale=scale, anatomy=image, **drawn, **files)
    _check_scale(scale)
    home = home_of(output, layout, sets)
    folders = home.folders(sets)
    _prepare(home, sets, folders)
    _say_what_was_found(sets, anatomy, terminal)
    if not sets[index::count]:
        terminal.say(f"Nothing to do: {len(sets)} inputs, and this is part {index + 1} of {count}.")
        return
    sets, folders = sets[index::count], folders[index::count]
    where = workers.where(machine.threads, machine.device)
    facts: dict[str, Any] = {"request": request, "output": home.folder, "overwrite": overwrite, "debug": debug}
    if where.asked:
        job = Job.of(machine, solver, where, voice=(quiet, verbose), **facts)
        outcomes = run_on_workers(sets, folders, job, where, terminal)
    else:
        outcomes = _run_here(sets, folders, machine.load(solver=solver), terminal, **facts)
    if strict:
        outcomes = [failed_by_warnings(one, terminal) for one in outcomes]
    conclude(sets, outcomes, home.folder, terminal)


def _prepare(home: Home, sets: list[InputSet], folders: list[Path]) -> None:
    """Makes the output folder, after a look for what must not be overwritten."""
    refuse_input_folders(sets, folders)
    check_output(home.folder, sets)
    refuse_files_of_others(home.folder)
    home.describe()


def _run_here(
    sets: list[InputSet],
    folders: list[Path],
    resolver: SuperResolver,
    terminal: Terminal,
    *,
    request: Request,
    output: Path,
    overwrite: bool,
    debug: bool,
) -> list[Outcome]:
    """Works on the inputs one after the other in this process."""
    terminal.detail(resolver.explain())
    return run_batch(sets, Worker(resolver, request, output, overwrite, terminal), folders, terminal, debug)


def _how_many(samples: int | None, saved: bool) -> int:
    if samples is None:
        return DEFAULT_SAVED if saved else 0
    if saved and samples == 0:
        raise CommandError("--samples 0 draws none, so --save-samples has nothing to save. Leave one of them out.")
    return samples


def _check_scale(scale: str) -> None:
    from mrsi_fast.mrsi.geometry import parse_factors

    try:
        parse_factors(scale)  # per set again, once the axis of its slices is known
    except ValueError as error:
        raise CommandError(str(error)) from error


def _say_what_was_found(sets: list[InputSet], anatomy: str | None, terminal: Terminal) -> None:
    """Names unused files beside the maps."""
    for entry in sets:
        lines = [f"not used: {line}" for line in entry.left_out()]
        found = entry.t1_found()
        if found is not None and anatomy is None:
            lines.append(f"not used: {found.name}: an anatomical image; --anatomy auto guides the result by it")
        if anatomy is not None and entry.anatomy is None:
            lines.append(f"no anatomical image was found ({anatomy}), so none guides the result")
        for line in lines:
            terminal.say(f"{entry.label}: {line}")
