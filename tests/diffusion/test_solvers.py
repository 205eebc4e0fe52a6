"""What every solver keeps, whatever the denoiser: one step, coefficients, in-band state, layout, progress, errors."""

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from mrsi_fast.diffusion.schedules import karras, vp_cosine, vp_linear
from mrsi_fast.diffusion.solvers import Solver, Step, make_steps, sample

SOLVERS = get_args(Solver)
ODE_SOLVERS = ("ddim", "dpmpp_2m", "heun")


def wavy(x: Tensor, sigma: float) -> Tensor:
    return torch.tanh(x / (1 + sigma**2)) + 0.1 * torch.sin(x)


def noise_like(x: Tensor, seed: int = 0) -> Callable[[int], Tensor]:
    def noise(index: int) -> Tensor:
        return torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1000 * seed + index))

    return noise


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("levels", [karras(1, 0.02, 30.0), vp_linear(1), vp_cosine(1), vp_cosine(1, 0.02, 30.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_step_is_one_evaluation_to_the_bit(solver: Solver, levels: tuple[float, ...], dtype: torch.dtype) -> None:
    x = levels[0] * torch.randn(2, 3, 5, 7, dtype=dtype)
    steps = make_steps(solver, levels)
    assert len(steps) == 1
    out = sample(wavy, x, steps)
    assert torch.equal(out, wavy(x, levels[0])) and out.isfinite().all()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("n", [2, 3, 8, 1000])
@pytest.mark.parametrize("schedule", [karras, vp_linear, vp_cosine])
def test_steps_are_finite_floats_in_the_right_number(solver: Solver, n: int, schedule) -> None:
    levels = schedule(n, 0.02, 30.0)
    steps = make_steps(solver, levels)
    assert isinstance(steps, tuple) and len(steps) == (2 * n - 1 if solver == "heun" else n)
    for step in steps:
        values = (step.sigma, step.base, step.now, step.prev, step.noise)
        assert all(type(v) is float and math.isfinite(v) for v in values)
        assert step.sigma > 0
        # A state that already is x0 stays x0: the weights of state and estimates sum to 1.
        assert step.base + step.now + step.prev == pytest.approx(1, abs=1e-12)
    assert steps[0].prev == 0.0 and steps[-1].commit
    assert steps[-1] == Step(sigma=levels[-2], base=0.0, now=1.0)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_ancestral_variance_in_vp_terms(variance: str) -> None:
    """Ho et al. 2020, equation 7 and section 3.2, written with alphas and betas, and mapped back to the EDM state."""
    levels = vp_linear()
    abar = [1 / (1 + s**2) for s in levels]
    for index, step in enumerate(make_steps("ddpm", levels, variance=variance)[:-1]):
        now, after = abar[index], abar[index + 1]
        beta = 1 - now / after
        expected = beta if variance == "large" else (1 - after) / (1 - now) * beta
        assert step.noise**2 * after == pytest.approx(expected, rel=1e-8)


def basis(rank: int, size: int) -> Tensor:
    """Orthonormal rows [rank, size]."""
    square = torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return torch.linalg.qr(square).Q[:rank]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("schedule", [karras, vp_linear, vp_cosine])
def test_projected_run_keeps_the_band_at_data_plus_noise(solver: Solver, schedule) -> None:
    """With P on x0, the in-band part of the state is z + sigma n (exactly n for the ODE solvers), and z at the end."""
    q = basis(11, 35)
    n = torch.randn(4, 35, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    z = torch.randn(4, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) @ q
    seen: list[tuple[float, Tensor]] = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        seen.append((sigma, x))
        x0 = wavy(x, sigma)
        return x0 - (x0 @ q.T) @ q + z

    levels = schedule(12, 0.02, 30.0)
    out = sample(denoise, z + levels[0] * n, make_steps(solver, levels), noise_like(n))
    torch.testing.assert_close(out @ q.T, z @ q.T, rtol=0, atol=1e-12)
    assert not torch.allclose(out, z)  # out of band something happened
    if solver in ODE_SOLVERS:
        for sigma, state in seen:
            torch.testing.assert_close(state @ q.T, (z + sigma * n) @ q.T, rtol=0, atol=1e-12 * (1 + sigma))


@pytest.mark.parametrize("solver", SOLVERS)
def test_layout_batch_and_dtype_do_not_matter(solver: Solver) -> None:
    steps = make_steps(solver, karras(6, 0.02, 30.0))
    x = 30 * torch.randn(5, 3, 7, 4).permute(1, 3, 0, 2)
    kept = x.clone()
    noise = noise_like(x)
    out = sample(wavy, x, steps, noise)
    assert torch.equal(x, kept) and out.shape == x.shape and out.dtype == torch.float32
    assert torch.equal(out, sample(wavy, x.contiguous(), steps, noise))
    assert torch.equal(out[1:2], sample(wavy, x[1:2], steps, lambda i: noise(i)[1:2]))
    double = sample(wavy, x.double(), steps, noise)
    torch.testing.assert_close(out.double(), double, rtol=1e-4, atol=1e-4)
    assert sample(wavy, x[:0], steps, lambda i: noise(i)[:0]).shape == (0, 4, 5, 7)


def test_noise_is_asked_for_by_step_and_only_where_it_enters() -> None:
    asked: list[int] = []

    def noise(index: int) -> Tensor:
        asked.append(index)
        return torch.zeros(2, dtype=torch.float64)  # another dtype than the state

    x = torch.ones(2)
    assert sample(wavy, x, make_steps("ddpm", karras(5, 0.02, 30.0)), noise).dtype == torch.float32
    assert asked == [0, 1, 2, 3]
    for solver in ODE_SOLVERS:
        sample(wavy, x, make_steps(solver, karras(5, 0.02, 30.0)), noise)
    assert asked == [0, 1, 2, 3]


def test_progress_is_reported_and_raising_cancels() -> None:
    steps = make_steps("heun", karras(3, 0.02, 30.0))
    seen: list[tuple[int, int]] = []

    def stop_at_three(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(wavy, torch.ones(1), steps, on_step=stop_at_three)
    assert seen == [(1, 5), (2, 5), (3, 5)]


@pytest.mark.parametrize("solver", SOLVERS)
def test_gradients_flow_through_a_run(solver: Solver) -> None:
    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    steps = make_steps(solver, karras(4, 0.1, 3.0))
    assert torch.autograd.gradcheck(lambda x: sample(wavy, x, steps, noise_like(x)), (x,))


def test_missing_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the argument `noise`"):
        sample(wavy, torch.ones(1), make_steps("ddpm", karras(3, 0.02, 30.0)))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="no solver 'euler_a'; choose one of ddpm, ddim, dpmpp_2m, heun"):
        make_steps("euler_a", (1.0, 0.0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no ancestral variance 'learned'"):
        make_steps("ddpm", (1.0, 0.0), variance="learned")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "levels",
    [(), (1.0,), (1.0, 1.0), (1.0, 2.0, 0.0), (1.0, -0.1), (math.inf, 1.0), (2.0, math.nan, 0.0), (math.nan, 0.0)],
)
def test_levels_that_do_not_decrease_are_refused(levels: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="finite, strictly decreasing"):
        make_steps("ddim", levels)
