"""Draws docs/guide/uncertainty_cases.png: one good and two bad cases, on the simulated patient whose truth is known.

The bad case that matters is the last: guided by a T1 image that lies 7 mm beside the maps, the result looks as sharp as
the good one, and is wrong. Run it again after a change of the weights: ``python examples/make_guide_picture.py``.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import nibabel as nib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mrsi_fast import SuperResolver

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "docs" / "guide" / "uncertainty_cases.png"
MAP, SLICE, SHIFT_MM = "tCho", 1, 7.0


def main() -> None:
    """Super-resolve three times and draw."""
    truth = nib.load(HERE / "simulated_glioma_truth" / f"{MAP}.nii.gz").get_fdata()
    anatomy = nib.load(HERE / "simulated_glioma_truth" / "T1.nii.gz")
    moved = anatomy.affine.copy()
    moved[0, 3] += SHIFT_MM
    values = np.asarray(anatomy.dataobj, dtype=np.float32)
    cases = {
        "right T1": (values, anatomy.affine),
        "no image": None,
        f"T1 displaced by {SHIFT_MM:g} mm": (values, moved),
    }
    resolver = SuperResolver.from_pretrained()
    rows = []
    for label, image in cases.items():
        result = resolver(
            HERE / "simulated_glioma", scale=4, samples=8, steps=4, seed=0, anatomy=image,
            acquisition={"window": "hamming", "support": "ellipse"},
        )  # fmt: skip
        index = result.index(MAP)
        rows.append((label, result.zero_fill[index], result.mean[index], result.std[index]))
    draw(truth, rows, result.units)


def draw(truth: np.ndarray, rows: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]], unit: str) -> None:
    """One row a case: truth, zero-filled, super-resolved, standard deviation, absolute error."""
    figure = Figure(figsize=(11, 2.35 * len(rows) + 0.5), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(rows), 5, squeeze=False)
    high = float(np.nanpercentile(truth, 99.5))
    for number, (label, zero_filled, mean, spread) in enumerate(rows):
        line = panels[number]
        error = np.abs(mean - truth)
        rmse = float(np.sqrt(np.nanmean((mean - truth) ** 2)))
        stages = (
            (truth, "viridis", high, "truth"), (zero_filled, "viridis", high, "zero-filled"),
            (mean, "viridis", high, "super-resolved"), (spread, "magma", 0.25 * high, "standard deviation"),
            (error, "magma", 0.5 * high, "absolute error"),
        )  # fmt: skip
        for axes, (volume, colours, top, title) in zip(line, stages, strict=True):
            picture = np.ma.masked_invalid(volume[::-1, :, SLICE].T)  # patient's right on the left
            image = axes.imshow(
                picture, origin="lower", cmap=mpl.colormaps[colours].with_extremes(bad="0.62"), vmin=0, vmax=top
            )
            axes.set_xticks([])
            axes.set_yticks([])
            if number == 0:
                axes.set_title(title, fontsize=9)
            figure.colorbar(image, ax=axes, shrink=0.75, pad=0.02).ax.tick_params(labelsize=6)
        line[0].set_ylabel(f"{label}\nRMSE {rmse:.3f} {unit}", fontsize=9)
    figure.savefig(TARGET, dpi=90, metadata={"Software": None})
    print(TARGET)


if __name__ == "__main__":
    main()
