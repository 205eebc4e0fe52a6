"""How benchmarks are timed, kept, compared and told; run from ``benchmarks/`` as ``python -m harness``.

``support``, which tests and benchmarks share, lies in ``tests/``.
"""

import sys
from pathlib import Path

_TESTS = str(Path(__file__).resolve().parents[2] / "tests")
if _TESTS not in sys.path:
    sys.path.append(_TESTS)
