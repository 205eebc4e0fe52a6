"""Run header, guard against silent fallbacks, and a seed of its own for every test."""

from __future__ import annotations

import os
import random
import signal
import zlib

import hypothesis
import numpy as np
import pytest
import torch

from support.backends import describe, missing_required

# The same examples in every run: a rare one that fails belongs into a search of one's own (HYPOTHESIS_PROFILE=search).
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.register_profile("search")
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for a job in the background: tests press Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)  # the workers share the cores
    missing = missing_required()
    if missing:
        reasons = "; ".join(f"{backend}: {reason}" for backend, reason in missing.items())
        pytest.exit(f"MRSI_FAST_REQUIRE asks for what is not here: {reasons}.", returncode=4)


def pytest_report_header(config: pytest.Config) -> list[str]:
    return describe()


@pytest.fixture(autouse=True)
def seed(request: pytest.FixtureRequest) -> int:
    """The same seed for a test in every run, whatever runs before it."""
    value = zlib.crc32(request.node.nodeid.encode())
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)
    return value
