"""Under autocast the blocks use PyTorch's kernels: the same function, to bfloat16's rounding."""

from __future__ import annotations

import pytest
import torch

from mrsi_fast.models.blocks import GroupNormSiLU
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
