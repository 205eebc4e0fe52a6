"""One-step mean and its standard deviation of several models on the validation heads, side by side.

    python training/one_step.py mrsi_fast/weights/base runs/stage6/model -o one-step-val.md

Every model sees the same subjects under the same acquisition. Gain: PSNR of the one-step mean over zero-filling's,
convention ``yale``, mean over maps without 2HG, slices and heads. Coverage: share of voxels whose truth lies within
1.645 of the standard deviation that the same evaluation gives, by tissue (share above 0.8). With ``--samples``: the
correlation of that standard deviation with the samples' own over the brain, and the ratio of their root mean squares.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mrsi_fast import SuperResolver
from mrsi_fast.evaluation.cases import Case, simulated_case
from mrsi_fast.evaluation.guided import mean_gain
from mrsi_fast.evaluation.plan import head_count
from mrsi_fast.files import write_text
from mrsi_fast.simulation.config import SimulationConfig
from mrsi_fast.simulation.volume import simulate_subject

SCALES = (2, 4, 8)
TISSUES = ("GM", "WM", "CSF")
LEVEL = 1.645  # 90 % of a normal distribution
APART = "2HG"
AGREEMENT = ("correlation with the SD of samples", "SD over that of samples")

Scores = dict[str, list[float]]


def cases(preset: str, slices: int) -> Iterator[Case]:
    """One subject per validation head at every factor."""
    config = SimulationConfig.preset(preset)
    config = config.model_copy(
        update={
            "anatomy": config.anatomy.model_copy(update={"split": "val"}),
            "volume": config.volume.model_copy(update={"slices": slices, "first_mm": -10.0, "step_mm": 40.0 / slices}),
        }
    )
    for number in range(head_count(config)):
        subject = simulate_subject(config, number, 0, [(scale, scale) for scale in SCALES])
        for scale in SCALES:
            yield simulated_case(subject, (scale, scale))


def score(case: Case, resolver: SuperResolver, guided: bool, samples: int) -> Scores:
    """Gains of every map, coverage by tissue, and agreement with samples, of one case."""
    result = resolver(
        case.measured,
        samples=samples,
        data_consistency=case.mode,
        anatomy=case.anatomy if guided else None,
        keep_filled=True,
        evidence="off",
        align="off",
        **case.arguments(),
    )
    scores: Scores = {key: [] for key in ("gain", *TISSUES, *AGREEMENT)}
    for index, name in enumerate(result.names):
        if name == APART:
            continue
        truth, mean, std = case.truth[index], result.mean[index], result.std[index]
        scores["gain"].append(mean_gain(truth, mean, result.zero_fill[index], case.brain))
        for tissue in TISSUES:
            use = case.brain & (case.tissue[tissue] > 0.8) & np.isfinite(std)
            if use.any():
                scores[tissue].append(float((np.abs(truth - mean) <= LEVEL * std)[use].mean()))
        use = case.brain & np.isfinite(std)
        if samples > 1 and use.any():
            drawn = result.samples[:, index][:, use].std(axis=0, ddof=1)
            scores[AGREEMENT[0]].append(float(np.corrcoef(std[use], drawn)[0, 1]))
            scores[AGREEMENT[1]].append(float(np.sqrt((std[use] ** 2).mean() / (drawn**2).mean())))
    return scores


def table(preset: str, models: list[Path], slices: int, guided: bool, samples: int) -> Iterator[str]:
    """Markdown lines of one preset."""
    resolvers = [SuperResolver.from_pretrained(path) for path in models]
    collected: dict[tuple[int, int, str], list[float]] = {}
    for case in cases(preset, slices):
        for number, resolver in enumerate(resolvers):
            for key, values in score(case, resolver, guided, samples).items():
                collected.setdefault((number, case.factors[0], key), []).extend(values)
    keys = ("gain", *TISSUES, *(AGREEMENT if samples > 1 else ()))
    heading = ["gain, dB", *(f"coverage in {tissue}" for tissue in TISSUES), *keys[1 + len(TISSUES) :]]
    yield f"## {preset}, {'guided by a synthetic T1' if guided else 'without T1'}"
    yield ""
    yield "| model | factor | " + " | ".join(heading) + " |"
    yield "|---|---|" + "---:|" * len(heading)
    for number, resolver in enumerate(resolvers):
        for scale in SCALES:
            cells = [collected.get((number, scale, key), []) for key in keys]
            shown = [f"{np.nanmean(c):.{2 if not i else 3}f}" if c else "" for i, c in enumerate(cells)]
            yield f"| {resolver.pretrained.sha256[:12]} | x{scale} | " + " | ".join(shown) + " |"
    yield ""


def main() -> None:
    """Reads the arguments and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", help="model folders")
    parser.add_argument("--presets", default="paper-like,realistic-3T,measured-3T", help="simulation presets")
    parser.add_argument("--slices", type=int, default=4, help="slices of each subject")
    parser.add_argument("--samples", type=int, default=0, help="samples to compare the standard deviation with")
    parser.add_argument("--guided", action="store_true", help="also guided by the subject's synthetic T1")
    parser.add_argument("-o", "--output", type=Path, required=True, help="Markdown file to write")
    options = parser.parse_args()
    lines = ["# One-step mean on validation heads", "", f"3 heads, one subject each, {options.slices} slices, N = 64; "
             "gain over zero-filling (yale, maps without 2HG).", ""]  # fmt: skip
    for preset in options.presets.split(","):
        for guided in (False, True) if options.guided else (False,):
            lines += table(preset, options.models, options.slices, guided, options.samples)
            write_text(options.output, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
