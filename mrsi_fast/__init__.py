"""Super-resolution of MR spectroscopic imaging (MRSI) maps, fast enough to be used.

The names below are loaded when first used, so that ``import mrsi_fast`` costs nothing: no torch, no kernels.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mrsi_fast._version import __version__

if TYPE_CHECKING:
    from mrsi_fast.evaluation import evaluate as evaluate
    from mrsi_fast.resolver import SuperResolver as SuperResolver
    from mrsi_fast.result import Result as Result
    from mrsi_fast.simulation import simulate as simulate
    from mrsi_fast.training import train as train

_HOME = {
    "SuperResolver": "mrsi_fast.resolver",
    "Result": "mrsi_fast.result",
    "train": "mrsi_fast.training",
    "simulate": "mrsi_fast.simulation",
    "evaluate": "mrsi_fast.evaluation",
}

__all__ = ["Result", "SuperResolver", "__version__", "evaluate", "simulate", "train"]


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it, at its first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'mrsi_fast' has no attribute {name!r}; its public names are {sorted(_HOME)}.")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOME))
