"""What ``mrsi-fast doctor`` looks at: what is compiled, loaded and missing on this machine, each with its reason."""

from __future__ import annotations

import importlib.util
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from mrsi_fast._version import __version__
from mrsi_fast.cli.cpus import usable_cpus

Status = Literal["ok", "absent", "failed"]

REQUIRED = (
    "torch",
    "numpy",
    "nibabel",
    "safetensors",
    "scipy",
    "scikit-image",
    "matplotlib",
    "jinja2",
    "typer",
    "rich",
    "pydantic",
    "tomli_w",
)
OPTIONAL = {"triton": "Triton kernels on NVIDIA GPUs", "lpips": "the LPIPS metric of the evaluation"}


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: What was looked at.
        status: ``ok``; ``absent`` if something optional is not there; ``failed`` if ``sr`` cannot run because of it.
        detail: What was found, or why not.
    """

    name: str
    status: Status
    detail: str


@dataclass
class Diagnosis:
    """All findings.

    Attributes:
        versions: Package -> version; the optional ones only where installed.
        build: What the build of the extension recorded.
        kernels: One row for each fast implementation of an operation: usable or why not.
        engine: Which engine and device run, and why not the others; empty if that was not tried.
        checks: Findings in the order they were made.
    """

    versions: dict[str, str] = field(default_factory=dict)
    build: dict[str, Any] = field(default_factory=dict)
    kernels: list[dict[str, Any]] = field(default_factory=list)
    engine: str = ""
    checks: list[Check] = field(default_factory=list)

    @property
    def can_run(self) -> bool:
        """Whether ``mrsi-fast sr`` can run here."""
        return all(check.status != "failed" for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"can_run": self.can_run, **asdict(self)}


def diagnose(model: Path | None = None, self_test: bool = True) -> Diagnosis:
    """Looks at everything; no check stops the others.

    Args:
        model: Model folder, None for the shipped weights.
        self_test: Whether to super-resolve a small map, which takes about two seconds.
    """
    found = Diagnosis(versions={"mrsi_fast": __version__, "python": platform.python_version()})
    steps: list[Callable[[Diagnosis], None]] = [_packages, _extension, _gpu, _machine, lambda d: _weights(d, model)]
    if self_test:
        steps.append(lambda d: _self_test(d, model))
    for step in steps:
        step(found)
    return found


def _packages(found: Diagnosis) -> None:
    missing = []
    for name in (*REQUIRED, *OPTIONAL):
        try:
            found.versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    lacking = [name for name in REQUIRED if name in missing]
    text = f"not installed: {', '.join(lacking)}; reinstall mrsi_fast" if lacking else "complete"
    found.checks.append(Check("packages", "failed" if lacking else "ok", text))
    for name in missing:
        if name in OPTIONAL:
            found.checks.append(Check(name, "absent", f"not installed; only needed for {OPTIONAL[name]}"))


def _extension(found: Diagnosis) -> None:
    from mrsi_fast.engine.native import amx_obstacle
    from mrsi_fast.ops import _native, status

    found.build, found.kernels = _native.build_info(), status()
    try:
        loaded, reason = _native.module() is not None, _native.reason()
    except RuntimeError as error:
        found.checks.append(Check("native extension", "failed", str(error)))
        return
    isas = ", ".join(found.build.get("isas", ())) or "unknown instruction sets"
    detail = f"compiled for {isas}; OpenMP {'on' if found.build.get('openmp') else 'off'}" if loaded else reason
    found.checks.append(Check("native extension", "ok" if loaded else "absent", detail))
    lacking = amx_obstacle()
    usable = lacking or "usable: what --engine auto takes"
    found.checks.append(Check("AMX engine", "absent" if lacking else "ok", usable))
    cuda = found.build.get("cuda", {})
    archs = ", ".join(cuda.get("archs", ()))
    text = f"compiled for {archs}" if cuda.get("built") else f"not compiled: {cuda.get('reason', 'no extension')}"
    found.checks.append(Check("CUDA kernels", "ok" if cuda.get("built") else "absent", text))


def _gpu(found: Diagnosis) -> None:
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        found.checks.append(Check("GPU", "ok", names))
    elif torch.version.cuda is None:
        found.checks.append(Check("GPU", "absent", "this torch is built without CUDA; the CPU is used"))
    else:
        found.checks.append(Check("GPU", "absent", "torch finds no NVIDIA GPU or driver; the CPU is used"))
    if "triton" in found.versions:
        importable = importlib.util.find_spec("triton") is not None and torch.cuda.is_available()
        found.checks.append(
            Check("Triton kernels", "ok" if importable else "absent", "usable" if importable else "need an NVIDIA GPU")
        )


def _machine(found: Diagnosis) -> None:
    threads, reason = usable_cpus()
    found.checks.append(Check("CPU threads", "ok", f"{threads} ({reason})"))
    free = _free_memory_gib()
    if free is not None:
        found.checks.append(Check("memory", "ok", f"{free:.1f} GiB free{', low' if free < 1 else ''}"))


def _free_memory_gib() -> float | None:
    """Memory that can be had without swapping (Linux), or None where it is not known."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) / 2**20
    except (OSError, StopIteration, ValueError):
        return None


def _weights(found: Diagnosis, model: Path | None) -> None:
    from mrsi_fast.models.pretrained import ModelFolderError, load_pretrained

    try:
        pretrained = load_pretrained(model)
    except ModelFolderError as error:
        found.checks.append(Check("weights", "failed", str(error)))
        return
    millions = sum(parameter.numel() for parameter in pretrained.network.parameters()) / 1e6
    low, high = pretrained.config.trained_voxel_mm
    detail = (
        f"{pretrained.config.name}, {millions:.2f} M parameters, sha256 {pretrained.sha256[:12]}..., "
        f"trained on LR voxels of {low:g} to {high:g} mm"
    )
    found.checks.append(Check("weights", "ok", detail))


def _self_test(found: Diagnosis, model: Path | None) -> None:
    """Super-resolves a small map by 2 in one step: the whole path from maps to maps, with what is installed here."""
    if not found.can_run:
        found.checks.append(Check("self-test", "failed", "not run, because of the failures above"))
        return
    import numpy as np

    from mrsi_fast import SuperResolver

    x, y = np.meshgrid(np.linspace(-1, 1, 12), np.linspace(-1, 1, 10), indexing="ij")
    lr = (8.0 * np.exp(-2 * (x**2 + y**2)))[..., None].astype(np.float32)
    start = time.perf_counter()
    try:
        resolver = SuperResolver.from_pretrained(model, threads=usable_cpus()[0])
        result = resolver({"tNAA": (lr, np.diag([10.0, 10.0, 10.0, 1.0]))}, scale=2, samples=0)
        mean = result.mean
    except Exception as error:  # whatever is wrong here, the doctor's task is to say so
        found.checks.append(Check("self-test", "failed", f"{type(error).__name__}: {error}"))
        return
    seconds = time.perf_counter() - start
    sound = mean.shape == (1, 24, 20, 1) and np.isfinite(mean).all() and abs(mean.mean() / lr.mean() - 1) < 0.2
    detail = f"12x10 map to 24x20 in {seconds:.1f} s" if sound else "the resulting map is implausible"
    found.checks.append(Check("self-test", "ok" if sound else "failed", detail))
    found.engine = resolver.explain()


def environment() -> str:
    """One line about the machine, without its name."""
    return f"{platform.system()} {platform.machine()}, Python {sys.version.split()[0]}"
