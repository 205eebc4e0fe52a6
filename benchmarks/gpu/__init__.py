"""Benchmarks on one NVIDIA GPU; run from ``benchmarks/`` as ``python -m gpu``."""

import harness  # noqa: F401 - it makes `support` importable
