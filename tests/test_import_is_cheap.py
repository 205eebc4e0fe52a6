"""Importing the package loads nothing: commands start fast, and `import mrsi_fast` cannot fail for a missing extra."""

from __future__ import annotations

import subprocess
import sys

import pytest

import mrsi_fast


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; before = set(sys.modules); {statement}; print(*sorted(set(sys.modules) - before), sep='\\n')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize("statement", ["import mrsi_fast", "import mrsi_fast.kernels"])
def test_import_loads_nothing_heavy(statement):
    heavy = {"torch", "numpy", "nibabel", "scipy", "skimage", "matplotlib", "pydantic", "rich", "typer", "triton"}
    loaded = loaded_after(statement)
    assert not heavy & loaded
    ours = {name for name in loaded if name.startswith("mrsi_fast.")}
    assert ours <= {"mrsi_fast._version", "mrsi_fast.kernels"}


def test_public_names():
    assert set(mrsi_fast.__all__) <= set(dir(mrsi_fast))
    with pytest.raises(AttributeError, match="no attribute 'SuperResolve'; its public names are"):
        _ = mrsi_fast.SuperResolve


@pytest.mark.parametrize("name", sorted(set(mrsi_fast.__all__) - {"__version__"}))
def test_every_public_name_resolves(name):
    assert callable(getattr(mrsi_fast, name))
