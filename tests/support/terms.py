"""How large the terms are that a result adds up, and what Winograd's transforms do to rounding errors.

``support.compare`` allows one rounding of these terms: a small sum of large terms is as exact as its terms are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.polynomial import polynomial
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d
from torch.nn.grad import conv2d_weight

from support.kernels import mapped


def norm_terms(inputs: Sequence[Any], grad: Tensor) -> tuple[Tensor, ...]:
    """Sums of absolute terms behind GroupNorm-SiLU and its gradients of x, weight, bias, scale and shift, in float64.

    Args:
        inputs: (x, weight, bias, num_groups, scale, shift, eps).
        grad: Gradient of the result.
    """
    x, weight, bias, groups, scale, shift, eps = mapped(inputs, Tensor.double)

    def over_group(t: Tensor) -> Tensor:
        return t.reshape(blocks.shape).mean(-1, keepdim=True).expand_as(blocks).reshape(x.shape)

    blocks = x.reshape(x.shape[0], groups, -1)
    inverse = (blocks.var(-1, correction=0) + eps).rsqrt()
    xhat = ((blocks - blocks.mean(-1, keepdim=True)) * inverse[..., None]).reshape(x.shape)
    inverse = inverse.repeat_interleave(x.shape[1] // groups, dim=1)[:, :, None, None]
    film = 1 + scale[:, :, None, None] if scale is not None else torch.ones_like(x[:, :, :1, :1])
    shift = shift[:, :, None, None] if shift is not None else torch.zeros_like(film)
    normal = xhat * weight[:, None, None] + bias[:, None, None]
    v = normal * film + shift
    sizes = ((xhat * weight[:, None, None]).abs() + bias[:, None, None].abs()) * film.abs() + shift.abs()
    # Roundings in silu'(v) = sigma (1 + v (1 - sigma)), and those of v times |silu''| <= 1/2: also where silu'(v) is 0.
    sigma = torch.sigmoid(v)
    dv = grad.double().abs() * (sigma * (1 + v.abs() * (1 - sigma)) + 0.5 * sizes)
    k, film, xhat = (film * weight[:, None, None]).abs(), film.abs(), xhat.abs()
    normal = xhat * weight[:, None, None].abs() + bias[:, None, None].abs()
    by_x = inverse * (k * dv + over_group(k * dv) + xhat * over_group(k * dv * xhat))
    in_params = ((dv * film * xhat).sum((0, 2, 3)), (dv * film).sum((0, 2, 3)))
    return (sizes, by_x, *in_params, (dv * normal).sum((2, 3)), dv.sum((2, 3)))


def conv_terms(inputs: Sequence[Any], grad: Tensor) -> tuple[Tensor, ...]:
    """The same of ``conv3x3_gn_silu``: its result, then the gradients of its tensors in the order of its arguments.

    Args:
        inputs: (x, norm_weight, norm_bias, num_groups, weight, bias, scale, shift, residual, eps).
        grad: Gradient of the result.
    """
    x, norm_weight, norm_bias, groups, weight, bias, scale, shift, residual, eps = mapped(inputs, Tensor.double)
    grad, filters = grad.double().abs(), weight.abs()
    through = conv_transpose2d(grad, filters, padding=1)
    sizes, *norm = norm_terms((x, norm_weight, norm_bias, groups, scale, shift, eps), through)
    y = conv2d(sizes, filters, bias=None if bias is None else bias.abs(), padding=1)
    of_filters = conv2d_weight(sizes, weight.shape, grad, padding=1)
    optional = [grad.sum((0, 2, 3)), *norm[3:], grad]
    given = [one for one, value in zip(optional, (bias, scale, shift, residual), strict=True) if value is not None]
    return (y if residual is None else y + residual.abs(), *norm[:3], of_filters, *given)


def winograd_growth(tile: int) -> tuple[float, float]:
    """How many times the error of a direct 3x3 convolution that of Winograd's F(tile x tile, 3x3) is expected to be.

    ``y = A' [(G g) * (B' d)]`` (Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016). With
    independent relative errors of the products and white inputs, output k of one dimension has the variance
    ``sum_i A_ik^2 |G_i|^2 |B_i|^2``, where the direct sum of three products has 3; two dimensions multiply.
    The matrices are those of Toom and Cook for the points 0, 1, -1 (2, -2) and infinity.

    Args:
        tile: 2 or 4; 0 for the direct method.

    Returns:
        For the worst place of a tile, and for the root mean square over all.
    """
    if tile == 0:
        return 1.0, 1.0
    points = [0.0, 1.0, -1.0, 2.0, -2.0][: tile + 1]
    everything = polynomial.polyfromroots(points)
    variance = np.zeros(tile)
    for index, point in enumerate(points):
        others = polynomial.polyfromroots(points[:index] + points[index + 1 :])
        filters = point ** np.arange(3) / polynomial.polyval(point, others)
        variance += point ** (2.0 * np.arange(tile)) * (filters**2).sum() * (others**2).sum()
    variance[-1] += (everything**2).sum()  # the point at infinity: one filter tap, the last output
    return float(variance.max() / 3), float(variance.mean() / 3)
