"""The sentences beside a result say what its provenance says, before and after a trip through JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mrsi_fast.mrsi.export import without_identity
from mrsi_fast.report.summary import (
    HEADS,
    agreement_rows,
    figure_notes,
    grouped_warnings,
    short_number,
    summary_lines,
)


@pytest.fixture
def provenance() -> dict[str, Any]:
    signal = {
        "content": "signal",
        "noise_sd": 93.448,
        "noise_source": "crlb",
        "trusted_voxels": 349,
        "residual_relative": 0.0123,
        "residual_whitened": 18.91,
        "residual_expected": 18.68,
        "energy_outside_band": 0.0055,
    }
    unknown = signal | {"noise_source": "assumed", "residual_whitened": float("nan"), "residual_expected": float("nan")}
    return {
        "input_grid": {"shape": [14, 14, 3], "voxel_mm": [10.0, 10.0, 12.0]},
        "output_grid": {"shape": [28, 28, 3], "voxel_mm": [5.0, 5.0, 12.0]},
        "fov_corner_difference_mm": 1e-14,
        "device": "cpu",
        "device_reason": "auto: CUDA is not available",
        "threads": 2,
        "engine": "eager",
        "engine_reason": "asked for by name",
        "operator": "14x14 k-space samples of a 28x28 map, all lines, no window (assumed: declare window).",
        "operator_assumed": True,
        "data_consistency": {"description": "Data consistency: soft, one correction. Operator: 14x14 samples."},
        "model": {"name": "base", "sha256": "0123456789abcdef" * 4},
        "operating_point": "mean of 8 samples",
        "samples": 8,
        "steps": 8,
        "solver": "dpmpp_2m",
        "seed": 3,
        "seconds": 11.42,
        "note": "Detail beyond the measured k-space is inferred. Research use only.",
        "maps": {"tNAA": signal, "Ins": unknown, "2HG": signal | {"content": "noise"}},
    }


def test_lines_name_grids_operator_engine_and_draw(provenance: dict[str, Any]) -> None:
    lines = dict(summary_lines(provenance))
    assert lines["input grid"] == "14x14x3 voxels of 10 x 10 x 12 mm"
    assert lines["output grid"] == "28x28x3 voxels of 5 x 5 x 12 mm"
    assert lines["FOV corners"] == "moved 0.000 mm"
    assert lines["engine"] == "eager (asked for by name)"
    assert lines["consistency"] == "soft, one correction."
    assert lines["result"] == "mean of 8 samples, 8 steps of dpmpp_2m, seed 3, 11.4 s"


def test_one_step_results_name_no_solver(provenance: dict[str, Any]) -> None:
    lines = dict(summary_lines(provenance | {"samples": 0, "operating_point": "one-step posterior mean"}))
    assert lines["result"] == "one-step posterior mean, 11.4 s"
    lines = dict(summary_lines(provenance | {"samples": 4, "operating_point": "one-step posterior mean"}))
    assert lines["result"] == "one-step posterior mean beside 4 samples, 8 steps of dpmpp_2m, seed 3, 11.4 s"


@pytest.mark.parametrize("from_file", [False, True])
def test_residual_stands_beside_what_noise_explains(provenance: dict[str, Any], from_file: bool) -> None:
    facts = json.loads(json.dumps(without_identity(provenance))) if from_file else provenance
    measured, unknown, noise = agreement_rows(facts)
    assert measured == ("tNAA", "349", "93.45 (crlb)", "18.91", "18.68", "1.23%", "0.55%")
    assert unknown[3:5] == ("?", "?")
    assert noise[2] == "only noise" and len(noise) == len(HEADS)


def test_figures_carry_the_agreement_of_their_map(provenance: dict[str, Any]) -> None:
    grid, setting, agreement, legend = figure_notes(provenance, "tNAA")
    assert "FOV corners moved 0.000 mm" in grid
    assert setting.endswith("operator (assumed): 14x14 k-space samples of a 28x28 map, all lines, no window.")
    assert "residual 18.9, expected from noise 18.7 (1.2% of the measured map)" in agreement
    assert legend.startswith("Crosses and grey:") and legend.endswith("Research use only.")
    assert len(figure_notes(provenance)) == len(figure_notes(provenance, "2HG")) == 3


def test_warnings_that_differ_in_map_and_one_number_are_one_sentence() -> None:
    names = ["tNAA", "tCr", "2HG", "Ins"]
    warnings = [
        "tNAA: 19.0 % of the values are negative; they are kept.",
        "T1.nii.gz: not used.",
        "tCr: 23.5 % of the values are negative; they are kept.",
        "2HG: 45.7 % of the values are negative; they are kept.",
        "tNAA: 21 voxels are at 998 %.",
        "tCr: 31 voxels are at 998 %.",
        "2HG: 45 voxels are at 998 %.",
        "Ins: one voxel is off: (6, 12, 2).",
        "tCr: one voxel is off: (1, 2, 3).",
        "2HG: one voxel is off: (4, 5, 6).",
    ]
    assert grouped_warnings(warnings, names) == [
        "tNAA, tCr, 2HG: 19.0, 23.5, 45.7 % of the values are negative; they are kept.",
        "T1.nii.gz: not used.",
        "tNAA, tCr, 2HG: 21, 31, 45 voxels are at 998 %.",
        "Ins: one voxel is off: (6, 12, 2).",
        "tCr: one voxel is off: (1, 2, 3).",
        "2HG: one voxel is off: (4, 5, 6).",
    ]
    assert grouped_warnings(["a: 1", "b: 2", "c: 3"], names) == ["a: 1", "b: 2", "c: 3"]


@pytest.mark.parametrize(
    ("value", "text"), [(4331.2, "4331"), (-1141.0, "-1141"), (0.57291, "0.573"), (985.4, "985"), (0.0, "0")]
)
def test_short_numbers(value: float, text: str) -> None:
    assert short_number(value) == text
