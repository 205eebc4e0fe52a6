"""The number of threads follows the tightest limit: affinity, SLURM, OpenMP, cgroup v1 and v2."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mrsi_fast.cli.cpus import usable_cpus

HAVE = min(len(os.sched_getaffinity(0)), os.cpu_count() or 1) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def cgroup(root: Path, group: str, files: dict[str, str], v1: bool = False) -> tuple[Path, Path]:
    folder = root / "cgroup" / ("cpu" if v1 else "") / group.lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    membership = root / "self"
    membership.write_text(f"5:cpu,cpuacct:{group}\n" if v1 else f"0::{group}\n")
    return root / "cgroup", membership


def test_without_limits_it_is_the_affinity(tmp_path: Path) -> None:
    assert usable_cpus({}, tmp_path, tmp_path / "none")[0] == HAVE


@pytest.mark.parametrize(
    ("environ", "reason"),
    [({"SLURM_CPUS_PER_TASK": "1"}, "SLURM_CPUS_PER_TASK"), ({"OMP_NUM_THREADS": "1,2"}, "OMP_NUM_THREADS")],
)
def test_the_environment_lowers_it(tmp_path: Path, environ: dict[str, str], reason: str) -> None:
    count, why = usable_cpus(environ, tmp_path, tmp_path / "none")
    assert count == 1
    assert why == reason or HAVE == 1


@pytest.mark.parametrize("value", ["", "0", "many", "-3"])
def test_nonsense_in_the_environment_is_ignored(tmp_path: Path, value: str) -> None:
    assert usable_cpus({"SLURM_CPUS_PER_TASK": value}, tmp_path, tmp_path / "none")[0] == HAVE


@pytest.mark.parametrize(("quota", "expected"), [("50000 100000", 1), ("100000 100000", 1), ("max 100000", HAVE)])
def test_cgroup_v2_quota(tmp_path: Path, quota: str, expected: int) -> None:
    assert usable_cpus({}, *cgroup(tmp_path, "/job_7/step", {"cpu.max": quota}))[0] == expected


def test_quota_of_an_outer_group_counts(tmp_path: Path) -> None:
    cgroup(tmp_path, "/job", {"cpu.max": "100000 100000"})
    assert usable_cpus({}, *cgroup(tmp_path, "/job/step", {"cpu.max": "max 100000"}))[0] == 1


def test_group_path_of_the_host_seen_in_a_container(tmp_path: Path) -> None:
    root, membership = cgroup(tmp_path, "/", {"cpu.max": "100000 100000"})
    membership.write_text("0::/docker/0123\n")
    assert usable_cpus({}, root, membership)[0] == 1


@pytest.mark.parametrize(("quota", "expected"), [("100000", 1), ("-1", HAVE)])
def test_cgroup_v1_quota(tmp_path: Path, quota: str, expected: int) -> None:
    files = {"cpu.cfs_quota_us": f"{quota}\n", "cpu.cfs_period_us": "100000\n"}
    assert usable_cpus({}, *cgroup(tmp_path, "/job", files, v1=True))[0] == expected
