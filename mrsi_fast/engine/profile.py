"""Where the native engine's time goes: time, FLOPs and bytes of each operation of its plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mrsi_fast.engine.native import METHODS, NativePlan
from mrsi_fast.engine.plan import ConvOp


@dataclass(frozen=True)
class OperationTime:
    """Mean time of one operation.

    Attributes:
        name: Of the operation in the plan.
        method: How a convolution is computed, or "attention".
        seconds: Mean wall time, the barrier after it included.
        gflops: Billions of floating-point operations of the direct method, 2 per multiply-add.
        megabytes: Millions of bytes that must move at least once (weights before their Winograd transform).
    """

    name: str
    method: str
    seconds: float
    gflops: float
    megabytes: float

    @property
    def rate(self) -> float:
        """Effective GFLOP/s: Winograd exceeds the machine's matrix-product rate because it does less."""
        return self.gflops / self.seconds


def profile(plan: NativePlan, evaluations: int) -> Iterator[OperationTime]:
    """Rows for the evaluations since the last call, in the order of execution.

    Args:
        plan: Has run ``evaluations`` network evaluations since its times were last taken.
        evaluations: How many.
    """
    seconds, called = plan.native.take_seconds(), {one.name: one for one in plan.native.operations()}
    for operation, total in zip(plan.plan.operations, seconds, strict=False):  # the solver step comes last, unnamed
        method = METHODS[called[operation.name].method.name] if isinstance(operation, ConvOp) else "attention"
        yield OperationTime(operation.name, method, total / evaluations, operation.flops / 1e9, operation.bytes / 1e6)
