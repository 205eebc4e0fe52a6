"""solver_step: the reference against the sampling loop's own arithmetic, and its contract with torch."""

from __future__ import annotations

import pytest
import torch

from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.ops import solver_step

OP = torch.ops.mrsi_fast.solver_step.default
OUT = torch.ops.mrsi_fast.solver_step_out.default
COEFFICIENTS = torch.tensor([[0.7, 0.4, -0.1, 0.3], [0.0, 1.0, 0.0, 0.0]])


def states(*shape: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator) for _ in range(4)]


def test_equals_the_update_with_every_estimate_projected():
    acquisition = Acquisition((4, 6), (4, 2), support="ellipse")
    base, now, prev, noise = states(2, 3, *acquisition.hr_shape)
    modes = acquisition.modes(torch.float32, "cpu")
    bases = (modes.hr_x, modes.hr_y, modes.kept)
    assert modes.kept is not None
    b, n, p, e = COEFFICIENTS[0].tolist()
    wanted = b * base + n * acquisition.null(now) + p * acquisition.null(prev) + e * noise
    result = solver_step(base, now, prev, noise, COEFFICIENTS, torch.tensor([0]), *bases)
    torch.testing.assert_close(result, wanted, rtol=1e-5, atol=1e-5)
    out = torch.full_like(base, float("nan"))
    OUT(base, now, prev, noise, COEFFICIENTS, torch.tensor([0]), *bases, out)
    assert torch.equal(out, result)


def test_terms_with_coefficient_zero_are_left_out():
    base, now, _, _ = states(2, 5, 7)
    nan = torch.full_like(base, float("nan"))
    assert torch.equal(solver_step(nan, now, nan, nan, COEFFICIENTS, torch.tensor([1])), now)
    assert torch.equal(solver_step(base, now, None, None, COEFFICIENTS, torch.tensor([1])), now)


def test_the_index_is_read_when_the_operation_runs():
    base, now, prev, noise = states(1, 4, 4)
    index = torch.tensor([0])
    first = solver_step(base, now, prev, noise, COEFFICIENTS, index)
    index += 1
    assert not torch.equal(solver_step(base, now, prev, noise, COEFFICIENTS, index), first)


def test_contract_with_torch():
    base, now, prev, noise = states(1, 2, 6, 8)
    index, qx, qy = torch.tensor([0]), torch.linalg.qr(torch.randn(6, 2)).Q.T, torch.linalg.qr(torch.randn(8, 3)).Q.T
    torch.library.opcheck(OP, (base, now, prev, noise, COEFFICIENTS, index, qx, qy, None))
    torch.library.opcheck(OP, (base, now, None, None, COEFFICIENTS, index, None, None, None))
    torch.library.opcheck(OUT, (base, now, prev, noise, COEFFICIENTS, index, qx, qy, None, torch.empty_like(base)))
    with pytest.raises(RuntimeError, match="records no gradient"):
        solver_step(base.requires_grad_(), now, None, None, COEFFICIENTS, index)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"now": torch.zeros(1, 4, 5)}, "now must have the shape"),
        ({"coefficients": torch.zeros(4)}, "coefficients"),
        ({"step": torch.tensor([0.0])}, "step"),
        ({"basis_x": torch.zeros(2, 4)}, "together"),
        ({"basis_x": torch.zeros(2, 3), "basis_y": torch.zeros(2, 4)}, "basis_x"),
        ({"kept": torch.ones(2, 2)}, "kept"),
    ],
)
def test_wrong_inputs_are_named(change, message):
    good = {"base": torch.zeros(1, 4, 4), "now": torch.zeros(1, 4, 4), "prev": None, "noise": None}
    good |= {"coefficients": COEFFICIENTS, "step": torch.tensor([0])}
    with pytest.raises(ValueError, match=message):
        solver_step(**(good | change))
