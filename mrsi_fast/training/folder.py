"""One training owns its run folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mrsi_fast.config import ConfigError
from mrsi_fast.files import sweep
from mrsi_fast.publication import Busy, exclusive
from mrsi_fast.training.ranks import Ranks


@contextmanager
def alone_in(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Keeps other trainings out of the run folder; the first process holds the lock for all of a run.

    Checkpoints that a killed training had begun to write are removed.

    Raises:
        ConfigError: Another training is at work there.
    """
    with ExitStack() as held:
        busy = False
        if ranks.first:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(exclusive(folder / ".training.lock", wait=False))
                sweep(folder)
            except Busy:
                busy = True
        if ranks.of_first(busy):
            raise ConfigError(
                f"{folder}: another training is at work there. Wait for its end, or choose another output."
            )
        yield
