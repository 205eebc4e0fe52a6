"""A mean that departs from its own measurement by more than noise explains is a warning; measured scans get none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from mrsi_fast import SuperResolver
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.io import read_maps
from mrsi_fast.mrsi.mapset import MapSet
from mrsi_fast.preparation import AcquisitionSettings
from mrsi_fast.simulation.config import SimulationConfig
from mrsi_fast.simulation.volume import simulate
from support.data import data_dir
from support.faults import command

AFFINE = np.diag([6.25, 6.25, 10.0, 1.0])
ALARMS = ("leave room for", "in the self-test the added detail errs")


@pytest.fixture(scope="module")
def resolver() -> SuperResolver:
    return SuperResolver.from_pretrained(device="cpu", threads=1)


def measured(kind: str, factor: int = 2) -> NDArray[np.float32]:
    """One slice of an object of 64x64 voxels, measured at a factor without noise."""
    x, y = np.meshgrid(*[(np.arange(64) + 0.5) / 32 - 1] * 2, indexing="ij")
    objects = {
        "smooth": 10 * np.exp(-(x**2 + y**2)),
        "waves": 6 + 2 * np.cos(3 * x) * np.cos(2 * y),
        "constant": np.full_like(x, 7.0),
        "head": np.where(x**2 / 0.7 + y**2 / 0.9 < 1, 8 * (1 + 0.2 * np.sin(4 * x + y)), 0.0),
    }
    one = objects[kind]
    if kind == "head":
        one[(x - 0.3) ** 2 + (y - 0.2) ** 2 < 0.02] = 2.0  # a lesion with a sharp edge
    low = Acquisition((64 // factor, 64 // factor), (factor, factor)).forward(one)
    if kind == "constant":  # a map of exactly one value is passed on as it is
        low = low + 1e-5 * np.random.default_rng(0).standard_normal(low.shape)
    return low.astype(np.float32)[..., None]


def alarms(resolver: SuperResolver, maps: MapSet, factor: int, **options: object) -> list[str]:
    result = resolver(maps, factor, **options)
    return [sentence for sentence in result.warnings if any(part in sentence for part in ALARMS)]


@pytest.mark.parametrize(("crlb", "factor"), [(None, 2), (5.0, 4)])
@pytest.mark.parametrize("kind", ["smooth", "waves", "constant"])
def test_smooth_maps_without_noise(resolver: SuperResolver, kind: str, crlb: float | None, factor: int) -> None:
    values = measured(kind, factor)[None]
    bounds = None if crlb is None else np.full_like(values, crlb)
    maps = MapSet(values, np.diag([3.125 * factor, 3.125 * factor, 10, 1]), ("tNAA",), crlb=bounds)
    found = alarms(resolver, maps, factor, evidence="off")
    assert len(found) == 1 and found[0].startswith("tNAA: "), found
    if factor == 2 and kind == "waves":
        assert any("self-test" in one for one in alarms(resolver, maps, factor, evidence="on"))


@pytest.mark.parametrize("factor", [2, 4])
def test_a_head_with_a_sharp_lesion_is_no_alarm(resolver: SuperResolver, factor: int) -> None:
    maps = MapSet(measured("head", factor)[None], np.diag([3.125 * factor, 3.125 * factor, 10, 1]), ("tNAA",))
    assert not alarms(resolver, maps, factor)


@pytest.mark.parametrize("preset", ["realistic-3T", "stress"])
def test_simulated_heads_are_no_alarm(resolver: SuperResolver, preset: str) -> None:
    config = SimulationConfig.preset(preset)
    anatomy = config.anatomy.model_copy(update={"heads": "phantom", "tumour_masks": None})
    volume = config.volume.model_copy(update={"slices": 1})
    (subject,) = simulate(config.model_copy(update={"anatomy": anatomy, "volume": volume}), 1, scales=(4,))
    operator = subject.measured[4, 4].operator
    known, maps = AcquisitionSettings(support=operator.support, window=operator.window), subject.mapset(4)
    for one in (maps, replace(maps, crlb=None)):
        assert not alarms(resolver, one, 4, acquisition=known)


@pytest.mark.skipif(data_dir() is None, reason="needs the measured scans of ../shared/data")
def test_a_measured_scan_is_no_alarm(resolver: SuperResolver) -> None:
    scan = read_maps(data_dir() / "mrsi_oryx2_mit" / "K_01")
    assert not alarms(resolver, scan, 4)
    assert not alarms(resolver, replace(scan, crlb=None), 2, evidence="off")


def test_terminal_record_report_and_exit_code(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    nib.save(nib.Nifti1Image(measured("waves"), AFFINE), tmp_path / "in" / "conc_tNAA.nii.gz")
    common = ("sr", "-i", tmp_path / "in", "-o", tmp_path / "out", "--threads", "1")
    done = command(*common)
    assert done.exit_code == 0 and "leave room for" in " ".join(done.output.split())
    record = json.loads(next((tmp_path / "out").glob("*_desc-sr_mrsi.json")).read_text())
    facts = record["maps"]["tNAA"]
    assert facts["departure_before_consistency"] > 3 * facts["largest_noise"] > 0
    assert any("leave room for" in one for one in record["warnings"])
    assert "leave room for" in next((tmp_path / "out").glob("*_report.html")).read_text()
    assert command(*common, "--strict").exit_code == 4
