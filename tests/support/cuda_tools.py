"""Finds the CUDA headers, nvcc and cuobjdump for checks that need no GPU; a finder that fails says what to install."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


class ToolMissingError(RuntimeError):
    """A tool is not installed; the message says which package brings it."""


def _site_folders() -> list[Path]:
    return [Path(entry) for entry in sys.path if entry and Path(entry).is_dir()]


def _toolkits() -> list[Path]:
    named = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    return [Path(folder) for folder in named] + sorted(Path("/usr/local").glob("cuda*"), reverse=True)


def cuda_include() -> Path:
    """Return the folder that holds ``cuda_fp16.h``: of a toolkit, or of the ``nvidia-cuda-runtime`` wheel.

    Raises:
        ToolMissingError: if there is none.
    """
    candidates = [folder / "include" for folder in _toolkits()]
    candidates += [folder / "nvidia/cu13/include" for folder in _site_folders()]
    for folder in candidates:
        if (folder / "cuda_fp16.h").exists() and (folder / "cuda_runtime.h").exists():
            return folder
    raise ToolMissingError("no CUDA headers found: set CUDA_HOME or pip install nvidia-cuda-runtime")


def nvcc() -> Path:
    """Return the nvcc of a complete toolkit (compiler and headers; a wrapper script on PATH is not enough).

    Raises:
        ToolMissingError: if there is none.
    """
    for folder in _toolkits():
        if (folder / "bin/nvcc").exists() and (folder / "include/cuda_runtime.h").exists():
            return folder / "bin/nvcc"
    raise ToolMissingError("no CUDA toolkit found: set CUDA_HOME to a folder with bin/nvcc and include/cuda_runtime.h")


def compute_sanitizer() -> Path:
    """Return compute-sanitizer: from a toolkit, or from PATH.

    Raises:
        ToolMissingError: if there is none.
    """
    found = shutil.which("compute-sanitizer")
    for candidate in [folder / "bin/compute-sanitizer" for folder in _toolkits()] + ([Path(found)] if found else []):
        if candidate.exists():
            return candidate
    raise ToolMissingError("no compute-sanitizer found: it comes with the CUDA toolkit; set CUDA_HOME to one")


def cuobjdump() -> Path:
    """Return cuobjdump: from PATH, the ``nvidia-cuda-cuobjdump`` wheel, or Triton's own copy.

    Raises:
        ToolMissingError: if there is none.
    """
    found = shutil.which("cuobjdump")
    if found:
        return Path(found)
    for folder in _site_folders():
        for relative in ("nvidia/cu13/bin/cuobjdump", "triton/backends/nvidia/bin/cuobjdump"):
            if (folder / relative).exists():
                return folder / relative
    raise ToolMissingError("no cuobjdump found: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm")
