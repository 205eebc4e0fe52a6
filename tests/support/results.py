"""A small result with a known lesion, as the report takes it from memory, and the files that a run leaves of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from mrsi_fast.mrsi.export import write_map
from mrsi_fast.mrsi.geometry import hr_affine
from mrsi_fast.report.view import MapView, ResultView

LR_AFFINE = np.array([[-10.0, 0, 0, 65.0], [0, 10.0, 0, -65.0], [0, 0, 12.0, -12.0], [0, 0, 0, 1]])


def record(**changes: Any) -> dict[str, Any]:
    facts = {
        "content": "signal",
        "noise_sd": 93.4,
        "noise_source": "crlb",
        "trusted_voxels": 349,
        "residual_relative": 0.0123,
        "residual_whitened": 18.91,
        "residual_expected": None,
        "energy_outside_band": 0.0055,
    }
    return {
        "units": "mM",
        "input_grid": {"shape": [14, 14, 3], "voxel_mm": [10.0, 10.0, 12.0]},
        "output_grid": {"shape": [28, 28, 3], "voxel_mm": [5.0, 5.0, 12.0]},
        "fov_corner_difference_mm": 0.0,
        "device": "cpu",
        "device_reason": "asked for",
        "threads": 2,
        "engine": "eager",
        "engine_reason": "asked for",
        "operator": "14x14 k-space samples.",
        "operator_assumed": False,
        "data_consistency": {"description": "Data consistency: soft."},
        "model": {"name": "base", "sha256": "0" * 64},
        "operating_point": "mean of 8 samples",
        "samples": 8,
        "steps": 8,
        "solver": "dpmpp_2m",
        "seed": 3,
        "seconds": 11.4,
        "note": "Research use only.",
        "maps": {"tNAA": facts, "tCho": facts},
        "identity": {"sha256": "0" * 64},
        "warnings": [],
        **changes,
    }


def view(samples: int = 8, title: str = "K_01", **changes: Any) -> ResultView:
    """Two maps of 14x14x3 at x2 with a lesion of high tCho and low tNAA on the left of the picture."""
    rng = np.random.default_rng(7)
    maps = []
    for name, level, factor in (("tNAA", 10.0, 0.5), ("tCho", 2.0, 2.5)):
        fine = level * (1 + 0.1 * rng.standard_normal((28, 28, 3)))
        fine[4:9, 10:16] *= factor
        fine[:3] = np.nan
        drawn = fine * (1 + 0.05 * rng.standard_normal((max(samples, 1), 28, 28, 3)))
        coarse = np.nanmean(np.nan_to_num(fine).reshape(14, 2, 14, 2, 3), axis=(1, 3))
        maps.append(
            MapView(
                name=name,
                mean=fine.astype(np.float32),
                std=drawn.std(axis=0).astype(np.float32) if samples else None,
                measured=coarse.astype(np.float32),
                zero_filled=np.where(np.isnan(fine), np.nan, coarse.repeat(2, 0).repeat(2, 1)).astype(np.float32),
                samples=drawn.astype(np.float32) if samples else None,
            )
        )
    facts = record(samples=samples, **changes)
    return ResultView(title, facts, tuple(maps), hr_affine(LR_AFFINE, (2, 2, 1)), LR_AFFINE)


def save(shown: ResultView, folder: Path, stem: str = "res-x2") -> Path:
    """The files that ``mrsi-fast sr --save-samples`` leaves of it."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = {"tNAA": "NAANAAG", "tCho": "GPCPCh"}
    for one in shown.maps:
        base = folder / f"{stem}_met-{labels[one.name]}_desc-"
        assert one.measured is not None and one.zero_filled is not None
        write_map(f"{base}sr_mrsi.nii.gz", one.mean, shown.affine, kind="mean")
        write_map(f"{base}measured_mrsi.nii.gz", one.measured, shown.lr_affine, kind="measured")
        write_map(f"{base}zerofilled_mrsi.nii.gz", one.zero_filled, shown.affine, kind="zerofilled")
        if one.brought_back is not None and one.cut_zero_filled is not None:
            for what, values in (("selftest", one.brought_back), ("selftestzerofilled", one.cut_zero_filled)):
                write_map(f"{base}{what}_mrsi.nii.gz", values, shown.lr_affine, kind=what)
        if one.samples is not None and one.std is not None:
            write_map(f"{base}srstd_mrsi.nii.gz", one.std, shown.affine, kind="std")
            for number, sample in enumerate(one.samples):
                write_map(f"{base}sample{number:03d}_mrsi.nii.gz", sample, shown.affine, kind="sample")
    names = sorted(path.name for path in folder.glob(f"{stem}_met-*"))
    sums = {name: {"sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()} for name in names}
    sidecar = folder / f"{stem}_desc-sr_mrsi.json"
    sidecar.write_text(json.dumps(shown.record | {"files": sums}))
    return sidecar
