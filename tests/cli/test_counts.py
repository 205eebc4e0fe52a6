"""Every count has bounds: on the command line and in every configuration that a file may fill."""

from __future__ import annotations

import inspect
from typing import Any, get_args

import pytest

from mrsi_fast.cli.app import app
from mrsi_fast.config import Settings
from mrsi_fast.evaluation.plan import EvaluationConfig
from mrsi_fast.models.pretrained import FolderConfig
from mrsi_fast.simulation.config import SimulationConfig
from mrsi_fast.training.config import TrainConfig


def options() -> list[tuple[str, Any]]:
    """Name and ``typer.Option`` of every option that is a whole number, of every command."""
    found = []
    for command in app.registered_commands:
        assert command.callback is not None
        for name, parameter in inspect.signature(command.callback, eval_str=True).parameters.items():
            kind, *facts = get_args(parameter.annotation) or (parameter.annotation,)
            if kind is int or int in get_args(kind):
                found.append((f"{command.callback.__name__} --{name.replace('_', '-')}", facts[0]))
    return found


def test_every_whole_number_of_every_command_has_a_smallest_and_a_largest_value() -> None:
    counts = options()
    assert len(counts) > 10
    assert not [name for name, option in counts if option.min is None or option.max is None]


@pytest.mark.parametrize("settings", [TrainConfig, SimulationConfig, EvaluationConfig, FolderConfig])
def test_every_whole_number_of_a_configuration_has_a_smallest_and_a_largest_value(settings: type[Settings]) -> None:
    loose = [where for where, node in nodes(settings.model_json_schema()) if is_loose(node)]
    assert not loose


def nodes(tree: Any, where: str = "") -> list[tuple[str, dict[str, Any]]]:
    if isinstance(tree, list):
        return [one for number, part in enumerate(tree) for one in nodes(part, f"{where}/{number}")]
    if not isinstance(tree, dict):
        return []
    return [(where, tree)] + [one for key, part in tree.items() for one in nodes(part, f"{where}/{key}")]


def is_loose(node: dict[str, Any]) -> bool:
    least, most = {"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}
    return node.get("type") == "integer" and not (least & set(node) and most & set(node))
