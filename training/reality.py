"""Statistics of measured maps beside those of the simulator, the ones that decide whether a prior fits a scan.

    python training/reality.py -o training/reality.md

Each map is regressed on the tissue shares (GM, WM, CSF), each times a polynomial of second order in position, over the
trusted voxels inside the brain. What is left is described by its robust SD over the map's mean, by its correlation with
the next voxel in plane and across slices, and by the share beyond five robust SDs; the Cramér-Rao bound stands beside
it. K_01 is read from $MRSI_FAST_DATA; W may not be passed on, so its published figures are quoted.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.files import write_text
from mrsi_fast.mrsi.anatomy import resample_anatomy
from mrsi_fast.mrsi.io import read_maps
from mrsi_fast.mrsi.mapset import MapSet
from mrsi_fast.mrsi.quality import assess
from mrsi_fast.simulation.config import SimulationConfig
from mrsi_fast.simulation.volume import SimulatedSubject, simulate_subject

MAPS = ("tNAA", "tCr", "tCho", "Ins", "Glx")
TISSUES = ("GM", "WM", "CSF")
PRESETS = ("realistic-3T", "measured-3T")
SMALLEST_BRAIN = 0.7  # voxels with less brain are left out
FEWEST = 60  # voxels that the 30 coefficients are fitted to at least

Row = dict[str, float]
W = {
    "residual": (0.22, 0.27, 0.25, 0.26, 0.35),
    "next": (0.43, 0.43, 0.43, 0.43, 0.43),
    "across": (0.27, 0.27, 0.27, 0.27, 0.27),
    "bound": (0.025, 0.031, 0.042, 0.044, 0.067),
}
"""Whole-brain FID-MRSI at 3 T, 5 x 5 x 5.25 mm; correlations were published as ranges (0.40-0.46, 0.24-0.31)."""


def basis(shares: NDArray[np.floating]) -> NDArray[np.float64]:
    """Regressors [X, Y, Z, 30]: tissue shares [3, X, Y, Z] times second-order polynomials of position."""
    grid = np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shares.shape[1:]), indexing="ij")
    terms = [np.ones_like(grid[0]), *grid, *(a * b for a, b in combinations_with_replacement(grid, 2))]
    return np.stack([share * term for share in shares for term in terms], axis=-1)


def statistics(maps: MapSet, shares: NDArray[np.floating]) -> dict[str, Row]:
    """The statistics of each named map.

    Args:
        maps: Measured maps.
        shares: Tissue shares [3, X, Y, Z] on their grid.
    """
    trust, regressors = assess(maps), basis(shares)
    rows = {}
    for index, name in enumerate(maps.names):
        use = trust.trusted[index] & (shares.sum(0) > SMALLEST_BRAIN)
        if name not in MAPS or use.sum() < FEWEST:
            continue
        values = maps.maps[index][use].astype(np.float64)
        fitted = regressors[use] @ np.linalg.lstsq(regressors[use], values, rcond=1e-6)[0]
        residual = np.full(use.shape, np.nan)
        residual[use] = (values - fitted) / values.mean()
        spread = 1.4826 * np.nanmedian(np.abs(residual))
        clipped = np.clip(residual, -3 * spread, 3 * spread)
        along = [correlation(clipped, 0), correlation(clipped, 1)]
        rows[name] = {
            "residual": float(spread),
            "next": float(np.mean(along)),
            "across": correlation(clipped, 2),
            "outliers": float((np.abs(residual[use]) > 5 * spread).mean()),
            "bound": np.nan if maps.crlb is None else float(np.nanmedian(maps.crlb[index][use]) / 100),
        }
    return rows


def correlation(values: NDArray[np.float64], axis: int) -> float:
    """Correlation of each voxel with the next along an axis; NaN where there is none."""
    ahead = np.moveaxis(values, axis, 0)
    first, second = ahead[:-1].ravel(), ahead[1:].ravel()
    both = np.isfinite(first) & np.isfinite(second)
    return float(np.corrcoef(first[both], second[both])[0, 1]) if both.sum() > FEWEST else float("nan")


def measured_scan(folder: Path) -> dict[str, Row]:
    """Statistics of K_01 with its FAST tissue shares."""
    maps = read_maps(folder)
    files = {"GM": "T1_Bet_pve_1", "WM": "T1_Bet_pve_2", "CSF": "T1_Bet_pve_0"}
    shape = maps.maps.shape[1:]
    shares = [resample_anatomy(folder / f"{files[t]}.nii.gz", maps.affine, shape).image for t in TISSUES]
    return statistics(maps, np.stack(shares))


def simulated(preset: str, subjects: int) -> dict[str, Row]:
    """Median statistics over simulated subjects without lesions, measured at x2."""
    config = SimulationConfig.preset(preset)
    healthy = config.tumour.model_copy(update={"probability": 0.0, "t1_only": 0.0})
    config = config.model_copy(update={"tumour": healthy})
    collected: dict[str, list[Row]] = {}
    for number in range(subjects):
        subject = simulate_subject(config, number, 0, [(2, 2)])
        for name, row in statistics(subject.mapset(2), coarse_shares(subject)).items():
            collected.setdefault(name, []).append(row)
    return {
        name: {key: float(np.nanmedian([r[key] for r in rows])) for key in rows[0]} for name, rows in collected.items()
    }


def coarse_shares(subject: SimulatedSubject) -> NDArray[np.float64]:
    """Tissue shares on the grid of the x2 maps."""
    shares = np.stack([subject.tissue[t] for t in TISSUES]).astype(np.float64)
    t, x, y, z = shares.shape
    return shares.reshape(t, x // 2, 2, y // 2, 2, z).mean(axis=(2, 4))


def table(columns: dict[str, dict[str, Row]]) -> Iterator[str]:
    """Markdown rows: one statistic and map a row, one source a column."""
    labels = {
        "residual": "robust SD of the residual / mean",
        "next": "correlation with the next voxel in plane",
        "across": "correlation with the next slice",
        "outliers": "share beyond 5 robust SD",
        "bound": "stated Cramér-Rao bound",
    }
    yield "| statistic | map | " + " | ".join(columns) + " |"
    yield "|---|---|" + "---:|" * len(columns)
    for key, label in labels.items():
        for name in MAPS:
            cells = [column.get(name, {}).get(key, np.nan) for column in columns.values()]
            yield f"| {label} | {name} | " + " | ".join("" if np.isnan(c) else f"{c:.3f}" for c in cells) + " |"


def main() -> None:
    """Writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("training/reality.md"))
    parser.add_argument("--subjects", type=int, default=6, help="simulated subjects of each preset")
    options = parser.parse_args()
    data = Path(os.environ.get("MRSI_FAST_DATA", "../shared/data"))
    quoted = {name: {key: values[i] for key, values in W.items()} for i, name in enumerate(MAPS)}
    columns = {"W, 5 mm": quoted, "K_01, 10 mm": measured_scan(data / "mrsi_oryx2_mit" / "K_01")}
    columns |= {f"{preset}, 6.9 mm": simulated(preset, options.subjects) for preset in PRESETS}
    text = ["# Measured maps and the simulator", "", f"Written by `python training/reality.py`; {options.subjects} "
            "subjects of each preset, val heads.", "", *table(columns)]  # fmt: skip
    write_text(options.output, "\n".join(text) + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    main()
