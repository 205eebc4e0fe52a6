"""The denoiser against Karras et al. 2022, Table 1, written out in plain floats, and at the ends of its range."""

import math

import pytest
import torch

from mrsi_fast.diffusion.denoiser import Denoiser, standard_deviation

SIGMA_MAX = 30.0


def wavy(x_in: torch.Tensor, label: torch.Tensor, cond: object) -> torch.Tensor:
    """A network that is non-linear, depends on its label and mixes nothing between samples."""
    return torch.sin(3.0 * x_in) + label.view((-1,) + (1,) * (x_in.ndim - 1))


@pytest.fixture
def denoiser() -> Denoiser:
    return Denoiser(wavy, sigma_max=SIGMA_MAX, sigma_min=0.002)


@pytest.mark.parametrize("shape", [(3,), (3, 8, 5, 7), (3, 1, 2, 3, 5), (3, 8, 0, 4)])
def test_matches_table_1(denoiser: Denoiser, shape: tuple[int, ...]) -> None:
    levels = [0.01, 1.0, 29.5]
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = denoiser(x, torch.tensor(levels, dtype=torch.float64))
    for row, s in enumerate(levels):
        skip, out, into = 1 / (s**2 + 1), s / math.sqrt(s**2 + 1), 1 / math.sqrt(s**2 + 1)
        expected = skip * x[row] + out * (torch.sin(3 * into * x[row]) + math.log(s) / 4)
        torch.testing.assert_close(got[row], expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("sigma", [1e-3, 0.3, 1.0, 7.0, SIGMA_MAX])
def test_network_sees_and_predicts_unit_variance(denoiser: Denoiser, sigma: float) -> None:
    c_in, c_skip, c_out, _ = (float(v) for v in denoiser.preconditioning(torch.tensor(sigma, dtype=torch.float64)))
    assert c_in**2 * (1 + sigma**2) == pytest.approx(1, rel=1e-12)
    # The training target is (x0 - c_skip (x0 + sigma n)) / c_out; x0 and n have variance 1.
    assert ((1 - c_skip) ** 2 + (c_skip * sigma) ** 2) / c_out**2 == pytest.approx(1, rel=1e-9)


def test_clean_limit_is_the_identity(denoiser: Denoiser) -> None:
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    assert torch.equal(denoiser(x, 0.0), x)
    assert (denoiser(x, 1e-6) - x).abs().max() < 1e-5
    label = denoiser.preconditioning(torch.tensor([0.0, 1e-9, 0.002], dtype=torch.float64)).c_noise
    assert torch.allclose(label, torch.full((3,), math.log(0.002) / 4, dtype=torch.float64), rtol=1e-14)


@pytest.mark.parametrize("sigma", [SIGMA_MAX * 1.0001, 157.0, 2e4, 1e30])
def test_above_sigma_max_is_the_rescaled_denoiser(denoiser: Denoiser, sigma: float) -> None:
    x = sigma * torch.randn(2, 4, 3, 5, dtype=torch.float64)
    expected = denoiser(x * (SIGMA_MAX / sigma), SIGMA_MAX)
    torch.testing.assert_close(denoiser(x, sigma), expected, rtol=1e-10, atol=1e-12)
    assert denoiser(x.float(), sigma).isfinite().all()


def test_number_and_tensor_levels_agree_and_mix_with_any_layout(denoiser: Denoiser) -> None:
    x = torch.randn(5, 6, 7, 3).permute(3, 1, 0, 2)
    assert not x.is_contiguous()
    assert torch.equal(denoiser(x, 2.5), denoiser(x.contiguous(), torch.full((3,), 2.5)))
    assert denoiser(x[:0], torch.zeros(0)).shape == (0, 6, 5, 7)


def test_each_sample_has_its_own_level(denoiser: Denoiser) -> None:
    x, sigma = torch.randn(3, 2, 4, 4), torch.tensor([0.1, 5.0, 400.0])
    alone = torch.cat([denoiser(x[i : i + 1], sigma[i : i + 1]) for i in range(3)])
    assert torch.equal(denoiser(x, sigma), alone)


def test_condition_reaches_the_network_untouched() -> None:
    seen = []

    def network(x_in: torch.Tensor, label: torch.Tensor, cond: object) -> torch.Tensor:
        seen.append(cond)
        return x_in

    cond = object()
    Denoiser(network, SIGMA_MAX)(torch.zeros(1, 1, 2, 2), 1.0, cond)
    assert seen == [cond]


def test_low_precision_network_does_not_round_the_skip_path() -> None:
    denoiser = Denoiser(lambda x_in, label, cond: torch.zeros_like(x_in, dtype=torch.bfloat16), SIGMA_MAX)
    x = torch.randn(2, 3, 4, 4)
    out = denoiser(x, 0.5)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, x / 1.25, rtol=1e-6, atol=0)


def test_half_precision_input_keeps_an_exact_label() -> None:
    labels = []
    denoiser = Denoiser(lambda x_in, label, cond: labels.append(label) or x_in, SIGMA_MAX)
    assert denoiser(torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16), 3.3).dtype == torch.bfloat16
    assert labels[0].item() == pytest.approx(math.log(3.3) / 4, rel=1e-6)


def test_module_network_is_trained_and_saved_with_it() -> None:
    denoiser = Denoiser(torch.nn.Conv2d(1, 1, 1), SIGMA_MAX)
    assert set(denoiser.state_dict()) == {"network.weight", "network.bias"}


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (2.0, 1.0), (0.1, math.inf), (0.1, math.nan), (-1.0, 1.0)])
def test_impossible_range_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="0 < sigma_min < sigma_max"):
        Denoiser(wavy, sigma_max=high, sigma_min=low)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 1)])
def test_levels_of_wrong_shape_are_refused(denoiser: Denoiser, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one noise level per sample"):
        denoiser(torch.zeros(2, 1, 3, 3), torch.ones(shape))


def test_the_spread_passes_by_the_preconditioning() -> None:
    class TwoHeads:
        def __call__(self, x, label, cond):
            return x + label[:, None]

        def with_spread(self, x, label, cond):
            return self(x, label, cond), cond * torch.ones_like(x)

    denoiser = Denoiser(TwoHeads(), sigma_max=20.0)
    x, sigma = torch.randn(3, 4, dtype=torch.float64), torch.tensor([0.0, 3.0, 50.0], dtype=torch.float64)
    estimate, log_sd = denoiser.with_spread(x, sigma, 0.3)
    assert torch.equal(estimate, denoiser(x, sigma, 0.3))
    assert torch.equal(log_sd, torch.full_like(x, 0.3))


def test_a_standard_deviation_is_held_to_its_range() -> None:
    found = standard_deviation(torch.tensor([-90.0, -7.0, 0.0, 3.0, 90.0], dtype=torch.float64))
    assert found.tolist() == pytest.approx([math.exp(-7), math.exp(-7), 1.0, math.exp(3), math.exp(3)])
