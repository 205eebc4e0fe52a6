"""Sampling with hard data consistency by the acquisition operator: what was measured stays, what was not is sampled."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from mrsi_fast.diffusion.denoiser import Denoiser
from mrsi_fast.diffusion.schedules import karras
from mrsi_fast.diffusion.solvers import Solver, make_steps, sample
from mrsi_fast.mrsi.consistency import DataConsistency
from mrsi_fast.mrsi.forward import Acquisition

ACQUISITIONS = [
    Acquisition((8, 8), (4, 4)),
    Acquisition((7, 9), (2, 4), window="hamming"),
    Acquisition((8, 11), (2, 2), support="ellipse", window="hann"),
    Acquisition((5, 6), (8, 2), box=True),
]
NAMES = ["plain", "odd-hamming", "ellipse-hann", "box"]
RMS = torch.tensor([0.7, 3.0], dtype=torch.float64).view(2, 1, 1)  # mM in one unit of the residual, per map


def network(x_in: Tensor, label: Tensor, cond: object) -> Tensor:
    return torch.sin(3 * x_in + x_in.roll(1, -1)) + label.view(-1, 1, 1, 1)


def run(acquisition: Acquisition, solver: Solver) -> tuple[DataConsistency, Tensor, Tensor, list[tuple[float, Tensor]]]:
    """One run in residual units; returns the consistency, the initial noise, the final map, and the states."""
    g = torch.Generator().manual_seed(0)
    truth = 5 + torch.randn(3, 2, *acquisition.hr_shape, dtype=torch.float64, generator=g)
    consistency = DataConsistency("hard", acquisition, acquisition.forward(truth))
    denoiser, z = Denoiser(network, 30.0, 0.02), consistency.z
    states: list[tuple[float, Tensor]] = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        states.append((sigma, x))
        return (consistency.at_end(z + RMS * denoiser(x, sigma)) - z) / RMS

    levels = karras(8, 0.02, 30.0)
    n, *later = torch.randn(9, *truth.shape, dtype=torch.float64, generator=g)
    residual = sample(denoise, levels[0] * n, make_steps(solver, levels), lambda index: later[index])
    return consistency, n, z + RMS * residual, states


@pytest.mark.parametrize("acquisition", ACQUISITIONS, ids=NAMES)
@pytest.mark.parametrize("solver", get_args(Solver))
def test_result_reproduces_the_data(acquisition: Acquisition, solver: Solver) -> None:
    consistency, _, result, _ = run(acquisition, solver)
    assert float(consistency.residual(result).relative.max()) < 1e-10
    assert float(acquisition.null(result - consistency.z).norm()) > 1  # and adds something the data do not say


@pytest.mark.parametrize("acquisition", ACQUISITIONS, ids=NAMES)
@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "heun"])
def test_measured_band_of_the_state_stays_z_plus_sigma_n(acquisition: Acquisition, solver: Solver) -> None:
    consistency, n, _, states = run(acquisition, solver)
    z = consistency.z
    assert len(states) == (15 if solver == "heun" else 8)
    for sigma, residual in states:
        state = acquisition.measured(z + RMS * residual)
        expected = acquisition.measured(z + RMS * sigma * n)
        torch.testing.assert_close(state, expected, rtol=0, atol=1e-11 * (1 + sigma))
