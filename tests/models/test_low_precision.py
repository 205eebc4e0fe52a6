"""Under autocast the blocks use PyTorch's kernels: the same function, to bfloat16's rounding."""

from __future__ import annotations

import pytest
import torch

from mrsi_fast.models.blocks import GroupNormSiLU, norm_conv3x3, norm_conv3x3_pair
from mrsi_fast.ops.reference.group_norm_silu import group_norm_silu


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("shifted", [False, True])
def test_autocast_computes_what_the_reference_does(scaled: bool, shifted: bool) -> None:
    torch.manual_seed(0)
    norm = GroupNormSiLU(32, 16)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = (torch.randn(2, 32, 5, 7) * 2 + 3).bfloat16().contiguous(memory_format=torch.channels_last)
    scale, shift = torch.randn(2, 2, 32)
    film = (scale if scaled else None, shift if shifted else None)
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(x, *film)
    wanted = group_norm_silu(x.double(), norm.weight, norm.bias, norm.num_groups, *film)
    assert found.dtype == torch.bfloat16
    # Normalised value, factor, addend, sum and result are each rounded by 2^-9 at most; SiLU's slope is 1.1 at most.
    normal = torch.group_norm(x.double(), norm.num_groups)
    film_scale = 1 + scale.double() if scaled else torch.ones(2, 32).double()
    gain, offset = norm.weight * film_scale, norm.bias * film_scale + (shift if shifted else 0)
    terms = (normal * gain[..., None, None]).abs() + offset[..., None, None].abs()
    assert ((found.double() - wanted).abs() <= 5 * 2**-9 * terms).all()


def test_both_heads_under_autocast() -> None:
    torch.manual_seed(1)
    norm, first, second = (
        GroupNormSiLU(32, 16),
        torch.nn.Conv2d(32, 8, 3, padding=1),
        torch.nn.Conv2d(32, 8, 3, padding=1),
    )
    x = torch.randn(2, 32, 6, 5).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        found = norm_conv3x3_pair(norm, first, second, x)
        wanted = norm_conv3x3(norm, first, x), norm_conv3x3(norm, second, x)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.bfloat16
        assert (one - other).abs().max() <= 2**-7 * other.abs().max()
