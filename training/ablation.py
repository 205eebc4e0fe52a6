"""Short runs that each leave one ingredient of mrsi-sim v2 or of its training out, all from the same weights.

    python training/ablation.py INITIAL_MODEL OUT [--steps 64]
    python training/one_step.py INITIAL_MODEL OUT/*/model -o one-step.md       # the runs side by side

Every run is that of ``stage6.toml`` with fewer steps: the same seed, so the same subjects, noise and withheld
conditions as far as the ingredient does not decide them. The weight average and the schedule are shortened in
proportion. A run that is interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from typing import Any

import tomli_w

from mrsi_fast.simulation.config import SimulationConfig
from mrsi_fast.training.loop import train

STAGE = Path(__file__).with_name("stage6.toml")

SIMULATION: dict[str, dict[str, tuple[str, ...]]] = {
    "texture": {
        "variation": (
            "subject_sd", "region_sd", "gradient", "texture_log", "texture_sd", "texture_scale_mm", "texture_shared",
            "texture_tail", "patch_sd", "patch_scale_mm", "contrast_sd", "rim",
        )
    },
    "noise": {"signal": ("bias", "noise", "excess", "excess_largest", "excess_field_sd", "noise_tail", "spikes")},
    "operator": {"signal": ("blur", "mismatch", "press_size", "press_edge_mm", "silent_background")},
    "guidance": {"guidance": ("lifelike",)},
}  # fmt: skip
"""Settings that an ingredient consists of; a run without it has those of mrsi-sim v1 (preset ``training``)."""

WITHOUT = ("nothing", *SIMULATION, "second-head", "v2")


def simulation(without: str) -> dict[str, Any]:
    """Settings of mrsi-sim for the run without an ingredient."""
    new, old = (SimulationConfig.preset(name).model_dump(mode="json") for name in ("training-v2", "training"))
    if without == "v2":
        return old
    for section, names in SIMULATION.get(without, {}).items():
        new[section].update({name: old[section][name] for name in names})
    return new


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}  # TOML has no null
    return value


def configuration(without: str, initial: Path, folder: Path, steps: int) -> dict[str, Any]:
    """The sixth run's configuration, shortened, without an ingredient."""
    settings = tomllib.loads(STAGE.read_text(encoding="utf-8"))
    share = steps / settings["steps"]
    optimiser = settings["optimiser"]
    optimiser.update(warmup_steps=min(8, steps), cooldown_steps=steps // 2, ema_half_life=4000.0 * share)
    if without == "second-head":
        del settings["model"]["spread"], settings["loss"]["spread"]
    settings.update(
        output=str(folder), initial=str(initial), steps=steps, validation_steps=steps, simulation=simulation(without)
    )
    return _without_none(settings)


def main() -> None:
    """Run every variation, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("initial", type=Path, help="model folder that every run starts from")
    parser.add_argument("output", type=Path, help="folder of the runs")
    parser.add_argument("--steps", type=int, default=64, help="of 32 slices; the same in every run")
    parser.add_argument("--only", nargs="*", choices=WITHOUT, default=WITHOUT)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for without in arguments.only:
        folder = (arguments.output / f"without-{without}").resolve()
        settings = configuration(without, arguments.initial.resolve(), folder, arguments.steps)
        path = arguments.output / f"without-{without}.toml"
        path.write_text(tomli_w.dumps(settings), encoding="utf-8")
        print(f"without {without}: {path}", flush=True)
        train(path, lambda stage, done, of: print(stage, done, of, flush=True))


if __name__ == "__main__":
    main()
