"""The planned network with folded biases against the network itself, in float64: one wrong bias would show whole."""

from __future__ import annotations

import pytest
import torch

from mrsi_fast.config import ModelConfig
from mrsi_fast.engine.fused import FusedNetwork, fold_biases
from mrsi_fast.engine.plan import AttentionOp
from support.networks import SMALL, random_denoiser, random_job

DEEP = ModelConfig(
    channels=("tNAA", "tCr"),
    widths=(32, 32, 64),
    encoder_blocks=(1, 2, 1),
    decoder_blocks=(1, 1, 2),
    encoder_attention=(True, False, True),  # attention in front of a strided convolution
    decoder_attention=(False, True, True),
    embedding_width=24,
)


def evaluate(config: ModelConfig, grid: tuple[int, int], batch: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """(fused, exact): the same evaluation by the fused network in ``dtype`` and by the module in float64."""
    maps = len(config.channels)
    job = random_job(5, batch=batch, maps=maps, grid=grid)
    unet = random_denoiser(config).network.double()
    label = torch.full((batch,), 0.37, dtype=torch.float64)
    wide = job.cond.map(torch.Tensor.double)
    x = job.initial.double() / 20
    with torch.no_grad():
        exact = unet(x, label, wide)
        unet.to(memory_format=torch.channels_last)
        fused = FusedNetwork(unet, batch, grid, dtype)
        film = fused.film_table([0.37], wide.vector)[0].to(dtype)
        stem = unet.stem_input(x, wide).to(dtype)
        out = torch.nn.functional.pixel_shuffle(fused(stem, film), config.stem_factor)[..., : grid[0], : grid[1]]
    return out, exact


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("config, grid", [(SMALL, (16, 16)), (SMALL, (13, 18)), (DEEP, (16, 24)), (DEEP, (8, 5))])
def test_equals_the_network_in_float64(config, grid, batch):
    out, exact = evaluate(config, grid, batch, torch.float64)
    assert exact.abs().max() > 0.1
    torch.testing.assert_close(out, exact, rtol=0, atol=1e-12 * exact.abs().max().item())


def test_single_precision_is_no_less_exact_than_the_network_itself():
    out, exact = evaluate(DEEP, (16, 24), 2, torch.float32)
    peer = random_denoiser(DEEP).network
    job = random_job(5, batch=2, maps=2, grid=(16, 24))
    with torch.no_grad():
        plain = peer(job.initial / 20, torch.full((2,), 0.37), job.cond)
    error, reached = ((one.double() - exact).norm() / exact.norm() for one in (out, plain))
    assert error <= 2 * reached + 2.0**-24


def test_the_film_table_is_dense_over_the_batch_in_the_order_of_the_plan():
    unet = random_denoiser(SMALL).network
    fused = FusedNetwork(unet, 3, (16, 16), torch.float32)
    vector = random_job(2, batch=3).cond.vector
    table, rows = fused.film_table([0.1, -0.4], vector), fused._film.rows([0.1, -0.4], vector)
    for operation in fused.plan.operations:
        first = getattr(operation, "film", None)
        if first is not None:
            channels = operation.conv.in_channels
            wanted = rows[1, :, first : first + 2 * channels].unflatten(1, (2, channels)).transpose(0, 1)
            assert torch.equal(table[1, 3 * first :][: 6 * channels].view(2, 3, channels), wanted)


def test_every_bias_is_added_exactly_once():
    fused = FusedNetwork(random_denoiser(DEEP).network, 1, (16, 16), torch.float32)
    biases = fold_biases(fused.plan)
    by_name = {operation.out.name: operation for operation in fused.plan.operations}
    assert biases["stem"].added is None and biases["head"].added is not None  # carried on; nobody after it
    assert biases["down.0"].lacking is None  # zero padding lacks no bias, so its input was given all of it
    added = {name for name, one in biases.items() if one.added is not None}
    padded = {"head"} | {op.qkv.name for op in by_name.values() if isinstance(op, AttentionOp)}
    padded |= {by_name[f"down.{index}"].sources[0].value.name for index in range(2)}
    assert added == padded
    normed = [op for op in by_name.values() if not isinstance(op, AttentionOp) and op.norm is not None]
    after_padded = [op for op in normed if {s.value.name for s in op.sources} <= added]
    assert all((biases[op.out.name].lacking is None) == (op in after_padded) for op in normed)
