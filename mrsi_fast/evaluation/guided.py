"""Guidance by a person's measured T1: in place, displaced, turned, mirrored, of another slice.

The maps are simulated from the tissue shares of a head with a measured T1 (``measured_head``), with the concentrations,
variations and acquisition of a preset, and super-resolved with that T1. Nobody's T1 lies exactly where the maps lie, so
the rows show what a misplaced one costs. The gain is that of the one-step mean over zero-filling in PSNR under the
convention ``yale``, as a mean over slices and maps without 2HG. These rows are a track of their own: the T1 is real,
the maps are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.evaluation import metrics
from mrsi_fast.evaluation.cases import Case, simulated_case
from mrsi_fast.evaluation.measured_head import MeasuredHead, head_folders, read_head
from mrsi_fast.evaluation.rows import APART, markdown_table
from mrsi_fast.resolver import SuperResolver
from mrsi_fast.simulation.config import SimulationConfig
from mrsi_fast.simulation.keys import Key
from mrsi_fast.simulation.subject import draw_subject
from mrsi_fast.simulation.volume import SimulatedSubject, simulate_subject
from mrsi_fast.simulation.warp import WarpedHead

Float64 = NDArray[np.float64]
Image = tuple[NDArray[np.float32], Float64]
Row = dict[str, Any]
Progress = Callable[[int, int, str], None]

SLICES, FIRST_MM, STEP_MM = 8, -10.0, 5.0

SYNTHETIC, NONE = "synthetic T1", "no T1"


def rigid(shift_mm: Sequence[float] = (0, 0, 0), turn_deg: Sequence[float] = (0, 0, 0)) -> Float64:
    """A rigid transform [4, 4]: turns about X, then Y, then Z through the origin, then a shift."""
    matrix = np.eye(4)
    for axis, angle in enumerate(np.deg2rad(turn_deg)):
        a, b = [k for k in range(3) if k != axis]
        turn = np.eye(4)
        turn[[a, b], [a, b]], turn[a, b], turn[b, a] = np.cos(angle), -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    matrix[:3, 3] = shift_mm
    return matrix


def _shift(length: float) -> Float64:
    return rigid(np.array([1.0, 1.0, 0.0]) * length / np.sqrt(2))


PLACEMENTS: dict[str, Float64] = {
    "aligned": np.eye(4),
    "off by 1.2 mm": _shift(1.2),
    "off by 2.3 mm": _shift(2.3),
    "off by 4.7 mm": _shift(4.7),
    "turned by 3 degrees": rigid(turn_deg=(0, 0, 3)),
    "mirrored left-right": np.diag([-1.0, 1.0, 1.0, 1.0]),
    "15 mm off in z": rigid((0, 0, 15)),
}
"""What is done to the measured T1, in mm about the centre of the head. Shifts go right and forward alike."""


def measured_subject(
    head: MeasuredHead, preset: str, seed: int, factors: Sequence[tuple[int, int]], slices: int = SLICES
) -> SimulatedSubject:
    """Maps of a head with a measured T1: a preset's subject without a lesion, in this head's anatomy.

    Args:
        head: Tissue shares and T1.
        preset: Where concentrations, variation, noise and acquisition come from.
        seed: Of the subject.
        factors: In-plane factors to measure it at.
        slices: Slices, 5 mm apart, around 7.5 mm above the centre of the head.

    Returns:
        The subject; its ``anatomy`` is a synthetic T1 of the same shares.
    """
    config = SimulationConfig.preset(preset)
    first = FIRST_MM + STEP_MM * (SLICES - slices) / 2
    config = config.model_copy(
        update={
            "anatomy": config.anatomy.model_copy(update={"heads": "phantom", "tumour_masks": None}),
            "tumour": config.tumour.model_copy(update={"probability": 0.0, "t1_only": 0.0}),
            "volume": config.volume.model_copy(update={"slices": slices, "first_mm": first, "step_mm": STEP_MM}),
        }
    )
    subject = draw_subject(config, Key.of("subject", seed, 0), config.volume.metabolites, head=0)
    # A volume asks its subject's head for a name and for shares, and a measured head has both.
    return simulate_subject(config, 0, seed, factors, replace(subject, anatomy=cast(WarpedHead, head)))


def guidance_rows(
    folders: Iterable[Path],
    resolver: SuperResolver,
    preset: str = "paper-like",
    scales: Sequence[int] = (2, 4, 8),
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Row]:
    """Gains of the one-step mean over zero-filling, for every head, factor and placement of its T1.

    Args:
        folders: Heads or folders of them, see ``measured_head.head_folders``.
        resolver: The model.
        preset: Simulation preset of the maps.
        scales: In-plane factors.
        seed: Of the subjects.
        progress: Called with (done, all, message).

    Returns:
        Rows with ``head``, ``factor``, ``guidance``, ``metabolite`` and ``gain_db``.

    Raises:
        MapInputError: A folder holds no head, or one that cannot be read.
    """
    heads = list(dict.fromkeys(path for folder in folders for path in head_folders(Path(folder))))
    factors = [(scale, scale) for scale in scales]
    rows: list[Row] = []
    total, done = len(heads) * len(scales), 0
    for path in heads:
        head = read_head(path)
        subject = measured_subject(head, preset, seed, factors)
        images = _guides(head, subject)
        for pair in factors:
            for guidance, gains in _gains(simulated_case(subject, pair), images, resolver):
                rows += [
                    {
                        "head": head.name,
                        "preset": preset,
                        "N": subject.truth.shape[1],
                        "slices": subject.truth.shape[3],
                        "factor": pair[0],
                        "guidance": guidance,
                        "metabolite": name,
                        "gain_db": gain,
                    }
                    for name, gain in gains.items()
                ]
            done += 1
            if progress is not None:
                progress(done, total, f"{head.name} x{pair[0]}")
    return rows


def _guides(head: MeasuredHead, subject: SimulatedSubject) -> dict[str, Image | None]:
    """What guides: nothing, a synthetic T1, the measured one in every place."""
    guides: dict[str, Image | None] = {NONE: None, SYNTHETIC: (subject.anatomy, subject.affine)}
    return guides | {name: (head.t1, matrix @ head.affine) for name, matrix in PLACEMENTS.items()}


def _gains(
    case: Case, guides: Mapping[str, Image | None], resolver: SuperResolver
) -> Iterator[tuple[str, dict[str, float]]]:
    for name, image in guides.items():
        result = resolver(
            case.measured,
            samples=0,
            anatomy=image,
            data_consistency=case.mode,
            keep_filled=True,
            evidence="off",
            align="off",  # the rows show what the network makes of an image by itself
            **case.arguments(),
        )
        yield (
            name,
            {
                metabolite: mean_gain(case.truth[index], result.mean[index], result.zero_fill[index], case.brain)
                for index, metabolite in enumerate(result.names)
            },
        )


def mean_gain(truth: NDArray, estimate: NDArray, zero_fill: NDArray, brain: NDArray[np.bool_]) -> float:
    """PSNR over zero-filling's in dB, convention ``yale``, as a mean over the slices [X, Y, Z] that can be scored."""
    gains = []
    for z in range(truth.shape[2]):
        slices = ((truth[..., z], image[..., z], brain[..., z]) for image in (estimate, zero_fill))
        own, base = (_psnr(*three) for three in slices)
        if own is not None and base is not None:
            gains.append(own - base)
    return float(np.mean(gains)) if gains else float("nan")


def _psnr(truth: NDArray, image: NDArray, brain: NDArray[np.bool_]) -> float | None:
    pair = metrics.under_convention(truth, image, brain, "yale")
    return None if pair is None else metrics.psnr(pair.truth[pair.region], pair.estimate[pair.region], pair.data_range)


def guidance_table(rows: Sequence[Row]) -> str:
    """Mean gain by guidance (lines) and factor (columns), head by head and over the heads, 2HG left out."""
    scored = [row for row in rows if row["metabolite"] != APART]
    keys = ("head", "factor", "guidance")
    heads, factors, guidances = (list(dict.fromkeys(row[key] for row in scored)) for key in keys)

    def gain(head: str, factor: int, guidance: str) -> float:
        own = [r["gain_db"] for r in scored if (r["head"], r["factor"], r["guidance"]) == (head, factor, guidance)]
        return float(np.nanmean(own))

    def cells(names: Sequence[str], guidance: str) -> list[str]:
        return [f"{np.mean([gain(head, f, guidance) for head in names]):+.2f}" for f in factors]

    facts = scored[0]
    tables = [
        markdown_table(
            f"### {title}, preset {facts['preset']}, N = {facts['N']}, {facts['slices']} slices a head: gain of the "
            "one-step mean over zero-filling, dB (yale, maps without 2HG)",
            ["guided by", *(f"x{factor}" for factor in factors)],
            [[guidance, *cells(names, guidance)] for guidance in guidances],
        )
        for title, names in [(f"Mean of {len(heads)} heads", heads), *((head, [head]) for head in heads)]
    ]
    return "\n\n".join(tables if len(heads) > 1 else tables[1:])
