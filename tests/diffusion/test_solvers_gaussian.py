"""Solvers against closed forms: a Gaussian posterior N(mu, C), whose denoiser is linear.

`D(x, s) = mu + C (C + s^2)^-1 (x - mu)`. Along an eigenvector of C with variance v the probability-flow ODE has the
solution `x(t) - mu = sqrt((v + t^2) / (v + s^2)) (x(s) - mu)`, and ancestral sampling is a linear recursion of means
and variances.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from mrsi_fast.diffusion.schedules import karras, vp_cosine, vp_linear
from mrsi_fast.diffusion.solvers import Solver, Variance, make_steps, sample

VARIANCES = torch.tensor([1e-4, 0.04, 0.3, 0.7, 1.0], dtype=torch.float64)
ROTATION = torch.linalg.qr(
    torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
).Q  # eigenvectors of C in columns
MEAN = torch.tensor([0.3, -1.2, 0.0, 2.0, -0.5], dtype=torch.float64)


def denoise(x: Tensor, sigma: float) -> Tensor:
    gain = VARIANCES / (VARIANCES + sigma**2)
    return MEAN + ((x - MEAN) @ ROTATION * gain) @ ROTATION.T


def exact_flow(x: Tensor, start: float, end: float) -> Tensor:
    stretch = ((VARIANCES + end**2) / (VARIANCES + start**2)).sqrt()
    return MEAN + ((x - MEAN) @ ROTATION * stretch) @ ROTATION.T


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpmpp_2m", 2), ("heun", 2)])
def test_order_of_convergence(solver: Solver, order: int) -> None:
    start, end = 20.0, 0.05  # above 0: the first-order step to 0 has an error of its own, tested below
    x = start * torch.randn(64, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    exact = exact_flow(x, start, end)
    counts = np.array([80, 160, 320, 640])
    errors = [
        float((sample(denoise, x, make_steps(solver, karras(n + 1, end, start)[:-1])) - exact).norm()) for n in counts
    ]
    slopes = -np.diff(np.log(errors)) / np.diff(np.log(counts))
    print(solver, "slopes", slopes.round(3), "errors", errors)
    assert abs(slopes[-1] - order) < 0.1


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "heun"])
def test_whole_runs_converge_to_the_flow_at_zero(solver: Solver) -> None:
    """The step from sigma_min to 0 is the denoiser, off the flow by sigma_min^2 / (2 v) at most, relatively."""
    start, end = 20.0, 1e-4
    x = start * torch.randn(64, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    got = sample(denoise, x, make_steps(solver, karras(2000, end, start)))
    exact = exact_flow(x, start, 0.0)
    tolerance = 5e-3 if solver == "ddim" else 5e-5  # first order in 2000 steps; the last step at the smallest v, 1e-4
    assert float((got - exact).norm() / (exact - MEAN).norm()) < tolerance


def impulse_responses(levels: tuple[float, ...], variance: Variance) -> tuple[Tensor, Tensor]:
    """Mean [5] and covariance [5, 5] of a ddpm run, without sampling error: a linear run's response to each noise.

    Row 0 of the batch gets no noise and gives the mean; then five rows per source of noise, one unit vector each. The
    initial state has the variance of the true marginal, v + sigma^2.
    """
    steps = make_steps("ddpm", levels, variance=variance)
    sources = len(steps)  # the initial state, and each step but the last
    eye = torch.eye(5, dtype=torch.float64)
    rows = torch.zeros(1 + 5 * sources, 5, dtype=torch.float64)

    def unit(source: int) -> Tensor:
        field = rows.clone()
        field[1 + 5 * source : 6 + 5 * source] = eye
        return field

    spread = (VARIANCES + levels[0] ** 2).sqrt()
    x_init = MEAN + (unit(0) * spread) @ ROTATION.T
    out = sample(denoise, x_init, steps, noise=lambda index: unit(index + 1))
    responses = out[1:] - out[0]
    return out[0], responses.T @ responses


def recursion_in_vp_terms(levels: tuple[float, ...], variance: Variance) -> np.ndarray:
    """Variance of ddpm's result along each eigenvector, by Ho et al. 2020, equations 6 and 7, for x_vp."""
    v = VARIANCES.numpy()
    abar = 1 / (1 + np.square(levels))
    state = abar[0] * v + 1 - abar[0]
    for now, after in zip(abar, abar[1:], strict=False):
        alpha = now / after
        beta = 1 - alpha
        gain = np.sqrt(now) * v / (now * v + 1 - now)  # of E[x0 | x_vp]
        slope = np.sqrt(after) * beta / (1 - now) * gain + np.sqrt(alpha) * (1 - after) / (1 - now)
        added = 0.0 if after == 1.0 else beta if variance == "large" else (1 - after) / (1 - now) * beta
        state = slope**2 * state + added
    return state


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("levels", [vp_linear(100), vp_cosine(60, 0.02, 30.0), karras(40, 0.02, 30.0)])
def test_ddpm_mean_and_covariance_follow_the_exact_recursion(levels: tuple[float, ...], variance: Variance) -> None:
    mean, covariance = impulse_responses(levels, variance)
    torch.testing.assert_close(mean, MEAN, rtol=0, atol=1e-12)
    expected = ROTATION @ torch.diag(torch.from_numpy(recursion_in_vp_terms(levels, variance))) @ ROTATION.T
    torch.testing.assert_close(covariance, expected, rtol=0, atol=1e-10)


def test_reference_chain_samples_the_posterior() -> None:
    """1000 steps: both variances within 4 % of the target, the small one below it (a bias of order 1 / steps)."""
    target = VARIANCES.numpy()
    small, large = (recursion_in_vp_terms(vp_linear(), variance) for variance in ("small", "large"))
    _, covariance = impulse_responses(vp_linear(), "small")
    along = (ROTATION.T @ covariance @ ROTATION).diagonal().numpy()
    np.testing.assert_allclose(along, small, rtol=1e-7)
    print("ddpm variance / target: small", (small / target).round(4), "large", (large / target).round(4))
    wide = target > 1e-3  # narrower than the chain's last level (1e-4 in variance) nothing is resolved
    assert (small[wide] < target[wide]).all() and (small < large).all()
    assert (np.abs(small[wide] / target[wide] - 1) < 0.04).all()
    assert (np.abs(large[wide] / target[wide] - 1) < 0.04).all()


def test_large_variance_is_exact_for_unit_variance() -> None:
    """With v = 1, x_vp is N(0, 1) at every level and the reverse step's true variance is beta, whatever the steps."""
    levels = karras(7, 0.05, 30.0)
    result = recursion_in_vp_terms(levels, "large")[-1]
    _, covariance = impulse_responses(levels, "large")
    along = (ROTATION.T @ covariance @ ROTATION).diagonal()[-1]
    # The last step is a mean: it shrinks the variance 1 + s^2 of its state by the squared gain 1 / (1 + s^2)^2.
    assert float(along) == pytest.approx(1 / (1 + 0.05**2), rel=1e-12)
    assert float(along) == pytest.approx(result, rel=1e-12)
