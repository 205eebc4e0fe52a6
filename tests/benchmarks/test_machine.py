"""Fingerprints and file names of machines: what they are, never whose."""

from __future__ import annotations

import getpass
import json
import os
import platform

import pytest

from harness.machine import fingerprint, slug, this_run

CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 79
model name\t: Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz
stepping\t: 1
cache size\t: 35840 KB
flags\t\t: fpu avx avx2 fma sse

processor\t: 1
model name\t: Another
"""


def test_what_linux_says(tmp_path):
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    (tmp_path / "meminfo").write_text("MemTotal:       67108864 kB\nMemFree: 1 kB\n")
    machine = fingerprint(tmp_path / "cpuinfo", tmp_path / "meminfo")
    assert machine["cpu"].startswith("Intel(R) Xeon(R)") and machine["family"] == "6/79/1"
    assert machine["flags"] == ["avx", "avx2", "fma"] and machine["memory_gb"] == 64 and machine["cache_kb"] == 35840
    assert slug({**machine, "cpus": 28}) == "intel-xeon-e5-2680-v4-28cpu"


def test_where_nothing_is_told(tmp_path):
    machine = fingerprint(tmp_path / "none", tmp_path / "none")
    assert machine["cpu"] and machine["flags"] == [] and machine["memory_gb"] is None


@pytest.mark.parametrize(
    ("cpu", "name"), [("AMD EPYC", "amd-epyc-2cpu"), ("Neoverse-N1", "neoverse-n1-2cpu"), ("A (TM)/B", "a-b-2cpu")]
)
def test_file_names(cpu, name):
    assert slug({"cpu": cpu, "cpus": 2}) == name


def test_nothing_tells_whose_machine_it_is():
    told = json.dumps([fingerprint(), this_run(3).model_dump()])
    private = {platform.node(), os.path.expanduser("~"), os.getcwd()}
    if getpass.getuser() not in ("root", "user"):
        private.add(getpass.getuser())
    assert not [word for word in private if len(word) > 2 and word in told]
