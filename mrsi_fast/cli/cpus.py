"""How many CPU threads this process may use: what the scheduler, the container and the user allow, not what exists."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path


def usable_cpus(
    environ: Mapping[str, str] = os.environ,
    cgroups: Path = Path("/sys/fs/cgroup"),
    membership: Path = Path("/proc/self/cgroup"),
) -> tuple[int, str]:
    """The smallest of the limits that apply to this process.

    Args:
        environ: Where ``OMP_NUM_THREADS`` and ``SLURM_CPUS_PER_TASK`` are looked up.
        cgroups: Where control groups are mounted.
        membership: The file that names this process's control group.

    Returns:
        The number of threads, at least 1, and the limit that it comes from.
    """
    limits = [(len(os.sched_getaffinity(0)), "CPU affinity")] if hasattr(os, "sched_getaffinity") else []
    limits += [(os.cpu_count() or 1, "number of CPUs")]
    for name in ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS"):
        first = environ.get(name, "").split(",")[0].strip()  # OMP_NUM_THREADS may list one number per nesting level
        if first.isdigit() and int(first) > 0:
            limits.append((int(first), name))
    limits += [(max(1, math.ceil(quota)), "cgroup CPU quota") for quota in _quotas(cgroups, membership)]
    return min(limits, key=lambda limit: limit[0])


def _quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    """CPU quotas (in CPUs) of this process's control group and of every group around it, cgroup v2 and v1."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = cgroups / "cpu" if controllers else cgroups
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            yield from _quota_of(folder)
            if folder == base:
                break


def _quota_of(folder: Path) -> Iterator[float]:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return
    if quota.lstrip("-").isdigit() and int(quota) > 0 and period.isdigit() and int(period) > 0:
        yield int(quota) / int(period)
