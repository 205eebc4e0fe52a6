"""``mrsi-fast evaluate``: scores a model and the baselines on simulated or held-out heads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
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
    truncate: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="SCAN",
            help="Measured scan (folder or file), repeatable: cut its k-space by 2, bring it back, compare. "
            "Nothing else is evaluated; writes truncation.md and .json.",
        ),
    ] = None,
    guided_by_measured_t1: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Head with a T1 and its tissue shares or labels, or a folder of such heads, repeatable: what the T1 "
            "gives in place and misplaced. Nothing else is evaluated; writes measured_t1.md and .json.",
        ),
    ] = None,
    t1: Annotated[
        Path | None, typer.Option(help="T1 image of the --truncate scan; default the one in its folder.")
    ] = None,
    support: Annotated[
        Literal["square", "ellipse"] | None, typer.Option(help="k-space support of the --truncate scans.")
    ] = None,
    window: Annotated[
        Literal["none", "hamming", "hann"] | None, typer.Option(help="k-space window of the --truncate scans.")
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Score a model and the baselines; tables as Markdown, every number as CSV and JSON, figures as PNG.

    An interrupted run goes on where it stopped.
    """
    terminal = Terminal(quiet, verbose)
    with _as_sentences():
        if truncate or guided_by_measured_t1:
            acquisition = {"support": support, "window": window}
            _tracks(
                terminal,
                output,
                model,
                truncate or [],
                guided_by_measured_t1 or [],
                {"anatomy": t1, "acquisition": acquisition},
                {"preset": preset, "scales": _numbers(scales, "--scales"), "seed": seed},
            )
            return
        if t1 or support or window:
            raise CommandError("--t1, --support and --window describe a scan that is given with --truncate.")
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
        _simulated(terminal, output, jobs, settings)


def _simulated(terminal: Terminal, output: Path, jobs: int, settings: dict[str, Any]) -> None:
    """The evaluation on simulated or held-out heads."""
    from mrsi_fast.evaluation import evaluate as run
    from mrsi_fast.report.evaluation_figures import draw_figures

    if settings["split"] == "test" and settings["held_out"] is None:
        terminal.warn("These are the test heads: for one final report, not for choosing anything.")
    with terminal.progress("part") as report:
        evaluation = run(output=output, jobs=jobs, progress=report, **settings)
    figures = draw_figures(evaluation)
    if evaluation.facts["lpips"] is not None:
        terminal.warn(f"LPIPS: not available ({evaluation.facts['lpips']}).")
    terminal.say((evaluation.folder / "results.md").read_text(encoding="utf-8"))
    terminal.say(f"Written to {evaluation.folder}: results.md, results.csv, results.json and {len(figures)} figures.")


def _tracks(
    terminal: Terminal,
    output: Path,
    model: str | None,
    scans: list[Path],
    heads: list[Path],
    of_scans: dict[str, Any],
    of_heads: dict[str, Any],
) -> None:
    """Measured scans and measured T1 images, in files of their own."""
    from mrsi_fast.evaluation.tracks import evaluate_guidance, evaluate_truncated
    from mrsi_fast.preparation import AcquisitionSettings
    from mrsi_fast.resolver import SuperResolver

    if model == "none":
        raise CommandError("--truncate and --guided-by-measured-t1 score a model against zero-filling: name one.")
    resolver = SuperResolver.from_pretrained(model)
    if scans:
        of_scans["acquisition"] = AcquisitionSettings.parse(of_scans["acquisition"], "acquisition")
        terminal.say(evaluate_truncated(scans, output, resolver, **of_scans))
    if heads:
        with terminal.progress("part") as report:
            text = evaluate_guidance(heads, output, resolver, **of_heads, progress=report)
        terminal.say(text)


@contextlib.contextmanager
def _as_sentences() -> Iterator[None]:
    """The errors that settings, models and inputs raise, with their exit codes."""
    from mrsi_fast.config import ConfigError
    from mrsi_fast.models.pretrained import ModelFolderError
    from mrsi_fast.mrsi.mapset import MapInputError

    try:
        yield
    except ConfigError as error:
        raise CommandError(str(error)) from error
    except ModelFolderError as error:
        raise CommandError(str(error), ExitCode.MODEL) from error
    except MapInputError as error:
        raise CommandError(str(error), ExitCode.NO_VALID_INPUT) from error
