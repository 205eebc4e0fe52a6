"""The one place where an implementation of an operation is chosen, with the reasons against the others.

``MRSI_FAST_BACKEND=native|cuda|triton|reference`` pins one: an operation that has such a kernel uses it or fails;
``MRSI_FAST_DISABLE=native,triton`` acts as if these were not installed.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

BACKENDS = ("native", "cuda", "triton", "reference")
SERVES = {"native": "cpu", "cuda": "cuda", "triton": "cuda"}  # device type of each fast backend


@dataclass(frozen=True)
class Implementation:
    """A fast way to compute an operation.

    Attributes:
        backend: ``native`` (C++ on the CPU), ``cuda`` (CUDA C++) or ``triton``.
        lacks: Returns the reason why it is not installed here, or None; runs at each call, so it must be cheap.
        refuse: ``(*inputs) -> reason or None``: what it does not do, from the operation's own inputs.
        out: ``(*inputs, out) -> None``: fills ``out``, which is laid out as the operation allocates it.
        backward: ``(grad, *inputs) -> gradients``, or None where it has no backward kernel.
    """

    backend: str
    lacks: Callable[[], str | None]
    refuse: Callable[..., str | None]
    out: Callable[..., None]
    backward: Callable[..., tuple[Tensor, ...]] | None = None


Preference = Callable[[bool, tuple[Any, ...]], tuple[str, str]]
"""``(backward, inputs) -> (backend, why)``: which backend, ``reference`` included, where several could serve a call."""


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
        raise ValueError(
            f"Unknown backend {sorted(unknown)}; MRSI_FAST_BACKEND and MRSI_FAST_DISABLE accept {BACKENDS}."
        )
    return _Settings(backend, disabled)


_active = _settings(os.environ.get("MRSI_FAST_BACKEND", "auto"), os.environ.get("MRSI_FAST_DISABLE", ""))
_implementations: dict[str, tuple[Implementation, ...]] = {}
_preferences: dict[str, Preference] = {}
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


def add(op: str, implementations: tuple[Implementation, ...], preference: Preference | None = None) -> None:
    """Register an operation's implementations, the preferred one first unless ``preference`` gives another order.

    Args:
        op: Name of the operation.
        implementations: Its fast implementations.
        preference: Asked for calls that CUDA or Triton could serve, unless a backend is pinned.
    """
    _implementations[op] = implementations
    if preference is not None:
        _preferences[op] = preference


def _installed(implementation: Implementation) -> str | None:
    if implementation.backend in _active.disabled:
        return "disabled by MRSI_FAST_DISABLE"
    return implementation.lacks()


def _unable(implementation: Implementation, inputs: tuple[Any, ...], backward: bool) -> str | None:
    """Why an implementation cannot serve a call, or None."""
    reason = _installed(implementation)
    if reason is None and backward and implementation.backward is None:
        reason = "it has no backward kernel"
    return reason or implementation.refuse(*inputs)


def _candidates(op: str, device: str, inputs: tuple[Any, ...], backward: bool) -> tuple[list[Implementation], str, str]:
    """What could serve a call, the preferred first; the preferred backend ("" for none in particular), and why."""
    candidates = [one for one in _implementations.get(op, ()) if SERVES[one.backend] == device]
    if _active.pinned != "auto" or op not in _preferences or not candidates or candidates[0].backend == "native":
        return candidates, "", ""
    preferred, why = _preferences[op](backward, inputs)
    return sorted(candidates, key=lambda one: one.backend != preferred), preferred, why


def choose(op: str, device: str, inputs: tuple[Any, ...], *, backward: bool = False) -> Choice:
    """Choose the implementation for one call: the first one that is installed and does not refuse the inputs.

    Args:
        op: Name of the operation.
        device: Device type of the call, ``cpu`` or ``cuda``.
        inputs: The operation's inputs, without ``grad`` and ``out``.
        backward: Whether the backward form is wanted.

    Raises:
        RuntimeError: The pinned backend cannot run the call; the message gives the reason.
    """
    refused: dict[str, str] = {}
    missing = 0
    candidates, preferred, why = _candidates(op, device, inputs, backward)
    for implementation in candidates:
        backend = implementation.backend
        if _active.pinned not in ("auto", backend):
            refused[backend] = f"MRSI_FAST_BACKEND={_active.pinned}"
            continue
        reason = _unable(implementation, inputs, backward)
        if reason is None and preferred == "reference":
            reason = f"{why} (MRSI_FAST_BACKEND={backend} takes it)"
        if reason is None:
            return Choice(op, device, implementation, refused)
        missing += backend not in _active.disabled and implementation.lacks() is not None
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
    choice = choose(op, device, inputs, backward=backward)
    candidates, preferred, why = _candidates(op, device, inputs, backward)
    against = dict(choice.refused)
    for one in candidates:  # those that `choose` did not get to
        if one.backend not in against and one is not choice.implementation:
            reason = _unable(one, inputs, backward)
            against[one.backend] = reason or (
                f"{preferred} is preferred, {why}" if preferred else "another comes first"
            )
    return replace(choice, refused=against)


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
