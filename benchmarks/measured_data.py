"""Figures on measured data that docs/decisions/noise_of_measured_maps.md gives, made again (developers only).

``python benchmarks/measured_data.py voxel SCAN``: one voxel of each map set to 1e-13 with 16 %SD, or to 20 times the
map with the bound of its neighbour and no limit against blow-ups; the largest change of the x2 result outside 2 voxels
around it, in units of the map's noise, and the residual over the expected one.

``python benchmarks/measured_data.py samples``: correlation of the deviations of samples from their mean between three
simulated heads, voxel by voxel and sample by sample: invented detail must not agree between subjects.

Both take the shipped weights, or ``--model FOLDER``. Printed as Markdown tables.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import combinations

import numpy as np

from mrsi_fast import SuperResolver
from mrsi_fast.mrsi.io import read_maps
from mrsi_fast.mrsi.mapset import MapSet
from mrsi_fast.mrsi.quality import TrustRules, assess
from mrsi_fast.simulation import simulate


def voxel(resolver: SuperResolver, scan: str) -> None:
    """One false voxel a map, and what it moves."""
    maps = read_maps(scan)
    rules = TrustRules(blow_up_sd=1e9)
    trust = assess(maps, rules)
    x, y, z = _well_inside(trust.trusted.all(axis=0))
    plain = resolver(maps, 2, rules=rules, evidence="off")
    near = np.zeros(plain.mean.shape[1:], dtype=bool)
    near[2 * x - 4 : 2 * x + 6, 2 * y - 4 : 2 * y + 6] = True
    print(f"voxel ({x}, {y}, {z})\n")
    print("| voxel | " + " | ".join(maps.names) + " |\n|---|" + "---|" * len(maps.names))
    for what, factor, percent in (("1e-13, 16 %SD", 0.0, 16.0), ("20 times the map", 20.0, None)):
        row, residuals = [], []
        for index, name in enumerate(maps.names):
            values, bounds = maps.maps.copy(), maps.crlb.copy()
            values[index, x, y, z] = 1e-13 if factor == 0 else factor * np.nanmedian(values[index][trust.support])
            bounds[index, x, y, z] = percent if percent is not None else bounds[index, x, y, z]
            changed = resolver(replace(maps, maps=values, crlb=bounds), 2, rules=rules, evidence="off")
            facts = plain.provenance["maps"][name]
            moved = np.abs(changed.mean[index] - plain.mean[index])[~near & np.isfinite(plain.mean[index])]
            row.append(f"{np.nanmax(moved) / facts['noise_sd']:.3f}")
            told = changed.provenance["maps"][name]
            residuals.append(f"{told['residual_whitened'] / told['residual_expected']:.2f}")
        print(f"| {what}: change over noise | " + " | ".join(row) + " |")
        print(f"| {what}: residual over expected | " + " | ".join(residuals) + " |")


def _well_inside(trusted: np.ndarray) -> tuple[int, int, int]:
    """The trusted voxel whose neighbourhood holds most trusted ones."""
    padded = np.pad(trusted, ((2, 2), (2, 2), (0, 0)))
    nx, ny, _ = trusted.shape
    count = sum(padded[i : i + nx, j : j + ny].astype(int) for i in range(5) for j in range(5))
    x, y, z = np.unravel_index(np.argmax(np.where(trusted, count, -1)), trusted.shape)
    return int(x), int(y), int(z)


def samples(resolver: SuperResolver, heads: int = 3, count: int = 8) -> None:
    """Correlations between subjects of what samples add to their mean."""
    drawn = []
    for subject in simulate("realistic-3T", heads, scales=(4,)):
        maps = subject.mapset(4)
        middle = maps.shape[2] // 2
        one = replace(_slice(maps, middle), judged=True)
        found = resolver(one, 4, samples=count, steps=4, evidence="off").samples
        assert found is not None
        drawn.append(found - found.mean(axis=0))
    names = maps.names
    print("| map | " + " | ".join(f"heads {a} and {b}" for a, b in combinations(range(heads), 2)) + " |")
    print("|---|" + "---|" * (heads * (heads - 1) // 2))
    for index, name in enumerate(names):
        cells = []
        for a, b in combinations(range(heads), 2):
            first, second = drawn[a][:, index], drawn[b][:, index]
            both = np.isfinite(first) & np.isfinite(second)
            cells.append(f"{np.corrcoef(first[both], second[both])[0, 1]:+.3f}" if both.sum() > 10 else "-")
        print(f"| {name} | " + " | ".join(cells) + " |")


def _slice(maps: MapSet, z: int) -> MapSet:
    part = slice(z, z + 1)

    def cut(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[..., part]

    affine = maps.affine.copy()
    affine[:3, 3] += affine[:3, 2] * z
    kept = {name: cut(getattr(maps, name)) for name in ("crlb", "snr", "fwhm", "mask", "lipid")}
    return replace(maps, maps=maps.maps[..., part], affine=affine, **kept)


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("voxel", "samples"))
    parser.add_argument("scan", nargs="?")
    parser.add_argument("--model")
    asked = parser.parse_args()
    resolver = SuperResolver.from_pretrained(asked.model, device="cpu")
    if asked.what == "voxel":
        voxel(resolver, asked.scan)
    else:
        samples(resolver)


if __name__ == "__main__":
    main()
