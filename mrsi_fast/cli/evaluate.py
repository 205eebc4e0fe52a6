"""``mrsi-fast evaluate``: scores a model and the baselines on simulated or held-out heads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mrsi_fast.cli.exits import CommandError, ExitCode, guarded
from mrsi_fast.cli.groups import grouped
from mrsi_fast.cli.inputs import make_writable
from mrsi_fast.cli.options import Debug, Quiet, Verbose
from mrsi_fast.cli.running import WorkerOptions
from mrsi_fast.cli.terminal import Terminal

if TYPE_CHECKING:
    from mrsi_fast.pool import Workers


def _numbers(listed: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in listed.split(","))
    except ValueError:
        raise CommandError(f"{option} {listed!r} is not a list of whole numbers, e.g. 2,4,8.") from None


Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of tables, scores and figures.")]
Model = Annotated[
    str | None, typer.Option(help="Model folder; default the shipped weights; 'none' for the baselines alone.")
]
Preset = Annotated[str, typer.Option(help="Simulation preset, e.g. paper-like, realistic-3T.")]
Scales = Annotated[str, typer.Option(help="In-plane factors.")]
Split = Annotated[Literal["val", "test"], typer.Option(help="Heads: val, or test (once, at the end).")]
HeldOut = Annotated[
    Path | None,
    typer.Option(help="Folder of label maps (sub-*_dseg.nii.gz), or of subjects with lr and hr maps inside."),
]
Subjects = Annotated[int, typer.Option(min=1, max=1000, help="Simulated subjects per head.")]
Slices = Annotated[int | None, typer.Option(min=1, max=256, help="Slices per subject; default the preset's.")]
Samples = Annotated[
    int, typer.Option(min=0, max=1024, help="Posterior samples, 8 or more; 0 for the one-step mean alone.")
]
Steps = Annotated[str, typer.Option(help="Solver steps; several give a row each.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of subjects and samples.")]
Anatomy = Annotated[bool, typer.Option("--anatomy", help="Also evaluate with the T1 image.")]
Consistency = Annotated[
    Literal["auto", "off"], typer.Option(help="For every method alike: auto (hard if noise-free, else soft), off.")
]
Phantom = Annotated[bool, typer.Option("--phantom", help="The analytic head in place of label maps.")]
Truncate = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="SCAN",
        help="Measured scan (folder or file), repeatable: cut its k-space by 2, bring it back, compare. "
        "Nothing else is evaluated; writes truncation.md and .json.",
    ),
]
MeasuredHeads = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="DIR",
        help="Head with a T1 and its tissue shares or labels, or a folder of such heads, repeatable: what the T1 "
        "gives in place and misplaced. Nothing else is evaluated; writes measured_t1.md and .json.",
    ),
]
WholeBrain = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1000,
        metavar="HEADS",
        help="Measure so many val heads of --preset as whole brains and refine them 2 times in all directions (with "
        "--anatomy also with the T1 image). Nothing else is evaluated; writes whole_brain_PRESET.md and .json.",
    ),
]
MeasuredT1 = Annotated[
    Path | None, typer.Option(help="T1 image of the --truncate scan; default the one in its folder.")
]
SupportName = Annotated[
    Literal["square", "ellipse"] | None, typer.Option(help="k-space support of the --truncate scans.")
]
WindowName = Annotated[
    Literal["none", "hamming", "hann"] | None, typer.Option(help="k-space window of the --truncate scans.")
]


@dataclass(frozen=True)
class SimulatedOptions:
    """The evaluation on simulated or held-out heads."""

    preset: Preset = "paper-like"
    scales: Scales = "2,4,8"
    split: Split = "val"
    held_out: HeldOut = None
    subjects: Subjects = 1
    slices: Slices = None
    samples: Samples = 16
    steps: Steps = "8"
    seed: Seed = 0
    anatomy: Anatomy = False
    data_consistency: Consistency = "auto"
    phantom: Phantom = False

    def settings(self) -> dict[str, Any]:
        """Keywords of ``mrsi_fast.evaluation.evaluate``.

        Raises:
            CommandError: A list of numbers is none.
        """
        given = asdict(self)
        given["heads"] = "phantom" if given.pop("phantom") else None
        given["held_out"] = None if self.held_out is None else str(self.held_out)
        return given | {"scales": _numbers(self.scales, "--scales"), "steps": _numbers(self.steps, "--steps")}


@dataclass(frozen=True)
class MeasuredOptions:
    """Tracks of their own: what was measured, and whole brains."""

    truncate: Truncate = None
    guided_by_measured_t1: MeasuredHeads = None
    whole_brain: WholeBrain = None
    t1: MeasuredT1 = None
    support: SupportName = None
    window: WindowName = None

    def __post_init__(self) -> None:
        """Refuses what describes no scan."""
        if not (self.truncate or self.guided_by_measured_t1) and (self.t1 or self.support or self.window):
            raise CommandError("--t1, --support and --window describe a scan that is given with --truncate.")


@guarded
@grouped
def evaluate(
    *,
    output: Output,
    model: Model = None,
    simulated: SimulatedOptions,
    workers: WorkerOptions,
    measured: MeasuredOptions,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Score a model and the baselines; tables as Markdown, every number as CSV and JSON, figures as PNG.

    An interrupted run goes on where it stopped.
    """
    terminal = Terminal(quiet, verbose)
    make_writable(output)
    _refuse_tables_of_others(output)
    with _as_sentences():
        if measured.truncate or measured.guided_by_measured_t1 or measured.whole_brain:
            _tracks(terminal, output, model, measured, simulated)
        else:
            _simulated(terminal, output, workers.where(), {"model": model} | simulated.settings())


def _refuse_tables_of_others(output: Path) -> None:
    """Refuses a folder with tables of the names that this command writes, but none of its parts."""
    found = [path for kind in ("csv", "json", "md") if (path := output / f"results.{kind}").exists()]
    if found and not (output / "parts").is_dir():
        raise CommandError(f"{found[0]}: was not written by this command. Choose another folder for -o.")


def _simulated(terminal: Terminal, output: Path, workers: Workers, settings: dict[str, Any]) -> None:
    """The evaluation on simulated or held-out heads."""
    from mrsi_fast.evaluation import evaluate as run
    from mrsi_fast.report.evaluation_figures import draw_figures

    if settings["split"] == "test" and settings["held_out"] is None:
        terminal.warn("These are the test heads: for one final report, not for choosing anything.")
    with terminal.progress("part") as report:
        evaluation = run(output=output, workers=workers, progress=report, **settings)
    figures = draw_figures(evaluation)
    if evaluation.facts["lpips"] is not None:
        terminal.warn(f"LPIPS: not available ({evaluation.facts['lpips']}).")
    terminal.block((evaluation.folder / "results.md").read_text(encoding="utf-8"))
    terminal.say(f"Written to {evaluation.folder}: results.md, results.csv, results.json and {len(figures)} figures.")


def _tracks(
    terminal: Terminal, output: Path, model: str | None, measured: MeasuredOptions, simulated: SimulatedOptions
) -> None:
    """Measured scans, measured T1 images and whole brains, in files of their own."""
    from mrsi_fast.evaluation.tracks import evaluate_guidance, evaluate_truncated, evaluate_whole_brains
    from mrsi_fast.preparation import AcquisitionSettings
    from mrsi_fast.resolver import SuperResolver

    if model == "none":
        raise CommandError("--truncate, --guided-by-measured-t1 and --whole-brain score a model: name one.")
    scales = _numbers(simulated.scales, "--scales")
    resolver = SuperResolver.from_pretrained(model)
    if scans := measured.truncate:
        stated = {"support": measured.support, "window": measured.window}
        acquisition = AcquisitionSettings.parse(stated, "acquisition")
        terminal.block(evaluate_truncated(scans, output, resolver, anatomy=measured.t1, acquisition=acquisition))
    if heads := measured.guided_by_measured_t1:
        with terminal.progress("part") as report:
            text = evaluate_guidance(
                heads, output, resolver, preset=simulated.preset, scales=scales, seed=simulated.seed, progress=report
            )
        terminal.block(text)
    if measured.whole_brain:
        with terminal.progress("part") as report:
            text = evaluate_whole_brains(
                output, resolver, simulated.preset, measured.whole_brain, simulated.seed, simulated.anatomy, report
            )
        terminal.block(text)


@contextlib.contextmanager
def _as_sentences() -> Iterator[None]:
    """The errors that settings, models and inputs raise, with their exit codes."""
    from mrsi_fast.config import ConfigError
    from mrsi_fast.models.pretrained import ModelFolderError
    from mrsi_fast.mrsi.mapset import MapInputError
    from mrsi_fast.pool import PoolError

    try:
        yield
    except (ConfigError, PoolError) as error:
        raise CommandError(str(error)) from error
    except ModelFolderError as error:
        raise CommandError(str(error), ExitCode.MODEL) from error
    except MapInputError as error:
        raise CommandError(str(error), ExitCode.NO_VALID_INPUT) from error
