"""Builds the CUDA kernels for the CPU simulator and calls them on CPU tensors as the CUDA launchers are called."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mrsi_fast.ops import _cuda, _dispatch, _native
from support.cuda_tools import ToolMissingError, cuda_include

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
FLAGS = "-x c++ -std=c++17 -g -mf16c -mfma -Wall -Wextra -Werror -Wno-unknown-pragmas -fno-strict-aliasing -fPIC"
DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


class Statistics(ctypes.Structure):
    """Counters of the simulator, in the order of ``cudasim::Statistics``."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("blocks", "barriers", "collectives")]


def request_type(name: str) -> type[ctypes.Structure]:
    """The structure ``MrsiFast<name>`` of cuda_launchers.h, its fields read from the header; it takes no others."""
    header = (CSRC / "include/mrsi_fast/cuda_launchers.h").read_text()
    body = re.search(rf"typedef struct MrsiFast{name} {{(.*?)}}", header, re.DOTALL)
    assert body is not None, f"cuda_launchers.h has no MrsiFast{name}"
    kinds = {"int": ctypes.c_int, "float": ctypes.c_float, "int64_t": ctypes.c_int64}
    fields = []
    for kind, names in re.findall(r"(?:const )?(\w+)([ *][^;]*);", body[1]):
        pointers = "*" in names
        fields += [(one.strip(" *\n"), ctypes.c_void_p if pointers else kinds[kind]) for one in names.split(",")]

    def set_known(self: ctypes.Structure, field: str, value: object) -> None:
        assert field in dict(fields), f"MrsiFast{name} has no {field}"
        ctypes.Structure.__setattr__(self, field, value)

    return type(name, (ctypes.Structure,), {"_fields_": fields, "__setattr__": set_known})


CudaGroupNormSilu, CudaSolverStep = request_type("CudaGroupNormSilu"), request_type("CudaSolverStep")


def address(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def fill(request: ctypes.Structure, **values: object) -> ctypes.Structure:
    for name, value in values.items():
        setattr(request, name, address(value) if isinstance(value, torch.Tensor) else value)
    return request


class Simulator:
    """The kernels of one simulator library; raises RuntimeError with the text of a launch that failed."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        self.library.mrsi_fast_cuda_error_string.restype = ctypes.c_char_p
        self.library.mrsi_fast_cuda_launch_count.restype = ctypes.c_int64
        if hasattr(self.library, "mrsi_fast_cuda_group_norm_silu_workspace"):  # a library of faults has one operation
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
        sizes = {"samples": samples, "channels": channels, "pixels": pixels, "groups": groups}
        request = fill(CudaGroupNormSilu(), dtype=DTYPES[x.dtype], eps=eps, **sizes)
        need = self.library.mrsi_fast_cuda_group_norm_silu_workspace(ctypes.byref(request))
        workspace = torch.full((max(need, 0) // 4,), float("nan"))
        y = torch.full_like(x, float("nan"))
        vectors = {"weight": weight, "bias": bias, "scale": scale, "shift": shift}
        fill(request, x=x, y=y, workspace=workspace, conv_bias=conv_bias, embedding=embedding, **vectors)
        self.check(self.library.mrsi_fast_cuda_group_norm_silu(ctypes.byref(request), None))
        return y

    def solver_step(
        self,
        base: torch.Tensor,
        now: torch.Tensor,
        prev: torch.Tensor | None,
        noise: torch.Tensor | None,
        coefficients: torch.Tensor,
        step: int,
        bases: tuple[torch.Tensor, torch.Tensor] | tuple[None, None] = (None, None),
        kept: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """``base`` [slices, width, height]; ``coefficients`` [steps, 4]; ``bases`` [rank, size] of each axis."""
        out, index = torch.full_like(base, float("nan")), torch.tensor([step])
        ranks = [0 if basis is None else basis.shape[0] for basis in bases]
        sizes = dict(zip(("slices", "width", "height", "rank_x", "rank_y"), (*base.shape, *ranks), strict=True))
        request = fill(CudaSolverStep(), base=base, now=now, prev=prev, noise=noise, kept=kept, out=out, **sizes)
        fill(request, coefficients=coefficients, step=index, basis_x=bases[0], basis_y=bases[1])
        self.check(self.library.mrsi_fast_cuda_solver_step(ctypes.byref(request), None))
        return out


def compile_library(folder: Path, *options: str, sources: list[Path] | None = None, csrc: Path = CSRC) -> Path:
    """Compile ``sources`` (default: all .cu files of ``csrc``) for the simulator; skips if a tool is missing."""
    if platform.machine() != "x86_64":
        pytest.skip("the simulator's context switch is written for x86-64")
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    try:
        headers = cuda_include()
    except ToolMissingError as error:
        pytest.skip(str(error))
    sources = sorted((csrc / "cuda").glob("*.cu")) if sources is None else [*sources, csrc / "cuda/runtime.cu"]
    main, output = folder / "main.cpp", folder / "libcudasim.so"
    includes = ["cudasim.h", *map(str, sources)]
    main.write_text("#define CUDASIM_IMPLEMENTATION\n" + "".join(f'#include "{path}"\n' for path in includes))
    search = [f"-I{csrc / 'include'}", f"-I{HERE}", f"-isystem{headers}"]
    command = [compiler, *FLAGS.split(), "-shared", "-DMRSI_FAST_SIM", *(options or ("-O2",)), *search, str(main)]
    run = subprocess.run([*command, "-o", str(output)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return output


def source_digest() -> str:
    """Digest of everything that goes into the simulator library."""
    files = [p for folder in (HERE, CSRC) for p in folder.rglob("*") if p.suffix in {".h", ".cuh", ".cu"}]
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


@pytest.fixture(autouse=True)
def _first_schedule(request: pytest.FixtureRequest) -> None:
    if "simulator" in request.fixturenames:
        request.getfixturevalue("simulator").seed(0)


def plant(folder: Path, source: str, header: str, old: str, new: str, *options: str) -> Path:
    """Compile ``cuda/<source>`` with ``old``, which must occur exactly once in ``header``, replaced."""
    csrc = folder / "csrc"
    shutil.copytree(CSRC, csrc, ignore=shutil.ignore_patterns("cpu", "__pycache__"))
    text = (csrc / header).read_text()
    assert text.count(old) == 1, f"{header} holds {old!r} {text.count(old)} times: the fault cannot be planted"
    (csrc / header).write_text(text.replace(old, new))
    return compile_library(folder, *options, sources=[csrc / "cuda" / source], csrc=csrc)


@pytest.fixture
def mutant(tmp_path: Path) -> Callable[..., Simulator]:
    """``mutant(source, header, old, new)``: the kernels of one .cu file with one planted fault."""
    return lambda *fault: Simulator(plant(tmp_path, *fault))


@pytest.fixture
def sanitized(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``script``, with ``simulator`` bound to what ``build(folder, *options)`` compiled, under ASan and UBSan.

    The sanitizers have to be loaded before Python, hence the process of its own.
    """

    def run(build: Callable[..., Path], script: str) -> subprocess.CompletedProcess[str]:
        library = build(tmp_path, "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
        preload = [
            subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
            for name in ("libasan.so", "libubsan.so")
        ]
        setup = (
            "import importlib.util, pathlib, sys, torch\n"
            f"sys.path.insert(0, {str(HERE.parent)!r})\n"
            f"spec = importlib.util.spec_from_file_location('conftest', {str(HERE / 'conftest.py')!r})\n"
            "conftest = importlib.util.module_from_spec(spec)\n"
            "spec.loader.exec_module(conftest)\n"
            f"simulator = conftest.Simulator(pathlib.Path({str(library)!r}))\n"
        )
        environment = {**os.environ, "LD_PRELOAD": " ".join(preload), "ASAN_OPTIONS": "detect_leaks=0"}
        command = [sys.executable, "-c", setup + script]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HERE.parents[1])

    return run


class SimulatedExtension:
    """The functions of csrc/cuda/bind.cpp with the simulator behind them."""

    def __init__(self, simulator) -> None:
        self.simulator, self.library = simulator, simulator.library

    CudaGroupNormSilu, CudaSolverStep = CudaGroupNormSilu, CudaSolverStep

    def cuda_group_norm_silu_workspace(self, request):
        return self.library.mrsi_fast_cuda_group_norm_silu_workspace(ctypes.byref(request))

    def cuda_group_norm_silu(self, request, stream):
        run = self.library.mrsi_fast_cuda_group_norm_silu
        self.simulator.check(run(ctypes.byref(request), ctypes.c_void_p(stream)))

    def cuda_solver_step(self, request, stream):
        run = self.library.mrsi_fast_cuda_solver_step
        self.simulator.check(run(ctypes.byref(request), ctypes.c_void_p(stream)))


@pytest.fixture
def on_gpu(simulator, monkeypatch):
    """CPU tensors are served by the "cuda" backend; returns the simulator, whose launches can be counted."""
    extension = SimulatedExtension(simulator)
    monkeypatch.setattr(_native, "module", lambda: extension)
    monkeypatch.setattr(_native, "lacks", lambda function: None)
    monkeypatch.setattr(_cuda, "launching", lambda device: contextlib.nullcontext(0))
    monkeypatch.setattr(_dispatch, "SERVES", {"native": "none", "cuda": "cpu", "triton": "none", "reference": "cpu"})
    return simulator
