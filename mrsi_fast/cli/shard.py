"""Which part of the inputs one process of several does; no process needs information on the others."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from mrsi_fast.cli.exits import CommandError

_LAUNCHERS = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"),
    ("SLURM_PROCID", "SLURM_NTASKS", "", ""),
    ("RANK", "WORLD_SIZE", "", ""),
)
"""Variables of a launcher: number of the process, count, first number, step; a SLURM array comes before its tasks."""


def shard_of(text: str | None, environ: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Reads ``--shard``.

    Args:
        text: ``2/8`` for the second of eight parts, ``auto`` for the part assigned by SLURM or torchrun, None for all.
        environ: Environment variables.

    Returns:
        Index from 0, and count: ``inputs[index::count]`` are this process's.

    Raises:
        CommandError: It is neither, or ``auto`` finds no launcher.
    """
    if text is None:
        return 0, 1
    if text.strip().lower() == "auto":
        return _from_launcher(environ)
    match = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise CommandError(f"--shard {text}: give a part and the number of parts, e.g. 2/8, or auto.")
    return int(match[1]) - 1, int(match[2])


def _from_launcher(environ: Mapping[str, str]) -> tuple[int, int]:
    for number, count, first, step in _LAUNCHERS:
        if number not in environ or count not in environ:
            continue
        try:
            index = (int(environ[number]) - int(environ.get(first, 0))) // max(int(environ.get(step, 1)), 1)
            total = int(environ[count])
        except ValueError:
            continue
        if 0 <= index < total:
            return index, total
    names = ", ".join(f"{number} and {count}" for number, count, *_ in _LAUNCHERS)
    raise CommandError(
        f"--shard auto: no launcher variable gives the part of this process ({names}). Give it as in 2/8."
    )
