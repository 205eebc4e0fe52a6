"""The native engine's account of its own time adds up."""

import pytest
import torch

from mrsi_fast.config import ModelConfig
from mrsi_fast.engine.native import NativePlan
from mrsi_fast.engine.profile import profile
from mrsi_fast.models.unet import SelfAttentionUNet, flop_split
from mrsi_fast.ops import _native

pytestmark = pytest.mark.skipif(_native.module() is None, reason=_native.reason())


def test_every_operation_has_time_and_the_networks_flops():
    config = ModelConfig(
        channels=("tNAA",),
        widths=(32, 64),
        encoder_blocks=(1, 1),
        decoder_blocks=(1, 1),
        encoder_attention=(False, True),
        decoder_attention=(False, False),
    )
    network = SelfAttentionUNet(config).eval()
    plan = NativePlan(network, 2, (16, 16), threads=1)
    film = torch.zeros(2, plan.film.width)
    for _ in range(3):
        plan.native.evaluate(film.data_ptr())
    rows = list(profile(plan, evaluations=3))
    split = flop_split(network, (16, 16))
    assert sum(row.gflops for row in rows) == pytest.approx(2 * (sum(split.values()) - split["linear"]))
    assert all(row.seconds > 0 and row.megabytes > 0 for row in rows)
    assert {row.method for row in rows} >= {"Winograd F(4x4,3x3)", "direct", "attention"}
    plan.native.evaluate(film.data_ptr())
    assert sum(row.seconds for row in profile(plan, 1)) > 0  # the first call took the old times away
