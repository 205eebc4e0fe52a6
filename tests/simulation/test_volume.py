"""Volumes: truth against the table, 2D against 3D, quality maps, determinism, leaks, files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mrsi_fast.config import ConfigError
from mrsi_fast.mrsi.geometry import fov_corner_difference_mm, hr_affine
from mrsi_fast.mrsi.io import read_maps
from mrsi_fast.mrsi.quality import assess
from mrsi_fast.simulation import SimulatedSubject, simulate, write_subject
from mrsi_fast.simulation.concentrations import metabolite
from mrsi_fast.simulation.config import SimulationConfig
from mrsi_fast.simulation.keys import Key
from mrsi_fast.simulation.subject import draw_subject
from mrsi_fast.simulation.volume import SPIKE_CRLB

from .conftest import NO_TUMOUR, NO_VARIATION, phantom_settings

THREE = {"slices": 3, "first_mm": 5.0, "step_mm": 15.0}
COARSE = {"object_voxel_mm": 3.5, "object_plane_mm": 5.0}  # one point per voxel: enough where only logic is tested


def one(config: SimulationConfig, number: int = 0, seed: int = 0, scales=(2, 4)) -> SimulatedSubject:
    return next(simulate(config, [number], seed, scales))


@pytest.fixture(scope="module")
def realistic() -> SimulatedSubject:
    return one(phantom_settings("realistic-3T", volume=THREE, tumour={"probability": 1.0, "single_metabolite": 0.0}))


def test_truth_holds_the_table_s_concentrations_within_2_percent() -> None:
    config = phantom_settings(variation=NO_VARIATION, tumour=NO_TUMOUR, signal={"bias": 0.0}, volume=THREE)
    subject = one(config)
    for tissue in ("GM", "WM"):
        pure = subject.tissue[tissue] > 0.999
        assert pure.sum() > 100
        for name, image in zip(subject.names, subject.truth, strict=True):
            assert image[pure].mean() == pytest.approx(metabolite(name).cells[tissue].mean, rel=0.02, abs=1e-12)
    mixed = sum(subject.tissue[t] * metabolite("tNAA").cells[t].mean for t in ("GM", "WM"))
    np.testing.assert_allclose(subject.truth[0], mixed, atol=1e-5)


def test_ratio_maps_do_not_see_the_bias_field() -> None:
    tables = {"variation": NO_VARIATION, "volume": THREE | {"source": "object"}}
    flat, biased = (one(phantom_settings(signal={"bias": bias}, **tables)) for bias in (0.0, 0.3))
    assert np.abs(biased.truth[0] / np.maximum(flat.truth[0], 1e-6) - 1)[flat.masks["brain"]].max() > 0.03
    inside = flat.truth[0] > 1
    ratio = [s.truth[2][inside] / s.truth[0][inside] for s in (flat, biased)]
    np.testing.assert_allclose(ratio[1], ratio[0], rtol=2e-3)
    for pair in flat.measured:
        low = [s.measured[pair].maps for s in (flat, biased)]
        voxels = low[0][0] > 3
        change = np.abs(low[1][2] / low[1][0] / (low[0][2] / low[0][0]) - 1)[voxels]
        assert np.median(change) < 0.02


def test_a_slice_of_a_volume_is_the_slice_alone() -> None:
    tables = {"tumour": {"probability": 1.0}, "object_voxel_mm": 1.8, "object_plane_mm": 2.0}
    volume = one(phantom_settings("realistic-3T", volume=THREE, **tables))
    for index in range(3):
        grid = THREE | {"slices": 1, "first_mm": 5.0 + 15 * index}
        alone = one(phantom_settings("realistic-3T", volume=grid, **tables))
        np.testing.assert_array_equal(alone.truth[..., 0], volume.truth[..., index])
        for pair in volume.measured:
            np.testing.assert_array_equal(alone.measured[pair].clean[..., 0], volume.measured[pair].clean[..., index])


def test_subjects_depend_on_preset_number_and_seed_alone() -> None:
    config = phantom_settings("realistic-3T", volume=THREE, **COARSE)
    several = {s.provenance["subject"]: s.checksum() for s in simulate(config, 3, seed=5, scales=[4])}
    assert one(config, 2, 5, [4]).checksum() == several[2]
    assert len({*several.values(), one(config, 2, 6, [4]).checksum()}) == 4


def test_the_checksum_sees_every_array(realistic: SimulatedSubject) -> None:
    before = realistic.checksum()
    truth = realistic.truth.copy()
    truth[3, 30, 30, 1] += 0.01
    assert replace(realistic, truth=truth).checksum() != before
    low = realistic.measured[(4, 4)]
    changed = {**realistic.measured, (4, 4): replace(low, maps=np.where(low.maps > 5, 0, low.maps))}
    assert replace(realistic, measured=changed).checksum() != before
    assert replace(realistic, truth=realistic.truth + np.float32(1e-7)).checksum() == before


def test_grids_share_their_field_of_view(realistic: SimulatedSubject) -> None:
    for (fx, fy), low in realistic.measured.items():
        np.testing.assert_allclose(hr_affine(low.affine, (fx, fy, 1)), realistic.affine, atol=1e-9)
        assert fov_corner_difference_mm(
            low.affine, low.maps.shape[1:], realistic.affine, realistic.truth.shape[1:]
        ) == pytest.approx(0.0, abs=1e-9)
    centre = realistic.affine @ [31.5, 31.5, 0, 1]
    np.testing.assert_allclose(centre[:3], [0.0, 0.0, 5.0], atol=1e-9)


def test_quality_maps_say_what_the_noise_is(realistic: SimulatedSubject) -> None:
    low = realistic.measured[(2, 2)]
    sigma = low.crlb / 100 * np.abs(low.maps)
    capped = (low.crlb >= 998) | ~np.isfinite(low.maps) | low.failed
    np.testing.assert_allclose((sigma / low.noise_sd)[~capped], 1.0, atol=0.3)
    spikes = low.failed & (np.abs(low.maps) > 0)  # a failed fit with a value; NaN compares as false
    noticed = (low.crlb[spikes] >= SPIKE_CRLB[0]) & (low.crlb[spikes] <= SPIKE_CRLB[1])
    assert spikes.sum() > 10 and noticed.mean() > 0.7
    trust = assess(realistic.mapset(2))
    assert trust.trusted[spikes & low.mask].mean() < 0.4
    table = np.array([metabolite(name).noise(1.0) for name in realistic.names])
    assert (trust.noise[[0, 1, 2]] / table[[0, 1, 2]] > 0).all() and trust.noise[5] == pytest.approx(
        np.median(low.noise_sd[5][low.mask]), rel=0.25
    )
    missing = np.isnan(low.maps)
    assert not trust.trusted[missing].any()
    kept = (trust.trusted & low.mask).sum() / (low.mask.sum() * len(realistic.names))
    assert 0.75 < kept < 0.995
    residual = (low.maps - low.clean)[:5][trust.trusted[:5] & low.mask]
    assert np.median(np.abs(residual) / low.noise_sd[:5][trust.trusted[:5] & low.mask]) < 1.2


def test_noise_free_presets_come_without_quality_maps() -> None:
    subject = one(phantom_settings("yale", volume={"slices": 1}))
    low = subject.measured[(4, 4)]
    assert low.crlb is None and low.snr is None and low.fwhm_ppm is None and low.mask is None
    assert (low.maps >= 0).all() and subject.provenance["inverse_crime"]
    maps = subject.mapset(4)
    assert maps.names == subject.names and maps.units == "mM"
    with pytest.raises(KeyError, match="not at"):
        subject.mapset(8)


def test_a_single_metabolite_lesion_changes_its_map_only() -> None:
    tables = {"volume": {"first_mm": -10.0, "step_mm": 6.0, "slices": 8}, "signal": {"bias": 0.1}} | COARSE
    lesion = {"probability": 1.0, "single_metabolite": 1.0, "t1_only": 0.0, "radius_mm": (20.0, 20.0)}
    with_lesion = one(phantom_settings(tumour=lesion, **tables), scales=[4])
    without = one(phantom_settings(tumour=NO_TUMOUR, **tables), scales=[4])
    hit = with_lesion.provenance["lesion"]["maps"]
    assert len(hit) == 1 and with_lesion.masks["lesion"].sum() > 20
    for name, a, b in zip(with_lesion.names, with_lesion.truth, without.truth, strict=True):
        if name in hit:
            assert np.abs(a - b)[with_lesion.masks["lesion"]].mean() > 0.05
        else:
            np.testing.assert_array_equal(a, b)


def test_a_lesion_on_t1_only_changes_no_map() -> None:
    tables = {"volume": {"first_mm": -10.0, "step_mm": 6.0, "slices": 8}} | COARSE
    shown = one(phantom_settings(tumour={"probability": 0.0, "t1_only": 1.0, "radius_mm": (20.0, 20.0)}, **tables))
    plain = one(phantom_settings(tumour=NO_TUMOUR, **tables))
    np.testing.assert_array_equal(shown.truth, plain.truth)
    for pair in shown.measured:
        np.testing.assert_array_equal(shown.measured[pair].maps, plain.measured[pair].maps)
    assert np.abs(shown.anatomy - plain.anatomy).max() > 0.05 and not shown.membership.any()
    assert shown.provenance["t1_only_lesion"] and not plain.provenance["t1_only_lesion"]


def test_masks_lie_where_their_names_say() -> None:
    lesion = {"probability": 1.0, "single_metabolite": 0.0, "radius_mm": (18.0, 18.0), "t1_only": 0.0}
    subject = one(phantom_settings(tumour=lesion, volume={"slices": 12, "first_mm": -10.0}, **COARSE), number=1)
    masks = subject.masks
    assert masks["lesion"].sum() > 50 and masks["rim"].sum() > 50 and masks["NAWM"].sum() > 200
    assert not (masks["lesion"] & masks["rim"]).any() and not (masks["NAWM"] & masks["lesion"]).any()
    assert subject.membership[masks["NAWM"]].max() < 0.01
    side = np.sign(subject.provenance["lesion"]["centre_mm"][0])
    x = (subject.affine @ np.array([*np.argwhere(masks["NAWM"]).T, np.ones(masks["NAWM"].sum())]))[0]
    assert (np.sign(x) == -side).all()
    assert not (masks["lesion"] & ~masks["brain"]).any()


def test_lesions_and_their_kinds_have_the_configured_shares() -> None:
    config = phantom_settings()
    kinds = []
    for number in range(300):
        lesion = draw_subject(config, Key.of("subject", 0, number), ("tNAA", "2HG")).lesion
        kinds.append("none" if lesion is None else lesion.kind)
    share = {kind: kinds.count(kind) / 300 for kind in ("none", "single", "IDHmut", "IDHwt")}
    assert share["none"] == pytest.approx(0.2, abs=0.07) and share["single"] == pytest.approx(0.16, abs=0.07)
    assert share["IDHmut"] == pytest.approx(0.448, abs=0.09) and share["IDHwt"] == pytest.approx(0.192, abs=0.07)


def test_2hg_is_found_in_idh_mutant_lesions_only() -> None:
    for share, present in ((1.0, True), (0.0, False)):
        lesion = {"probability": 1.0, "single_metabolite": 0.0, "idh_mutant": share, "radius_mm": (15.0, 15.0)}
        subject = one(phantom_settings(tumour=lesion, volume={"slices": 12, "first_mm": -10.0}, **COARSE), number=1)
        map_2hg = subject.truth[subject.names.index("2HG")]
        assert bool(map_2hg.max() > 0.8) is present
        assert map_2hg[subject.membership == 0].max() == 0.0


def test_written_subjects_read_back(realistic: SimulatedSubject, tmp_path: Path) -> None:
    *measured, truth = write_subject(realistic, tmp_path)
    assert [folder.name for folder in measured] == ["sub-000_acq-x2", "sub-000_acq-x4"]
    maps = read_maps(measured[1])
    low = realistic.measured[(4, 4)]
    for name, image, bound in zip(maps.names, maps.maps, maps.crlb, strict=True):
        index = realistic.names.index(name)
        np.testing.assert_array_equal(image, low.maps[index])
        np.testing.assert_array_equal(bound, low.crlb[index])
    np.testing.assert_array_equal(maps.mask, low.mask)
    np.testing.assert_allclose(maps.affine, low.affine, atol=1e-5)
    image = nib.load(truth / "tCho.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), realistic.truth[realistic.names.index("tCho")])
    record = json.loads((truth / "simulation.json").read_text())
    assert record["sha256"] == realistic.checksum() and record["preset"] == "realistic-3T"


@pytest.mark.parametrize("preset", ["paper-like", "yale", "realistic-3T", "realistic-7T", "stress"])
def test_every_preset_runs_on_the_phantom(preset: str) -> None:
    subject = one(phantom_settings(preset, volume={"slices": 1, "first_mm": 10.0}), scales=[2, (4, 8), 8])
    assert np.isfinite(subject.truth).all() and np.isfinite(subject.anatomy).all()
    for (fx, fy), low in subject.measured.items():
        assert low.maps.shape[1:3] == (subject.truth.shape[1] // fx, subject.truth.shape[2] // fy)
        assert np.isfinite(low.clean).all()


def test_a_factor_must_divide_the_matrix() -> None:
    with pytest.raises(ConfigError, match="does not divide the matrix 60x64"):
        one(phantom_settings(volume={"matrix": (60, 64), "slices": 1}), scales=[8])
