"""Makes ``simulated_glioma`` (maps as a scanner gives them) and ``simulated_glioma_truth`` on the MNI152 average head.

The head is the ICBM152 2009a template (one group average, free to redistribute) as the package ``nilearn`` carries it;
metabolites, tumour, acquisition and noise come from the project's own simulator. Run it again and the same files
appear::

    pip install nilearn
    python examples/make_data.py
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

HERE = Path(__file__).resolve().parent
SEED = 7
FACTOR = 4
METABOLITES = ("tNAA", "tCr", "tCho", "Ins", "Glx", "2HG")
WHITE, GREY, CSF, VENTRICLE = 2, 3, 24, 4
"""FreeSurfer's label values, which the simulator reads."""

SETTINGS = """
name = "example"
[anatomy]
heads = "{heads}"
split = "all"
elastic_mm = 0.0
rotation_deg = 0.0
[tumour]
probability = 1.0
single_metabolite = 0.0
idh_mutant = 1.0
radius_mm = [16.0, 18.0]
[signal]
noise = [1.0, 1.0]
missing = [0.02, 0.02]
[volume]
slices = 3
first_mm = 4.0
step_mm = 10.0
thickness_mm = 8.0
source = "object"
support = "ellipse"
window = "hamming"
"""


def label_map(template: Path) -> nib.Nifti1Image:
    """Turns the template's tissue probabilities into labels of white matter, grey matter and CSF."""
    names = {what: template / f"mni_icbm152_{what}_tal_nlin_sym_09a_converted.nii.gz" for what in ("t1", "gm", "wm")}
    images = {what: nib.load(path) for what, path in names.items()}
    head, grey, white = (np.asarray(images[what].dataobj, np.float32) for what in ("t1", "gm", "wm"))
    brain = ndimage.binary_fill_holes(head > 0.05 * head.max())
    labels = np.where(brain, CSF, 0).astype(np.uint8)
    labels[grey > 0.4 * grey.max()] = GREY
    labels[white > 0.5 * white.max()] = WHITE
    deep = ndimage.binary_erosion(brain, iterations=25) & (labels == CSF)
    parts, count = ndimage.label(deep)
    largest = 1 + int(np.argmax(ndimage.sum_labels(deep, parts, range(1, count + 1))))
    labels[parts == largest] = VENTRICLE
    return nib.Nifti1Image(labels, images["t1"].affine)


def keep(source: Path, target: Path, files: str) -> None:
    """Copies some of a folder's files."""
    target.mkdir(exist_ok=True)
    for file in source.glob(files):
        shutil.copyfile(file, target / file.name)


def main() -> None:
    """Simulates the patient and keeps what the examples use."""
    found = importlib.util.find_spec("nilearn")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("The template head comes with nilearn: pip install nilearn")
    template = Path(found.submodule_search_locations[0]) / "datasets" / "data"
    with tempfile.TemporaryDirectory() as scratch:
        heads = Path(scratch)
        nib.save(label_map(template), heads / "sub-MNI_dseg.nii.gz")
        (heads / "example.toml").write_text(SETTINGS.format(heads=heads.as_posix()))
        options = {"--preset": heads / "example.toml", "--seed": SEED, "--scales": FACTOR, "--output": heads}
        command = ["mrsi-fast", "simulate", *(str(part) for option in options.items() for part in option)]
        subprocess.run(command, check=True)
        keep(heads / f"sub-000_acq-x{FACTOR}", HERE / "simulated_glioma", "*")
        for files in (*METABOLITES, "T1", "mask_lesion"):
            keep(heads / "sub-000_truth", HERE / "simulated_glioma_truth", f"{files}.nii.gz")


if __name__ == "__main__":
    main()
