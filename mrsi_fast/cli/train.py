"""``mrsi-fast train CONFIG``: trains a model, or resumes the run whose checkpoint lies in the output folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mrsi_fast.cli.exits import CommandError, ExitCode, guarded
from mrsi_fast.cli.options import Debug, Quiet, Verbose
from mrsi_fast.cli.terminal import Terminal


@guarded
def train(
    config: Annotated[Path, typer.Argument(help="Settings of the run (TOML).")],
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Train a model on simulated maps; the same command resumes an interrupted run.

    Ctrl-C and SIGTERM save a checkpoint first; a second one ends at once. Several processes share every batch out:
    torchrun --nproc-per-node 4 --no-python mrsi-fast train CONFIG.
    """
    from mrsi_fast.config import ConfigError
    from mrsi_fast.training import TrainConfig
    from mrsi_fast.training import train as run
    from mrsi_fast.training.checkpoint import CheckpointError
    from mrsi_fast.training.loop import Diverged
    from mrsi_fast.training.ranks import RankLost, launched

    one_of_several = launched() and os.environ["RANK"] != "0"
    terminal = Terminal(quiet or one_of_several, verbose)
    try:
        settings = TrainConfig.load(config)
        terminal.say(f"{settings.name}: {settings.steps} steps of {settings.batch_size} slices into {settings.output}")
        with terminal.progress("step") as report:
            folder = run(settings, report)
    except ConfigError as error:
        raise CommandError(str(error)) from error
    except CheckpointError as error:
        raise CommandError(str(error), ExitCode.MODEL) from error
    except (Diverged, RankLost) as error:
        raise CommandError(str(error), ExitCode.UNEXPECTED) from error
    terminal.say(f"Model folder: {folder}")
