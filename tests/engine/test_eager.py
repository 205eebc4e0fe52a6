"""The eager engine against closed forms: with a silent network the denoiser is exact for a unit Gaussian prior."""

from __future__ import annotations

import pytest
import torch

from mrsi_fast.config import DiffusionConfig
from mrsi_fast.diffusion.denoiser import Denoiser
from mrsi_fast.engine.choose import choose_engine
from mrsi_fast.engine.eager import EagerEngine
from mrsi_fast.engine.job import EngineError, SamplingJob
from mrsi_fast.models.condition import Condition, vector_width
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.sampling import solver_steps

DIFFUSION = DiffusionConfig(residual_rms={key: (0.1,) * 8 for key in ("2", "4", "8")})


class Silent(torch.nn.Module):
    """Network output 0 and one parameter, so that the engine finds a dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor, label: torch.Tensor, cond: Condition) -> torch.Tensor:
        return self.gain * x


def make_engine() -> EagerEngine:
    denoiser = Denoiser(Silent(), DIFFUSION.sigma_max, DIFFUSION.sigma_min).eval()
    return EagerEngine(denoiser, torch.device("cpu"), reason="test")


def make_job(solver: str, steps: int, grid: tuple[int, int] = (32, 32), **changes) -> SamplingJob:
    torch.manual_seed(0)
    blank = torch.zeros(4, 8, *grid)
    cond = Condition(blank, blank, blank[:, :1], torch.zeros(4, vector_width(8)))
    plan = solver_steps(solver, steps, DIFFUSION)
    noise = torch.randn(4, 8, *grid) * plan[0].sigma
    return SamplingJob(cond, noise, plan, **{"step_noise": lambda index: torch.randn(4, 8, *grid), **changes})


@pytest.mark.parametrize("solver, steps, tolerance", [("dpmpp_2m", 40, 0.02), ("heun", 40, 0.02), ("ddpm", 1000, 0.02)])
def test_samples_have_the_priors_spread(solver: str, steps: int, tolerance: float) -> None:
    final = make_engine().run(make_job(solver, steps))
    assert final.std().item() == pytest.approx(1.0, abs=tolerance)


def test_one_step_is_the_posterior_mean() -> None:
    job = make_job("dpmpp_2m", 1)
    final = make_engine().run(job)
    torch.testing.assert_close(final, job.initial / (1 + DIFFUSION.sigma_max**2))


def test_hard_consistency_leaves_nothing_in_the_measured_band() -> None:
    acquisition = Acquisition((8, 8), (4, 4))
    final = make_engine().run(make_job("dpmpp_2m", 8, projection=acquisition))
    assert acquisition.forward(final.double()).abs().max() < 1e-6
    assert final.std() > 0.5


def test_cancelling_stops_between_steps() -> None:
    seen = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_engine().run(make_job("dpmpp_2m", 8, on_step=stop))
    assert seen == [(1, 8), (2, 8), (3, 8)]


def test_an_unknown_engine_is_refused_with_the_list() -> None:
    with pytest.raises(EngineError, match="choose one of auto, cuda-graph, native-amx, native, compile, eager"):
        choose_engine("warp", make_engine().denoiser, torch.device("cpu"))
