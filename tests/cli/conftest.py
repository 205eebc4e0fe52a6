"""A model small enough for tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights: its maps mean nothing, all else is as with trained ones."""
    from support.tiny import tiny_model

    return tiny_model(tmp_path_factory.mktemp("model") / "random")
