"""The options about the acquisition and about what computes, alike for ``sr`` and ``check``; loading a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mrsi_fast.cli.cpus import usable_cpus
from mrsi_fast.cli.exits import CommandError, ExitCode
from mrsi_fast.cli.stated import AcquiredMatrix, SliceThickness, ThroughPlane, matrix_of

if TYPE_CHECKING:
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
Threads = Annotated[
    int | None, typer.Option(min=1, help="CPU threads. Default: what affinity, SLURM and the container allow.")
]


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
            CommandError: The matrix is not two whole numbers.
        """
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

    def load(self, **options: Any) -> SuperResolver:
        """The model on the asked device and engine; ``options`` go to the resolver too.

        Raises:
            CommandError: It cannot be loaded, or cannot run there.
        """
        from mrsi_fast.engine.job import EngineError
        from mrsi_fast.models.pretrained import ModelFolderError
        from mrsi_fast.resolver import SuperResolver

        options |= {"device": self.device, "engine": self.engine, "threads": self.threads or usable_cpus()[0]}
        try:
            return SuperResolver.from_pretrained(self.model, **options)
        except ModelFolderError as error:
            raise CommandError(str(error), ExitCode.MODEL) from error
        except EngineError as error:
            raise CommandError(str(error)) from error
