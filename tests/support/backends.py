"""What is loaded here, for the header of a test or benchmark run, and the guard against silent fallbacks."""

from __future__ import annotations

import os

from mrsi_fast import __version__, kernels
from support.data import data_dir

ISAS = ("plain", "avx2", "avx512")


def _other_isa(wanted: str) -> str | None:
    """Why kernels of an instruction set are not the ones in use, or None."""
    from mrsi_fast.ops import _native

    extension = _native.module()
    if extension is None:
        return _native.reason()
    if wanted not in extension.usable_isas():
        return f"usable here are the kernels for {', '.join(extension.usable_isas())}"
    return None if extension.isa() == wanted else f"the kernels for {extension.isa()} are in use (MRSI_FAST_ISA)"


def _missing(backend: str) -> str | None:
    import torch

    from mrsi_fast.engine.native import amx_obstacle
    from mrsi_fast.ops import _native

    if backend == "native":
        return None if _native.module() else _native.reason()
    if backend == "triton":
        usable, reason = kernels.available()
        return None if usable else reason
    if backend == "cuda":
        if not torch.cuda.is_available():
            return "torch sees no CUDA device"
        return _native.lacks("cuda_launch_count")
    if backend == "amx":
        return amx_obstacle()
    if backend in ISAS:
        return _other_isa(backend)
    return f"MRSI_FAST_REQUIRE knows native, cuda, triton, amx, {', '.join(ISAS)}"


def required() -> list[str]:
    """Backends that ``MRSI_FAST_REQUIRE`` (a comma list) asks for."""
    return [name for name in os.environ.get("MRSI_FAST_REQUIRE", "").replace(" ", "").split(",") if name]


def missing_required() -> dict[str, str]:
    """Backends that are required and not usable here, with reasons."""
    reasons = {name: _missing(name) for name in required()}
    return {name: reason for name, reason in reasons.items() if reason}


def describe() -> list[str]:
    """Lines saying which versions, kernels and data a run uses."""
    import torch

    from mrsi_fast.ops import _native

    extension, info = _native.module(), _native.build_info()
    native = _native.reason()
    if extension is not None:
        native = f"{extension.isa()} of {', '.join(extension.usable_isas())}, built {info.get('built_at', 'unknown')}"
    others = [
        f"{name} {'yes' if (reason := _missing(name)) is None else f'no ({reason})'}"
        for name in ("amx", "cuda", "triton")
    ]
    return [
        f"mrsi_fast {__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads; native: {native}",
        f"mrsi_fast {'; '.join(others)}; test data: {data_dir() or 'absent, tests that need it skip'}",
    ]
