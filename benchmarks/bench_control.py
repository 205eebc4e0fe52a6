"""Is this machine fit to judge? One function under two labels must come out alike, or no row of the run is evidence.

Every contest has such a control of its own (a matrix product under two labels); here are the kinds of work that the
rows consist of: arithmetic in cache, traffic, many short calls.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from harness.contest import CONTROL_BAND, Entry

THREADS = (1, 2)


def convolution() -> Callable[[], object]:
    x = torch.randn(8, 96, 32, 32).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(96, 96, 3, 3)
    return lambda: F.conv2d(x, weight, padding=1)


def traffic() -> Callable[[], object]:
    x = torch.randn(8 * 2**20)
    return lambda: x + 1.0


def short_calls() -> Callable[[], object]:
    x = torch.randn(8, 64)

    def run() -> object:
        y = x
        for _ in range(200):
            y = y + 1.0
        return y

    return run


KINDS = {"convolution": convolution, "traffic": traffic, "short-calls": short_calls}


def entries(threads: int) -> list[Entry]:
    runs = {kind: torch.inference_mode()(build()) for kind, build in KINDS.items()}
    labels = ("a", "b")
    return [Entry(one, functools.partial(lambda run: run, run), kind) for kind, run in runs.items() for one in labels]


@pytest.mark.parametrize("threads", THREADS, ids="t{}".format)
@pytest.mark.parametrize("case", KINDS)
@pytest.mark.parametrize("label", ["a", "b"])
def bench_control(row, contest, label, case, threads):
    row(contest("control", threads, entries, than="a", budget_s=6.0), label, case, than="a", band=CONTROL_BAND)
