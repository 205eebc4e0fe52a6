"""What happens between two network evaluations, 8 slices of 8 maps of 64x64: solver step and data consistency.

``bench_solver_step`` goes from the network's output to its next input, in C++ and in PyTorch.
``bench_data_consistency`` is the projection and the soft correction by themselves; on an odd matrix the projection is a
plain Fourier mask, which stands beside it as a peer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from harness.contest import Entry
from harness.peers import UNetCase, shipped_case
from harness.plan_parts import OneSolverStep
from mrsi_fast.mrsi.consistency import DataConsistency
from mrsi_fast.mrsi.forward import Acquisition

THREADS = (1, 2)
# c_skip, c_out, base, now, prev, noise, c_in of the next step, commit: DPM-Solver++(2M) in the middle of a run
ROW = [0.5, 0.7, 0.4, 0.8, -0.2, 0.0, 0.6, 0.0]
CASES = ("step", "step-hard")
ACQUISITION = Acquisition((16, 16), (4, 4))
ODD = Acquisition((15, 15), (4, 4))


@functools.cache
def case() -> UNetCase:
    return shipped_case(batch=8, grid=(64, 64))


@functools.cache
def state() -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(0)
    shape = case().x.shape
    head = torch.randn(shape[0], 4 * shape[1], shape[2] // 2, shape[3] // 2, generator=draw)
    return head, *(torch.randn(shape, generator=draw) for _ in range(3))


def native(projection: Acquisition | None, threads: int) -> Callable[[], object]:
    head, *state_now = state()
    part = OneSolverStep(case().network, head, ROW, projection, threads)
    stem = case().network.config.stem_factor ** 2 * case().x.shape[1]

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        new, following = part(*state_now)
        return new, following[:, :stem]

    return run


def eager(projection: Acquisition | None, threads: int) -> Callable[[], object]:
    c_skip, c_out, base_c, now_c, prev_c, _, c_in, _ = ROW
    head, x, base, previous = state()
    head = head.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run() -> tuple[torch.Tensor, torch.Tensor]:
        estimate = c_skip * x + c_out * F.pixel_shuffle(head, 2)
        if projection is not None:
            estimate = projection.null(estimate)
        new = base_c * base + now_c * estimate + prev_c * previous
        following = F.pixel_unshuffle(c_in * new, 2)
        return new, following.contiguous(memory_format=torch.channels_last)

    return run


def step_entries(threads: int) -> list[Entry]:
    moved = 7 * 4 * case().x.numel()  # reads the output, point, base and estimate; writes estimate, state and input
    images = case().x.shape[0] * case().x.shape[1]
    projection_flops = 2 * 2 * images * (64 * 64 * 16 + 64 * 16 * 16)
    return [
        Entry(
            label,
            functools.partial(build, projection, threads),
            name,
            flops=0 if projection is None else projection_flops,
            bytes=moved,
            backend={"native": "native", "eager": "PyTorch"}[label],
            ours=label == "native",
        )
        for name, projection in (("step", None), ("step-hard", ACQUISITION))
        for label, build in (("native", native), ("eager", eager))
    ]


@pytest.mark.parametrize("threads", THREADS, ids="t{}".format)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("label", ["native", "eager"])
def bench_solver_step(row, contest, label, case, threads):
    row(contest("solver_step", threads, step_entries, budget_s=4.0), label, case)


def consistency(kind: str) -> Callable[[], object]:
    acquisition = ODD if kind == "hard-60x60" else ACQUISITION
    draw = torch.Generator().manual_seed(0)
    y = torch.rand(8, 8, *acquisition.lr_shape, generator=draw)
    x = torch.rand(8, 8, *acquisition.hr_shape, generator=draw)
    held = DataConsistency("soft" if kind == "soft-64x64" else "hard", acquisition, y, 0.02 * torch.ones_like(y))
    return torch.inference_mode()(lambda: held.at_end(x))


def fourier_mask() -> Callable[[], object]:
    draw = torch.Generator().manual_seed(0)
    y = torch.rand(8, 8, *ODD.lr_shape, generator=draw)
    x = torch.rand(8, 8, *ODD.hr_shape, generator=draw)
    z = ODD.pinv(y)
    lines = [torch.fft.fftfreq(n, 1 / n).abs() <= m // 2 for n, m in zip(ODD.hr_shape, ODD.lr_shape, strict=True)]
    outside = ~(lines[0][:, None] & lines[1][None, : ODD.hr_shape[1] // 2 + 1])

    @torch.inference_mode()
    def run() -> torch.Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * outside, s=ODD.hr_shape) + z

    return run


CONSISTENCY = [("ours", kind) for kind in ("hard-64x64", "hard-60x60", "soft-64x64")] + [("fourier", "hard-60x60")]


def consistency_entries(threads: int) -> list[Entry]:
    builders = {"ours": consistency, "fourier": lambda kind: fourier_mask()}
    return [
        Entry(label, functools.partial(builders[label], kind), kind, ours=label == "ours")
        for label, kind in CONSISTENCY
    ]


@pytest.mark.parametrize("threads", THREADS, ids="t{}".format)
@pytest.mark.parametrize(("label", "case"), CONSISTENCY)
def bench_data_consistency(row, contest, label, case, threads):
    held = contest("data_consistency", threads, consistency_entries, than="fourier", budget_s=4.0)
    row(held, label, case, than="fourier")
