"""Tracks beside the evaluation on simulated heads, each with files of its own: measured scans, measured T1 images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mrsi_fast.evaluation import guided, truncation, whole_brain
from mrsi_fast.evaluation.tables import plain
from mrsi_fast.files import write_text
from mrsi_fast.preparation import AcquisitionSettings
from mrsi_fast.resolver import SuperResolver


def evaluate_truncated(
    scans: Sequence[Path],
    output: Path,
    resolver: SuperResolver,
    anatomy: Path | None = None,
    acquisition: AcquisitionSettings | None = None,
) -> str:
    """Measured scans, cut by 2 and brought back (``truncation``), to ``truncation.json`` and ``truncation.md``.

    Returns:
        The tables as Markdown.

    Raises:
        MapInputError: A scan cannot be used.
    """
    rows = [row for scan in scans for row in truncation.truncation_rows(Path(scan), resolver, anatomy, acquisition)]
    return _write(output, "truncation", resolver, rows, truncation.truncation_table(rows), {})


def evaluate_guidance(
    folders: Sequence[Path],
    output: Path,
    resolver: SuperResolver,
    preset: str,
    scales: Sequence[int],
    seed: int,
    progress: guided.Progress | None = None,
) -> str:
    """Heads with a measured T1 (``guided``), to ``measured_t1.json`` and ``measured_t1.md``.

    Returns:
        The tables as Markdown.

    Raises:
        MapInputError: A folder holds no such head.
        ConfigError: There is no such preset.
    """
    rows = guided.guidance_rows(folders, resolver, preset, scales, seed, progress)
    return _write(output, "measured_t1", resolver, rows, guided.guidance_table(rows), {"seed": seed})


def evaluate_whole_brains(
    output: Path,
    resolver: SuperResolver,
    preset: str,
    heads: int,
    seed: int,
    anatomy: bool,
    progress: guided.Progress | None = None,
) -> str:
    """Whole brains refined in all directions (``whole_brain``), to ``whole_brain_PRESET.json`` and ``.md``.

    Returns:
        The table as Markdown.

    Raises:
        ConfigError: There is no such preset, or its heads are missing.
    """
    rows = whole_brain.whole_brain_rows(resolver, preset, heads, seed, anatomy, progress)
    table = whole_brain.whole_brain_table(rows)
    return _write(output, f"whole_brain_{preset}", resolver, rows, table, {"seed": seed})


def _write(
    output: Path, name: str, resolver: SuperResolver, rows: list[dict[str, Any]], table: str, settings: dict[str, Any]
) -> str:
    pretrained = resolver.pretrained
    model = {"name": pretrained.config.name, "sha256": pretrained.sha256}
    text = f"Model: {model['name']} (sha256 {model['sha256'][:12]}).\n\n{table}\n"
    output.mkdir(parents=True, exist_ok=True)
    facts = {"model": model, "settings": settings, "rows": rows}
    write_text(output / f"{name}.json", json.dumps(plain(facts), indent=1) + "\n")
    write_text(output / f"{name}.md", text)
    return text
