"""Benchmarks on one NVIDIA GPU: ``python -m gpu`` from ``benchmarks/`` (``make gpu`` builds and tests first).

Writes ``benchmarks/results/<gpu>.json``, the table that the dispatch chooses by, and the GPU tables of docs/speed.md.
``--dry-run FOLDER`` goes the same way on small CPU tensors and writes everything there: its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import torch

from gpu import network, operations, record
from gpu.case import Case, Timed, hold
from gpu.target import Target
from harness.peers import random_case, shipped_case
from harness.table import text_table
from mrsi_fast.config import DiffusionConfig
from mrsi_fast.engine.eager import ieee_float32
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.ops._cuda import MEASURED
from support.data import checkout
from support.networks import random_denoiser
from support.shapes import MapShape, model_maps

LEAST_S = 15.0
"""A case is not started with less time than this: ceilings, warm-up and a few rounds."""


def all_cases(dry: bool) -> Iterator[Case]:
    """Operations at the shapes of the shipped network, then the network; tiny ones for a dry run."""
    if dry:
        small = random_case(random_denoiser().network, DiffusionConfig(), 1, (16, 16))
        yield from operations.group_norm_silu_cases((MapShape("level0", 1, 32, 4, 4, 2),))
        yield from operations.self_attention_cases(((1, 16, 1, 32),))
        yield operations.solver_step_case(1, Acquisition((4, 4), (2, 2)))
        yield from network.cases(small)
        yield network.autotuned(small)
        return
    yield from network.cases(shipped_case(batch=8))
    yield operations.solver_step_case(8, Acquisition((16, 16), (4, 4)))
    yield from operations.self_attention_cases(operations.TOKENS)
    yield from operations.group_norm_silu_cases(model_maps(batch=8))
    yield network.autotuned(shipped_case(batch=8))


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in whatever runs when the time is up: a compiler that searches for minutes becomes a gap."""

    def end(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("the session's time was up")

    former = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, former)


def main() -> int:
    """Run everything and write it down; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m gpu", description=__doc__)
    parser.add_argument("--dry-run", type=Path, metavar="FOLDER", help="Show on CPU tensors that everything runs.")
    parser.add_argument("--rounds", type=int, help="Rounds of timing; default as many as ten seconds a case allow.")
    parser.add_argument("--seconds", type=float, default=1e6, help="Start no case after so long; end the last one.")
    options = parser.parse_args()
    dry, started = options.dry_run, time.monotonic()
    if dry is None and not torch.cuda.is_available():
        print("Nothing was timed: PyTorch finds no CUDA device here. `make gpu-static` checks what needs none.")
        return 1
    target = Target(torch.device("cuda" if dry is None else "cpu"))
    results: list[Timed] = []
    with ieee_float32():
        for case in all_cases(target.dry):
            left = options.seconds - (time.monotonic() - started)
            print(
                f"{options.seconds - left:6.1f} s  {case.name}{'' if left > LEAST_S else ': no time left'}", flush=True
            )
            if left <= LEAST_S:
                results.append(Timed(case, missing=dict.fromkeys(case.peers, "no time was left in the session")))
                continue
            try:
                with at_most(left):
                    results.append(hold(target, case, options.rounds))
            except TimeoutError as reason:
                results.append(Timed(case, missing=dict.fromkeys(case.peers, str(reason))))
            write(target, results, options.rounds, dry)  # after each: compilers take minutes, and a run may be cut off
    print("\n".join(text_table(record.history(target, results, options.rounds))))
    print("Written: the results, the table of choices and the GPU tables of docs/speed.md.")
    return 0


def write(target: Target, results: list[Timed], rounds: int | None, dry: Path | None) -> None:
    """Write what has been timed, into the checkout or the folder of a dry run."""
    root = checkout()
    found = record.history(target, results, rounds)
    folder = root / "benchmarks/results" if dry is None else dry
    folder.mkdir(parents=True, exist_ok=True)
    found.save(folder / f"{record.name_of(found.machine)}.json")
    record.write_choices(
        MEASURED if dry is None else dry / MEASURED.name, record.choices(target, results), found.machine
    )
    page = (root / "docs" / "speed.md").read_text()
    written = root / "docs" / "speed.md" if dry is None else dry / "speed.md"
    written.write_text(record.with_paragraph(page, record.paragraph(found)))


if __name__ == "__main__":
    sys.exit(main())
