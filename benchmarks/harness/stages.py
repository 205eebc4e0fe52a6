"""Where a command's time goes: ``mrsi-fast`` in a process of its own, with a clock around each of its stages."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.processes import run_python
from support.data import checkout

REST, SELF_TEST, SAMPLING, PACK = "rest", "self-test", "sampling", "pack and plan"
STAGES: dict[str, tuple[tuple[str, str], ...]] = {
    "load model": (("mrsi_fast.models.pretrained", "load_pretrained"),),
    PACK: (("mrsi_fast.resolver", "choose_engine"), ("mrsi_fast.engine.native", "NativePlan")),
    "read maps": (("mrsi_fast.cli.inputs", "InputSet.read"),),
    SELF_TEST: (("mrsi_fast.resolver", "ask"),),
    "prepare": (("mrsi_fast.resolver", "prepare"),),
    "one step": (("mrsi_fast.engine.job", "PlannedEngine.estimate"),),
    SAMPLING: (("mrsi_fast.engine.job", "PlannedEngine.run"),),
    "write maps": (("mrsi_fast.result", "Result.write"), ("mrsi_fast.result", "Result.seal")),
    "report": (("mrsi_fast.report.html", "write_page"),),
    "publish": (("mrsi_fast.publication", "Place.publish"),),
}
"""Stage -> the functions, by module and name there, whose time it is; the innermost one that runs counts.

The self-test prepares and evaluates like a run of its own: that is its time, except for the packing of weights.
"""


class Clock:
    """Seconds by stage; while a stage runs inside another, the outer one stands still."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running, self._since = [REST], time.perf_counter()

    def switch(self) -> None:
        """Books the time until now on the stage that runs."""
        now = time.perf_counter()
        self.seconds[self._running[-1]] = self.seconds.get(self._running[-1], 0.0) + now - self._since
        self._since = now

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with its time booked on a stage."""

        def run(*args: Any, **options: Any) -> Any:
            if SELF_TEST in self._running and stage != PACK:
                return function(*args, **options)
            self.switch()
            self._running.append(stage)
            try:
                return function(*args, **options)
            finally:
                self.switch()
                self._running.pop()

        return run

    def watch(self, stage: str, module: str, name: str) -> None:
        """Replaces a function of a module, or a method of one of its classes, by a timed one."""
        owner: Any = __import__(module, fromlist=[name])
        *path, last = name.split(".")
        for part in path:
            owner = getattr(owner, part)
        setattr(owner, last, self.timed(stage, getattr(owner, last)))


def timed_command(words: Sequence[str]) -> dict[str, float]:
    """Runs ``mrsi-fast`` with these words in this process, which has imported nothing of it yet.

    Returns:
        Seconds by stage, imports among them.

    Raises:
        SystemExit: The command failed.
    """
    clock = Clock()
    from mrsi_fast.cli import main
    from mrsi_fast.cli.imports import without_collections

    with without_collections():
        clock.timed("import torch", __import__)("torch")
        imports = clock.timed("import the rest", __import__)
        for stage, functions in STAGES.items():
            for module, name in functions:
                imports(module)
                clock.watch(stage, module, name)

    sys.argv = ["mrsi-fast", *words]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
    clock.switch()
    return clock.seconds


def stage_seconds(words: Sequence[str]) -> dict[str, float]:
    """``timed_command`` in a process of its own.

    Raises:
        subprocess.CalledProcessError: The command failed.
    """
    root = checkout()
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        code = (
            f"import json, sys; sys.path[:0] = {[str(root / 'benchmarks'), str(root / 'tests')]!r}\n"
            "from harness.stages import timed_command\n"
            f"found = timed_command({list(words)!r})\n"
            f"json.dump(found, open({report.name!r}, 'w'))"
        )
        run_python(["-c", code])
        seconds: dict[str, float] = json.loads(Path(report.name).read_text())
    return seconds
