"""Builds the CUDA kernels for the CPU simulator and calls them on CPU tensors as the CUDA launchers are called."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mrsi_fast.testing.cuda_tools import ToolMissingError, cuda_include

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
FLAGS = "-x c++ -std=c++17 -g -mf16c -mfma -Wall -Wextra -Werror -Wno-unknown-pragmas -fno-strict-aliasing -fPIC"
DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


class Statistics(ctypes.Structure):
    """Counters of the simulator, in the order of ``cudasim::Statistics``."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in ("blocks", "barriers", "collectives", "mma", "ldmatrix_wavefronts", "ldmatrix_ideal")
    ]


def pointer(tensor: torch.Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


class Simulator:
    """The kernels of one simulator library; raises RuntimeError with the text of a launch that failed."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        self.library.mrsi_fast_cuda_error_string.restype = ctypes.c_char_p
        self.library.mrsi_fast_cuda_launch_count.restype = ctypes.c_int64
        self.library.mrsi_fast_cuda_group_norm_silu_workspace.restype = ctypes.c_int64

    def seed(self, seed: int) -> None:
        self.library.cudasim_set_seed(ctypes.c_uint64(seed))

    def statistics(self) -> Statistics:
        """Return the counters since the last call and reset them."""
        result = Statistics()
        self.library.cudasim_read_statistics(ctypes.byref(result))
        self.library.cudasim_reset_statistics()
        return result

    def launches(self) -> int:
        return self.library.mrsi_fast_cuda_launch_count()

    def check(self, status: int) -> None:
        if status:
            raise RuntimeError(self.library.mrsi_fast_cuda_error_string(status).decode())

    def group_norm_silu(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        groups: int,
        scale: torch.Tensor | None = None,
        shift: torch.Tensor | None = None,
        conv_bias: torch.Tensor | None = None,
        embedding: torch.Tensor | None = None,
        eps: float = 1e-5,
    ) -> torch.Tensor:
        """``x`` [N, pixels, C] contiguous; the result starts as NaN, so that an unwritten value shows."""
        samples, pixels, channels = x.shape
        sizes = [ctypes.c_int64(n) for n in (samples, channels, pixels, groups)]
        need = self.library.mrsi_fast_cuda_group_norm_silu_workspace(DTYPES[x.dtype], *sizes)
        workspace = torch.full((max(need, 0) // 4,), float("nan"))
        y = torch.full_like(x, float("nan"))
        tensors = (x, weight, bias, scale, shift, conv_bias, embedding, y, workspace)
        status = self.library.mrsi_fast_cuda_group_norm_silu(
            DTYPES[x.dtype], *map(pointer, tensors), *sizes, ctypes.c_float(eps), None
        )
        self.check(status)
        return y


def compile_library(folder: Path, *options: str, csrc: Path = CSRC, main: Path | None = None) -> Path:
    """Compile the simulator library from ``csrc`` into ``folder``; skips the test if a tool is missing."""
    if platform.machine() != "x86_64":
        pytest.skip("the simulator's context switch is written for x86-64")
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    try:
        headers = cuda_include()
    except ToolMissingError as error:
        pytest.skip(str(error))
    main = main or HERE / "library.cpp"
    output = folder / "libcudasim.so"
    include = [f"-I{csrc / 'include'}", f"-I{csrc}", f"-I{HERE}", f"-isystem{headers}"]
    command = [compiler, *FLAGS.split(), "-shared", "-DMRSI_FAST_SIM", *(options or ("-O2",)), *include, str(main)]
    run = subprocess.run([*command, "-o", str(output)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return output


def source_digest() -> str:
    """Digest of everything that goes into the simulator library."""
    files = [p for folder in (HERE, CSRC) for p in folder.rglob("*") if p.suffix in {".h", ".cuh", ".cu", ".cpp"}]
    digest = hashlib.sha256(FLAGS.encode())
    for path in sorted(files):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@pytest.fixture(scope="session")
def simulator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Simulator:
    """The unchanged kernels; built once per state of the sources and kept in pytest's cache."""
    assert request.config.cache is not None
    kept = request.config.cache.mkdir("cudasim") / f"{source_digest()}.so"
    if not kept.exists():
        built = compile_library(tmp_path_factory.mktemp("cudasim"))
        part = kept.with_suffix(f".{os.getpid()}")
        shutil.copy(built, part)
        part.replace(kept)
    return Simulator(kept)


@pytest.fixture
def mutant(tmp_path: Path) -> Callable[[str, str, str], Simulator]:
    """Builds the kernels with one planted fault: ``mutant(file, old, new)``; ``old`` must occur exactly once."""

    def build(file: str, old: str, new: str) -> Simulator:
        csrc = tmp_path / "csrc"
        shutil.copytree(CSRC, csrc, ignore=shutil.ignore_patterns("cpu", "__pycache__"))
        source = csrc / file
        text = source.read_text()
        assert text.count(old) == 1, f"{file} holds {old!r} {text.count(old)} times: the fault cannot be planted"
        source.write_text(text.replace(old, new))
        return Simulator(compile_library(tmp_path, csrc=csrc))

    return build
