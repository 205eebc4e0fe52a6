"""Solvers against diffusers' schedulers, an independent source: float64, same noise, no clipping, 1e-6.

diffusers keeps its tables in float32, and some of its `step` methods round the state to float32. That is precision, not
method, so the tests run its code with float64 as the default dtype and with `torch.float32` and `np.float32` meaning
float64 inside the scheduler's module: formulas, indexing and handling of first and last steps stay theirs, and the
comparison keeps its full sharpness. What the float32 tables amount to is seen in `test_float32_tables_of_diffusers`.
"""

from __future__ import annotations

import importlib
import math
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mrsi_fast.diffusion.denoiser import Denoiser
from mrsi_fast.diffusion.schedules import karras, vp_cosine, vp_linear
from mrsi_fast.diffusion.solvers import Solver, Variance, make_steps, sample

pytest.importorskip(
    "diffusers", reason="diffusers, a development oracle, is not installed: pip install 'mrsi_fast[dev]'"
)
# torch's __array__ under numpy 2, inside diffusers; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TOLERANCE = 1e-6
VP_CHAINS = {"linear": vp_linear, "squaredcos_cap_v2": vp_cosine}


class InDouble(types.ModuleType):
    """Stands in for torch or numpy inside one module: everything is theirs, but float32 means float64."""

    def __init__(self, library: types.ModuleType) -> None:
        super().__init__(library.__name__)
        self._library = library
        self.float32 = library.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)


@pytest.fixture
def in_double(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Any]]:
    """Class of a scheduler, by file and class name, that computes in float64 throughout."""

    def load(file: str, name: str) -> Any:
        module = importlib.import_module(f"diffusers.schedulers.scheduling_{file}")
        for library, local in ((torch, "torch"), (np, "np")):
            if hasattr(module, local):
                monkeypatch.setattr(module, local, InDouble(library))
        return getattr(module, name)

    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield load
    torch.set_default_dtype(usual)


def mixture(x: Tensor, sigma: float) -> Tensor:
    """Posterior mean under 0.3 N(-1, 0.2^2) + 0.7 N(0.8, 0.5^2), elementwise: an exact and strongly non-linear D."""
    means, variances = torch.tensor([-1.0, 0.8]).to(x), torch.tensor([0.04, 0.25]).to(x)
    total, offset = variances + sigma**2, x[..., None] - means
    logits = torch.tensor([0.3, 0.7]).to(x).log() - 0.5 * total.log() - 0.5 * offset**2 / total
    return (logits.softmax(-1) * (means + variances / total * offset)).sum(-1)


def initial(sigma: float) -> Tensor:
    return sigma * torch.randn(2, 3, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def ours(solver: Solver, levels: list[float], variance: Variance = "small", noise: Any = None) -> tuple[Tensor, list]:
    """Result, and the (sigma, state) pairs that were evaluated."""
    visited: list[tuple[float, Tensor]] = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        visited.append((sigma, x))
        return mixture(x, sigma)

    out = sample(denoise, initial(levels[0]), make_steps(solver, levels, variance=variance), noise)
    return out, visited


def theirs(scheduler: Any, levels: list[float], vp_state: bool) -> tuple[Tensor, list]:
    """diffusers' loop; `levels[i]` is the level of evaluation i. A VP state is ours divided by sqrt(1 + sigma^2)."""
    scale = [math.sqrt(1 + s**2) if vp_state else 1.0 for s in levels]
    state, visited = initial(levels[0]) / scale[0], []
    assert len(levels) == len(scheduler.timesteps) + 1
    for index, t in enumerate(scheduler.timesteps):
        x = state * scale[index]
        visited.append((levels[index], x))
        state = scheduler.step(mixture(x, levels[index]), t, state).prev_sample
        assert state.dtype == torch.float64
    return state * scale[-1], visited


def assert_same_run(a: tuple[Tensor, list], b: tuple[Tensor, list]) -> None:
    """Every evaluated state to 1e-6 of its own size, and the result to 1e-6 absolutely (its size is about 1)."""
    assert len(a[1]) == len(b[1])
    for (sigma_a, x_a), (sigma_b, x_b) in zip(a[1], b[1], strict=True):
        assert sigma_a == pytest.approx(sigma_b, rel=1e-9)
        assert float((x_a - x_b).abs().max()) < TOLERANCE * math.sqrt(1 + sigma_a**2)
    assert float((a[0] - b[0]).abs().max()) < TOLERANCE


def table(scheduler: Any) -> Tensor:
    """sigma at each of the scheduler's 1000 timesteps, ascending."""
    abar = scheduler.alphas_cumprod
    return ((1 - abar) / abar).sqrt()


@pytest.mark.parametrize("chain", VP_CHAINS)
@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_with_1000_steps(in_double, monkeypatch: pytest.MonkeyPatch, chain: str, variance: Variance) -> None:
    scheduler_class = in_double("ddpm", "DDPMScheduler")
    fields = torch.randn(1000, 2, 3, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    feed = iter(fields)
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *args, **kwargs: next(feed))
    scheduler = scheduler_class(
        beta_schedule=chain, variance_type=f"fixed_{variance}", clip_sample=False, prediction_type="sample"
    )
    scheduler.set_timesteps(1000)
    levels = VP_CHAINS[chain]()
    np.testing.assert_allclose(levels[:-1], table(scheduler).flip(0).numpy(), rtol=1e-9)
    reference = theirs(scheduler, list(levels), vp_state=True)
    assert_same_run(ours("ddpm", list(levels), variance, lambda index: fields[index]), reference)


@pytest.mark.parametrize("chain", VP_CHAINS)
@pytest.mark.parametrize("n", [1, 10, 50])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ddim(in_double, chain: str, n: int, spacing: str) -> None:
    scheduler = in_double("ddim", "DDIMScheduler")(
        beta_schedule=chain, clip_sample=False, prediction_type="sample", timestep_spacing=spacing
    )
    scheduler.set_timesteps(n)
    levels = [*table(scheduler)[scheduler.timesteps].tolist(), 0.0]
    assert_same_run(ours("ddim", levels), theirs(scheduler, levels, vp_state=True))


@pytest.mark.parametrize("chain", VP_CHAINS)
@pytest.mark.parametrize("use_karras", [False, True])
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("n", [2, 3, 8, 14, 15, 40])
def test_dpmpp_2m(in_double, chain: str, use_karras: bool, final: str, n: int) -> None:
    """First and last steps included: to 0 the last is first order, to a level above 0 it is second order."""
    scheduler = in_double("dpmsolver_multistep", "DPMSolverMultistepScheduler")(
        beta_schedule=chain,
        algorithm_type="dpmsolver++",
        solver_order=2,
        prediction_type="sample",
        use_karras_sigmas=use_karras,
        final_sigmas_type=final,
        lower_order_final=False,
    )
    scheduler.set_timesteps(n)
    levels = scheduler.sigmas.tolist()
    if use_karras and final == "sigma_min":
        levels = levels[:-1]  # theirs ends in a step from sigma_min to sigma_min, which changes nothing
        scheduler.timesteps = scheduler.timesteps[:-1]
    if use_karras:
        expected = karras(n, float(table(scheduler)[0]), float(table(scheduler)[-1]))
        np.testing.assert_allclose([s for s in levels if s > 0], expected[:-1], rtol=1e-9)
    assert_same_run(ours("dpmpp_2m", levels), theirs(scheduler, levels, vp_state=True))


@pytest.mark.parametrize("chain", VP_CHAINS)
@pytest.mark.parametrize("use_karras", [False, True])
@pytest.mark.parametrize("n", [2, 5, 20])
def test_heun(in_double, chain: str, use_karras: bool, n: int) -> None:
    scheduler = in_double("heun_discrete", "HeunDiscreteScheduler")(
        beta_schedule=chain, prediction_type="sample", use_karras_sigmas=use_karras
    )
    scheduler.set_timesteps(n)
    each = scheduler.sigmas.tolist()  # every inner level twice
    levels = [each[0], *each[1:-1:2], 0.0]
    # Their evaluations: a level, the next one (predicted), that one again (committed), ...; the last step is Euler.
    evaluated = [levels[0], *(s for s in levels[1:-1] for _ in range(2)), 0.0]
    assert_same_run(ours("heun", levels), theirs(scheduler, evaluated, vp_state=False))


@pytest.mark.parametrize(
    ("solver", "file", "name"),
    [
        ("ddim", "edm_euler", "EDMEulerScheduler"),
        ("dpmpp_2m", "edm_dpmsolver_multistep", "EDMDPMSolverMultistepScheduler"),
    ],
)
@pytest.mark.parametrize("n", [2, 8, 30])
def test_edm_schedulers_with_our_denoiser(in_double, solver: Solver, file: str, name: str, n: int) -> None:
    """The whole chain: Karras levels, preconditioning with its noise label, and solver, around one network."""
    scheduler = in_double(file, name)(sigma_min=0.02, sigma_max=30.0, sigma_data=1.0, rho=7.0)
    scheduler.set_timesteps(n)

    def network(x_in: Tensor, label: Tensor, cond: Any) -> Tensor:
        return torch.sin(2 * x_in) + label.view(-1, 1, 1, 1)

    levels = karras(n, 0.02, 30.0)
    np.testing.assert_allclose(scheduler.sigmas.numpy(), levels, rtol=1e-9)
    state = initial(30.0)
    for index, t in enumerate(scheduler.timesteps):
        into = scheduler.scale_model_input(state, t)
        label = scheduler.precondition_noise(scheduler.sigmas[index]).expand(2)
        state = scheduler.step(network(into, label, None), t, state).prev_sample
    assert state.dtype == torch.float64
    got = sample(Denoiser(network, 30.0, 0.02), initial(30.0), make_steps(solver, levels))
    assert float((got - state).abs().max()) < TOLERANCE


@pytest.mark.parametrize("chain", VP_CHAINS)
def test_float32_tables_of_diffusers(chain: str) -> None:
    """As shipped, diffusers' betas are ours rounded to float32; in sigma that grows at the ends of the chain only."""
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(beta_schedule=chain)
    abar = [1 / (1 + s**2) for s in VP_CHAINS[chain]()[:-1]][::-1]
    betas = 1 - np.array(abar) / np.array([1.0, *abar[:-1]])
    np.testing.assert_allclose(scheduler.betas.double().numpy(), betas, rtol=0, atol=1e-7)
    error = (table(scheduler).double() / torch.tensor(VP_CHAINS[chain]()[:-1]).flip(0) - 1).abs()
    print(chain, "relative error of diffusers' float32 sigma: median", float(error.median()), "max", float(error.max()))
    assert float(error.median()) < 1e-4
