"""Turns a finished training run into a shipped model folder: 16-bit weights and a card with measured figures.

    python training/ship.py runs/base card.md mrsi_fast/weights/base

The card is written by hand from the evaluation's tables; this script adds the facts that the run itself knows.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mrsi_fast.models.pretrained import CONFIG, load_pretrained, save_pretrained


def run_facts(run: Path) -> str:
    """Markdown list of what the run's log says: steps, slices, time, last validation."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    last = [line for line in lines if "loss" in line][-1]
    validation = [line for line in lines if "loss_0.5" in line][-1]
    figures = {key: round(value, 3) for key, value in validation.items() if key not in ("step", "slices")}
    return (
        f"- {last['step']} optimiser steps, {last['slices']} training slices.\n"
        f"- {last['seconds'] / 3600:.2f} h wall and {last['cpu_seconds'] / 3600:.2f} h CPU of the training process, "
        "on two cores of a shared x86-64 machine (AVX2). The process that simulates the batches comes on top.\n"
        f"- Last validation of the weight average during training: {figures}.\n"
    )


def main() -> None:
    """Reads the arguments and writes the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the finished run")
    parser.add_argument("card", type=Path, help="Markdown with a line '@RUN_FACTS@' where the run's facts go")
    parser.add_argument("target", type=Path, help="model folder to write")
    arguments = parser.parse_args()
    trained = load_pretrained(arguments.run / "model")
    settings = (arguments.run / "config.toml").read_text(encoding="utf-8")
    card = arguments.card.read_text(encoding="utf-8").replace("@RUN_FACTS@", run_facts(arguments.run))
    card += f"\n## Configuration\n\n```toml\n{settings}```\n"
    save_pretrained(arguments.target, trained.config, trained.network.state_dict(), card, half=True)
    shipped = load_pretrained(arguments.target)
    print(f"{arguments.target / CONFIG}: model '{shipped.config.name}', weights sha256 {shipped.sha256}")


if __name__ == "__main__":
    main()
