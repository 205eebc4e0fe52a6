"""docs/architecture.md shows the layers that the import contracts hold."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_figure_has_the_layers_of_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (one["layers"] for one in contracts if one["type"] == "layers")
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    figure = re.search(r"```\n(cli .*?)```", page, re.DOTALL)
    assert figure is not None
    assert [re.split(r"\s{2,}", line)[0] for line in figure[1].splitlines()] == layers


def test_the_layers_are_the_modules_of_the_package() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (one["layers"] for one in contracts if one["type"] == "layers")
    named = {name for layer in layers for name in layer.split(" | ")}
    package = ROOT / "mrsi_fast"
    there = {path.stem for path in package.glob("*.py")} | {path.parent.name for path in package.glob("*/__init__.py")}
    assert named == there - {"__init__"}


def test_no_import_goes_against_the_figure() -> None:
    """The graph that import-linter draws (by grimp) next to the figure: every arrow points to a lower line."""
    grimp = pytest.importorskip("grimp", reason="import-linter is not installed")
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    figure = re.search(r"```\n(cli .*?)```", page, re.DOTALL)
    assert figure is not None
    line_of = {
        name: number
        for number, line in enumerate(figure[1].splitlines())
        for name in re.split(r"\s{2,}", line)[0].split(" | ")
    }
    graph = grimp.build_graph("mrsi_fast", cache_dir=None)
    arrows, against = 0, []
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            ends = [module.split(".")[1] for module in (importer, imported) if "." in module]
            if len(ends) == 2 and ends[0] != ends[1]:
                arrows += 1
                against += [f"{importer} -> {imported}"] if line_of[ends[0]] >= line_of[ends[1]] else []
    assert arrows > 200 and not against, "\n".join(against)
