"""The CUDA solver_step kernels, run on the CPU, against the float64 physics and the eager sampling loop."""

from __future__ import annotations

import pytest
import torch

from mrsi_fast.diffusion.schedules import karras
from mrsi_fast.diffusion.solvers import make_steps, sample
from mrsi_fast.mrsi.forward import Acquisition

COEFFICIENTS = torch.tensor([[0.7, 0.4, -0.1, 0.3], [0.0, 1.0, 0.0, 0.0], [0.9, 0.2, 0.0, 0.05]])
# Sums over at most 128 float32 products, three times in a row, on values of order 1.
TOLERANCE = 5e-6


def states(slices: int, shape: tuple[int, int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(shape[0] * 1000 + shape[1])
    return [torch.randn(slices, *shape, generator=generator) for _ in range(4)]


def expected(tensors: list[torch.Tensor], coefficients: torch.Tensor, acquisition: Acquisition | None) -> torch.Tensor:
    base, now, prev, noise = (t.double() for t in tensors)
    b, n, p, e = coefficients.double()
    estimate = n * now + p * prev
    return b * base + (estimate if acquisition is None else acquisition.null(estimate)) + e * noise


def matrices(acquisition: Acquisition) -> dict[str, object]:
    modes = acquisition.modes(torch.float32, "cpu")
    return {"bases": (modes.hr_x.contiguous(), modes.hr_y.contiguous()), "kept": modes.kept}


@pytest.mark.parametrize("step", range(3))
@pytest.mark.parametrize("shape", [(64, 64), (7, 9), (1, 1), (33, 46)], ids=str)
def test_linear_step_without_projection(simulator, shape, step):
    tensors = states(5, shape)
    out = simulator.solver_step(*tensors, COEFFICIENTS, step)
    torch.testing.assert_close(out.double(), expected(tensors, COEFFICIENTS[step], None), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "acquisition",
    [
        Acquisition((16, 16), (4, 4)),
        Acquisition((32, 32), (2, 2), window="hamming"),
        Acquisition((8, 8), (8, 8), support="ellipse"),
        Acquisition((23, 11), (2, 4), box=True),
        Acquisition((5, 7), (1, 2)),
    ],
    ids=["x4", "x2 Hamming", "x8 ellipse", "46 x 44 box", "one axis only"],
)
def test_the_measured_band_is_removed_from_the_estimate(simulator, acquisition):
    tensors = states(3, acquisition.hr_shape)
    out = simulator.solver_step(*tensors, COEFFICIENTS, 0, **matrices(acquisition))
    wanted = expected(tensors, COEFFICIENTS[0], acquisition)
    torch.testing.assert_close(out.double(), wanted, rtol=0, atol=TOLERANCE)


def test_a_128_grid_fits_shared_memory(simulator):
    acquisition = Acquisition((64, 64), (2, 2))
    tensors = states(1, acquisition.hr_shape)
    out = simulator.solver_step(*tensors, COEFFICIENTS, 2, **matrices(acquisition))
    wanted = expected(tensors, COEFFICIENTS[2], acquisition)
    torch.testing.assert_close(out.double(), wanted, rtol=0, atol=TOLERANCE)


def test_terms_with_coefficient_zero_are_left_out(simulator):
    base, now, _, noise = states(2, (8, 8))
    nan = torch.full_like(now, float("nan"))
    assert torch.equal(simulator.solver_step(nan, now, nan, nan, COEFFICIENTS, 1), now)
    without = simulator.solver_step(base, now, None, noise, COEFFICIENTS, 2)
    assert torch.equal(simulator.solver_step(base, now, nan, noise, COEFFICIENTS, 2), without)


@pytest.mark.parametrize("shape, lr", [((16, 16), (4, 4)), ((7, 9), None)])
def test_bit_equal_over_thread_schedules(simulator, shape, lr):
    extra = matrices(Acquisition(lr, (4, 4))) if lr else {}
    tensors, results = states(2, shape), []
    for seed in range(8):
        simulator.seed(seed)
        results.append(simulator.solver_step(*tensors, COEFFICIENTS, 0, **extra))
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("solver", ["ddpm", "ddim", "dpmpp_2m", "heun"])
def test_a_whole_run_equals_the_eager_loop(simulator, solver):
    acquisition = Acquisition((6, 6), (2, 2))
    extra = matrices(acquisition)
    steps = make_steps(solver, karras(5, 0.01, 20.0))
    x_init, *_ = states(4, acquisition.hr_shape)
    noises = [states(4, acquisition.hr_shape)[i % 4] * 0.9**i for i in range(len(steps))]

    def network(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return torch.tanh(x) / (1 + sigma)

    wanted = sample(lambda x, s: acquisition.null(network(x, s)), x_init, steps, lambda i: noises[i])
    table = torch.tensor([[s.base, s.now, s.prev, s.noise] for s in steps])
    base = x_eval = x_init
    before = None
    for index, step in enumerate(steps):
        estimate = network(x_eval, step.sigma)
        x_eval = simulator.solver_step(base, estimate, before, noises[index], table, index, **extra)
        base, before = (x_eval if step.commit else base), estimate
    torch.testing.assert_close(x_eval, wanted, rtol=1e-5, atol=1e-5)


def test_empty_states_and_refusals(simulator):
    empty = torch.empty(0, 8, 8)
    assert simulator.solver_step(empty, empty, None, None, COEFFICIENTS, 0).shape == (0, 8, 8)
    base = torch.zeros(1, 256, 256)
    with pytest.raises(RuntimeError, match="invalid argument"):  # 192 kB of coefficients
        simulator.solver_step(base, base, None, None, COEFFICIENTS, 0, bases=(torch.eye(128, 256), torch.eye(128, 256)))
    with pytest.raises(RuntimeError, match="invalid argument"):
        simulator.solver_step(base, base, None, None, COEFFICIENTS, 0, bases=(torch.eye(8, 256), None))
