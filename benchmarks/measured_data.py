"""Figures on measured data that docs/decisions/noise_of_measured_maps.md gives, made again (developers only).

``python benchmarks/measured_data.py voxel SCAN``: one voxel of each map left out, set to 1e-13 with 16 %SD, or to 20
times the map with its own bound and no limit against blow-ups; the change of the x2 result outside 2 voxels around it,
in units of the map's median noise as stated and as the data support it, and the residual over the expected one.

``python benchmarks/measured_data.py samples``: correlation of the deviations of samples from their mean between three
simulated heads, voxel by voxel and sample by sample: invented detail must not agree between subjects.

``python benchmarks/measured_data.py consistency``: RMSE of ``realistic-3T`` validation subjects with soft consistency
as it was (one factor a slice, the stated noise believed) and as it is, on the same estimate; without and with 2 %
outliers that nothing marks.

All take the shipped weights, or ``--model FOLDER``. Printed as Markdown tables.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import combinations

import numpy as np
import torch

from mrsi_fast import SuperResolver
from mrsi_fast.evaluation.cases import simulated_case
from mrsi_fast.mrsi.consistency import FILL_ITERATIONS, fill_smallest
from mrsi_fast.mrsi.io import read_maps
from mrsi_fast.mrsi.mapset import MapSet
from mrsi_fast.mrsi.quality import TrustRules, assess
from mrsi_fast.mrsi.slabs import to_slices, to_volume
from mrsi_fast.preparation import Prepared, prepare
from mrsi_fast.simulation import SimulationConfig, simulate


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
    for what, factor, percent in (("left out", np.nan, None), ("1e-13, 16 %SD", 0.0, 16.0), ("20 times", 20.0, None)):
        rows: dict[str, list[str]] = {}
        for index, name in enumerate(maps.names):
            values, bounds = maps.maps.copy(), maps.crlb.copy()
            values[index, x, y, z] = 1e-13 if factor == 0 else factor * np.nanmedian(values[index][trust.support])
            bounds[index, x, y, z] = percent if percent is not None else bounds[index, x, y, z]
            changed = resolver(replace(maps, maps=values, crlb=bounds), 2, rules=rules, evidence="off")
            facts, told = plain.provenance["maps"][name], changed.provenance["maps"][name]
            moved = np.abs(changed.mean[index] - plain.mean[index])[~near] / facts["noise_sd"]
            rms, largest = np.sqrt(np.nanmean(moved**2)), np.nanmax(moved)
            rows.setdefault("RMS change", []).append(f"{rms:.3f}")
            rows.setdefault("largest change", []).append(f"{largest:.3f}")
            rows.setdefault("largest, noise supported", []).append(f"{largest / facts['noise_factor']:.3f}")
            residual = told["residual_whitened"] / told["residual_expected"]
            rows.setdefault("residual over expected", []).append(f"{residual:.2f}")
        for kind, row in rows.items():
            print(f"| {what}: {kind} | " + " | ".join(row) + " |")


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


def consistency(resolver: SuperResolver, subjects: int = 8, slices: int = 4) -> None:
    """RMSE in the brain, mM, old / now, and the mean of the subjects' changes with its standard error."""
    config = SimulationConfig.preset("realistic-3T")
    config = config.model_copy(update={"volume": config.volume.model_copy(update={"slices": slices})})
    squares: dict[tuple[int, bool], list[np.ndarray]] = {}
    for subject in simulate(config, subjects, scales=(2, 4, 8)):
        names = subject.names
        for factor in (2, 4, 8):
            case = simulated_case(subject, (factor, factor))
            for spoilt in (False, True):
                maps = _with_outliers(case.measured) if spoilt else case.measured
                call = case.arguments() | {"evidence": "off", "keep_filled": True}
                estimate = resolver(maps, data_consistency="off", **call).mean
                now = resolver(maps, data_consistency="soft", **call).mean
                prepared = prepare(maps, call["scale"], "soft", acquisition=case.acquisition)
                old = _old_correction(prepared, maps, estimate)
                errors = [(image - case.truth)[:, case.brain] ** 2 for image in (old, now)]
                squares.setdefault((factor, spoilt), []).append(np.mean(errors, axis=-1))
    print("| | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for (factor, spoilt), found in squares.items():
        old_rmse, now_rmse = np.sqrt(np.mean(found, axis=0))
        before, after = np.sqrt(found).swapaxes(0, 1)
        change = 100 * (after / before - 1)
        error = change.std(axis=0, ddof=1) / np.sqrt(len(change))
        columns = zip(old_rmse, now_rmse, change.mean(axis=0), error, strict=True)
        cells = [f"{a:.4f} / {b:.4f} ({c:+.3f} +- {d:.3f} %)" for a, b, c, d in columns]
        print(f"| x{factor}{', outliers' if spoilt else ''} | " + " | ".join(cells) + " |")


def _with_outliers(maps: MapSet, share: float = 0.02) -> MapSet:
    """Voxels raised 1.8 to 2.8 times, their stated noise in absolute terms unchanged."""
    rng = np.random.default_rng(0)
    raised = np.where(rng.random(maps.maps.shape) < share, rng.uniform(1.8, 2.8, maps.maps.shape), 1.0)
    assert maps.crlb is not None
    values, bounds = (maps.maps * raised).astype(np.float32), (maps.crlb / raised).astype(np.float32)
    return replace(maps, maps=values, crlb=bounds)


def _old_correction(prepared: Prepared, maps: MapSet, estimate: np.ndarray) -> np.ndarray:
    """``x + A+[(1 - min(1, sqrt(dof)/|u|)) r]`` over each slice, ``u = r/sigma``, ``sigma`` = %SD x concentration."""
    assert maps.crlb is not None
    trusted = to_slices(prepared.trust.trusted.astype(np.float64))
    sigma = to_slices((maps.crlb / 100 * np.abs(maps.maps)).astype(np.float64))
    known = trusted * (torch.isfinite(sigma) & (sigma > 0))
    data = torch.nan_to_num(to_slices(maps.maps.astype(np.float64)))
    modes = prepared.plane.modes(torch.float64, torch.device("cpu"))
    x = to_slices(estimate.astype(np.float64))
    residual = (data - modes.forward(x)) * known
    whitened = torch.where(known > 0, residual / torch.where(known > 0, sigma, 1.0), 0.0)
    size = torch.linalg.vector_norm(whitened, dim=(-2, -1), keepdim=True)
    excess = 1 - (known.sum((-2, -1), keepdim=True).sqrt() / size.clamp_min(1e-300)).clamp_max(1)
    iterations = FILL_ITERATIONS[prepared.plane.window]
    return to_volume(x + modes.pinv(fill_smallest(modes, excess * residual, known, iterations)))


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
    parser.add_argument("what", choices=("voxel", "samples", "consistency"))
    parser.add_argument("scan", nargs="?")
    parser.add_argument("--model")
    asked = parser.parse_args()
    resolver = SuperResolver.from_pretrained(asked.model, device="cpu")
    if asked.what == "voxel":
        voxel(resolver, asked.scan)
    else:
        {"samples": samples, "consistency": consistency}[asked.what](resolver)


if __name__ == "__main__":
    main()
