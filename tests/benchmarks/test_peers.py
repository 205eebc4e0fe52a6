"""The engines of the UNet benchmark: the same network, the same result, and the reason where one is missing."""

from __future__ import annotations

import sys

import pytest
import torch

from harness import low_precision, onnx_peers
from harness.contest import TOLERANCE
from harness.convolutions import ALONE, ConvInputs, ConvShape
from harness.engines import ENGINES
from harness.low_precision import LOW_PRECISION, error_of, exact
from harness.peers import Missing, PlainEvaluation, plain_operations, random_case
from mrsi_fast.config import DiffusionConfig, ModelConfig
from mrsi_fast.models import blocks
from mrsi_fast.models.unet import SelfAttentionUNet
from mrsi_fast.ops import _native

PACKAGES = [("ort", "onnxruntime"), ("openvino", "openvino"), ("ort", "onnxscript"), ("mnn", "MNN.expr")]
TINY = ModelConfig(
    widths=(32, 64),
    encoder_blocks=(1, 1),
    decoder_blocks=(1, 1),
    encoder_attention=(False, True),
    decoder_attention=(False, False),
    embedding_width=16,
)


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    network = SelfAttentionUNet(TINY).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # some start at zero, which would hide half of the network
            parameter.add_(0.05 * torch.randn_like(parameter))
    return random_case(network, DiffusionConfig(), batch=2, grid=(16, 12))


@pytest.fixture(scope="module")
def wanted(case):
    with torch.inference_mode():
        return case.denoiser()(case.x, case.sigma, case.cond)


@pytest.mark.parametrize("name", ["eager", "eager-channels", "fused-eager", "native", "native-amx"])
def test_every_engine_gives_the_denoisers_estimate(case, wanted, name):
    try:
        run = ENGINES[name](case, torch.get_num_threads())
    except Missing as reason:
        assert name == "native-amx" or _native.module() is None
        pytest.skip(str(reason))
    found = run()
    assert (found - wanted).abs().max() <= TOLERANCE * wanted.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ort", "openvino", "mnn"])
def test_exported_engines_give_it_too(case, wanted, name):
    try:
        run = ENGINES[name](case, 1)
    except Missing as reason:
        pytest.skip(str(reason))
    assert (run() - wanted).abs().max() <= TOLERANCE * wanted.abs().max()


def test_the_plain_network_calls_none_of_our_operations(case):
    module = PlainEvaluation(case, torch.channels_last).eval()
    with torch.inference_mode(), torch.profiler.profile() as profile, plain_operations():
        module(*case.inputs)
    names = {event.key for event in profile.key_averages()}
    assert not [name for name in names if "mrsi_fast" in name] and "aten::native_group_norm" in names


def test_plain_operations_end_with_their_block(case):
    before = blocks.ops
    with pytest.raises(ZeroDivisionError), plain_operations():
        assert blocks.ops is not before
        _ = 1 / 0
    assert blocks.ops is before


def test_layouts_are_kept_throughout(case):
    for layout in (torch.contiguous_format, torch.channels_last):
        network = PlainEvaluation(case, layout).denoiser.network
        stem = network.stem_input(case.x, case.cond)
        assert stem.is_contiguous(memory_format=layout) and network.stem.weight.is_contiguous(memory_format=layout)


@pytest.mark.parametrize(("name", "module"), PACKAGES)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(case, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    monkeypatch.setattr(onnx_peers, "_exported", {})
    pytest.importorskip("onnxruntime") if module == "onnxscript" else None
    with pytest.raises(Missing, match=rf"{module} is not installed \(pip install '\.\[peers\]'\)"):
        ENGINES[name](case, 1)


def test_a_missing_extension_is_named(case, monkeypatch):
    monkeypatch.setattr(_native, "lacks", lambda function: "built without a compiler")
    with pytest.raises(Missing, match="built without a compiler"):
        ENGINES["native"](case, 1)


def test_a_compiler_that_fails_is_a_missing_peer(case, monkeypatch):
    def fail(module, **options):
        def call(*inputs):
            raise RuntimeError("No C++ compiler\nlong trace")

        return call

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.raises(Missing, match=r"torch\.compile failed here \(RuntimeError: No C\+\+ compiler\)"):
        ENGINES["compile"](case, 1)


def test_flops_of_a_case_count_every_slice(case):
    twice = random_case(case.network, case.diffusion, batch=4, grid=(16, 12))
    assert twice.flops == pytest.approx(2 * case.flops) and case.flops > 1e6


@pytest.mark.parametrize(("name", "package"), [("ncnn", "ncnn"), ("mnn", "MNN.expr")])
def test_convolutions_of_other_engines(monkeypatch, name, package):
    inputs = ConvInputs.of(ConvShape(2, 16, 24, 12, 1, False))
    try:
        run = ALONE[name](inputs, 1)
    except Missing as reason:
        assert "[peers]" in str(reason)
    else:
        wanted = torch.nn.functional.conv2d(inputs.x, inputs.weight, inputs.bias, padding=1)
        assert (run() - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Missing, match="not installed"):
        ALONE[name](inputs, 1)


@pytest.mark.parametrize("name", LOW_PRECISION)
def test_few_bits_are_told_with_their_error(case, monkeypatch, name):
    truth = exact(case)
    try:
        error = error_of(LOW_PRECISION[name](case, 1)(), truth)
    except Missing as reason:
        assert name != "native" or _native.module() is None
        assert "bfloat16" in str(reason) or "AMX" in str(reason) or "installed" in str(reason) or name == "native"
        return
    assert error < (4e-5 if name == "native" else 2e-4 if name == "native-amx" else 0.05)
    assert name.startswith("native") or error > 2e-5  # it did use fewer bits


def test_processors_without_bfloat16_say_so(case, monkeypatch):
    monkeypatch.setattr(low_precision, "BFLOAT16_FLAGS", ("no_such_flag",))
    with pytest.raises(Missing, match="multiplies no bfloat16"):
        LOW_PRECISION["autocast-bf16"](case, 1)
