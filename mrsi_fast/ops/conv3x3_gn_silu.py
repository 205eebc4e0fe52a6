"""``conv3x3_gn_silu``: GroupNorm-SiLU in front of a 3x3 convolution, on the CPU by Winograd; forward and backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mrsi_fast.ops import _native
from mrsi_fast.ops._dispatch import Implementation
from mrsi_fast.ops._register import Operation, floating_point, register, same_device
from mrsi_fast.ops.group_norm_silu import check_inputs as check_norm_inputs
from mrsi_fast.ops.reference import conv3x3_gn_silu as reference
from mrsi_fast.ops.reference.layout import memory_format_of


def conv3x3_gn_silu(
    x: Tensor,  # [B, C, H, W]
    norm_weight: Tensor,  # [C]
    norm_bias: Tensor,  # [C]
    num_groups: int,
    weight: Tensor,  # [K, C, 3, 3]
    bias: Tensor | None = None,  # [K]
    scale: Tensor | None = None,  # [B, C]
    shift: Tensor | None = None,  # [B, C]
    residual: Tensor | None = None,  # [B, K, H, W]
    eps: float = 1e-5,
) -> Tensor:
    """``conv3x3(silu(group_norm(x) * (1 + scale) + shift)) + bias + residual`` with zero padding.

    On the CPU by Winograd F(4x4,3x3) or F(2x2,3x3) (Lavin & Gray, CVPR 2016), whose error is a few times that of the
    direct method (docs/numerics.md).

    Args:
        x: [B, C, H, W], floating point. The kernel takes float32 that is channels-last.
        norm_weight: [C] gain of the normalisation.
        norm_bias: [C] offset of the normalisation.
        num_groups: Number of channel groups; divides C.
        weight: [K, C, 3, 3].
        bias: [K] or None.
        scale: [B, C] modulation of the normalised value, or None.
        shift: [B, C] offset after the modulation, or None.
        residual: [B, K, H, W] added to the result, or None.
        eps: Added to the variance of a group.

    Returns:
        [B, K, H, W] of the dtype of x, channels-last where x is, contiguous otherwise.

    Raises:
        ValueError: A shape or the number of groups does not fit x.

    Differentiable once, in all tensors.
    """
    return torch.ops.mrsi_fast.conv3x3_gn_silu.default(
        x, norm_weight, norm_bias, num_groups, weight, bias, scale, shift, residual, eps
    )


def _check(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    num_groups: int,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    residual: Tensor | None,
    eps: float,
) -> None:
    """Raises ValueError where a shape, a device or the number of groups does not fit x."""
    same_device(x=x, weight=weight, bias=bias, residual=residual)
    if x.dim() != 4:
        raise ValueError(f"x must have shape [B, C, H, W], got {list(x.shape)}.")
    check_norm_inputs(x, norm_weight, norm_bias, num_groups, scale, shift)
    floating_point(weight=weight, bias=bias, residual=residual)
    if weight.dim() != 4 or weight.shape[1:] != (x.shape[1], 3, 3):
        raise ValueError(f"weight must have shape [K, C, 3, 3] with C = {x.shape[1]}, got {list(weight.shape)}.")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must have shape [K] = [{weight.shape[0]}], got {list(bias.shape)}.")
    wanted = (x.shape[0], weight.shape[0], *x.shape[2:])
    if residual is not None and residual.shape != wanted:
        raise ValueError(f"residual must have shape [B, K, H, W] = {list(wanted)}, got {list(residual.shape)}.")


def _allocate(
    x: Tensor, norm_weight: Tensor, norm_bias: Tensor, num_groups: int, weight: Tensor, *others: Any, device: Any = None
) -> Tensor:
    shape = (x.shape[0], weight.shape[0], *x.shape[2:])
    return torch.empty(shape, dtype=x.dtype, device=device or x.device, memory_format=memory_format_of(x))


# ---- C++ on the CPU --------------------------------------------------------------------------------------------------


TRANSFORM_COST, WEIGHT_COST = 8.0, 6.0
"""What a transformed value and a packed weight cost beside a multiply-add. Fitted at batch 8 to the AVX2 kernels alone;
the AVX-512 kernels use the same numbers, so that a method never depends on the processor."""


def method_costs(height: int, width: int, inputs: int, outputs: int) -> dict[str, float]:
    """Cost per image, in multiply-adds, of each method in float32 (names of ``ConvMethod`` in C++).

    "direct", and Winograd with output tiles of 2 and 4: products, transforms (Winograd) and reading the packed weights,
    of which a batch of 8 shares one reading.
    """
    weights = WEIGHT_COST / 8 * inputs * outputs
    costs = {"direct": 9.0 * (height * width * inputs * outputs + weights)}
    for method, tile in (("winograd2", 2), ("winograd4", 4)):
        tiles, points = -(-height // tile) * -(-width // tile), (tile + 2) ** 2
        costs[method] = points * (tiles * (inputs * outputs + TRANSFORM_COST * (inputs + outputs)) + weights)
    return costs


def cheapest_method(height: int, width: int, inputs: int, outputs: int) -> str:
    """The method that costs least: from one image and the filters alone, so that results never depend on the batch."""
    costs = method_costs(height, width, inputs, outputs)
    return min(costs, key=lambda method: costs[method])


def _refuse(x: Tensor, *others: Any) -> str | None:
    tensors = [one for one in (x, *others) if isinstance(one, Tensor)]
    if any(one.dtype != torch.float32 for one in tensors):
        return f"the CPU kernel takes float32, got {', '.join(sorted({str(one.dtype) for one in tensors}))}"
    if memory_format_of(x) != torch.channels_last:  # one channel or pixel counts as contiguous, and so does the result
        return f"x is not channels-last (shape {tuple(x.shape)}, strides {x.stride()})"
    return None


def _steps(filters: Tensor) -> dict[str, int]:
    """How far apart output channels, input channels and taps lie, in floats; see ``_in_one_step``."""
    return {"out_step": filters.stride(0), "in_step": filters.stride(1), "tap_step": filters.stride(3)}


def _in_one_step(filters: Tensor) -> Tensor:
    """``filters`` [K, C, 3, 3] such that one step leads from each of the nine taps to the next."""
    return filters if filters.stride(2) == 3 * filters.stride(3) else filters.contiguous()


def _pack(weight: Tensor, method: Any, transposed: bool) -> Tensor:
    """Weights as the kernel reads them; ``transposed``: of the convolution that takes the gradient back."""
    native: Any = _native.module()
    weight = _in_one_step(weight)
    outputs, inputs = weight.shape[:2]
    steps, data = _steps(weight), weight.data_ptr()
    if transposed:  # channels exchanged, filters turned by 180 degrees
        data += 8 * steps["tap_step"] * weight.element_size()
        outputs, inputs = inputs, outputs
        steps = {"out_step": steps["in_step"], "in_step": steps["out_step"], "tap_step": -steps["tap_step"]}
    packed = torch.empty(native.conv3x3_packed_floats(method, inputs, outputs), dtype=torch.float32)
    channels = {"in_channels": inputs, "out_channels": outputs}
    filters = _native.struct("Filters", data=data, method=method, kernel=3, stride=1, **channels, **steps)
    native.conv3x3_pack(filters, packed.data_ptr(), torch.get_num_threads())
    return packed


Norm = tuple[Tensor | None, Tensor | None, int, Tensor | None, Tensor | None, float]
NO_NORM: Norm = (None, None, 0, None, None, 0.0)


def _request(x: Tensor, outputs: int, norm: Norm) -> tuple[Any, list[Tensor | None]]:
    """First arguments of every kernel, and the tensors that must outlive them."""
    batch, channels, height, width = x.shape
    norm_weight, norm_bias, groups, scale, shift, eps = norm
    kept = [one if one is None else one.contiguous() for one in (norm_weight, norm_bias, scale, shift)]
    vectors = zip(("gamma", "beta", "scale", "shift"), kept, strict=True)
    request = _native.struct(
        "Conv3x3GnSilu",
        x=x.data_ptr(),
        batch=batch,
        height=height,
        width=width,
        in_channels=channels,
        out_channels=outputs,
        groups=groups,
        eps=eps,
        method=_native.conv_method(cheapest_method(height, width, channels, outputs)),
        threads=torch.get_num_threads(),
        **{name: _native.address(one) for name, one in vectors},
    )
    return request, kept


def _convolve(
    x: Tensor,
    weight: Tensor,
    out: Tensor,
    norm: Norm = NO_NORM,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    transposed: bool = False,
) -> None:
    """``out = conv3x3(prologue(x)) + bias + residual``."""
    request, _kept = _request(x, out.shape[1], norm)
    packed = _pack(weight, request.method, transposed)
    bias = None if bias is None else bias.contiguous()
    residual = None if residual is None else residual.contiguous(memory_format=torch.channels_last)
    request.weight, request.bias = packed.data_ptr(), _native.address(bias)
    request.residual, request.out = _native.address(residual), out.data_ptr()
    _native.module().conv3x3_gn_silu(request)


def _native_out(*arguments: Any) -> None:
    x, norm_weight, norm_bias, groups, weight, bias, scale, shift, residual, eps, out = arguments
    if out.numel() > 0:
        _convolve(x, weight, out, (norm_weight, norm_bias, groups, scale, shift, eps), bias, residual)


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, norm: Norm) -> Tensor:
    """By Winograd, too, unless the image is too small for it; laid out as the weights are."""
    native: Any = _native.module()
    request, _kept = _request(x, weight.shape[0], norm)
    if request.method == native.ConvMethod.direct:
        activated = torch.ops.mrsi_fast.group_norm_silu(x, *norm)
        arguments = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False])
        return torch.ops.aten.convolution_backward(grad, activated, weight, None, *arguments)[1]
    result = torch.empty_like(_in_one_step(weight))
    workspace = torch.empty(native.conv3x3_filter_gradient_workspace(request), dtype=torch.float32)
    filters = _native.struct("Filters", **_steps(result))
    native.conv3x3_filter_gradient(request, grad.data_ptr(), filters, workspace.data_ptr(), result.data_ptr())
    return result


def _native_backward(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    """The input's gradient is a convolution with the filters turned round."""
    x, norm_weight, norm_bias, groups, weight, bias, scale, shift, residual, eps = inputs
    if x.numel() == 0 or grad.numel() == 0:
        return reference.conv3x3_gn_silu_backward(grad, *inputs)
    norm: Norm = (norm_weight, norm_bias, groups, scale, shift, eps)
    grad = grad.contiguous(memory_format=torch.channels_last)
    grad_activated = torch.empty_like(x, memory_format=torch.channels_last)
    _convolve(grad, weight, grad_activated, transposed=True)
    through = torch.ops.mrsi_fast.group_norm_silu_backward(grad_activated, x, *norm)
    absent = x.new_empty(0)
    return (
        *through[:3],
        _weight_gradient(grad, x, weight, norm),
        absent if bias is None else grad.sum((0, 2, 3)),
        *through[3:],
        absent if residual is None else grad.clone(),
    )


register(
    Operation(
        name="conv3x3_gn_silu",
        reference=reference.conv3x3_gn_silu,
        reference_backward=reference.conv3x3_gn_silu_backward,
        allocate=_allocate,
        check=_check,
        differentiable=(0, 1, 2, 4, 5, 6, 7, 8),
        implementations=(
            Implementation(
                backend="native",
                lacks=lambda: _native.lacks("conv3x3_gn_silu"),
                refuse=_refuse,
                out=_native_out,
                backward=_native_backward,
            ),
        ),
    )
)
