"""Draws docs/guide/uncertainty_cases.png and writes its figures into docs/guide/uncertainty.md.

Good and bad cases on the simulated patient, whose truth is known: guided by the right T1, without an image, and guided
by a T1 that is displaced by 7 mm, once without alignment and once with the defaults of ``sr`` (aligned, or rejected).
The figures depend on the weights, so run it after a change of the weights: ``make pictures``, or

python examples/make_guide_picture.py [--output FOLDER]
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nibabel as nib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mrsi_fast import SuperResolver

HERE = Path(__file__).resolve().parent
GUIDE = HERE.parent / "docs" / "guide"
PICTURE, PAGE = "uncertainty_cases.png", "uncertainty.md"
MAP, SLICE, SHIFT_MM, UNIT = "tCho", 1, 7.0, "mM"
FIGURES = re.compile(r"<!-- figures of the cases -->.*?<!-- end of the figures -->", re.DOTALL)
AS_IT_IS: dict[str, Any] = {"evidence": "off", "align": "off", "anatomy_trust": "force"}

Case = tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Label, zero-filled, super-resolved, standard deviation, absolute error."""


def main() -> None:
    """Super-resolve, draw, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=GUIDE, help="folder of the picture and of the page")
    folder = parser.parse_args().output
    truth = np.asarray(nib.load(HERE / "simulated_glioma_truth" / f"{MAP}.nii.gz").dataobj, dtype=np.float32)
    cases = [run(label, truth, image, options) for label, image, options in settings()]
    draw(truth, cases, folder / PICTURE)
    print(folder / PICTURE)
    page = folder / PAGE
    if page.is_file():
        found, count = FIGURES.subn(lambda _: table(cases, truth), page.read_text(encoding="utf-8"))
        assert count == 1, f"{page}: holds no marks for the figures"
        page.write_text(found, encoding="utf-8")
        print(page)


def settings() -> list[tuple[str, Any, dict[str, Any]]]:
    """The cases: label, anatomical image, options of the resolver."""
    anatomy = nib.load(HERE / "simulated_glioma_truth" / "T1.nii.gz")
    moved = anatomy.affine.copy()
    moved[0, 3] += SHIFT_MM
    values = np.asarray(anatomy.dataobj, dtype=np.float32)
    displaced = f"T1 displaced by {SHIFT_MM:g} mm"
    return [
        ("right T1", (values, anatomy.affine), AS_IT_IS),
        ("no image", None, {"evidence": "off"}),
        (f"{displaced}, not aligned", (values, moved), AS_IT_IS),
        (f"{displaced}, default of sr", (values, moved), {}),
    ]


def run(label: str, truth: np.ndarray, image: Any, options: dict[str, Any]) -> Case:
    """Super-resolve the example and compare it with the truth."""
    resolver = SuperResolver.from_pretrained()
    result = resolver(
        HERE / "simulated_glioma", scale=4, seed=0, anatomy=image,
        acquisition={"window": "hamming", "support": "ellipse"}, **options,
    )  # fmt: skip
    index = result.index(MAP)
    mean = result.mean[index]
    return label, result.zero_fill[index], mean, result.std[index], np.abs(mean - truth)


def rmse(error: np.ndarray) -> float:
    """Root mean square over voxels with a value."""
    return float(np.sqrt(np.nanmean(error.astype(np.float64) ** 2)))


def table(cases: list[Case], truth: np.ndarray) -> str:
    """The figures of the page, between their marks."""
    lines = [
        "<!-- figures of the cases -->",
        f"| row | RMSE of {MAP}, {UNIT} | median SD, {UNIT} |",
        "|---|---:|---:|",
        *(f"| {label} | {rmse(error):.3f} | {np.nanmedian(spread):.3f} |" for label, _, _, spread, error in cases),
        f"| zero-filled | {rmse(np.where(np.isfinite(cases[0][2]), cases[0][1] - truth, np.nan)):.3f} | |",
        "<!-- end of the figures -->",
    ]
    return "\n".join(lines)


def draw(truth: np.ndarray, cases: list[Case], target: Path) -> None:
    """One row a case: truth, zero-filled, super-resolved, standard deviation, absolute error."""
    figure = Figure(figsize=(11, 1.8 * len(cases) + 0.3), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(cases), 5, squeeze=False)
    high = float(np.nanpercentile(truth, 99.5))
    for number, (label, zero_filled, mean, spread, error) in enumerate(cases):
        stages = (
            (truth, "viridis", high, "truth"), (zero_filled, "viridis", high, "zero-filled"),
            (mean, "viridis", high, "super-resolved"), (spread, "magma", 0.25 * high, "standard deviation"),
            (error, "magma", 0.5 * high, "absolute error"),
        )  # fmt: skip
        for axes, (volume, colours, top, title) in zip(panels[number], stages, strict=True):
            picture = np.ma.masked_invalid(volume[::-1, :, SLICE].T)  # patient's right on the left
            image = axes.imshow(
                picture, origin="lower", cmap=mpl.colormaps[colours].with_extremes(bad="0.62"), vmin=0, vmax=top
            )
            axes.set_xticks([])
            axes.set_yticks([])
            if number == 0:
                axes.set_title(f"{title}, {UNIT}", fontsize=9)
            figure.colorbar(image, ax=axes, shrink=0.75, pad=0.02).ax.tick_params(labelsize=6)
        panels[number][0].set_ylabel(f"{label.replace(', ', chr(10))}\nRMSE {rmse(error):.3f} {UNIT}", fontsize=8)
    figure.savefig(target, dpi=90, metadata={"Software": None})


if __name__ == "__main__":
    main()
