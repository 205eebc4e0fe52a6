"""What a wheel holds, and that it imports away from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mrsi_fast

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel without compiled code, from a copy of the sources that has lost the symlink mrsi_fast/kernels."""
    pytest.importorskip("setuptools")
    pytest.importorskip("pybind11")
    source = tmp_path_factory.mktemp("checkout") / "mrsi_fast"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    for folder in ("mrsi_fast", "kernels", "csrc"):
        ignored = shutil.ignore_patterns(
            "*.so", "_build_info.json", "__pycache__", "*.pyc", *(["kernels"] if folder != "kernels" else [])
        )
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(source / "dist"),
        str(source),
    ]
    run = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "MRSI_FAST_NATIVE": "0"}
    )
    assert run.returncode == 0, run.stdout + run.stderr
    (built,) = (source / "dist").glob("*.whl")
    return built


def test_holds_every_module_and_data_file(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside in (("mrsi_fast", "mrsi_fast"), ("kernels", "mrsi_fast/kernels")):
        files = {path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder).rglob("*") if path.is_file()}
        wanted = {f"{inside}/{name}" for name in files if "__pycache__" not in name and not name.startswith("kernels/")}
        built = {"mrsi_fast/_build_info.json"} | {name for name in wanted if name.endswith((".so", ".pyd"))}
        assert wanted - built <= held


def test_holds_nothing_else(wheel):
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert all(name.startswith("mrsi_fast/") for name in names)
    assert wheel.name.endswith("-py3-none-any.whl")  # no compiled code was asked for


def test_imports_away_from_the_checkout(wheel, tmp_path):
    target = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(target)
    code = "import mrsi_fast, mrsi_fast.kernels, mrsi_fast.ops; print(mrsi_fast.__file__, mrsi_fast.__version__)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(target)},
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [str(target / "mrsi_fast" / "__init__.py"), mrsi_fast.__version__]


def test_console_script_is_declared(wheel):
    archive = zipfile.ZipFile(wheel)
    (entry,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
    assert "mrsi-fast = mrsi_fast.cli:main" in archive.read(entry).decode()
