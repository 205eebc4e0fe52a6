"""group_norm_silu and torch: opcheck, gradcheck, compilation, fakes, and the errors of derivatives it does not have."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch

from mrsi_fast import ops
from mrsi_fast.ops import group_norm_silu
from support.kernels import mapped, usable_isas, using, with_gradients

OP = torch.ops.mrsi_fast.group_norm_silu.default
BACKWARD = torch.ops.mrsi_fast.group_norm_silu_backward.default
OUT = torch.ops.mrsi_fast.group_norm_silu_out.default
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@pytest.fixture(params=["reference", *usable_isas()[-1:]])
def how(request: pytest.FixtureRequest) -> Iterator[str]:
    with using(request.param):
        yield request.param


def make_inputs(layout: str, film: bool = True) -> list:
    """(x, weight, bias, num_groups, scale, shift, eps), float32, small."""
    x = torch.randn(2, 6, 3, 2).contiguous(memory_format=FORMATS[layout])
    films = [0.5 * torch.randn(2, 6) for _ in range(2)] if film else [None, None]
    return [x, torch.randn(6), torch.randn(6), 2, *films, 1e-5]


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("film", [True, False], ids=["film", "bare"])
def test_opcheck(how, layout, film):
    inputs = make_inputs(layout, film)
    leaves = mapped(inputs, lambda one: one.clone().requires_grad_())
    torch.library.opcheck(OP, tuple(leaves))
    torch.library.opcheck(BACKWARD, (torch.randn_like(inputs[0]), *inputs))
    torch.library.opcheck(OUT, (*inputs, torch.empty_like(inputs[0])))
    folded = {"conv_bias": torch.randn(6), "embedding": torch.randn(2, 6)}
    with ops.override():  # a pinned CPU kernel would have to refuse them
        torch.library.opcheck(OUT, (*inputs, torch.empty_like(inputs[0])), folded)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("film", [True, False], ids=["film", "bare"])
def test_gradcheck(layout, film):
    inputs = mapped(make_inputs(layout, film), lambda one: one.double().requires_grad_())
    assert torch.autograd.gradcheck(group_norm_silu, inputs)


@pytest.mark.parametrize("layout", FORMATS)
def test_full_graph_compile(how, layout):
    inputs = make_inputs(layout)
    grad = torch.randn_like(inputs[0])

    def step(*arguments):
        return group_norm_silu(*arguments) * 2

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    y, gradients = with_gradients(compiled, inputs, grad)
    wanted, wanted_gradients = with_gradients(step, inputs, grad)
    assert y.stride() == wanted.stride()
    for ours, true in zip((y, *gradients), (wanted, *wanted_gradients), strict=True):
        assert torch.equal(ours, true)


@pytest.mark.slow
def test_full_graph_compile_with_inductor():
    inputs = make_inputs("channels_last")

    def step(x, out):
        OUT(x, *inputs[1:], out)
        return group_norm_silu(x + 1, *inputs[1:]) + out

    compiled = torch.compile(step, fullgraph=True)
    with torch.no_grad():
        outs = [torch.empty_like(inputs[0]) for _ in range(2)]
        torch.testing.assert_close(compiled(inputs[0], outs[0]), step(inputs[0], outs[1]))
        assert torch.equal(*outs)


@pytest.mark.parametrize("form", ["plain", "odd"])
def test_result_strides_are_those_of_the_fake(how, form):
    from torch._subclasses.fake_tensor import FakeTensorMode

    inputs = make_inputs("channels_last")
    if form == "odd":
        inputs[0] = inputs[0].transpose(2, 3)
    with ops.override() if form == "odd" else contextlib.nullcontext():
        y = OP(*inputs)
        gradients = BACKWARD(torch.randn_like(y), *inputs)
    with FakeTensorMode() as mode:
        fakes = mapped(inputs, mode.from_tensor)
        fake = OP(*fakes)
        fake_gradients = BACKWARD(torch.empty_like(fake), *fakes)
    for real, other in zip((y, *gradients), (fake, *fake_gradients), strict=True):
        assert real.stride() == other.stride() and real.shape == other.shape and real.dtype == other.dtype


def test_a_second_derivative_is_an_error(how):
    inputs = mapped(make_inputs("contiguous"), lambda one: one.requires_grad_())
    (first,) = torch.autograd.grad(group_norm_silu(*inputs).sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="group_norm_silu has no second derivative"):
        torch.autograd.grad(first.square().sum(), inputs[0])


def test_forward_mode_is_an_error(how):
    inputs = make_inputs("contiguous")
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(inputs[0], torch.ones_like(inputs[0]))
        with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
            group_norm_silu(dual, *inputs[1:])
    with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        torch.func.jvp(lambda x: group_norm_silu(x, *inputs[1:]), (torch.randn(2, 6, 3, 2),), (torch.ones(2, 6, 3, 2),))


def test_out_refuses_to_lose_a_gradient(how):
    inputs = make_inputs("contiguous")
    out = torch.empty_like(inputs[0])
    inputs[1].requires_grad_()
    with pytest.raises(RuntimeError, match="records no gradient"):
        OUT(*inputs, out)
    with torch.no_grad():
        OUT(*inputs, out)
