"""The options about the acquisition and about what computes, alike for ``sr`` and ``check``; loading a model."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mrsi_fast.cli.cpus import usable_cpus
from mrsi_fast.cli.exits import CommandError, ExitCode
from mrsi_fast.cli.imports import without_collections
from mrsi_fast.cli.stated import AcquiredMatrix, SliceThickness, ThroughPlane, matrix_of

if TYPE_CHECKING:
    from mrsi_fast.models.pretrained import Pretrained
    from mrsi_fast.pool import Workers
    from mrsi_fast.resolver import SuperResolver

Scale = Annotated[
    str, typer.Option(help="2, 4 or 8 in plane, or a factor for each axis: 4,2,1; 2,2,2 refines the slices too.")
]
Consistency = Annotated[
    Literal["auto", "soft", "hard", "off"],
    typer.Option(
        help="Data consistency: soft (to within the noise), hard (for noise-free data only) or off; auto: soft where a "
        "noise level is known or assumed."
    ),
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
Model = Annotated[Path | None, typer.Option(help="Model folder. Default: the weights shipped with mrsi-fast.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
EngineName = Annotated[
    Literal["auto", "eager", "compile", "native", "native-amx", "cuda-graph"], typer.Option(help="What runs the loop.")
]
MaxMemory = Annotated[
    float | None,
    typer.Option(
        help="Most memory a run may take, GB; a larger one is refused before it begins. Default: what is free."
    ),
]
Threads = Annotated[
    int | None, typer.Option(min=1, max=1024, help="CPU threads. Default: by affinity, SLURM and container limits.")
]
_WORKERS = "Several processes (need the extra cluster)"
WorkerCount = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1024,
        rich_help_panel=_WORKERS,
        help="Processes on this machine that share the subjects out. Default: this process does them all.",
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        rich_help_panel=_WORKERS,
        help="Dask scheduler whose workers do the subjects, e.g. tcp://10.0.0.5:8786. They need the same files.",
    ),
]
Retries = Annotated[
    int,
    typer.Option(
        min=0, max=100, rich_help_panel=_WORKERS, help="How often a subject is tried again that fails on a worker."
    ),
]


@dataclass(frozen=True)
class WorkerOptions:
    """Which processes do the subjects."""

    workers: WorkerCount = None
    scheduler: Scheduler = None
    retries: Retries = 2

    def __post_init__(self) -> None:
        """Refuses two places at once."""
        if self.workers is not None and self.scheduler is not None:
            raise CommandError("--workers starts processes here, --scheduler joins those of another: give one of them.")

    def where(self, threads: int | None = None, device: str = "cpu") -> Workers:
        """Where to work, with as many CPU threads a subject as there are for it."""
        from mrsi_fast.pool import Workers

        where = Workers(self.workers, self.scheduler, threads, device in ("cuda", "gpu"), self.retries)
        return replace(where, threads=where.threads_of(usable_cpus()[0])) if where.asked else where


@dataclass(frozen=True)
class AcquisitionOptions:
    """How k-space was measured, and how the result is held to it."""

    data_consistency: Consistency = "auto"
    window: WindowName = None
    support: SupportName = None
    acquired_matrix: AcquiredMatrix = None
    through_plane: ThroughPlane = None
    slice_thickness: SliceThickness = None

    def settings(self) -> dict[str, Any]:
        """The acquisition as the resolver takes it.

        Raises:
            CommandError: The matrix is not two whole numbers, or the thickness none.
        """
        if self.slice_thickness is not None and not 0 < self.slice_thickness < 1000:
            raise CommandError(f"--slice-thickness {self.slice_thickness:g}: give a thickness in mm, e.g. 10.")
        return {
            "window": self.window,
            "support": self.support,
            "matrix": matrix_of(self.acquired_matrix),
            "through_plane": self.through_plane,
            "thickness_mm": self.slice_thickness,
        }


@dataclass(frozen=True)
class ModelOptions:
    """The model, and where and how it runs."""

    model: Model = None
    device: Device = "auto"
    engine: EngineName = "auto"
    threads: Threads = None

    def weights(self) -> Pretrained:
        """The weights alone, without a device.

        Raises:
            CommandError: They cannot be loaded.
        """
        from mrsi_fast.models.pretrained import ModelFolderError, load_pretrained

        try:
            return load_pretrained(self.model)
        except ModelFolderError as error:
            raise CommandError(str(error), ExitCode.MODEL) from error

    def load(self, **options: Any) -> SuperResolver:
        """The model on the asked device and engine; ``options`` go to the resolver too.

        Raises:
            CommandError: It cannot be loaded, or cannot run there.
        """
        with without_collections():
            from mrsi_fast.engine.job import EngineError
            from mrsi_fast.resolver import SuperResolver

        own: dict[str, Any] = {"device": self.device, "engine": self.engine}
        options = own | {"threads": self.threads or usable_cpus()[0]} | options
        try:
            return SuperResolver(self.weights(), **options)
        except EngineError as error:
            raise CommandError(str(error)) from error


def limit_memory(gigabytes: float | None) -> None:
    """Sets the memory limit of this command and of its worker processes, which inherit the environment.

    Raises:
        CommandError: The limit, or the one in the environment, is no number above 0.
    """
    from mrsi_fast.memory import VARIABLE, limit_bytes

    if gigabytes is not None:
        os.environ[VARIABLE] = str(gigabytes)  # ``guarded`` puts the environment back
    try:
        limit_bytes()
    except ValueError as error:
        raise CommandError(str(error)) from error
