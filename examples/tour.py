"""A tour of the Python interface, on the simulated patient beside this file: ``python examples/tour.py [FOLDER]``.

It goes from maps to a ratio map with its uncertainty, and compares the result with the truth, which only a simulation
has. Everything is written into FOLDER (default: tour_output).
"""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np

from mrsi_fast import SuperResolver

HERE = Path(__file__).resolve().parent


def main(folder: Path) -> None:
    """Run the tour."""
    resolver = SuperResolver.from_pretrained()
    print(resolver.explain(), end="\n\n")

    # 1. A folder of maps. CRLB, SNR, linewidth and mask are found by their names and used.
    acquisition = {"window": "hamming", "support": "ellipse"}
    result = resolver(HERE / "simulated_glioma", scale=4, samples=8, steps=4, seed=0, acquisition=acquisition)
    print("maps:", ", ".join(result.names), "grid:", result.mean.shape[1:])
    for warning in result.warnings:
        print("warning:", warning)

    # 2. How well each map agrees with what was measured, and how much of it is inferred.
    for name, facts in result.provenance["maps"].items():
        print(
            f"{name:5} residual {facts['residual_whitened']:6.1f} (noise explains {facts['residual_expected']:6.1f}), "
            f"outside the measured k-space: {facts['energy_outside_band']:.1%} of the energy"
        )

    # 3. A ratio with its uncertainty: divided in every sample, then summarised.
    ratio = result.ratio("tCho", "tNAA", reference="mirror", times_reference=2.0)
    print(f"tCho/tNAA: {ratio.reference:.3f} in the {ratio.reference_source}; threshold {ratio.threshold:.3f}")
    assert ratio.probability is not None
    likely = np.nan_to_num(ratio.probability) >= 0.5
    print(f"voxels more likely above it than not: {likely.sum()}")

    # 4. Against the truth: the error of the mean, in the voxels that have a value.
    truth = nib.load(HERE / "simulated_glioma_truth" / "tCho.nii.gz").get_fdata()
    index = result.index("tCho")
    for label, estimate in (("zero-filled", result.zero_fill[index]), ("super-resolved", result.mean[index])):
        valid = np.isfinite(estimate)
        print(f"RMSE of tCho, {label}: {np.sqrt(np.mean((estimate - truth)[valid] ** 2)):.3f}")

    # 5. One map from an array, without samples: the fastest way.
    image = nib.load(HERE / "simulated_glioma" / "conc_tNAA.nii.gz")
    fast = resolver({"tNAA": (np.asarray(image.dataobj), image.affine)}, scale=2, samples=0)
    print("one-step mean of one map:", fast.mean.shape)

    # 6. Files: NIfTI maps and a JSON record of how they were made.
    for path in result.save(folder):
        print("written:", path.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("tour_output"))
