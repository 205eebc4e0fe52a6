"""Importing the package loads nothing: commands start fast, and `import mrsi_fast` cannot fail for a missing extra."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_a_command_loads_nothing_that_it_does_not_need(tmp_path: Path):
    """From command to files: no pictures, no compiler, no statistics; each costs a user a part of a second."""
    folder = Path(__file__).parents[1] / "examples" / "simulated_glioma"
    words = ["mrsi-fast", "sr", "-q", "-i", str(folder), "-o", str(tmp_path / "out"), "--samples", "0"]
    code = (
        "import sys\nfrom mrsi_fast.cli import main\n"
        f"sys.argv = {words!r}\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print(*sys.modules, sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split()}
    unneeded = {"scipy.ndimage", "scipy.special", "scipy.stats", "skimage", "matplotlib", "PIL"}
    unneeded |= {"triton", "torch._dynamo", "torch._inductor", "rich", "sympy", "dask", "distributed"}
    assert not unneeded & loaded, unneeded & loaded
