"""Settings that the simulation tests share: the analytic head, with or without variation."""

from __future__ import annotations

from typing import Any

import pytest

from mrsi_fast.simulation.config import SimulationConfig


def phantom_settings(preset: str = "paper-like", **changes: dict[str, Any]) -> SimulationConfig:
    """A preset on the analytic head; ``changes`` are tables of settings, e.g. ``signal={"bias": 0.0}``."""
    values = SimulationConfig.preset(preset).model_dump()
    values["anatomy"] |= {"heads": "phantom", "split": "all", "tumour_masks": None}
    for table, entries in changes.items():
        values[table] = values[table] | entries if isinstance(entries, dict) else entries
    return SimulationConfig.parse(values)


NO_VARIATION = {"subject_sd": 0.0, "region_sd": 0.0, "gradient": 0.0, "texture_sd": (0.0, 0.0)}
NO_TUMOUR = {"probability": 0.0, "t1_only": 0.0}


@pytest.fixture
def settings() -> Any:
    return phantom_settings
