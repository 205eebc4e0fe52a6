"""Makes the picture of the README: the example patient at 4x with the shipped weights, beside the truth.

python examples/make_picture.py        writes docs/example.png
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import nibabel as nib

from mrsi_fast import SuperResolver
from mrsi_fast.report.figures import map_figure, save_png
from mrsi_fast.report.pages import panels_of
from mrsi_fast.report.summary import figure_notes

HERE = Path(__file__).resolve().parent
SHOWN = ("tNAA", "tCho", "2HG")
SLICE = 1


def main() -> None:
    """Super-resolves the example and draws it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="model folder; default the shipped weights")
    parser.add_argument("--output", type=Path, default=HERE.parent / "docs" / "example.png")
    arguments = parser.parse_args()
    resolver = SuperResolver.from_pretrained(arguments.model)
    acquired = {"window": "hamming", "support": "ellipse"}
    result = resolver(HERE / "simulated_glioma", scale=4, acquisition=acquired)
    rows = []
    for panels in panels_of(result):
        if panels.name in SHOWN:
            truth = nib.load(HERE / "simulated_glioma_truth" / f"{panels.name}.nii.gz").get_fdata()
            rows.append((replace(panels, truth=truth, unit="mM"), SLICE))
    title = "A simulated glioma: as acquired, interpolated, super-resolved 4x, and the truth"
    save_png(map_figure(rows, title, figure_notes(result.provenance)), arguments.output)
    print(arguments.output)


if __name__ == "__main__":
    main()
