"""Parts of the native plan by themselves give what PyTorch gives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from harness.ceilings import ceilings, own_gemm
from harness.contest import TOLERANCE
from harness.convolutions import ALONE, FUSED, ConvInputs, ConvShape, model_convolutions
from harness.peers import Missing
from harness.plan_parts import OneAttention, OneSolverStep
from mrsi_fast.config import ModelConfig
from mrsi_fast.models.unet import SelfAttentionUNet
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.ops import _native

needs_extension = pytest.mark.skipif(_native.module() is None, reason="the compiled extension is not there")

WANTING = {
    "onednn": "packed weights",
    "native-amx": "AMX",
    "ncnn": "ncnn is not installed",
    "mnn": "MNN.expr is not installed",
}
"""The reason for which a convolution may be left out; the extra ``peers`` is not part of ``dev``."""


def close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return bool((found - wanted).abs().max() <= TOLERANCE * wanted.abs().max())


@needs_extension
@pytest.mark.parametrize("size", [8, 9])
def test_convolutions_agree(size):
    inputs = ConvInputs.of(ConvShape(2, 32, 48, size, 1, True))
    wanted = FUSED["eager"](inputs, 1)()
    for label, build in FUSED.items():
        try:
            run = build(inputs, 1)
        except Missing as reason:
            assert label == "native-amx" and "AMX" in str(reason)
            continue
        assert close(run(), wanted), label
    alone = F.conv2d(inputs.x, inputs.weight, inputs.bias, padding=1)
    for label, build in ALONE.items():
        try:
            run = build(inputs, 1)
        except Missing as reason:
            assert WANTING[label] in str(reason)
            continue
        assert close(run(), alone), label


@needs_extension
def test_attention_agrees():
    qkv = torch.randn(2, 16, 3, 2, 32)
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    run = OneAttention(qkv, 1)
    assert close(run(), F.scaled_dot_product_attention(query, key, value).transpose(1, 2))


@needs_extension
@pytest.mark.parametrize("projection", [None, Acquisition((4, 3), (4, 4))])
def test_solver_step_agrees_at_every_call(projection):
    network = SelfAttentionUNet(ModelConfig(widths=(32,), encoder_blocks=(1,), decoder_blocks=(1,),
                                            encoder_attention=(False,), decoder_attention=(False,)))  # fmt: skip
    head, state = torch.randn(2, 32, 8, 6), [torch.randn(2, 8, 16, 12) for _ in range(3)]
    part = OneSolverStep(network, head, [0.5, 0.7, 0.4, 0.8, -0.2, 0.0, 0.6, 0.0], projection, 1)
    estimate = 0.5 * state[0] + 0.7 * F.pixel_shuffle(head, 2)
    if projection is not None:
        estimate = projection.null(estimate)
    new = 0.4 * state[1] + 0.8 * estimate - 0.2 * state[2]
    for _ in range(2):  # the state is copied in anew
        found, following = part(*state)
        assert close(found, new) and close(following[:, :32], F.pixel_unshuffle(0.6 * new, 2))


@needs_extension
def test_our_matrix_product_is_one():
    run, wanted, found = own_gemm(1, size=64)
    run()
    assert close(found, wanted)


def test_ceilings_without_the_extension_leave_our_product_out(monkeypatch):
    monkeypatch.setattr(_native, "lacks", lambda function: "not built")
    assert set(ceilings(1)) == {"sgemm", "sgemm-again", "copy"}
    with pytest.raises(Missing, match="not built"):
        OneAttention(torch.randn(1, 4, 3, 1, 32), 1)


def test_the_models_convolutions_are_counted_once_each():
    shapes = model_convolutions(8)
    assert len({shape.name for shape in shapes}) == len(shapes)
    flops = sum(shape.count * shape.flops for shape in shapes) / 8e9
    assert 3.3 < flops < 3.6  # of 3.8 GFLOP a slice
    assert [shape for shape in shapes if not shape.fused] == [ConvShape(8, 104, 96, 32, 1, False)]
