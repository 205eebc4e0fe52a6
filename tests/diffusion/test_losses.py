"""The training loss against plain loops, closed forms and finite differences; the noise levels against their law."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from mrsi_fast.diffusion.denoiser import Denoiser
from mrsi_fast.diffusion.losses import SigmaDistribution, denoising_loss, spread_loss

LEVELS = SigmaDistribution(sigma_min=0.02, sigma_max=30.0, share_at_max=0.25, log_mean=-0.5, log_std=1.2)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def silent(x_in: torch.Tensor, label: torch.Tensor, cond: object) -> torch.Tensor:
    return torch.zeros_like(x_in)


@pytest.mark.parametrize("count", [1, 7, 16, 64])
@pytest.mark.parametrize("seed", range(5))
def test_a_batch_holds_the_share_at_sigma_max(count: int, seed: int) -> None:
    sigma = LEVELS.draw(count, generator(seed))
    assert sigma.dtype == torch.float32 and sigma.shape == (count,)
    assert abs(int((sigma == 30.0).sum()) - 0.25 * count) <= 1
    assert (sigma >= np.float32(0.02)).all() and (sigma <= 30.0).all()


def test_each_draw_follows_the_distribution() -> None:
    stream = generator(1)
    drawn = torch.stack([LEVELS.draw(8, stream) for _ in range(3000)]).double().numpy()
    for column in drawn.T:  # every position of the batch by itself; its draws are independent
        at_max = (column == 30.0).mean()
        assert abs(at_max - 0.25) < 4 * math.sqrt(0.25 * 0.75 / len(column))
        inner = np.log(column[(column < 30.0) & (column > 0.0201)])
        law = scipy.stats.norm(-0.5, 1.2)
        low, high = law.cdf(np.log(0.0201)), law.cdf(np.log(30.0))
        uniform = (law.cdf(inner) - low) / (high - low)
        assert scipy.stats.kstest(uniform, "uniform").pvalue > 1e-3


def test_draws_depend_on_the_given_generator_alone() -> None:
    first = LEVELS.draw(32, generator(5))
    torch.manual_seed(123)
    before = torch.get_rng_state()
    assert torch.equal(first, LEVELS.draw(32, generator(5)))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, LEVELS.draw(32, generator(6)))


def test_share_can_be_none_or_all_and_batches_empty() -> None:
    none = SigmaDistribution(0.02, 30.0, share_at_max=0.0).draw(4096, generator())
    assert (none == 30.0).float().mean() < 0.005  # only what the clip puts there
    assert (SigmaDistribution(0.02, 30.0, share_at_max=1.0).draw(64, generator()) == 30.0).all()
    assert LEVELS.draw(0, generator()).shape == (0,)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sigma_min": 0.0}, "0 < sigma_min < sigma_max"),
        ({"sigma_max": 0.01}, "0 < sigma_min < sigma_max"),
        ({"share_at_max": 1.5}, "fraction of the draws"),
        ({"log_std": 0.0}, "must be above 0"),
    ],
)
def test_impossible_distributions_are_refused(changes: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SigmaDistribution(**({"sigma_min": 0.02, "sigma_max": 30.0} | changes))


def problem(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    g = generator(3)
    clean = torch.randn(3, 4, 5, 7, dtype=dtype, generator=g)
    noise = torch.randn(3, 4, 5, 7, dtype=dtype, generator=g)
    weight = torch.rand(3, 4, 5, 7, dtype=dtype, generator=g)
    weight[0, 1] = 0.0
    return clean, torch.tensor([0.05, 1.3, 30.0], dtype=dtype), noise, weight


def test_matches_plain_loops() -> None:
    clean, sigma, noise, weight = problem()
    got = denoising_loss(Denoiser(silent, 30.0), clean, None, sigma, noise, weight)
    errors, totals = [], []
    for b, s in enumerate(sigma.tolist()):
        estimate = (clean[b] + s * noise[b]) / (s**2 + 1)
        errors.append(float((weight[b] * (s**2 + 1) / s**2 * (estimate - clean[b]) ** 2).sum()))
        totals.append(float(weight[b].sum()))
    assert float(got.mean) == pytest.approx(sum(errors) / sum(totals), rel=1e-12)
    assert got.per_sample.tolist() == pytest.approx([e / t for e, t in zip(errors, totals, strict=True)], rel=1e-12)
    assert not got.per_sample.requires_grad


def test_exact_denoiser_has_no_loss_and_a_silent_one_has_loss_one() -> None:
    g = generator(4)
    clean, noise = (torch.randn(8, 8, 48, 48, dtype=torch.float64, generator=g) for _ in range(2))
    sigma, ones = torch.tensor([0.02, 0.1, 0.5, 1.0, 2.0, 8.0, 20.0, 30.0], dtype=torch.float64), torch.ones(8, 1, 1, 1)

    class Exact(Denoiser):
        def forward(self, x: torch.Tensor, sigma: torch.Tensor, cond: object = None) -> torch.Tensor:
            return clean

    assert float(denoising_loss(Exact(silent, 30.0), clean, None, sigma, noise, ones).mean) == 0.0
    # A network that outputs 0 leaves the target's variance, which the preconditioning makes 1 at every level.
    per_sample = denoising_loss(Denoiser(silent, 30.0), clean, None, sigma, noise, ones).per_sample
    assert ((per_sample - 1).abs() < 5 * math.sqrt(2 / clean[0].numel())).all()


def test_weights_pick_maps_and_voxels_and_their_scale_is_free() -> None:
    clean, sigma, noise, weight = problem()
    denoiser = Denoiser(silent, 30.0)
    reference = denoising_loss(denoiser, clean, None, sigma, noise, weight).mean
    spoiled = clean.clone()
    spoiled[0, 1] += 1e6  # this map has no weight, and the silent network cannot carry it elsewhere
    assert torch.equal(denoising_loss(denoiser, spoiled, None, sigma, noise, weight).mean, reference)
    torch.testing.assert_close(denoising_loss(denoiser, clean, None, sigma, noise, 7.0 * weight).mean, reference)
    presence = (torch.arange(4) < 2).double().view(1, 4, 1, 1).expand(3, 4, 1, 1)
    two = denoising_loss(denoiser, clean[:, :2], None, sigma, noise[:, :2], torch.ones(3, 1, 1, 1)).mean
    torch.testing.assert_close(denoising_loss(denoiser, clean, None, sigma, noise, presence).mean, two)


def test_batch_without_weight_gives_zero_and_zero_gradients() -> None:
    clean, sigma, noise, weight = problem(torch.float32)
    network = torch.nn.Conv2d(4, 4, 3, padding=1)
    denoiser = Denoiser(lambda x_in, label, cond: network(x_in), 30.0)
    loss = denoising_loss(denoiser, clean, None, sigma, noise, torch.zeros_like(weight))
    loss.mean.backward()
    assert loss.mean.item() == 0.0 and (loss.per_sample == 0).all()
    assert network.weight.grad is not None and (network.weight.grad == 0).all()


def test_gradients_match_finite_differences() -> None:
    g = generator(6)
    clean, noise = (torch.randn(2, 2, 3, 5, dtype=torch.float64, generator=g) for _ in range(2))
    first = torch.randn(3, 2, 3, 3, dtype=torch.float64, generator=g, requires_grad=True)
    second = torch.randn(2, 3, 3, 3, dtype=torch.float64, generator=g, requires_grad=True)
    weight = torch.rand(2, 2, 3, 5, dtype=torch.float64, generator=g)
    sigma = torch.tensor([0.2, 30.0], dtype=torch.float64)

    def loss(first: torch.Tensor, second: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        def network(x_in: torch.Tensor, label: torch.Tensor, cond: object) -> torch.Tensor:
            hidden = torch.tanh(torch.nn.functional.conv2d(x_in, first, padding=1) + label.view(-1, 1, 1, 1))
            return torch.nn.functional.conv2d(hidden, second, padding=1)

        return denoising_loss(Denoiser(network, 30.0), clean, None, sigma, noise, weight).mean

    assert torch.autograd.gradcheck(loss, (first, second, clean.requires_grad_()))


def test_broadcast_noise_is_refused() -> None:
    clean, sigma, noise, weight = problem()
    with pytest.raises(ValueError, match="independent noise of the same shape"):
        denoising_loss(Denoiser(silent, 30.0), clean, None, sigma, noise[:1], weight)


def test_the_spread_loss_is_least_at_the_size_of_the_error() -> None:
    clean = torch.zeros(1, 1, 1, 4, dtype=torch.float64)
    estimate = torch.tensor([0.02, 0.3, 1.0, 5.0], dtype=torch.float64).reshape(1, 1, 1, 4).requires_grad_()
    log_sd = estimate.detach().log().requires_grad_()
    spread_loss(log_sd, estimate, clean, torch.ones(1, 1, 1, 1)).backward()
    assert log_sd.grad is not None and log_sd.grad.abs().max() < 1e-12
    assert estimate.grad is None  # the mean is not moved to flatter its spread
    for beta in (0.0, 0.5, 1.0):
        for offset, sign in ((-0.1, -1), (0.1, 1)):
            shifted = (estimate.detach().log() + offset).requires_grad_()
            spread_loss(shifted, estimate, clean, torch.ones(1, 1, 1, 1), beta).backward()
            assert shifted.grad is not None and (sign * shifted.grad > 0).all()


def test_the_spread_loss_leaves_out_voxels_without_weight() -> None:
    clean, log_sd = torch.zeros(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    estimate, weight = torch.randn(2, 3, 4, 4), (torch.rand(2, 1, 4, 4) > 0.5).float()
    spoilt = torch.where(weight.expand_as(clean) > 0, estimate, 1e6)
    assert torch.equal(spread_loss(log_sd, estimate, clean, weight), spread_loss(log_sd, spoilt, clean, weight))
    assert spread_loss(log_sd, estimate, clean, torch.zeros(2, 1, 1, 1)) == 0
