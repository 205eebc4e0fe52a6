"""Turns the parts of an operation into ``x``, ``x_backward`` and ``x_out`` of ``torch.ops.mrsi_fast``.

``Library.impl`` in Python rather than ``torch.library.custom_op``, which costs several times more per call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from mrsi_fast.ops import _cuda, _dispatch
from mrsi_fast.ops._schemas import LIBRARY
from mrsi_fast.ops.reference.layout import memory_format_of


@dataclass(frozen=True)
class Operation:
    """The parts of an operation with one result.

    Attributes:
        name: Its name in ``_schemas.py``.
        reference: ``(*inputs) -> Tensor`` in plain PyTorch.
        reference_backward: ``(grad, *inputs) -> gradients`` of the differentiable inputs, in plain PyTorch; an absent
            input has an empty gradient. None for an operation without a gradient.
        allocate: ``(*inputs, device=None) -> Tensor``: an uninitialised result; gives every form the same strides.
        check: ``(*inputs, **folded)``: raises ValueError where shapes or numbers do not fit each other. Every form asks
            it first, so that no kernel meets sizes that it was not made for, whoever calls ``torch.ops.mrsi_fast``.
        differentiable: Positions of the inputs that have gradients, in the order of ``reference_backward``.
        implementations: Fast ones, the preferred first.
        folded: Optional tensors that only the ``_out`` form takes, by keyword: what a plan folds into the operation
            from its neighbours. ``reference`` and the implementations take them after the other inputs, default None.
        preference: Which backend is taken where several GPU ones could serve; see ``_dispatch.Preference``.
    """

    name: str
    reference: Callable[..., Tensor]
    reference_backward: Callable[..., tuple[Tensor, ...]] | None
    allocate: Callable[..., Tensor]
    check: Callable[..., None]
    differentiable: tuple[int, ...]
    implementations: tuple[_dispatch.Implementation, ...]
    folded: tuple[str, ...] = ()
    preference: _dispatch.Preference | None = None


def register(operation: Operation) -> None:
    """Register all forms of an operation with the dispatcher, fakes and autograd included."""
    name = operation.name
    _dispatch.add(name, operation.implementations, operation.preference)
    forward, backward, out = _forms(operation)
    LIBRARY.impl(name, forward, "CompositeExplicitAutograd")
    LIBRARY.impl(f"{name}_out", out, "CompositeExplicitAutograd")
    torch.library.register_fake(f"mrsi_fast::{name}", _fake(operation), lib=LIBRARY)
    torch.library.register_fake(f"mrsi_fast::{name}_out", _fake_out(operation), lib=LIBRARY)
    _forbid_gradient(f"{name}_out")
    if operation.reference_backward is None:
        _forbid_gradient(name)
        return
    LIBRARY.impl(f"{name}_backward", backward, "CompositeExplicitAutograd")
    torch.library.register_fake(f"mrsi_fast::{name}_backward", _fake_backward(operation), lib=LIBRARY)
    _register_autograd(operation)


def _forms(operation: Operation) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """What runs below autograd: the choice of an implementation, made from real tensors."""
    name = operation.name

    def forward(*inputs: Any) -> Tensor:
        operation.check(*inputs)
        return run(*inputs)

    def run(*inputs: Any) -> Tensor:
        _refuse_forward_mode(name)
        chosen = _dispatch.choose(name, inputs[0].device.type, inputs).implementation
        if chosen is None:
            return operation.reference(*inputs)
        result = operation.allocate(*inputs)
        chosen.out(*inputs, result)
        return result

    def backward(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...] | Tensor:
        operation.check(*inputs)
        _check_gradient(operation, grad, inputs)
        chosen = _dispatch.choose(name, grad.device.type, inputs, backward=True).implementation
        run = operation.reference_backward if chosen is None else chosen.backward
        assert run is not None  # `choose` asked for one
        gradients = list(run(grad, *inputs))
        for index, position in enumerate(operation.differentiable):
            if inputs[position] is not None:
                gradients[index] = _in_layout(gradients[index], _gradient_like(inputs[position], index == 0))
        return _as_result(tuple(gradients))

    def out(*arguments: Any, **folded: Tensor | None) -> None:
        *inputs, result = arguments
        operation.check(*inputs, **folded)
        inputs += [folded.get(key) for key in operation.folded]
        writable = _writable(operation, inputs, result)
        chosen = _dispatch.choose(name, result.device.type, tuple(inputs)).implementation
        if chosen is None or not writable:
            result.copy_(run(*inputs))
        else:
            chosen.out(*inputs, result)

    return forward, backward, out


def same_device(**tensors: Tensor | None) -> None:
    """Refuses tensors of several devices.

    Raises:
        ValueError: They lie on several.
    """
    there = {name: one.device for name, one in tensors.items() if one is not None}
    if len(set(there.values())) > 1:
        raise ValueError(f"{', '.join(f'{name} on {device}' for name, device in there.items())}: give one device.")


def floating_point(**tensors: Tensor | None) -> None:
    """Refuses tensors of whole or complex numbers.

    Raises:
        ValueError: One holds such.
    """
    for name, one in tensors.items():
        if one is not None and not one.is_floating_point():
            raise ValueError(f"{name} must be floating point, got {one.dtype}.")


def _fake(operation: Operation) -> Callable[..., Tensor]:
    def fake(*inputs: Any) -> Tensor:
        operation.check(*inputs)
        return operation.allocate(*inputs)

    return fake


def _fake_out(operation: Operation) -> Callable[..., None]:
    def fake(*arguments: Any, **folded: Any) -> None:
        operation.check(*arguments[:-1], **folded)

    return fake


def _check_gradient(operation: Operation, grad: Tensor, inputs: tuple[Any, ...]) -> None:
    """Refuses a gradient of another shape than the result's, or on another device.

    Raises:
        ValueError: It is.
    """
    wanted = operation.allocate(*inputs, device="meta").shape
    if grad.shape != wanted or grad.device != inputs[0].device:
        raise ValueError(
            f"{operation.name}: grad must have the shape {list(wanted)} of the result and lie on {inputs[0].device}, "
            f"got {list(grad.shape)} on {grad.device}."
        )


def _refuse_forward_mode(name: str) -> None:
    """Without this, torch would drop the tangents and return a derivative of zero.

    Which inputs carry a tangent cannot be seen here (``torch.func.jvp`` has unwrapped them), so any call is refused.
    """
    if forward_ad._current_level >= 0:
        raise NotImplementedError(
            f"{name} has no forward-mode derivative; inside torch.func.jvp or a dual_level call "
            f"mrsi_fast.ops.reference.{name} instead."
        )


def _writable(operation: Operation, inputs: list[Any], out: Tensor) -> bool:
    """Whether a kernel may write straight into ``out``: the strides and the start it expects, no byte of an input.

    Raises:
        ValueError: ``out`` has another shape or dtype than the result.
    """
    wanted = operation.allocate(*inputs, device="meta")
    if out.shape != wanted.shape or out.dtype != wanted.dtype:
        raise ValueError(
            f"{operation.name}: out must have shape {tuple(wanted.shape)} and dtype {wanted.dtype}, "
            f"got {tuple(out.shape)} and {out.dtype}."
        )
    start, end = _span(out)
    for one in inputs:
        if isinstance(one, Tensor):
            first, last = _span(one)
            if first < end and start < last:
                return False
    return out.stride() == wanted.stride() and (not out.is_cuda or _cuda.misaligned(out=out) is None)


def _span(tensor: Tensor) -> tuple[int, int]:
    """First byte of a tensor, and the one after its last. Two storages may be views of one NumPy array."""
    first = tensor.data_ptr()
    if tensor.is_contiguous() or tensor.numel() == 0:
        return first, first + tensor.nbytes
    extent = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    return first, first + extent * tensor.element_size()


def _as_result(gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...] | Tensor:
    """Gradients as a schema returns them: a single one is not in a tuple."""
    return gradients[0] if len(gradients) == 1 else gradients


def _gradient_like(one: Tensor, first: bool) -> Tensor:
    """An uninitialised gradient: the first input's has the layout of results, the others' are laid out as the inputs.

    So a parameter and its gradient agree, as torch's optimisers and gradient accumulation like them best.
    """
    form = memory_format_of(one) if first else torch.preserve_format
    return torch.empty_like(one, memory_format=form)


def _in_layout(gradient: Tensor, wanted: Tensor) -> Tensor:
    return gradient if gradient.stride() == wanted.stride() else wanted.copy_(gradient)


def _fake_backward(operation: Operation) -> Callable[..., tuple[Tensor, ...] | Tensor]:
    def fake(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...] | Tensor:
        operation.check(*inputs)
        gradients = []
        for position in operation.differentiable:
            one = inputs[position]
            if one is None:
                gradients.append(grad.new_empty(0))
            else:
                gradients.append(_gradient_like(one, position == operation.differentiable[0]))
        return _as_result(tuple(gradients))

    return fake


def _forbid_gradient(key: str) -> None:
    """Register an autograd kernel that raises where a gradient would be lost."""
    op = getattr(torch.ops.mrsi_fast, key).default

    def without_gradient(*arguments: Any, **folded: Tensor | None) -> Any:
        given = (*arguments, *folded.values())
        if torch.is_grad_enabled() and any(isinstance(one, Tensor) and one.requires_grad for one in given):
            raise RuntimeError(f"{key} records no gradient; call it under torch.no_grad() or inference_mode().")
        with torch._C._AutoDispatchBelowAutograd():
            return op(*arguments, **folded)

    LIBRARY.impl(key, without_gradient, "Autograd")


def _register_autograd(operation: Operation) -> None:
    name = operation.name
    backward_op = getattr(torch.ops.mrsi_fast, f"{name}_backward").default

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        is_tensor = [one is None or isinstance(one, Tensor) for one in inputs]
        ctx.save_for_backward(*(one for one, saved in zip(inputs, is_tensor, strict=True) if saved))
        ctx.others = tuple(None if saved else one for one, saved in zip(inputs, is_tensor, strict=True))
        ctx.is_tensor = is_tensor

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        inputs = [next(saved) if kept else other for kept, other in zip(ctx.is_tensor, ctx.others, strict=True)]
        gradients: list[Tensor | None] = [None] * len(inputs)
        results = backward_op(grad, *inputs)
        results = (results,) if isinstance(results, Tensor) else results
        for position, gradient in zip(operation.differentiable, results, strict=True):
            gradients[position] = gradient if inputs[position] is not None else None
        return tuple(gradients)

    def no_second_derivative(ctx: Any, *grads: Tensor) -> None:
        raise RuntimeError(f"{name} has no second derivative; use mrsi_fast.ops.reference.{name} for it.")

    torch.library.register_autograd(f"mrsi_fast::{name}", backward, setup_context=setup_context, lib=LIBRARY)
    torch.library.register_autograd(f"mrsi_fast::{name}_backward", no_second_derivative, lib=LIBRARY)
