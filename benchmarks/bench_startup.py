"""From nothing: the package's import, the command's help, the command line's first result; beside PyTorch's import."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.contest import Entry
from harness.processes import run_python

THREADS = (2,)
OURS = ("import", "help", "first-result")
MAIN = "from mrsi_fast.cli import main; main()"
EXAMPLE = ("-i", "examples/simulated_glioma", "--scale", "4", "--samples", "0", "--quiet")
COMMANDS = {
    "import": ("-c", "import mrsi_fast"),
    "import-torch": ("-c", "import torch"),
    "help": ("-c", MAIN, "--help"),
    "first-result": ("-c", MAIN, "sr", *EXAMPLE),
}


def build(label: str, folder: Path) -> Callable[[], object]:
    def run() -> None:
        more = []
        if label == "first-result":
            more = ["-o", tempfile.mkdtemp(dir=folder)]
        run_python([*COMMANDS[label], *more])

    return run


@pytest.mark.parametrize("threads", THREADS, ids="t{}".format)
@pytest.mark.parametrize("label", COMMANDS)
def bench_startup(row, contest, folder, label, threads):
    def entries(threads: int) -> list[Entry]:
        backends = {"import-torch": "PyTorch"}
        return [
            Entry(one, functools.partial(build, one, folder), backend=backends.get(one, "mrsi_fast"), ours=one in OURS)
            for one in COMMANDS
        ]

    held = contest(
        "startup", threads, entries, than="import-torch", same=False, budget_s=20.0, pause_s=0.3, at_least_s=1.0
    )
    row(held, label, than="import-torch")
