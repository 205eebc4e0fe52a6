"""What a machine is, for results that are kept: processor, memory, versions; never a host, a user or a path."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import mrsi_fast
from harness.records import TIMING, Run, processor
from mrsi_fast.ops import _native
from support.data import checkout

_PEERS = ("numpy", "onnx", "onnxruntime", "openvino", "ncnn", "MNN", "triton")
_FLAGS = ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")


def fingerprint(cpuinfo: Path = Path("/proc/cpuinfo"), meminfo: Path = Path("/proc/meminfo")) -> dict[str, Any]:
    """Processor, cores, caches, memory, instruction sets.

    Args:
        cpuinfo: Where Linux describes the processor; absent elsewhere.
        meminfo: Where it describes the memory.
    """
    facts = _fields(cpuinfo)
    flags = facts.get("flags", facts.get("Features", "")).split()
    total = re.match(r"(\d+) kB", _fields(meminfo).get("MemTotal", ""))
    family = [facts[name] for name in ("cpu family", "model", "stepping") if name in facts]
    extension = _native.module()
    return {
        "cpu": facts.get("model name") or platform.processor() or platform.machine(),
        "family": "/".join(family),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cache_kb": int(facts["cache size"].split()[0]) if "cache size" in facts else None,
        "memory_gb": round(int(total[1]) / 2**20) if total else None,
        "flags": [flag for flag in _FLAGS if flag in flags],
        "architecture": platform.machine(),
        "system": platform.system(),
        "isa": extension.isa() if extension else None,
    }


def slug(machine: dict[str, Any]) -> str:
    """Name of the machine's file: processor and number of CPUs."""
    return "-".join(re.findall(r"[a-z0-9]+", processor(machine).lower())) + f"-{machine['cpus']}cpu"


def this_run(rounds: int | None) -> Run:
    """The session that goes on: when, on which commit, with which versions.

    Args:
        rounds: Limit on rounds that was asked for.
    """
    versions = {
        "mrsi_fast": mrsi_fast.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    for name in _PEERS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return Run(
        started=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=_commit(),
        versions=versions,
        waiting=os.environ.get("OMP_WAIT_POLICY", "as OpenMP does by default"),
        rounds=rounds,
        code=_code(),
        timing=TIMING,
    )


def _fields(path: Path) -> dict[str, str]:
    """``name : value`` lines, the first of each name."""
    fields: dict[str, str] = {}
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return fields
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields


def _commit() -> str:
    try:
        described = ["git", "-C", str(checkout()), "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(described, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _code() -> str:
    """Digest of the package, the compiled extension included, and of the benchmarks.

    A commit would not do: uncommitted changes have none, and recording changes a file of the checkout.
    """
    package = Path(mrsi_fast.__file__).parent
    files = [*package.rglob("*.py"), *package.glob("_C*"), *(checkout() / "benchmarks").rglob("*.py")]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:12]
