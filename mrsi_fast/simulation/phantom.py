"""An analytic head: closed-form shapes for the tissue classes, so that everything runs without any data.

It is a mathematical phantom, not anatomy: nested ellipsoids for scalp, bone and CSF, a folded cortical ribbon whose
gyri are a sum of plane waves over direction, two ventricles and deep grey nuclei. Tests, the demo and CI use it;
numbers about quality come from real heads.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.simulation.anatomy import CLASSES, Head

SHAPE = (172, 206, 166)  # voxels of 1 mm
CENTRE = (85.5, 102.5, 80.0)
HALF_MM = (66.0, 83.0, 62.0)  # half axes of the brain
SHELLS = (("scalp", 1.24), ("soft tissue", 1.20), ("bone", 1.14), ("CSF", 1.05))  # outer radii, relative to the brain


@lru_cache(maxsize=8)
def phantom_head(variant: int = 0) -> Head:
    """The analytic head, 1 mm.

    Args:
        variant: Changes the folding pattern, the ventricles and the proportions.

    Returns:
        A head of about 160 x 200 x 150 mm with every class but vessels and cerebellum.
    """
    rng = np.random.default_rng(1000 + variant)
    half = np.array(HALF_MM) * rng.uniform(0.97, 1.03, 3)
    x, y, z = (axis.astype(np.float32) for axis in np.ogrid[tuple(slice(n) for n in SHAPE)])
    x, y, z = x - CENTRE[0], y - CENTRE[1], z - CENTRE[2]
    radius = np.sqrt((x / half[0]) ** 2 + (y / half[1]) ** 2 + (z / half[2]) ** 2).astype(np.float32)
    fold = _folds(half, rng)
    classes = np.zeros(SHAPE, np.uint8)
    for name, outer in SHELLS:
        classes[radius < outer] = CLASSES.index(name)
    side = np.abs(x)
    fissure = (side < 1.5) & (radius > 0.62)
    classes[radius < 1.0 + 0.05 * np.minimum(fold, 0)] = CLASSES.index("GM")
    depth = 0.87 + 0.07 * fold - 0.10 * np.exp(-((x / 5.0) ** 2)) * (radius > 0.55)
    classes[radius < np.minimum(depth, 0.95)] = CLASSES.index("WM")
    classes[fissure & (radius < 1.05)] = CLASSES.index("CSF")
    thalamus = ((side - 11) / 7) ** 2 + ((y + 12) / 13) ** 2 + ((z + 2) / 9) ** 2 < 1
    putamen = ((side - 25) / 5) ** 2 + ((y - 4) / 15) ** 2 + ((z + 2) / 10) ** 2 < 1
    classes[thalamus | putamen] = CLASSES.index("deep GM")
    width = rng.uniform(4.0, 7.0)
    ventricle = ((side - 9 - 0.08 * np.abs(y)) / width) ** 2 + ((y + 4) / 36) ** 2 + ((z - 12) / 8) ** 2 < 1
    classes[ventricle] = CLASSES.index("CSF")
    stem = ((x / 13) ** 2 + ((y + 22) / 12) ** 2 < 1) & (z < -32) & (radius < 1)
    classes[stem] = CLASSES.index("brain stem")
    volume = np.pad(classes, 1).transpose(2, 0, 1)
    centre = (CENTRE[0] + 1, CENTRE[1] + 1, CENTRE[2] + 1)
    return Head(f"phantom-{variant}", np.ascontiguousarray(volume), centre, (0.0, -4.0, 12.0))


def _folds(half: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float32]:
    """Cortical folding over direction from the centre, about -2 to 2; computed at 2 mm."""
    x, y, z = (axis.astype(np.float32) for axis in np.ogrid[tuple(slice(0, n, 2) for n in SHAPE)])
    u, v, w = (x - CENTRE[0]) / half[0], (y - CENTRE[1]) / half[1], (z - CENTRE[2]) / half[2]
    inverse = (1 / np.sqrt(u**2 + v**2 + w**2 + 1e-6)).astype(np.float32)
    fold = np.zeros(inverse.shape, np.float32)
    for _ in range(10):
        a, b, c = rng.normal(size=3) * 9.0
        fold += np.cos((a * u + b * v + c * w) * inverse + rng.uniform(0, 2 * np.pi))
    return (fold / np.sqrt(5.0)).astype(np.float32).repeat(2, 0).repeat(2, 1).repeat(2, 2)
