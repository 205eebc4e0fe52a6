"""Data consistency against dense least squares in float64, closed forms and counts of noise."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mrsi_fast.diffusion.schedules import karras
from mrsi_fast.diffusion.solvers import make_steps, sample
from mrsi_fast.mrsi.consistency import DataConsistency
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.noise_shape import noise_shape
from mrsi_fast.mrsi.residuals import unexplained

OPERATORS = [
    Acquisition(shape, (4, 2), support, window)
    for shape, support, window in itertools.product(
        [(8, 10), (7, 9)], ("square", "ellipse"), ("none", "hamming", "hann")
    )
]
INVERTIBLE = [a for a in OPERATORS if a.separable and (a.window != "hann" or a.lr_shape == (7, 9))]


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def noisy_case(acq: Acquisition, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    """Maps with a noise level that varies over voxels, holes in the trust mask, and an estimate far from the data."""
    truth = 5 + randn(2, 3, *acq.hr_shape, dtype=dtype)
    sd = 0.1 + 0.2 * randn(2, 3, *acq.lr_shape, seed=1, dtype=dtype).abs()
    y = acq.forward(truth) + sd * randn(2, 3, *acq.lr_shape, seed=2, dtype=dtype)
    trusted = randn(2, 3, *acq.lr_shape, seed=3) > -1.3
    return {
        "y": y,
        "noise_sd": sd,
        "trusted": trusted,
        "estimate": truth + 4 * randn(*truth.shape, seed=4, dtype=dtype),
    }


@pytest.mark.parametrize("acq", OPERATORS, ids=str)
def test_hard_reproduces_noise_free_data(acq: Acquisition) -> None:
    """Float32, relative L2 residual of each map."""
    y = acq.forward(5 + randn(2, 3, *acq.hr_shape, dtype=torch.float32))
    consistency = DataConsistency("hard", acq, y)
    estimate = 5 + 3 * randn(2, 3, *acq.hr_shape, seed=1, dtype=torch.float32)
    result = consistency.at_end(estimate)
    assert consistency.residual(result).relative.max() <= 1e-6
    assert consistency.residual(estimate).relative.min() > 1e-2
    torch.testing.assert_close(consistency.at_end(result), result, rtol=0, atol=2e-5)
    given = DataConsistency("hard", acq, y, exact=acq.pinv(y))
    assert torch.equal(given.at_end(estimate), result)
    torch.testing.assert_close(acq.null(result), acq.null(estimate), rtol=0, atol=2e-5)


@pytest.mark.parametrize("acq", INVERTIBLE, ids=str)
def test_soft_reaches_what_noise_explains(acq: Acquisition) -> None:
    """A residual without outliers ends at the size of the noise; that neighbourhoods may count more costs a little."""
    y = 5 + 8 * torch.special.erf(randn(40, 3, *acq.lr_shape))
    consistency = DataConsistency("soft", acq, y, torch.full_like(y, 0.5), randn(*y.shape, seed=3) > -1.3)
    estimate = torch.full((40, 3, *acq.hr_shape), 5.0, dtype=torch.float64)
    before, after = (consistency.residual(x, (0, -2, -1)) for x in (estimate, consistency.at_end(estimate)))
    assert (before.whitened > 8 * before.expected).all()
    torch.testing.assert_close(after.whitened, after.expected, rtol=0.02, atol=0)


@pytest.mark.parametrize("acq", OPERATORS, ids=str)
@pytest.mark.parametrize("holes", [False, True])
def test_soft_is_the_smallest_change_with_its_effect(acq: Acquisition, holes: bool) -> None:
    """The change against dense least squares of least norm for what noise does not explain of the residual."""
    case = noisy_case(acq)
    estimate = case.pop("estimate")
    case["trusted"] |= not holes
    change = DataConsistency("soft", acq, **case).at_end(estimate) - estimate
    columns = acq.forward(torch.eye(estimate[0, 0].numel(), dtype=torch.float64).reshape(-1, *acq.hr_shape))
    dense = columns.reshape(len(columns), -1).T.numpy()
    y, sd, trusted = (case[name][1, 2].numpy().ravel() for name in ("y", "noise_sd", "trusted"))
    trusted_plane, r = case["trusted"][1, 2].double(), y - dense @ estimate[1, 2].numpy().ravel()
    whitened = torch.from_numpy(r / sd).reshape(acq.lr_shape) * trusted_plane
    pull, held = unexplained(whitened, trusted_plane, noise_shape(acq))
    trusted &= held.numpy().ravel() > 0
    wanted = (pull.numpy().ravel() * r)[trusted]
    smallest = np.linalg.lstsq(dense[trusted], wanted, rcond=1e-9)[0]
    found = change[1, 2].numpy().ravel()
    if not holes:
        np.testing.assert_allclose(found, smallest, atol=1e-9 * np.abs(smallest).max())
    elif acq in INVERTIBLE:  # elsewhere holes make voxels free that the operator could not fit before
        assert np.linalg.norm(found) < 1.25 * np.linalg.norm(smallest)
        np.testing.assert_allclose(dense[trusted] @ found, wanted, atol=1e-9 * np.abs(wanted).max())
    assert DataConsistency("soft", acq, **case).residual(change).outside_band.max() < 1e-20


@pytest.mark.parametrize("window", ["hamming", "hann"])
@pytest.mark.parametrize("support", ["square", "ellipse"])
def test_holes_do_not_blow_up_the_soft_change(support: Any, window: Any) -> None:
    """Noise that passed the window is undone without growth, and a hole in the mask must not change that."""
    acq, flat = (Acquisition((16, 17), (2, 2), support, w) for w in (window, "none"))
    y = acq.forward(flat.pinv(randn(20, 16, 17)))
    trusted = torch.ones(20, 16, 17)
    trusted[:, 4:6, 7:9] = trusted[:, 10:13, 2:4] = 0
    sd = torch.full_like(y, 0.3 * float(y.std()))
    zero = torch.zeros(20, *acq.hr_shape, dtype=torch.float64)
    whole, holed = (DataConsistency("soft", acq, y, sd, mask).at_end(zero).norm() for mask in (None, trusted))
    assert holed < 1.1 * whole


def test_soft_leaves_an_estimate_within_the_noise_alone() -> None:
    acq = Acquisition((8, 9), (2, 2), window="hamming")
    truth = 5 + randn(4, *acq.hr_shape, dtype=torch.float32)
    y = acq.forward(truth)
    sd = torch.full_like(y, 0.1)
    near, far = truth + 0.01, truth + 1.0
    estimate = torch.stack([near[0], far[1], near[2], far[3]])
    result = DataConsistency("soft", acq, y, sd).at_end(estimate)
    for index, changes in enumerate((False, True, False, True)):  # each map is judged alone
        assert torch.equal(result[index], estimate[index]) != changes


def test_a_large_noise_level_counts_less() -> None:
    acq = Acquisition((8, 8), (2, 2))
    y, estimate = randn(1, 8, 8), randn(1, 16, 16, seed=1)
    moved = [
        (DataConsistency("soft", acq, y, torch.full_like(y, sd)).at_end(estimate) - estimate).norm()
        for sd in (1e-3, 0.1, 0.5, 100.0)
    ]
    assert moved[0] > moved[1] > moved[2] > moved[3] == 0


@pytest.mark.parametrize("mode", ["soft", "off"])
def test_untrusted_voxels_carry_no_weight(mode: Any) -> None:
    acq = Acquisition((8, 7), (2, 4))
    case = noisy_case(acq)
    estimate = case.pop("estimate")
    other = dict(case, y=torch.where(case["trusted"], case["y"], 1e6))
    holes = dict(case, y=torch.where(case["trusted"], case["y"], torch.nan), trusted=None)
    reference = DataConsistency(mode, acq, **case)
    for variant in (other, holes):
        consistency = DataConsistency(mode, acq, **variant)
        assert torch.equal(consistency.at_end(estimate), reference.at_end(estimate))
        for name, value in vars(reference.residual(estimate)).items():
            assert torch.equal(getattr(consistency.residual(estimate), name), value), name


@pytest.mark.parametrize("unknown", [torch.nan, 0.0, torch.inf, -1.0])
def test_auto_is_soft_only_where_the_noise_level_is_known(unknown: float) -> None:
    acq = Acquisition((8, 8), (2, 2))
    y, estimate = randn(3, 8, 8), randn(3, 16, 16, seed=1)
    sd = torch.tensor([0.1, unknown, 0.1], dtype=torch.float64)[:, None, None]
    consistency = DataConsistency("auto", acq, y, sd)
    result = consistency.at_end(estimate)
    assert consistency.applied == "soft"
    assert torch.equal(result[1], estimate[1]) and not torch.equal(result[0], estimate[0])
    report = consistency.residual(result)
    assert torch.isnan(report.whitened).tolist() == [False, True, False]
    torch.testing.assert_close(report.expected[[0, 2]], torch.full((2,), 8.0, dtype=torch.float64))
    assert "stated or assumed for 2 of 3" in consistency.describe()


def test_auto_is_off_without_a_noise_level_and_never_hard() -> None:
    acq = Acquisition.assume((8, 8), (2, 2))
    estimate = randn(3, 16, 16, seed=1)
    consistency = DataConsistency("auto", acq, randn(3, 8, 8))
    assert consistency.applied == "off"
    assert consistency.at_end(estimate) is estimate
    assert torch.isnan(consistency.residual(estimate).whitened).all()
    assert "no map has a noise level" in consistency.describe()
    assert "assumed" in consistency.describe()


@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_scaling_everything_scales_the_result(mode: Any) -> None:
    acq = Acquisition((8, 7), (2, 4), "ellipse", "hamming")
    case = noisy_case(acq)
    estimate = case.pop("estimate")
    result = DataConsistency(mode, acq, **case).at_end(estimate)
    scaled = dict(case, y=8 * case["y"], noise_sd=8 * case["noise_sd"])
    assert torch.equal(DataConsistency(mode, acq, **scaled).at_end(8 * estimate), 8 * result)


def test_whitened_norm_of_the_truth_is_what_noise_gives() -> None:
    """E |n/sigma|^2 is the number of voxels; 400 maps of 80 voxels bring the mean within 1 %."""
    acq = Acquisition((8, 10), (2, 2))
    truth = randn(400, *acq.hr_shape)
    sd = 0.5 + torch.arange(80.0, dtype=torch.float64).reshape(8, 10) / 80
    y = acq.forward(truth) + sd * randn(400, 8, 10, seed=1)
    report = DataConsistency("soft", acq, y, sd).residual(truth)
    assert ((report.whitened**2).mean() / 80 - 1).abs() < 0.01
    volume = DataConsistency("soft", acq, y, sd).residual(truth, over=(0, -2, -1))
    torch.testing.assert_close(volume.whitened, (report.whitened**2).sum().sqrt())
    torch.testing.assert_close(volume.expected, torch.tensor(np.sqrt(400 * 80)))


def test_energy_outside_the_band_in_closed_form() -> None:
    acq = Acquisition((8, 8), (4, 4))
    angle = 2 * np.pi * torch.arange(32, dtype=torch.float64) / 32
    inside, outside = torch.cos(2 * angle), torch.cos(7 * angle)
    maps = torch.stack([inside, outside, 3 * inside + outside, 0 * inside])[:, :, None].expand(4, 32, 32)
    report = DataConsistency("off", acq, torch.ones(4, 8, 8, dtype=torch.float64)).residual(maps)
    torch.testing.assert_close(report.outside_band, torch.tensor([0, 1, 0.1, 0.0], dtype=torch.float64))


def test_empty_maps_and_batches() -> None:
    acq = Acquisition((8, 8), (2, 2))
    y, x = torch.zeros(2, 8, 8), torch.zeros(2, 16, 16)
    for mode in ("hard", "soft", "off"):
        consistency = DataConsistency(mode, acq, y, torch.zeros(2, 1, 1), torch.zeros(2, 1, 1))
        assert torch.equal(consistency.at_end(x), x)
        assert consistency.residual(x).relative.tolist() == [0, 0]
        assert consistency.residual(x).outside_band.tolist() == [0, 0]
        assert DataConsistency(mode, acq, y[:0], y[:0]).at_end(x[:0]).shape == (0, 16, 16)


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "heun"])
def test_state_in_the_band_is_data_plus_noise(solver: Any) -> None:
    """With P on x0 the in-band part of an ODE solver's state is ``Q'Q(z + sigma n)`` at every evaluation."""
    acq = Acquisition((8, 7), (2, 4), "ellipse", "hamming")
    consistency = DataConsistency("hard", acq, acq.forward(randn(2, *acq.hr_shape)))
    noise = randn(2, *acq.hr_shape, seed=1)
    seen: list[float] = []

    def denoise(state: torch.Tensor, sigma: float) -> torch.Tensor:
        seen.append(float((acq.measured(state - sigma * noise) - consistency.z).abs().max()))
        return consistency.at_end(torch.tanh(state))

    steps = make_steps(solver, karras(6, 0.02, 20.0))
    result = sample(denoise, steps[0].sigma * noise + consistency.z, steps)
    assert max(seen) < 1e-11
    assert consistency.residual(result).relative.max() < 1e-12


class NoHostReads(TorchDispatchMode):
    """Fails on any operation that brings a tensor's value to Python, which a captured loop cannot do."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", ["hard", "soft", "off"])
def test_no_value_is_read(mode: Any) -> None:
    acq = Acquisition((8, 7), (2, 4), "ellipse", "hann")
    case = noisy_case(acq, torch.float32)
    estimate = case.pop("estimate")
    consistency = DataConsistency(mode, acq, **case)
    with pytest.raises(AssertionError), NoHostReads():
        estimate.max().item()
    with NoHostReads():
        consistency.at_end(estimate)


def test_refusals_are_sentences() -> None:
    acq, y = Acquisition((8, 8), (2, 2)), torch.zeros(3, 8, 8)
    with pytest.raises(ValueError, match="'firm' is not known"):
        DataConsistency("firm", acq, y)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs the noise level"):
        DataConsistency("soft", acq, y)
    with pytest.raises(ValueError, match=r"noise_sd has shape \(3,\)"):
        DataConsistency("auto", acq, y, torch.ones(3))
    with pytest.raises(ValueError, match=r"trusted has shape \(2, 8, 8\)"):
        DataConsistency("auto", acq, y, None, torch.ones(2, 8, 8))
