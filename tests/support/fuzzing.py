"""How many random inputs a property test takes: a few in the default suite, many in ``make fuzz``."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

VARIABLE = "MRSI_FAST_FUZZ_EXAMPLES"
"""Environment variable: examples of each property test."""


def examples(count: int) -> settings:
    """Settings of a property test with this many examples, or as many as ``make fuzz`` asks for, and no deadline."""
    return settings(
        max_examples=int(os.environ.get(VARIABLE, count)),
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
