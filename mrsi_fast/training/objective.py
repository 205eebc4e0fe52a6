"""What one training step minimises, and what validation measures, on batches in the simulator's units."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from mrsi_fast.diffusion.denoiser import Denoiser, standard_deviation
from mrsi_fast.diffusion.losses import SigmaDistribution, denoising_loss, estimate_loss, noisy_state, spread_loss
from mrsi_fast.models.condition import Condition, batch_condition, residual_rms
from mrsi_fast.training.config import LossConfig
from mrsi_fast.training.data import Batch
from mrsi_fast.training.ranks import ALONE, Ranks

RmsTable = Mapping[str, Sequence[float]]


def scaled_residual(batch: Batch) -> Tensor:
    """(truth - z) / scale, [B, K, X, Y]; 0 for absent maps."""
    presence = batch["presence"]
    scale = torch.where(presence > 0, batch["scale"], torch.ones_like(presence))
    return (batch["hr"] - batch["z"]) * (presence / scale)[:, :, None, None]


def measure_residual_rms(batches: Iterable[Batch], channels: int) -> dict[str, tuple[float, ...]]:
    """RMS of the scaled residual inside the brain for the isotropic factors 2, 4 and 8, per channel.

    Args:
        batches: Enough training batches to see every factor and map.
        channels: Number of map channels K.

    Raises:
        ValueError: A factor never occurred in the batches.
    """
    power: dict[str, Tensor] = defaultdict(lambda: torch.zeros(channels, dtype=torch.float64))
    count: dict[str, Tensor] = defaultdict(lambda: torch.zeros(channels, dtype=torch.float64))
    for batch in batches:
        residual = scaled_residual(batch).double()
        inside = batch["brain"].double()[:, None]
        for index, (factor_x, factor_y) in enumerate(batch["factors"].tolist()):
            if factor_x == factor_y and str(int(factor_x)) in ("2", "4", "8"):
                key = str(int(factor_x))
                power[key] += (residual[index] ** 2 * inside[index]).sum((-2, -1))
                count[key] += batch["presence"][index].double() * inside[index].sum()
    missing = [key for key in ("2", "4", "8") if key not in count]
    if missing:
        raise ValueError(f"The training data never used factor {', '.join(missing)}: raise its share in [simulation].")
    rms = {key: (power[key] / count[key].clamp_min(1)).sqrt() for key in sorted(count)}
    # A map that is all but empty in the measuring batches (2HG in healthy heads) must not get a vanishing unit.
    return {key: tuple(round(float(value), 6) for value in row.clamp_min(0.01)) for key, row in rms.items()}


def residual_and_condition(batch: Batch, rms: RmsTable) -> tuple[Tensor, Condition]:
    """The clean residual of a batch [B, K, X, Y], in units of its RMS, and what the network is told."""
    unit = residual_rms(rms, batch["factors"])[:, :, None, None]
    return scaled_residual(batch) / unit, batch_condition(batch)


def training_loss(
    denoiser: Denoiser,
    batch: Batch,
    rms: RmsTable,
    sigmas: SigmaDistribution,
    loss: LossConfig,
    generator: torch.Generator,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Weighted denoising loss of one batch, a scalar with gradient; noise comes from ``generator``, on its device.

    With several processes ``batch`` is this one's rows, and its loss is its part of the whole batch's.
    """
    clean, cond = residual_and_condition(batch, rms)
    size = ranks.count * clean.shape[0]
    mine = ranks.rows(size)
    sigma = sigmas.draw(size, generator)[mine].to(clean.device)
    noise = torch.randn((size, *clean.shape[1:]), generator=generator, device=generator.device)[mine].to(clean.device)
    chance = torch.rand((size,), generator=generator, device=generator.device)[mine].to(clean.device)
    blind = (sigma == sigmas.sigma_max) & (chance < loss.blind)
    noise = torch.where(blind[:, None, None, None], -clean / sigma[:, None, None, None], noise)  # the state is 0
    brain = batch["brain"][:, None]
    weight = (brain + loss.background * (1 - brain)) * cond.presence[:, :, None, None]
    state, weight_of_spread = noisy_state(clean, sigma, noise), weight * blind[:, None, None, None]
    total, total_of_spread = _totals(weight, weight_of_spread, clean, ranks)
    if loss.spread == 0:
        return estimate_loss(denoiser(state, sigma, cond), clean, sigma, weight, total).mean
    estimate, log_sd = denoiser.with_spread(state, sigma, cond)
    spread = spread_loss(log_sd, estimate, clean, weight_of_spread, total_weight=total_of_spread)
    return estimate_loss(estimate, clean, sigma, weight, total).mean + loss.spread * spread


def _totals(weight: Tensor, other: Tensor, clean: Tensor, ranks: Ranks) -> tuple[Tensor | None, Tensor | None]:
    """Sums of two weights over the whole batch; None where this process has all of it."""
    if ranks.count == 1:
        return None, None
    sums = [one.to(clean.dtype).expand_as(clean).sum() for one in (weight, other)]
    first, second = ranks.summed(torch.stack(sums)).unbind()
    return first, second


@torch.no_grad()
def validate(
    denoiser: Denoiser, batches: Iterable[Batch], rms: RmsTable, sigmas: Sequence[float], seed: int = 0
) -> dict[str, float]:
    """Loss at fixed noise levels and the one-step estimate's gain over the measured-data estimate.

    Returns:
        ``loss_<sigma>``: mean denoising loss at that level; ``gain_db_x<f>``: mean over slices of
        10 log10(sum |z - truth|^2 / sum |estimate - truth|^2) over the brain and the present maps, each in its scale;
        the same by the anatomical image as ``gain_db_t1_x<f>``. With a second head, ``coverage``: the share of these
        voxels whose truth lies within 1.645 standard deviations.
    """
    device = next(denoiser.parameters()).device
    spread = getattr(denoiser.network, "spread", None) is not None
    collected: dict[str, list[float]] = defaultdict(list)
    for number, host_batch in enumerate(batches):
        batch = {key: value.to(device) for key, value in host_batch.items()}
        clean, cond = residual_and_condition(batch, rms)
        weight = batch["brain"][:, None] * cond.presence[:, :, None, None]
        generator = torch.Generator().manual_seed(seed * 100_003 + number)
        for sigma in sigmas:
            noise = torch.randn(clean.shape, generator=generator).to(device)
            level = torch.full((clean.shape[0],), sigma, device=device)
            result = denoising_loss(denoiser, clean, cond, level, noise, weight)
            collected[f"loss_{sigma:g}"].append(float(result.mean))
        state = torch.zeros_like(clean)
        if spread:
            estimate, log_sd = denoiser.with_spread(state, denoiser.sigma_max, cond)
            inside = ((estimate - clean).abs() <= 1.645 * standard_deviation(log_sd)) * weight
            collected["coverage"].append(float(inside.sum() / weight.sum()))
        else:
            estimate = denoiser(state, denoiser.sigma_max, cond)
        unit = residual_rms(rms, batch["factors"])[:, :, None, None]
        before = ((clean * unit) ** 2 * weight).sum((1, 2, 3))
        after = (((estimate - clean) * unit) ** 2 * weight).sum((1, 2, 3))
        rows = zip(batch["factors"].tolist(), batch["anatomy_present"].tolist(), strict=True)
        for (factors, guided), gain in zip(rows, 10 * (before / after).log10(), strict=True):
            if factors[0] == factors[1]:
                collected[f"gain_db{'_t1' if guided else ''}_x{int(factors[0])}"].append(float(gain))
    return {key: sum(values) / len(values) for key, values in sorted(collected.items())}
