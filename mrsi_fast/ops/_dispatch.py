"""The one place where an implementation of an operation is chosen, with the reasons against the others.

``MRSI_FAST_BACKEND=native|cuda|triton|reference`` pins one: an operation that has such a kernel uses it or fails;
``MRSI_FAST_DISABLE=native,triton`` acts as if these were not installed.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

BACKENDS = ("native", "cuda", "triton", "reference")
SERVES = {"native": "cpu", "cuda": "cuda", "triton": "cuda"}  # device type of each fast backend


@dataclass(frozen=True)
class Implementation:
    """A fast way to compute an operation.

    Attributes:
        backend: ``native`` (C++ on the CPU), ``cuda`` (CUDA C++) or ``triton``.
        lacks: Says why it is not installed here, or None; asked at each call, so it must be cheap.
        refuse: ``(*inputs) -> reason or None``: what it does not do, from the operation's own inputs.
        out: ``(*inputs, out) -> None``: fills ``out``, which is laid out as the operation allocates it.
        backward: ``(grad, *inputs) -> gradients``, or None where it has no backward kernel.
        passed_over: ``(backward) -> reason or None``: why another is preferred although this one could serve; not asked
            where this backend is pinned.
    """

    backend: str
    lacks: Callable[[], str | None]
    refuse: Callable[..., str | None]
    out: Callable[..., None]
    backward: Callable[..., tuple[Tensor, ...]] | None = None
    passed_over: Callable[[bool], str | None] = lambda backward: None


@dataclass(frozen=True)
class Choice:
    """What runs a call: an implementation, or None for the readable reference; and why not the ones before it."""

    op: str
    device: str
    implementation: Implementation | None
    refused: dict[str, str]

    @property
    def backend(self) -> str:
        """Name of the chosen backend."""
        return self.implementation.backend if self.implementation else "reference"

    def __str__(self) -> str:
        """One line for people."""
        against = "".join(f"; not {backend}: {reason}" for backend, reason in self.refused.items())
        return f"{self.op} on {self.device}: {self.backend}{against}"


@dataclass(frozen=True)
class _Settings:
    pinned: str
    disabled: frozenset[str]


def _settings(backend: str, disable: str) -> _Settings:
    disabled = frozenset(name for name in disable.replace(" ", "").split(",") if name)
    unknown = (disabled | {backend}) - {"auto", *BACKENDS}
    if unknown:
        raise ValueError(f"Unknown backend {sorted(unknown)}; MRSI_FAST_BACKEND and MRSI_FAST_DISABLE know {BACKENDS}.")
    return _Settings(backend, disabled)


_active = _settings(os.environ.get("MRSI_FAST_BACKEND", "auto"), os.environ.get("MRSI_FAST_DISABLE", ""))
_implementations: dict[str, tuple[Implementation, ...]] = {}
_warned: set[str] = set()


@contextmanager
def override(backend: str = "auto", disable: str = "") -> Iterator[None]:
    """Set what ``MRSI_FAST_BACKEND`` and ``MRSI_FAST_DISABLE`` set, for a block of code (tests, benchmarks)."""
    global _active
    before, _active = _active, _settings(backend, disable)
    try:
        yield
    finally:
        _active = before


def add(op: str, implementations: tuple[Implementation, ...]) -> None:
    """Make an operation's implementations known, the preferred one first."""
    _implementations[op] = implementations


def _installed(implementation: Implementation) -> str | None:
    if implementation.backend in _active.disabled:
        return "disabled by MRSI_FAST_DISABLE"
    return implementation.lacks()


def choose(op: str, device: str, inputs: tuple[Any, ...], *, backward: bool = False) -> Choice:
    """Choose the implementation for one call: the first one that is installed and does not refuse the inputs.

    Args:
        op: Name of the operation.
        device: Device type of the call, ``cpu`` or ``cuda``.
        inputs: The operation's inputs, without ``grad`` and ``out``.
        backward: Whether the backward form is wanted.

    Raises:
        RuntimeError: The pinned backend cannot serve the call; the message says why.
    """
    refused: dict[str, str] = {}
    missing = 0
    candidates = [one for one in _implementations.get(op, ()) if SERVES[one.backend] == device]
    for implementation in candidates:
        backend = implementation.backend
        if _active.pinned not in ("auto", backend):
            refused[backend] = f"MRSI_FAST_BACKEND={_active.pinned}"
            continue
        reason = _installed(implementation)
        missing += reason is not None and backend not in _active.disabled
        if reason is None and backward and implementation.backward is None:
            reason = "it has no backward kernel"
        reason = reason or implementation.refuse(*inputs)
        if reason is None and _active.pinned == "auto":
            reason = implementation.passed_over(backward)
        if reason is None:
            return Choice(op, device, implementation, refused)
        refused[backend] = reason
    if any(one.backend == _active.pinned for one in candidates):
        raise RuntimeError(
            f"MRSI_FAST_BACKEND={_active.pinned} cannot run {op} on this input: {refused[_active.pinned]}."
        )
    if candidates and missing == len(candidates):
        _warn_once(device, refused)
    return Choice(op, device, None, refused)


def _warn_once(device: str, refused: dict[str, str]) -> None:
    if device in _warned:
        return
    _warned.add(device)
    reasons = "; ".join(f"{backend}: {reason}" for backend, reason in refused.items())
    warnings.warn(
        f"mrsi_fast computes with plain PyTorch on {device}: slower, the same numbers. Why no kernel: {reasons}.",
        stacklevel=2,
    )


def explain(op: str, *inputs: Any, backward: bool = False) -> Choice:
    """Say what would run a call, and why not the others: ``print(explain("group_norm_silu", x, ...))``."""
    if op not in _implementations:
        raise ValueError(f"There is no operation {op!r}; there are {sorted(_implementations)}.")
    device = next(one.device.type for one in inputs if isinstance(one, Tensor))
    return choose(op, device, inputs, backward=backward)


def status() -> list[dict[str, str | bool]]:
    """One row for each fast implementation: operation, device, backend, whether it is usable here, and why not."""
    rows: list[dict[str, str | bool]] = []
    for op, implementations in sorted(_implementations.items()):
        for one in implementations:
            reason = _installed(one)
            rows.append(
                {
                    "op": op,
                    "device": SERVES[one.backend],
                    "backend": one.backend,
                    "usable": reason is None,
                    "reason": reason or "",
                }
            )
    return rows
