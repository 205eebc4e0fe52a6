"""The record of a run: which maps on which grids, what was modelled of their acquisition, and what was computed."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mrsi_fast._version import __version__
from mrsi_fast.arguments import Asked
from mrsi_fast.models.pretrained import FolderConfig
from mrsi_fast.mrsi.geometry import fov_corner_difference_mm, voxel_sizes_mm
from mrsi_fast.posterior import Posterior
from mrsi_fast.preparation import Prepared

LARGE_VOXEL_MM = 15.0


def run_record(found: Posterior, asked: Asked, runner: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The part of a result's JSON file on the run itself, JSON-serialisable.

    Args:
        found: What was estimated; slices last.
        asked: The request.
        runner: What computed it: ``model``, ``solver``, ``device``, ``engine`` and facts about them.
        seconds: How long it took.
    """
    prepared = found.prepared
    maps, fine = prepared.maps, prepared.volume.z.shape[1:]
    return {
        "software": {
            "mrsi_fast": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        **runner,
        "source": maps.source,
        "units": maps.units,
        "input_grid": {"shape": list(maps.shape), "voxel_mm": list(voxel_sizes_mm(maps.affine))},
        "output_grid": {"shape": list(fine), "voxel_mm": list(voxel_sizes_mm(prepared.affine))},
        "factors": list(prepared.factors),
        "fov_corner_difference_mm": fov_corner_difference_mm(maps.affine, maps.shape, prepared.affine, fine),
        "operator": prepared.acquisition.describe(),
        "operator_assumed": prepared.acquisition.assumed,
        "data_consistency": {
            "asked": asked.data_consistency,
            "applied": prepared.consistency.applied,
            "description": found.consistency.describe(),
        },
        "operating_point": "one-step posterior mean",
        "standard_deviation": found.std_source,
        "samples": asked.samples,
        "steps": asked.steps,
        "seed": asked.seed,
        "anatomy_used": prepared.volume.anatomy is not None,
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 3),
        "note": "Detail beyond the measured k-space is inferred by a model, not measured. Research use only.",
    }


def map_facts(prepared: Prepared, agreed: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What is known of each map, by its name.

    Args:
        prepared: The maps.
        agreed: For each, how the result agrees with it.
    """
    trust, facts = prepared.trust, {}
    for index, name in enumerate(prepared.maps.names):
        facts[name] = {
            "content": prepared.content[index],
            "scale": float(prepared.volume.scale[index]),
            "noise_sd": float(prepared.volume.noise[index]),
            "noise_source": prepared.noise_source[index],
            "trusted_voxels": int(trust.trusted[index].sum()),
            "untrusted_in_support": {key: counts[index] for key, counts in trust.counts.items() if counts[index]},
            **agreed[index],
        }
    return facts


def range_warnings(prepared: Prepared, trained: FolderConfig) -> tuple[str, ...]:
    """Sentences for maps on grids that the model was not trained on."""
    sentences = []
    voxel = [float(size) for size in voxel_sizes_mm(prepared.maps.affine)[:2]]
    if max(voxel) > LARGE_VOXEL_MM:
        sentences.append(
            f"The measured voxels are {max(voxel):.1f} mm wide: above {LARGE_VOXEL_MM:g} mm most detail is inferred."
        )
    low, high = trained.trained_voxel_mm
    if min(voxel) < low or max(voxel) > high:
        sentences.append(
            f"The measured voxels are {voxel[0]:.1f} x {voxel[1]:.1f} mm; the model was trained on {low:.1f} to "
            f"{high:.1f} mm, and results outside this range are not validated."
        )
    grid = prepared.volume.z.shape[1:3]
    if min(grid) < trained.trained_grid[0] or max(grid) > trained.trained_grid[1]:
        sentences.append(
            f"The finer grid of {grid[0]} x {grid[1]} voxels is outside the trained range of "
            f"{trained.trained_grid[0]} to {trained.trained_grid[1]}."
        )
    return tuple(sentences)
