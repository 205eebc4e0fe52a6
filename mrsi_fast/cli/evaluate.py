"""``mrsi-fast evaluate``: scores a model and the baselines on simulated or held-out heads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mrsi_fast.cli.exits import CommandError, ExitCode, guarded
from mrsi_fast.cli.options import Debug, Quiet, Verbose
from mrsi_fast.cli.terminal import Terminal


def _numbers(listed: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in listed.split(","))
    except ValueError:
        raise CommandError(f"{option} {listed!r} is not a list of whole numbers, e.g. 2,4,8.") from None


@guarded
def evaluate(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of tables, scores and figures.")],
    model: Annotated[
        str | None, typer.Option(help="Model folder; default the shipped weights; 'none' for the baselines alone.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Simulation preset, e.g. paper-like, realistic-3T.")] = "paper-like",
    scales: Annotated[str, typer.Option(help="In-plane factors.")] = "2,4,8",
    split: Annotated[Literal["val", "test"], typer.Option(help="Heads: val, or test (once, at the end).")] = "val",
    held_out: Annotated[
        Path | None,
        typer.Option(help="Folder of label maps (sub-*_dseg.nii.gz), or of subjects with lr and hr maps inside."),
    ] = None,
    subjects: Annotated[int, typer.Option(help="Simulated subjects per head.")] = 1,
    slices: Annotated[int | None, typer.Option(help="Slices per subject; default the preset's.")] = None,
    samples: Annotated[int, typer.Option(help="Posterior samples, 8 or more; 0 for the one-step mean alone.")] = 16,
    steps: Annotated[str, typer.Option(help="Solver steps; several give a row each.")] = "8",
    seed: Annotated[int, typer.Option(help="Seed of subjects and samples.")] = 0,
    anatomy: Annotated[bool, typer.Option("--anatomy", help="Also evaluate with the T1 image.")] = False,
    data_consistency: Annotated[
        Literal["auto", "off"], typer.Option(help="For every method alike: auto (hard if noise-free, else soft), off.")
    ] = "auto",
    phantom: Annotated[bool, typer.Option("--phantom", help="The analytic head in place of label maps.")] = False,
    jobs: Annotated[int, typer.Option(help="Processes, each on one subject at a time.")] = 1,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Score a model and the baselines; tables as Markdown, every number as CSV and JSON, figures as PNG.

    An interrupted run goes on where it stopped.
    """
    from mrsi_fast.config import ConfigError
    from mrsi_fast.evaluation import evaluate as run
    from mrsi_fast.models.pretrained import ModelFolderError
    from mrsi_fast.mrsi.mapset import MapInputError
    from mrsi_fast.report.evaluation_figures import draw_figures

    terminal = Terminal(quiet, verbose)
    settings: dict[str, Any] = {
        "model": model,
        "preset": preset,
        "scales": _numbers(scales, "--scales"),
        "split": split,
        "held_out": None if held_out is None else str(held_out),
        "subjects": subjects,
        "slices": slices,
        "samples": samples,
        "steps": _numbers(steps, "--steps"),
        "seed": seed,
        "anatomy": anatomy,
        "data_consistency": data_consistency,
        "heads": "phantom" if phantom else None,
    }
    if split == "test" and held_out is None:
        terminal.warn("These are the test heads: for one final report, not for choosing anything.")
    try:
        with terminal.progress("part") as report:
            evaluation = run(output=output, jobs=jobs, progress=report, **settings)
    except ConfigError as error:
        raise CommandError(str(error)) from error
    except ModelFolderError as error:
        raise CommandError(str(error), ExitCode.MODEL) from error
    except MapInputError as error:
        raise CommandError(str(error), ExitCode.NO_VALID_INPUT) from error
    figures = draw_figures(evaluation)
    if evaluation.facts["lpips"] is not None:
        terminal.warn(f"LPIPS: not available ({evaluation.facts['lpips']}).")
    terminal.say((evaluation.folder / "results.md").read_text(encoding="utf-8"))
    terminal.say(f"Written to {evaluation.folder}: results.md, results.csv, results.json and {len(figures)} figures.")
