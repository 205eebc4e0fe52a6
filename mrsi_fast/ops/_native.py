"""Loads the compiled extension ``mrsi_fast._C`` once and remembers why where it cannot."""

from __future__ import annotations

import functools
import importlib
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

# Before _C: the extension finds its OpenMP symbols in the runtime that torch has loaded, so both share a thread pool.
import torch

_PACKAGE = Path(__file__).resolve().parents[1]


@functools.cache
def _load() -> tuple[ModuleType | None, str]:
    try:
        module = importlib.import_module("mrsi_fast._C")
    except ImportError as error:
        if any(_PACKAGE.glob("_C.*")):
            return None, f"the compiled extension does not load here ({error})"
        return None, "the compiled extension is not there (built without a compiler, or MRSI_FAST_NATIVE=0)"
    wanted = os.environ.get("MRSI_FAST_ISA")
    if wanted:
        try:
            module.use_isa(wanted)
        except ValueError as error:
            raise RuntimeError(f"MRSI_FAST_ISA={wanted}: {error}") from None
    return module, f"loaded from {module.__file__}"


def module() -> Any:
    """The extension (without types: it is compiled), or None where there is none.

    Raises:
        RuntimeError: ``MRSI_FAST_ISA`` names an instruction set that this build or processor does not have.
    """
    return _load()[0]


def reason() -> str:
    """Where the extension was loaded from, or why it was not."""
    return _load()[1]


@functools.cache
def lacks(function: str) -> str | None:
    """Why a function of the extension cannot be called, or None where it can."""
    loaded = module()
    if loaded is None:
        return reason()
    if hasattr(loaded, function):
        return None
    if function.startswith("cuda_") and not build_info().get("cuda", {}).get("built", False):
        return (
            f"the extension was built without CUDA: {build_info().get('cuda', {}).get('reason', 'no reason recorded')}"
        )
    return f"the extension has no {function}: it is older than this code; rebuild it (python csrc/build.py --inplace)"


def struct(kind: str, /, **fields: Any) -> Any:
    """A structure of the extension with these fields set; the others keep their defaults.

    Raises:
        AttributeError: It has no field of such a name.
    """
    filled = getattr(module(), kind)()
    for field, value in fields.items():
        setattr(filled, field, value)
    return filled


def address(tensor: torch.Tensor | None) -> int:
    """Address of a tensor, 0 where there is none."""
    return 0 if tensor is None else tensor.data_ptr()


def conv_method(name: str) -> Any:
    """The extension's ``ConvMethod`` of that name."""
    return module().ConvMethod.__members__[name]


@functools.cache
def build_info() -> dict[str, Any]:
    """What the build wrote about itself: compiler, flags, instruction sets, CUDA or why not; empty where unknown."""
    try:
        return json.loads((_PACKAGE / "_build_info.json").read_text())
    except (OSError, ValueError):
        return {}
