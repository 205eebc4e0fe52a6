"""Measures what a scan's evidence is worth where the truth is known: alignment, refusal of images, sign of the test.

python benchmarks/evidence.py alignment HEADS...  --draws 10     a T1 displaced by known rigid transforms
python benchmarks/evidence.py images HEADS...                    another person's T1, mirrored, 15 mm off, upside down
python benchmarks/evidence.py selftest --preset realistic-3T     verdicts and --shrink auto against true gains

HEADS are folders with a measured T1 (``mrsi-fast evaluate --guided-by-measured-t1``). One JSON line a run on stdout, a
summary at the end on stderr. No timing is taken here.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrsi_fast import SuperResolver
from mrsi_fast.evaluation.cases import simulated_case
from mrsi_fast.evaluation.guided import mean_gain, measured_subject, rigid
from mrsi_fast.evaluation.measured_head import MeasuredHead, head_folders, read_head
from mrsi_fast.mrsi.mapset import MapSet
from mrsi_fast.simulation import SimulationConfig
from mrsi_fast.simulation.volume import SimulatedSubject, simulate_subject

Row = dict[str, Any]
LARGEST_MM = LARGEST_DEG = 8.0
RUN: dict[str, Any] = {"samples": 0, "keep_filled": True, "noise_scale": 1.0}


def random_rigid(rng: np.random.Generator) -> NDArray[np.float64]:
    """A rigid transform [4, 4]: uniform lengths up to 8 mm and 8 degrees in uniform directions."""
    shift, turn = rng.normal(size=(2, 3))
    shift *= rng.uniform(0, LARGEST_MM) / np.linalg.norm(shift)
    turn *= rng.uniform(0, LARGEST_DEG) / np.linalg.norm(turn)
    return rigid(shift, turn)


def noisy(maps: MapSet, brain: NDArray[np.bool_], share: float, rng: np.random.Generator) -> MapSet:
    """The maps with white noise of a share of each map's median in the brain, and the CRLB that states it."""
    levels = np.median(maps.maps[:, brain], axis=1)
    sd = share * np.maximum(levels, 1e-3)[:, None, None, None]
    values = (maps.maps + sd * rng.normal(size=maps.maps.shape)).astype(np.float32)
    crlb = np.minimum(100 * sd / np.maximum(np.abs(values), 1e-6), 998).astype(np.float32)
    return replace(maps, maps=values, crlb=crlb, mask=brain)


def problems(head: MeasuredHead, scales: list[int], shares: list[float], seed: int) -> Iterator[Row]:
    """Noisy maps of a head, with what is needed to score results of it."""
    subject = measured_subject(head, "paper-like", 0, [(f, f) for f in scales])
    rng = np.random.default_rng(seed)
    keep = [index for index, name in enumerate(subject.names) if name != "2HG"]
    for factor in scales:
        case = simulated_case(subject, (factor, factor))
        blocks = case.brain.reshape(case.brain.shape[0] // factor, factor, -1, factor, case.brain.shape[2])
        brain = blocks.mean(axis=(1, 3)) > 0.5
        for share in shares:
            maps = noisy(case.measured.select([subject.names[k] for k in keep]), brain, share, rng)
            yield {"factor": factor, "noise": share, "maps": maps, "truth": case.truth[keep], "brain": case.brain}


def gain(problem: Row, result: Any) -> float:
    """Mean over maps of the gain over zero-filling, dB."""
    pairs = zip(problem["truth"], result.mean, result.zero_fill, strict=True)
    return float(np.mean([mean_gain(t, m, z, problem["brain"]) for t, m, z in pairs]))


def placement_error(result: Any, moved: NDArray[np.float64]) -> tuple[float, float]:
    """Distance at the centre of the maps (mm) and angle (degrees) that an alignment leaves of a displacement."""
    found = result.evidence.guidance.alignment.placement
    left = found.matrix @ moved
    centre = np.array([*found.centre_mm, 1.0])
    angle = np.rad2deg(np.arccos(np.clip((np.trace(left[:3, :3]) - 1) / 2, -1, 1)))
    return float(np.linalg.norm((left @ centre - centre)[:3])), float(angle)


def alignment(arguments: argparse.Namespace, resolver: SuperResolver) -> Iterator[Row]:
    """A right T1 in wrong places."""
    rng = np.random.default_rng(arguments.seed)
    for head in _heads(arguments):
        for problem in problems(head, arguments.scales, arguments.noise, arguments.seed):
            call = RUN | {"scale": problem["factor"]}
            facts = {"head": head.name, "factor": problem["factor"], "noise": problem["noise"]}
            there = (head.t1, head.affine)
            true = resolver(problem["maps"], anatomy=there, evidence="off", align="off", **call)
            plain = resolver(problem["maps"], evidence="off", **call)
            facts |= {"gain_true_place": gain(problem, true), "gain_unguided": gain(problem, plain)}
            for _ in range(arguments.draws):
                moved = random_rigid(rng)
                result = resolver(problem["maps"], anatomy=(head.t1, moved @ head.affine), **call)
                left_mm, left_deg = placement_error(result, moved)
                used = result.evidence.guidance.used
                yield facts | {"left_mm": left_mm, "left_deg": left_deg, "used": used, "gain": gain(problem, result)}


def images(arguments: argparse.Namespace, resolver: SuperResolver) -> Iterator[Row]:
    """Wrong images."""
    heads = _heads(arguments)
    for index, head in enumerate(heads):
        other = heads[(index + 1) % len(heads)]
        wrong = {
            "another person": (other.t1, other.affine),
            "mirrored": (head.t1, np.diag([-1.0, 1, 1, 1]) @ head.affine),
            "15 mm off in z": (head.t1, rigid((0, 0, 15)) @ head.affine),
            "15 mm off in -z": (head.t1, rigid((0, 0, -15)) @ head.affine),
            "upside down": (head.t1, np.diag([1.0, 1, -1, 1]) @ head.affine),
        }
        for problem in problems(head, arguments.scales, arguments.noise, arguments.seed):
            call = RUN | {"scale": problem["factor"]}
            plain = gain(problem, resolver(problem["maps"], evidence="off", **call))
            for name, image in wrong.items():
                result = resolver(problem["maps"], anatomy=image, **call)
                guidance = result.evidence.guidance
                yield {
                    "head": head.name,
                    "factor": problem["factor"],
                    "noise": problem["noise"],
                    "image": name,
                    "used": guidance.used,
                    "gain_unguided": plain,
                    "gain": gain(problem, result),
                    "error_with": guidance.error_with,
                    "error_without": guidance.error_without,
                    "explained": guidance.alignment.explained,
                    "distance_mm": guidance.alignment.placement.distance_mm,
                    "angle_deg": guidance.alignment.placement.angle_deg,
                }


def selftest(arguments: argparse.Namespace, resolver: SuperResolver) -> Iterator[Row]:
    """The sign of the self-test, and shrunk maps, against the truth of simulated subjects."""
    config = SimulationConfig.preset(arguments.preset)
    config = config.model_copy(update={"volume": config.volume.model_copy(update={"slices": arguments.slices})})
    for number in range(arguments.subjects):
        subject: SimulatedSubject = simulate_subject(config, number, arguments.seed, [(f, f) for f in arguments.scales])
        for factor in arguments.scales:
            case = simulated_case(subject, (factor, factor))
            call = RUN | case.arguments()
            plain = resolver(case.measured, evidence="off", **call)
            small = resolver(case.measured, shrink="auto", **call)
            for k, one in enumerate(small.evidence.maps):
                if plain.names[k] == "2HG" or not np.isfinite(one.detail.error):
                    continue
                images = case.truth[k], plain.mean[k], plain.zero_fill[k], small.mean[k]
                yield {
                    "preset": arguments.preset,
                    "subject": number,
                    "factor": factor,
                    "map": plain.names[k],
                    "error": one.detail.error,
                    "amplitude": one.detail.amplitude,
                    "verdict": one.verdict,
                    "gain": mean_gain(*images[:3], case.brain),
                    "gain_shrunk": mean_gain(images[0], images[3], images[2], case.brain),
                }


def _heads(arguments: argparse.Namespace) -> list[MeasuredHead]:
    return [read_head(path) for folder in arguments.heads for path in head_folders(folder)]


def summary(kind: str, rows: list[Row]) -> str:
    """The figures that the rows amount to."""
    lines = []
    for factor in sorted({row["factor"] for row in rows}):
        own = [row for row in rows if row["factor"] == factor]
        values = {key: np.array([row[key] for row in own], float) for key in own[0] if not isinstance(own[0][key], str)}
        if kind == "alignment":
            lost = values["gain_true_place"] - values["gain"]
            lines.append(
                f"x{factor}: {len(own)} draws, median {np.median(values['left_mm']):.2f} mm and "
                f"{np.median(values['left_deg']):.2f} degrees, below 1.5 mm {np.mean(values['left_mm'] < 1.5):.2f}, "
                f"refused {int((values['used'] == 0).sum())}, gain below that of the true place by "
                f"{np.mean(lost):.2f} dB (largest {lost.max():.2f})"
            )
        elif kind == "images":
            lost = values["gain_unguided"] - values["gain"]
            lines.append(
                f"x{factor}: {len(own)} wrong images, used {int(values['used'].sum())}, refused or harmless "
                f"{int((lost <= 0.1).sum())}, largest loss {lost.max():.2f} dB"
            )
        else:
            clear = np.abs(values["gain"]) > 0.2
            agree = (values["error"] < 1) == (values["gain"] > 0)
            cost = values["gain"] - values["gain_shrunk"]
            bad = values["gain"] < 0
            worst = -values["gain_shrunk"][bad].min() if bad.any() else 0.0
            lines.append(
                f"x{factor}: {len(own)} maps, {int(clear.sum())} with more than 0.2 dB, sign agrees in "
                f"{np.mean(agree[clear]) if clear.any() else np.nan:.2f}; shrinking costs {np.mean(cost[~bad]):.3f} dB "
                f"where the prior fits; {int(bad.sum())} maps worse than zero-filling, at worst {worst:.2f} dB shrunk"
            )
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("alignment", "images", "selftest"))
    parser.add_argument("heads", nargs="*", type=Path)
    parser.add_argument("--model", default=None)
    parser.add_argument("--scales", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--noise", type=float, nargs="+", default=[0.03, 0.08])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--preset", default="realistic-3T")
    parser.add_argument("--subjects", type=int, default=4)
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    resolver = SuperResolver.from_pretrained(arguments.model)
    rows = []
    for row in {"alignment": alignment, "images": images, "selftest": selftest}[arguments.kind](arguments, resolver):
        rows.append(row)
        print(json.dumps(row), flush=True)
    print(summary(arguments.kind, rows), file=sys.stderr)


if __name__ == "__main__":
    main()
