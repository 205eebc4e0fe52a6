"""An analytic head: closed-form shapes for the tissue classes, so that everything runs without any data.

It is a mathematical phantom, not anatomy: nested ellipsoids for scalp, bone and CSF, a folded cortical ribbon whose
gyri are a sum of sines over direction, two ventricles and deep grey nuclei. Tests, the demo and CI use it; numbers
about quality come from real heads.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from mrsi_fast.simulation.anatomy import CLASSES, Head


@lru_cache(maxsize=8)
def phantom_head(variant: int = 0) -> Head:
    """The analytic head, 1 mm.

    Args:
        variant: Changes the folding pattern, the ventricles and the proportions.

    Returns:
        A head of about 150 x 185 x 150 mm with every class but vessels and cerebellum.
    """
    rng = np.random.default_rng(1000 + variant)
    shape = (171, 205, 166)
    centre = np.array([85.0, 102.0, 80.0])
    x, y, z = (np.arange(n, dtype=np.float32) - c for n, c in zip(shape, centre, strict=True))
    x, y, z = x[:, None, None], y[None, :, None], z[None, None, :]
    half = np.array([66.0, 83.0, 62.0]) * rng.uniform(0.97, 1.03, 3)
    radius = np.sqrt((x / half[0]) ** 2 + (y / half[1]) ** 2 + (z / half[2]) ** 2) + 1e-6
    classes = np.zeros(shape, np.uint8)
    for name, outer in (("scalp", 1.24), ("soft tissue", 1.20), ("bone", 1.14), ("CSF", 1.05)):
        classes[radius < outer] = CLASSES.index(name)
    fold = np.zeros(shape, np.float32)
    for _ in range(10):
        wave = rng.normal(size=3) * 9.0
        fold += np.cos((wave[0] * x / half[0] + wave[1] * y / half[1] + wave[2] * z / half[2]) / radius
                       + rng.uniform(0, 2 * np.pi))
    fold /= np.sqrt(5.0)
    fissure = np.where(np.abs(x) < 1.5, 1.0, 0.0) * (radius > 0.62)
    classes[(radius < 1.0 + 0.035 * np.minimum(fold, 0)) & (fissure == 0)] = CLASSES.index("GM")
    depth = 0.93 + 0.06 * fold - 0.08 * np.exp(-((x / 5.0) ** 2)) * (radius > 0.55)
    classes[radius < np.minimum(depth, 0.965)] = CLASSES.index("WM")
    classes[(fissure > 0) & (radius < 1.05)] = CLASSES.index("CSF")
    side = np.abs(x)
    thalamus = ((side - 11) / 7) ** 2 + ((y + 12) / 13) ** 2 + ((z + 2) / 9) ** 2 < 1
    putamen = ((side - 25) / 5) ** 2 + ((y - 4) / 15) ** 2 + ((z + 2) / 10) ** 2 < 1
    classes[thalamus | putamen] = CLASSES.index("deep GM")
    width = rng.uniform(4.0, 7.0)
    ventricle = ((side - 9 - 0.08 * np.abs(y)) / width) ** 2 + ((y + 4) / 36) ** 2 + ((z - 12) / 8) ** 2 < 1
    classes[ventricle] = CLASSES.index("CSF")
    stem = ((x / 13) ** 2 + ((y + 22) / 12) ** 2 < 1) & (z < -32) & (radius < 1)
    classes[np.broadcast_to(stem, shape)] = CLASSES.index("brain stem")
    volume = np.pad(classes, 1).transpose(2, 0, 1)
    cx, cy, cz = (float(c) + 1 for c in centre)
    return Head(f"phantom-{variant}", np.ascontiguousarray(volume), (cx, cy, cz), (0.0, -4.0, 12.0))
