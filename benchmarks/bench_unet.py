"""One evaluation of the shipped network, 8 slices of 8 maps of 64x64: every engine on the same weights and inputs."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
from torch import Tensor

from harness.contest import Entry
from harness.engines import ENGINES
from harness.low_precision import LOW_PRECISION, error_of, exact
from harness.peers import Runner, UNetCase, compiled, native_or_missing, shipped_case

THREADS = (1, 2)
SLICES, GRID = (1, 2, 4, 8, 16), (64, 64)
OURS = ("native", "native-amx", "fused-eager")


@functools.cache
def case() -> UNetCase:
    return shipped_case(batch=8, grid=(64, 64))


def entries(threads: int) -> list[Entry]:
    return [
        Entry(label, functools.partial(build, case(), threads), flops=case().flops, backend=label, ours=label in OURS)
        for label, build in {**ENGINES, "max-autotune": functools.partial(compiled, mode="max-autotune")}.items()
    ]


@pytest.mark.parametrize("threads", THREADS, ids="t{}".format)
@pytest.mark.parametrize("label", [*ENGINES, pytest.param("max-autotune", marks=pytest.mark.long)])
def bench_unet(row, contest, label, threads):
    row(contest("unet", threads, entries, budget_s=30.0), label, winograd_flops=case().winograd_flops)


@functools.cache
def truth() -> Tensor:
    return exact(case())


def with_error(label: str, threads: int) -> Runner:
    """The peer, with the error of its result as an attribute."""
    run = LOW_PRECISION[label](case(), threads)
    ERRORS[label, threads] = error_of(run(), truth())
    return run


ERRORS: dict[tuple[str, int], float] = {}


def of_few_bits(threads: int) -> list[Entry]:
    return [
        Entry(
            label, functools.partial(with_error, label, threads), flops=case().flops, backend=label, ours=label in OURS
        )
        for label in LOW_PRECISION
    ]


@pytest.mark.parametrize("threads", THREADS, ids="t{}".format)
@pytest.mark.parametrize("label", LOW_PRECISION)
def bench_low_precision(row, contest, label, threads):
    """Fewer bits than float32: each time has its error beside it, of the largest value of a map, against float64."""
    held = contest("low_precision", threads, of_few_bits, than="native", same=False)
    row(held, label, than="native", error=ERRORS.get((label, threads)))


def by_slices(threads: int) -> list[Entry]:
    cases = {batch: shipped_case(batch=batch, grid=(64, 64)) for batch in SLICES}
    return [
        Entry(
            "native", functools.partial(ENGINES["native"], one, threads), str(n), one.flops, backend="native", ours=True
        )
        for n, one in cases.items()
    ]


@pytest.mark.parametrize("threads", THREADS, ids="t{}".format)
@pytest.mark.parametrize("case", tuple(map(str, SLICES)))
@pytest.mark.parametrize("label", ["native"])
def bench_unet_slices(row, contest, label, case, threads):
    """Is the time linear in the number of slices? Every row holds so many."""
    row(contest("unet_slices", threads, by_slices, than=None, budget_s=6.0), label, case, than=None)


def changing(batch: int) -> list[UNetCase]:
    """Cases that differ in their conditions alone."""
    return [shipped_case(batch=batch, grid=GRID, seed=seed) for seed in range(4)]


def one_step(batch: int, threads: int) -> Runner:
    """An estimate as alignments and self-tests ask for it from Python, of another condition each time."""
    cases = itertools.cycle(changing(batch))
    engine = native_or_missing(next(cases).denoiser(), threads)
    return lambda: engine.estimate(next(cases).cond).mean


def network_alone(batch: int, threads: int) -> Runner:
    """The plan's operations, nothing before or after them."""
    one = changing(batch)[0]
    engine = native_or_missing(one.denoiser(), threads)
    engine.estimate(one.cond)
    plan = engine.plan
    film = torch.zeros(batch, plan.film.width)
    return lambda: plan.native.evaluate(film.data_ptr())


@pytest.mark.parametrize("threads", THREADS, ids="t{}".format)
@pytest.mark.parametrize("case", ("1", "8"))
@pytest.mark.parametrize("label", ["one-step", "network-alone"])
def bench_evaluations(row, contest, label, case, threads):
    """How many one-step evaluations a second Python gets, and how many the network by itself would allow."""
    peers = {"one-step": one_step, "network-alone": network_alone}

    def entries(threads: int) -> list[Entry]:
        return [
            Entry(one, functools.partial(build, int(batch), threads), batch, backend="native", ours=True)
            for one, build in peers.items()
            for batch in ("1", "8")
        ]

    held = contest("evaluations", threads, entries, than="network-alone", same=False, budget_s=6.0)
    row(held, label, case, than="network-alone")
