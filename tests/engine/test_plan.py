"""The plan executed by plain PyTorch from its own arena must be the network, whatever C++ makes of it."""

import pytest
import torch
import torch.nn.functional as F

from mrsi_fast.engine.plan import STRIP_ROWS, AttentionOp, ConvOp, Value, assign_arena, plan_network
from mrsi_fast.models.condition import Condition, vector_width
from mrsi_fast.models.unet import flop_split
from support.networks import random_network


def random_condition(batch, maps, grid, dtype=torch.float32):
    vector = torch.randn(batch, vector_width(maps)) * 0.3
    vector[:, :maps] = (torch.rand(batch, maps) < 0.7).float()
    fields = torch.randn(batch, maps, *grid), torch.ones(batch, maps, *grid), torch.randn(batch, 1, *grid), vector
    return Condition(*(tensor.to(dtype) for tensor in fields))


class Interpreter:
    """Runs a plan in float64 inside one flat arena that starts as NaN; dead values are overwritten as in C++."""

    def __init__(self, plan):
        self.plan = plan
        self.arena = torch.full((plan.arena_floats,), torch.nan, dtype=torch.float64)

    def view(self, value: Value):
        start = self.plan.offsets[value.name]
        shape = value.batch, value.height, value.width, value.channels
        return self.arena[start : start + value.floats].view(shape).permute(0, 3, 1, 2)

    def run(self, film):
        for operation in self.plan.operations:
            if isinstance(operation, AttentionOp):
                tokens = self.view(operation.qkv).flatten(2).unflatten(1, (3, operation.heads, -1)).transpose(3, 4)
                mixed = F.scaled_dot_product_attention(tokens[:, 0], tokens[:, 1], tokens[:, 2])
                out = self.view(operation.out)
                out.copy_(mixed.transpose(2, 3).flatten(1, 2).view_as(out))
                continue
            self.conv(operation, film)

    def conv(self, op: ConvOp, film):
        inputs = [self.view(source.value) for source in op.sources]
        inputs = [
            x.repeat_interleave(2, 2).repeat_interleave(2, 3) if s.upsample else x
            for x, s in zip(inputs, op.sources, strict=True)
        ]
        x = torch.cat(inputs, 1)
        if op.norm is not None:
            x = F.group_norm(x, op.norm.num_groups, op.norm.weight, op.norm.bias, 1e-5)
            if op.film is not None:
                scale, shift = film[:, op.film : op.film + 2 * x.shape[1]].chunk(2, 1)
                x = x * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
            x = F.silu(x)
        y = F.conv2d(x, op.conv.weight, op.conv.bias, op.conv.stride, op.conv.padding)
        if op.residual is not None:
            y = y + self.view(op.residual)
        self.view(op.out).copy_(y)
        start = self.plan.offsets.get(op.out.name + ".stats")
        if start is not None:  # written here by C++: the place must hold nothing that is still needed
            self.arena[start : start + op.out.stats_floats] = torch.nan


@pytest.mark.parametrize(("batch", "grid"), [(2, (16, 16)), (1, (13, 22))])
def test_interpreted_plan_is_the_network(batch, grid):
    network = random_network().double()
    condition = random_condition(batch, 3, grid, torch.float64)
    x, label = torch.randn(batch, 3, *grid, dtype=torch.float64), 0.4
    with torch.no_grad():
        plan, film = plan_network(network, batch, grid)
        interpreter = Interpreter(plan)
        interpreter.view(plan.stem).copy_(network.stem_input(x, condition))
        interpreter.run(film.rows([0.1, label], condition.vector)[1])
        head = F.pixel_shuffle(interpreter.view(plan.head), 2)[..., : grid[0], : grid[1]]
        expected = network(x, torch.full((batch,), label, dtype=torch.float64), condition)
    torch.testing.assert_close(head, expected, rtol=1e-10, atol=1e-12)


def test_arena_is_far_smaller_than_all_values_together():
    plan, _ = plan_network(random_network(), 4, (32, 32))
    everything = sum(operation.out.floats for operation in plan.operations)
    assert plan.arena_floats < everything / 2


def test_a_value_read_late_is_not_overwritten():
    """The interpreter test above must be able to fail: shorten one life and the result changes."""
    network = random_network().double()
    plan, film = plan_network(network, 1, (16, 16))
    skip = next(op for op in plan.operations if op.name == "encoder.0.0.conv2").out
    clash = next(op for op in plan.operations if op.name == "middle.block1.conv1").out
    plan.offsets[clash.name] = plan.offsets[skip.name]
    condition = random_condition(1, 3, (16, 16), torch.float64)
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        interpreter = Interpreter(plan)
        interpreter.view(plan.stem).copy_(network.stem_input(x, condition))
        interpreter.run(film.rows([0.4], condition.vector)[0])
        head = F.pixel_shuffle(interpreter.view(plan.head), 2)
        expected = network(x, torch.full((1,), 0.4, dtype=torch.float64), condition)
    assert (head - expected).abs().max() > 1e-3


def test_places_are_whole_cache_lines_and_assigning_twice_changes_nothing():
    plan, _ = plan_network(random_network(), 2, (24, 20))
    before, size = dict(plan.offsets), plan.arena_floats
    assert all(offset % 16 == 0 for offset in before.values())
    assign_arena(plan)
    assert plan.offsets == before and plan.arena_floats == size


def test_flops_agree_with_the_networks_own_count():
    network = random_network()
    plan, _ = plan_network(network, 1, (32, 32))
    split = flop_split(network, (32, 32))
    assert sum(op.flops for op in plan.operations) == pytest.approx(1e9 * (sum(split.values()) - split["linear"]))


def test_statistics_take_one_row_per_strip():
    assert Value("x", 2, 9, 5, 16).stats_floats == 2 * 3 * 2 * 16
    assert STRIP_ROWS == 4
