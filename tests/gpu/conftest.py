"""Tests of the kernels and of the captured loop on a GPU (``make gpu``); they skip where there is none.

``--dry-run`` runs them on CPU tensors, by the reference and without capture: it shows that the tests themselves work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch

from mrsi_fast import ops
from mrsi_fast.engine.eager import ieee_float32


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--dry-run", action="store_true", help="Run the GPU tests on CPU tensors.")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.config.getoption("--dry-run", default=False):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    return torch.device("cuda")


@pytest.fixture(autouse=True)
def _ieee() -> Iterator[None]:
    with ieee_float32():
        yield


@pytest.fixture(autouse=True)
def _by_the_reference(device: torch.device) -> Iterator[None]:
    """A dry run stands in for a GPU, so the kernels of the CPU stay out of it."""
    with ops.override(disable="native") if device.type == "cpu" else nullcontext():
        yield
