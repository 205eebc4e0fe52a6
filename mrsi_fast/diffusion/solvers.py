"""Samplers as lists of precomputed linear steps, and the loop that runs them.

The state is the EDM one, `x = x0 + sigma * n`; a variance-preserving state is `x_vp = x / sqrt(1 + sigma^2)` (see
`schedules`), so each solver below is the published one after that change of variable. All of them combine only the
state, the last two denoiser outputs and fresh noise, with coefficients that depend on the schedule alone. Hence a run
is a tuple of `Step`s made of Python floats: eager code, a native plan and a captured graph execute the same numbers,
and no step looks at data to decide what to do.

With one step every solver returns `D(x_init, sigma_max)`, the posterior mean; with more they draw samples. These are
two operating points, never to be mixed in one comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from torch import Tensor

Solver = Literal["ddpm", "ddim", "dpmpp_2m", "heun"]
Variance = Literal["small", "large"]


@dataclass(frozen=True)
class Step:
    """One denoiser evaluation and the linear update that follows it.

    `new = base * x_base + now * D(x_eval, sigma) + prev * D_before + noise * eps`, where `x_base` is the last committed
    state, `x_eval` the last computed one (they differ only inside a Heun step), `D_before` the output of the evaluation
    before, and `eps` standard normal. `new` becomes `x_eval`, and with `commit` also `x_base`.
    """

    sigma: float
    base: float
    now: float
    prev: float = 0.0
    noise: float = 0.0
    commit: bool = True


def make_steps(solver: Solver, sigmas: Sequence[float], variance: Variance = "small") -> tuple[Step, ...]:
    """Compile a solver and a schedule into steps, in float64.

    - `ddpm`: ancestral sampling, Ho et al. 2020, equations 6 and 7 and Algorithm 2.
    - `ddim`: Song et al. 2021, equation 12 with eta = 0; the Euler step of equation 14. First order.
    - `dpmpp_2m`: DPM-Solver++(2M), Lu et al. 2022, Algorithm 2. Second order; the first step, and the last one if it
      goes to 0 (where its half-logarithmic step is infinite), are first order.
    - `heun`: Karras et al. 2022, Algorithm 1 (no churn). Second order, two evaluations a step, one in a last step to 0.

    Args:
        solver: One of the four names.
        sigmas: Strictly decreasing levels from a schedule, two or more. The last is usually 0; above 0 the run ends in
            a state at that level.
        variance: Noise of `ddpm` between two levels `s > t`: `small` is the variance of the posterior
            `q(x_t | x_s, x0)`, beta-tilde in Ho et al., `t^2 (s^2 - t^2) / s^2` in this state; `large` is their beta,
            `(1 + t^2) (s^2 - t^2) / (1 + s^2)`. Either way the step to 0 adds none.

    Returns:
        The steps, one per evaluation: `len(sigmas) - 1` of them, for `heun` to 0 `2 * len(sigmas) - 3`.

    Raises:
        ValueError: If the solver or variance is unknown, or the levels are not finite and strictly decreasing.
    """
    if solver not in get_args(Solver):
        raise ValueError(f"There is no solver '{solver}'; choose one of {', '.join(get_args(Solver))}.")
    if variance not in get_args(Variance):
        raise ValueError(f"There is no ancestral variance '{variance}'; choose 'small' or 'large'.")
    levels = [float(s) for s in sigmas]
    decreasing = all(s > t for s, t in pairwise(levels))  # also False for NaN
    if len(levels) < 2 or not decreasing or levels[-1] < 0.0 or math.isinf(levels[0]):
        raise ValueError(
            "A solver needs at least two finite, strictly decreasing noise levels, the last 0 or above, "
            f"but got {levels[:4]}{' ...' if len(levels) > 4 else ''}; take them from mrsi_fast.diffusion.schedules."
        )
    if solver == "ddpm":
        return tuple(_ancestral(s, t, variance) for s, t in pairwise(levels))
    if solver == "ddim":
        return tuple(_euler(s, t) for s, t in pairwise(levels))
    if solver == "dpmpp_2m":
        return _dpmpp_2m(levels)
    return tuple(step for s, t in pairwise(levels) for step in _heun(s, t))


def _ancestral(s: float, t: float, variance: Variance) -> Step:
    kept = (t / s) ** 2
    drop = (s - t) * (s + t)  # s^2 - t^2
    spread = t * t * drop / (s * s) if variance == "small" else (1.0 + t * t) * drop / (1.0 + s * s)
    return Step(sigma=s, base=kept, now=drop / (s * s), noise=math.sqrt(spread) if t > 0.0 else 0.0)


def _euler(s: float, t: float) -> Step:
    return Step(sigma=s, base=t / s, now=(s - t) / s)


def _dpmpp_2m(levels: list[float]) -> tuple[Step, ...]:
    steps = [_euler(levels[0], levels[1])]
    for before, s, t in zip(levels, levels[1:], levels[2:], strict=False):
        first_order = _euler(s, t)
        # 1 / (2 r) in the paper, r the ratio of the previous and the present step in ln(sigma).
        weight = 0.5 * math.log(s / t) / math.log(before / s) if t > 0.0 else 0.0
        now = first_order.now
        steps.append(Step(sigma=s, base=first_order.base, now=now * (1.0 + weight), prev=-now * weight))
    return tuple(steps)


def _heun(s: float, t: float) -> tuple[Step, ...]:
    if t == 0.0:
        return (_euler(s, t),)
    # With d = (x - D) / sigma at both ends, x + (t - s) (d_s + d_t) / 2 collected in x_base, D_s (prev) and D_t (now).
    half = 0.5 * (t - s)
    predict = Step(sigma=s, base=t / s, now=(s - t) / s, commit=False)
    correct = Step(sigma=t, base=t / s, now=-half / t, prev=half * (1.0 / t - 2.0 / s))
    return predict, correct


def sample(
    denoise: Callable[[Tensor, float], Tensor],
    x_init: Tensor,
    steps: Sequence[Step],
    noise: Callable[[int], Tensor] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Run a list of steps from an initial state.

    Args:
        denoise: `denoise(x, sigma) -> x0`, shape of `x`. Hard data consistency is a wrapped denoiser,
            `lambda x, s: project(denoiser(x, s, cond))`: it acts on x0 at every evaluation, never on the state.
        x_init: State at `steps[0].sigma`, already scaled: `steps[0].sigma * n` with n standard normal. Any shape,
            floating dtype and device; not modified.
        steps: From `make_steps`.
        noise: `noise(index)` gives the standard normal noise of step `index`, shape of `x_init`; it is called only for
            steps that add noise, and its result is moved to the dtype and device of `x_init`.
        on_step: Called after each evaluation with (evaluations done, evaluations in all), for progress. To cancel,
            raise from it.

    Returns:
        The final state: x0 if the schedule ended at 0.

    Raises:
        ValueError: If a step adds noise and no `noise` was given.
    """
    if noise is None and any(step.noise != 0.0 for step in steps):
        raise ValueError("This solver adds noise between steps (ddpm), so sample() needs the argument `noise`.")
    base = x_eval = x_init
    before: Tensor | None = None
    for index, step in enumerate(steps):
        estimate = denoise(x_eval, step.sigma)
        # Zero terms are left out, not multiplied: a last step then returns the denoiser's output to the bit.
        x_eval = step.now * estimate
        if step.base != 0.0:
            x_eval = x_eval + step.base * base
        if step.prev != 0.0 and before is not None:
            x_eval = x_eval + step.prev * before
        if step.noise != 0.0 and noise is not None:
            x_eval = x_eval + step.noise * noise(index).to(x_init)
        if step.commit:
            base = x_eval
        before = estimate
        if on_step is not None:
            on_step(index + 1, len(steps))
    return base
