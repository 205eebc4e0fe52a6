"""Imports of a command: the garbage collector stays off the hundreds of thousands of objects that they make."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collections() -> Iterator[None]:
    """For imports: no garbage collection during them, and none of what they leave afterwards.

    What modules make stays until the process ends. Collections look through all of it again and again: for PyTorch that
    takes 0.4 of 2.9 s of the import, and as long again in the seconds after it. Where PyTorch is there already, another
    program's process is ours too, and its collector stays as it is.
    """
    if "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
