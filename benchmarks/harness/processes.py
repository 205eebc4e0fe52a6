"""Commands as processes of their own, in the environment of a user."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from support.data import checkout

_NOT_A_USERS = ("PYTHONDONTWRITEBYTECODE", "PYTHONPROFILEIMPORTTIME", "PYTHONTRACEMALLOC", "PYTHONDEVMODE")
"""Variables of test environments. Without bytecode every process would compile our sources but not PyTorch's, whose
bytecode was written when it was installed."""


def run_python(words: Sequence[str]) -> None:
    """Runs Python with these arguments from the root of the checkout.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_A_USERS}
    subprocess.run([sys.executable, *words], cwd=checkout(), env=environment, check=True, capture_output=True)
