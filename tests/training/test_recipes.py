"""The recipes behind the shipped weights can still be read, and each simulates what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrsi_fast.training.config import TrainConfig

RECIPES = sorted((Path(__file__).parents[2] / "training").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_a_recipe_is_a_valid_configuration(path: Path) -> None:
    config = TrainConfig.load(path)
    v1 = path.stem in {f"stage{number}" for number in range(1, 6)}
    assert config.simulation.name == ("training" if v1 else "training-v2")
    assert config.model.spread == (not v1) and TrainConfig.parse(config.model_dump(mode="json")) == config
