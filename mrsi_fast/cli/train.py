"""``mrsi-fast train CONFIG``: trains a model, or resumes the run whose checkpoint lies in the output folder."""

from __future__ import annotations

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

    Ctrl-C and SIGTERM save a checkpoint first; a second one ends at once.
    """
    from mrsi_fast.config import ConfigError
    from mrsi_fast.training import TrainConfig
    from mrsi_fast.training import train as run
    from mrsi_fast.training.checkpoint import CheckpointError
    from mrsi_fast.training.loop import Diverged

    terminal = Terminal(quiet, verbose)
    try:
        settings = TrainConfig.load(config)
        terminal.say(f"{settings.name}: {settings.steps} steps of {settings.batch_size} slices into {settings.output}")
        with terminal.progress("step") as report:
            folder = run(settings, report)
    except ConfigError as error:
        raise CommandError(str(error)) from error
    except CheckpointError as error:
        raise CommandError(str(error), ExitCode.MODEL) from error
    except Diverged as error:
        raise CommandError(str(error), ExitCode.UNEXPECTED) from error
    terminal.say(f"Model folder: {folder}")
