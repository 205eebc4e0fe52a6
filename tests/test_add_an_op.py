"""The recipe of docs/add_an_op.md, followed to the letter in a copy of the sources, gives an operation that works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mrsi_fast import ops
from mrsi_fast.ops import _native, _schemas

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "add_an_op.md").read_text(encoding="utf-8")
STEP = re.compile(r"<!-- (new|in): (\S+)(?: after: (.+?))? -->\n```\w+\n(.*?)```", re.DOTALL)


def follow(root: Path) -> None:
    """Do what the page says: write the new files, add the lines after the ones that it names."""
    steps = STEP.findall(PAGE)
    assert len(steps) > 8
    for kind, name, anchor, text in steps:
        path = root / name
        if kind == "new":
            assert not path.exists(), f"{name} is there already"
            path.write_text(text)
            continue
        lines = path.read_text().split("\n")
        assert lines.count(anchor) == 1, f"{name} holds the line {anchor!r} {lines.count(anchor)} times"
        lines[lines.index(anchor) + 1 : lines.index(anchor) + 1] = text.rstrip("\n").split("\n")
        path.write_text("\n".join(lines))
    names = root / "mrsi_fast" / "ops" / "__init__.py"
    names.write_text(names.read_text().replace('"self_attention", ', '"self_attention", "soft_threshold", '))


@pytest.mark.slow
@pytest.mark.skipif(_native.module() is None, reason=_native.reason())
@pytest.mark.skipif(shutil.which("ccache") is None, reason="without ccache all kernels would be compiled again")
def test_the_recipe_works(tmp_path: Path) -> None:
    for folder in ("mrsi_fast", "kernels", "csrc", "tests/support", "tests/ops"):
        ignored = shutil.ignore_patterns("*.so", "__pycache__", *(["kernels"] if folder == "mrsi_fast" else []))
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    (tmp_path / "mrsi_fast" / "kernels").symlink_to("../kernels")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    follow(tmp_path)
    environment = {**os.environ, "MRSI_FAST_CUDA": "0", "PYTHONPATH": str(tmp_path)}
    for command in (
        [sys.executable, "csrc/build.py", "--inplace"],
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/ops/test_soft_threshold.py"],
    ):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout and "failed" not in done.stdout


def test_the_table_has_every_operation_and_says_what_has_a_kernel() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE))
    names = {name for name in _schemas.SCHEMAS if not name.endswith(("_backward", "_out"))}
    assert set(rows) == names
    for name in names:
        _, *cells, _ = rows[name].split(" | ")
        implementations = {one.backend: one for one in ops._dispatch._implementations[name]}
        for backend, cell in zip(("native", "cuda", "triton"), cells, strict=True):
            assert ("forward" in cell) == (backend in implementations), f"{name}: {backend}"
            backward = backend in implementations and implementations[backend].backward is not None
            assert ("backward" in cell) == backward, f"{name}: backward of {backend}"
