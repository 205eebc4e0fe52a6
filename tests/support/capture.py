"""Doubles of CUDA-graph capture for machines without a GPU.

``ReplayGraph`` captures and replays CPU work by the rules of a CUDA graph: Python runs once, the recorded calls run
again on the same storages with every Python number frozen. ``CaptureGuard`` refuses what a capture cannot hold, on fake
CUDA tensors too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_ATEN = torch.ops.aten
_SYNCHRONISING = {
    _ATEN._local_scalar_dense,
    _ATEN.item,
    _ATEN.is_nonzero,
    _ATEN.equal,
    _ATEN.nonzero,
    _ATEN.masked_select,
    _ATEN._unique2,
    _ATEN.repeat_interleave,
}
_HOST_DATA = {_ATEN.lift_fresh, _ATEN.lift_fresh_copy}
_INDEXING = {_ATEN.index, _ATEN.index_put_}


class CaptureError(RuntimeError):
    """Something that a CUDA graph cannot capture; the message names the operation."""


def _refuse(func: Any, args: tuple[Any, ...]) -> None:
    packet = func.overloadpacket
    if packet in _SYNCHRONISING or {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags):
        raise CaptureError(f"{func}: waits for the device, since its result depends on data")
    if packet in _HOST_DATA:
        raise CaptureError(f"{func}: a tensor made from host data during capture")
    if packet in _INDEXING:
        masks = [i for i in (args[1] or []) if isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8)]
        if masks:
            raise CaptureError(f"{func}: a boolean mask as index hides a nonzero()")


class CaptureGuard(TorchDispatchMode):
    """While active, an operation that a capture on ``device`` cannot hold raises CaptureError; others are listed."""

    def __init__(self, device: str = "cuda") -> None:
        super().__init__()
        self.device = device
        self.calls: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Check, run and list one operation."""
        kwargs = kwargs or {}
        _refuse(func, args)
        out = func(*args, **kwargs)
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t.dim() > 0]
        elsewhere = {t.device.type for t in [*inputs, *(t for t in tree_leaves(out) if isinstance(t, Tensor))]}
        elsewhere -= {self.device}
        if elsewhere:
            raise CaptureError(f"{func}: touches {sorted(elsewhere)} during a capture on {self.device}")
        self.calls.append(str(func))
        return out


class ReplayGraph(TorchDispatchMode):
    """A graph (``mrsi_fast.engine.cuda_graph.Graph``) over CPU tensors.

    Args:
        launch_count: Counts kernels launched so far, if launchers exist here. A launch that no recorded operation made
            is an error: a recording mode sees only torch operations, a CUDA graph would have captured it.
    """

    def __init__(self, launch_count: Callable[[], int] | None = None) -> None:
        super().__init__()
        self.launch_count = launch_count
        self.tape: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self._recorded_launches = 0
        self._alive: list[Any] = []  # results must not be freed: their storage is the graph's memory pool

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run and record one operation."""
        kwargs = kwargs or {}
        _refuse(func, args)
        before = self.launch_count() if self.launch_count else 0
        out = func(*args, **kwargs)
        self._recorded_launches += (self.launch_count() if self.launch_count else 0) - before
        mutates = func._schema.is_mutable
        is_view = not mutates and any(r.alias_info is not None for r in func._schema.returns)
        if not is_view:
            self.tape.append((func, args, kwargs, None if mutates else out))
        self._alive.append(out)
        return out

    def capture(self, function: Callable[[], None], reset: Callable[[], None]) -> None:
        """Record ``function``.

        Raises:
            CaptureError: It did something that a graph cannot hold, or launched a kernel past torch's dispatcher.
        """
        reset()
        before = self.launch_count() if self.launch_count else 0
        with torch.no_grad(), self:
            function()
        launched = (self.launch_count() if self.launch_count else 0) - before
        if launched != self._recorded_launches:
            raise CaptureError(
                f"{launched - self._recorded_launches} kernels were launched outside any torch operation; "
                "call them through torch.ops.mrsi_fast.*_out"
            )

    @torch.no_grad()
    def replay(self) -> None:
        """Run the recorded calls again, writing each result where the recorded one lies."""
        for func, args, kwargs, recorded in self.tape:
            results = func(*args, **kwargs)
            if recorded is None:
                continue
            for old, new in zip(tree_leaves(recorded), tree_leaves(results), strict=True):
                if isinstance(old, Tensor) and old.numel() and old.data_ptr() != new.data_ptr():
                    old.copy_(new)
