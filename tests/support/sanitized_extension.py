"""Pytest plugin (``-p``, tests/ on the path): puts an extension built with sanitizers in place of the package's own.

``MRSI_FAST_FUZZ_EXTENSION`` names its file. libasan has to be loaded before Python (LD_PRELOAD); see faults/fuzz.py.
"""

from __future__ import annotations

import importlib.util
import os
import sys

import torch  # noqa: F401 - first: the extension finds its OpenMP symbols there

_spec = importlib.util.spec_from_file_location("mrsi_fast._C", os.environ["MRSI_FAST_FUZZ_EXTENSION"])
assert _spec is not None and _spec.loader is not None
_module = sys.modules["mrsi_fast._C"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
