"""Triton kernels; installed as ``mrsi_fast.kernels``. Importing this package imports neither Triton nor torch."""

from __future__ import annotations

import importlib.util


def available() -> tuple[bool, str]:
    """Say whether Triton kernels can be compiled here, and why not where they cannot.

    Returns:
        ``(True, "triton is installed")`` or ``(False, reason)``. Says nothing about a GPU: that is the caller's check.
    """
    if importlib.util.find_spec("triton") is None:
        return False, "triton is not installed (pip install 'mrsi_fast[gpu]')"
    return True, "triton is installed"
