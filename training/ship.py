"""Turns a finished training run into a shipped model folder: 16-bit weights and a card with measured figures.

    python training/ship.py runs/stage6 --machine "one GPU" --card training/base_card.md --tables results
        --curve CURVE.png --logs training/logs --target FOLDER

The card's words are written by hand; its figures come from files. A line ``@run@`` becomes what the runs' logs say, a
line ``@include FILE: HEADING@`` the section under that heading of a Markdown file in the folder of tables, a line
``@include FILE@`` the whole of it.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mrsi_fast.models.pretrained import CONFIG, load_pretrained, save_pretrained

CURVES = ("gain_db_x2", "gain_db_x4", "gain_db_x8")


def read_log(run: Path) -> list[dict[str, Any]]:
    """Lines of a run's log."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def run_facts(runs: Sequence[Path], machine: str) -> str:
    """Markdown list of what the runs' logs say: steps, slices, time, last validation."""
    lines = []
    for run in runs:
        log = read_log(run)
        last = [line for line in log if "loss" in line][-1]
        validation = [line for line in log if CURVES[0] in line][-1]
        figures = ", ".join(f"{key} {value:.3f}" for key, value in validation.items() if key not in ("step", "slices"))
        passes = tomllib.loads((run / "config.toml").read_text(encoding="utf-8")).get("passes", 1)
        often = f" (each simulated one up to {passes} times)" if passes > 1 else ""
        wall, cpu = last["seconds"] / 3600, last["cpu_seconds"] / 3600
        lines.append(
            f"- {run.name}: {last['step']} optimiser steps, {last['slices']} training slices{often}, {wall:.2f} h wall "
            f"and {cpu:.2f} h CPU of the training process (the process that simulates the batches comes on top) on "
            f"{machine}. Last validation of the weight average (step {validation['step']}): {figures}."
        )
    return "\n".join(lines)


def section(text: str, heading: str) -> str:
    """The lines under a Markdown heading, up to the next heading.

    Raises:
        ValueError: There is no such heading.
    """
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"There is no heading '{heading}'.")
    return found.group(1).strip()


def fill(card: str, runs: Sequence[Path], tables: Path, machine: str) -> str:
    """Replaces the card's ``@run@`` and ``@include ...@`` lines."""

    def include(match: re.Match[str]) -> str:
        file, heading = match.group(1), match.group(2)
        try:
            text = (tables / file).read_text(encoding="utf-8")
            return section(text, heading) if heading else text.strip()
        except (OSError, ValueError) as error:
            sys.exit(f"The card includes '{heading}' of {tables / file}, which cannot be had: {error}")

    card = card.replace("@run@", run_facts(runs, machine))
    return re.sub(r"^@include ([^:@\n]+)(?:: (.+))?@$", include, card, flags=re.MULTILINE)


def learning_curve(runs: Sequence[Path], path: Path) -> None:
    """Validation gain over the measured-data estimate against training slices, one line a factor, runs end to end."""
    figure = Figure(figsize=(6.0, 3.6), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    start = 0
    for run in runs:
        points = [line for line in read_log(run) if CURVES[0] in line]
        for number, key in enumerate(CURVES):
            label = f"x{key[-1]}" if start == 0 else None
            slices = [start + line["slices"] for line in points]
            axes.plot(slices, [line[key] for line in points], "o-", color=f"C{number}", markersize=3, label=label)
        start += read_log(run)[-1]["slices"]
        axes.axvline(start, color="0.8", linewidth=0.8)
    axes.set_xlabel("training slices (grey: end of a run; each run validates on its own training distribution)")
    axes.set_ylabel("gain over the measured-data estimate, dB")
    axes.xaxis.label.set_fontsize(7.5)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    """Reads the arguments and writes the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of the runs in their order; the last is shipped")
    parser.add_argument("--card", type=Path, required=True, help="Markdown with @run@ and @include ...@ lines")
    parser.add_argument("--tables", type=Path, required=True, help="folder of the Markdown that the card includes")
    parser.add_argument("--machine", required=True, help="what the runs ran on, for the card")
    parser.add_argument("--curve", type=Path, help="PNG of the learning curve to write")
    parser.add_argument("--logs", type=Path, help="folder for copies of the runs' logs")
    parser.add_argument("--target", type=Path, required=True, help="model folder to write")
    arguments = parser.parse_args()
    trained = load_pretrained(arguments.runs[-1] / "model")
    card = fill(arguments.card.read_text(encoding="utf-8"), arguments.runs, arguments.tables, arguments.machine)
    settings = (arguments.runs[-1] / "config.toml").read_text(encoding="utf-8")
    settings = re.sub(r'^(output|initial) = ".*?([^/]+(?:/model)?)"$', r'\1 = "runs/\2"', settings, flags=re.MULTILINE)
    card += f"\n## Configuration\n\n```toml\n{settings}```\n"
    save_pretrained(arguments.target, trained.config, trained.network.state_dict(), card, half=True)
    if arguments.curve is not None:
        learning_curve(arguments.runs, arguments.curve)
    if arguments.logs is not None:
        arguments.logs.mkdir(parents=True, exist_ok=True)
        for run in arguments.runs:
            shutil.copyfile(run / "log.jsonl", arguments.logs / f"{run.name}.jsonl")
    shipped = load_pretrained(arguments.target)
    print(f"{arguments.target / CONFIG}: model '{shipped.config.name}', weights sha256 {shipped.sha256}")


if __name__ == "__main__":
    main()
