"""Refining the slices too: three passes, their inputs, the result's geometry and its agreement with the data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from mrsi_fast import SuperResolver, three_planes, three_planes_samples
from mrsi_fast.models.condition import residual_rms
from mrsi_fast.mrsi.geometry import fov_corner_difference_mm
from mrsi_fast.mrsi.io import read_maps
from mrsi_fast.mrsi.mapset import MapInputError, MapSet
from mrsi_fast.preparation import AcquisitionSettings, Prepared, prepare
from mrsi_fast.sampling import Sampler
from support.networks import random_resolver
from support.volume_reference import encoded_axis, sliced_axis, volume_matrix

AFFINE = np.array([[-5.0, 0.2, 0, 70], [0.2, 5.0, 0, -60], [0, 0, 5.25, 5], [0, 0, 0, 1]])
SHAPE = (8, 7, 6)
NAMES = ("tNAA", "tCho")
FREE = {"data_consistency": "hard", "noise": 0.0}


@pytest.fixture(scope="module")
def resolver(tmp_path_factory: pytest.TempPathFactory) -> SuperResolver:
    return random_resolver(tmp_path_factory.mktemp("model"), spread=True)


def make_maps(**fields) -> MapSet:
    rng = np.random.default_rng(0)
    return MapSet((5 + rng.random((2, *SHAPE))).astype(np.float32), AFFINE, NAMES, **fields)


@pytest.mark.parametrize("factors", [(2, 2, 2), (2, 4, 2), (2, 2, 4), (1, 1, 2), (2, 1, 2)])
def test_the_grid_is_finer_along_all_axes_over_the_same_field_of_view(resolver, factors) -> None:
    result = resolver(make_maps(), scale=factors)
    shape = tuple(n * f for n, f in zip(SHAPE, factors, strict=True))
    assert result.mean.shape == result.std.shape == result.zero_fill.shape == (2, *shape)
    assert np.isfinite(result.mean).all() and (result.std > 0).all()
    assert fov_corner_difference_mm(AFFINE, SHAPE, result.affine, shape) < 1e-9
    assert result.provenance["factors"] == list(factors)
    assert result.provenance["fov_corner_difference_mm"] < 1e-9


@pytest.mark.parametrize(
    ("acquisition", "z"),
    [
        ({"through_plane": "encoded"}, encoded_axis(6, 2)),
        ({"through_plane": "slices", "thickness_mm": 5.25}, sliced_axis(6, 2)),
    ],
)
def test_hard_consistency_reproduces_the_measured_volume(resolver, acquisition, z) -> None:
    maps = make_maps()
    result = resolver(maps, scale=(2, 2, 2), acquisition=acquisition, **FREE)
    dense = volume_matrix([z, encoded_axis(8, 2), encoded_axis(7, 2)])
    for measured, found in zip(maps.maps, result.mean, strict=True):
        seen = dense @ np.moveaxis(found, -1, 0).astype(np.float64).ravel()
        wanted = np.moveaxis(measured, -1, 0).ravel()
        assert np.linalg.norm(seen - wanted) < 1e-5 * np.linalg.norm(wanted)
    assert max(facts["residual_relative"] for facts in result.provenance["maps"].values()) < 1e-5
    assert "6 slices refined to 12 planes" in result.provenance["operator"]


@pytest.mark.parametrize("axis", [0, 1])
def test_slices_on_any_axis_give_the_same_values_in_the_same_places(resolver, axis: int) -> None:
    maps = make_maps(mask=np.ones(SHAPE, bool))
    order = [[2, 0, 1], [0, 2, 1]][axis]  # where each axis of the turned maps comes from
    affine = AFFINE.copy()
    affine[:3, :3] = AFFINE[:3, order]
    turned = read_maps(
        (np.ascontiguousarray(np.transpose(maps.maps, (0, *(a + 1 for a in order)))), affine),
        names=list(NAMES),
        slice_axis=axis,
    )
    noise = {"noise": 0.1, "acquisition": {"through_plane": "encoded"}}
    straight = resolver(make_maps(), scale=(2, 2, 2), **noise)
    found = resolver(turned, scale=(2, 2, 2), **noise)
    back = np.argsort(order)
    np.testing.assert_array_equal(np.transpose(found.mean, (0, *(a + 1 for a in back))), straight.mean)
    np.testing.assert_allclose(found.affine[:3, :3][:, back], straight.affine[:3, :3])
    assert found.stem("sr") == "res-x2x2x2_desc-sr_mrsi"


def _prepared(scale=(2, 2, 2), noise: float = 0.0, **settings) -> Prepared:
    return prepare(make_maps(), scale, "auto", AcquisitionSettings(**settings), noise=noise)


def test_passes_see_what_was_measured_and_what_is_known_across_their_planes() -> None:
    prepared = _prepared(through_plane="encoded")
    stack = three_planes.Stack.of(prepared)
    assert stack.directions() == [2, 1, 0]
    maps = prepared.maps.maps.astype(np.float64)
    slices = stack.measured_slices()
    in_plane = np.linalg.pinv(np.kron(encoded_axis(8, 2), encoded_axis(7, 2)))
    wanted = (in_plane @ maps.reshape(2, 56, 6)).reshape(2, 16, 14, 6)
    np.testing.assert_allclose(slices.z, wanted, rtol=2e-6)
    assert (slices.factors, slices.slices) == ((2, 2), tuple(range(6)))
    rng = np.random.default_rng(5)
    sharp = rng.standard_normal((2, 16, 14, 12)).astype(np.float32)
    bands = [np.linalg.pinv(a) @ a for a in (encoded_axis(8, 2), encoded_axis(7, 2), encoded_axis(6, 2))]
    for across, subscripts in ((1, "px,rz,mxyz->mpyr"), (0, "qy,rz,mxyz->mxqr"), (2, "px,qy,mxyz->mpqz")):
        planes = stack.planes(across, sharp)
        first, second = three_planes.in_plane(across)
        kept = np.einsum(subscripts, bands[first], bands[second], sharp)  # detail across the planes alone
        wanted = three_planes.planes_last(prepared.volume.z + kept, across)
        np.testing.assert_allclose(planes.z, wanted, atol=2e-5)
        assert planes.voxel_mm == pytest.approx([(2.502, 2.502, 2.625)[a] for a in (first, second)], rel=1e-3)
        np.testing.assert_array_equal(three_planes.planes_back(planes.z, across), np.moveaxis(planes.z, -1, across - 3))


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_later_passes_hold_the_first_ones_band_where_maps_are_noisy_and_the_data_where_they_are_not(
    noise: float,
) -> None:
    """A network that adds 1 to all it sees, which lies within every band."""
    prepared = _prepared(noise=noise, through_plane="encoded")
    seen = []

    class Network:
        def mean(self, volume, projection, on_evaluation):
            seen.append(volume)
            return (volume.z + 1).astype(np.float32), np.full(volume.z.shape, 2.0, np.float32)

    _, sd = three_planes.mean(prepared, Network())
    np.testing.assert_allclose(sd, np.sqrt(4 + 4 / 2) if noise else 2.0, rtol=1e-6)
    assert len(seen) == 3
    for volume, across in zip(seen[1:], (1, 0), strict=True):
        added = three_planes.planes_back(volume.z, across) - prepared.volume.z
        assert float(added.mean()) == pytest.approx(1.0 if noise else 0.0, abs=1e-4)
        assert float(added.std()) < 0.5


def test_separate_slices_are_shown_smooth_not_as_a_staircase() -> None:
    prepared = _prepared(through_plane="slices", thickness_mm=5.25)
    sharp = np.random.default_rng(6).standard_normal(prepared.volume.z.shape).astype(np.float32)
    seen = three_planes.Stack.of(prepared).seen(1, sharp)
    steps = np.abs(np.diff(seen, axis=-1)).mean(axis=(0, 1, 2))  # of a staircase every second one is 0
    assert steps[::2].mean() > 0.3 * steps[1::2].mean()


def test_a_window_is_undone_for_noisy_data_as_it_is_in_training() -> None:
    declared = {"window": "hamming", "support": "square", "through_plane": "encoded"}
    exact, damped = (_prepared(noise=level, **declared) for level in (0.0, 0.1))
    sharp = np.random.default_rng(7).standard_normal(exact.volume.z.shape).astype(np.float32)
    power = [float((three_planes.Stack.of(one).seen(1, sharp) ** 2).sum()) for one in (exact, damped)]
    assert power[1] < 0.8 * power[0]


def test_the_planes_of_an_image_are_each_in_standard_units() -> None:
    rng = np.random.default_rng(8)
    image = 100 + 20 * rng.random((16, 14, 12))
    affine = AFFINE.copy()
    affine[:3, :3] /= 2
    affine[:3, 3] -= AFFINE[:3, :3].sum(axis=1) / 4
    prepared = prepare(make_maps(), (2, 2, 2), anatomy=nib.Nifti1Image(image.astype(np.float32), affine))
    stack = three_planes.Stack.of(prepared)
    for volume in (stack.measured_slices(), stack.planes(1, np.zeros_like(prepared.volume.z))):
        assert volume.anatomy.shape == volume.z.shape[1:]
        np.testing.assert_allclose(volume.anatomy.mean(axis=(0, 1)), 0, atol=1e-5)
        np.testing.assert_allclose(volume.anatomy.std(axis=(0, 1)), 1, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "options", "sentence"),
    [
        ((8, 7, 1), {}, "There is one slice: too few to be refined through the plane"),
        ((8, 7, 5), {}, "There are 5 slices: too few"),
        (SHAPE, {"through_plane": "slices"}, "whether there are gaps between them is not known.*5.25 if they are adj"),
        (SHAPE, {"through_plane": "slices", "thickness_mm": 6.0}, "at most the distance of slices"),
        (SHAPE, {"thickness_mm": 5.0}, "which a phase-encoded axis does not have"),
    ],
)
def test_what_cannot_be_refined_is_refused_in_a_sentence(resolver, shape, options, sentence) -> None:
    maps = MapSet(np.ones((1, *shape), np.float32), AFFINE, ("tNAA",))
    with pytest.raises(MapInputError, match=sentence):
        resolver(maps, scale=(2, 2, 2), acquisition=options)
    resolver(maps, scale=2, acquisition={"through_plane": "slices"})  # nothing is refined: nothing has to be known


def test_an_assumption_is_said_and_a_declaration_silences_it(resolver) -> None:
    said = resolver(make_maps(), scale=(2, 2, 2))
    assert any("assumed to be phase-encoded" in sentence for sentence in said.warnings)
    assert said.provenance["operator_assumed"]
    told = resolver(make_maps(), scale=(2, 2, 2), acquisition={"through_plane": "encoded"})
    assert not any("phase-encoded" in sentence for sentence in told.warnings)
    np.testing.assert_array_equal(said.mean, told.mean)


def test_untrusted_voxels_become_nan_on_every_plane_of_their_slice(resolver) -> None:
    maps = make_maps()
    maps.maps[:, 3, 2, 1] = np.nan
    result = resolver(maps, scale=(2, 2, 2))
    lost = np.zeros(result.mean.shape, bool)
    lost[:, 6:8, 4:6, 2:4] = True
    np.testing.assert_array_equal(np.isnan(result.mean), lost)
    np.testing.assert_array_equal(np.isnan(result.std), lost)


def test_progress_counts_every_batch_and_results_are_saved_under_their_own_name(resolver, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = resolver(make_maps(), scale=(2, 2, 2), progress=lambda done, total: seen.append((done, total)))
    assert (
        seen[-1][0] == seen[-1][1] == 1 + 1 + 2 + 2
    )  # 6 slices, again, 14 coronal and 16 sagittal planes in batches of 8
    names = {path.name for path in result.save(tmp_path)}
    assert "res-x2x2x2_met-NAANAAG_desc-sr_mrsi.nii.gz" in names
    written = nib.load(tmp_path / "res-x2x2x2_met-NAANAAG_desc-sr_mrsi.nii.gz")
    np.testing.assert_allclose(written.affine, result.affine, atol=1e-5)
    np.testing.assert_allclose(written.header.get_zooms(), [2.502, 2.502, 2.625], rtol=1e-3)


def test_a_scan_is_asked_about_itself_in_its_plane(resolver) -> None:
    rng = np.random.default_rng(1)
    maps = MapSet((5 + rng.random((2, 14, 14, 6))).astype(np.float32), AFFINE, NAMES)
    assert resolver(maps, scale=(2, 2, 2), evidence="on").evidence.tested
    assert not resolver(maps, scale=(1, 1, 2), evidence="on").evidence.tested
    shrunk = resolver(maps, scale=(2, 2, 2), shrink="auto")
    assert shrunk.mean.shape == (2, 28, 28, 12)


def _sampler(resolver: SuperResolver) -> Sampler:
    return resolver._sampler


@pytest.mark.parametrize("factors", [(2, 2, 2), (2, 2, 4)])
def test_a_step_along_any_direction_keeps_the_state(resolver, factors) -> None:
    """Estimate plus noise is the same volume before and after; the estimate is the network's at that noise level."""
    prepared = _prepared(factors, noise=0.1, through_plane="encoded")
    stack, sampler = three_planes.Stack.of(prepared), _sampler(resolver)
    rng = np.random.default_rng(9)
    found = prepared.volume.z + rng.standard_normal(prepared.volume.z.shape).astype(np.float32)
    noise = rng.standard_normal(found.shape).astype(np.float32)
    for across in stack.directions():
        planes = stack.planes(across, np.zeros_like(found))
        turned = [three_planes.planes_last(one, across) for one in (found, noise)]
        better, left = sampler.denoise(planes, *turned, 3.0)
        table = torch.tensor([planes.factors], dtype=torch.float32)
        rms = residual_rms(sampler.diffusion.residual_rms, table)[0].numpy()
        unit = (rms[[0, 2]] * planes.scale)[:, None, None, None]  # channels of tNAA and tCho
        before, after = (a + 3.0 * unit * b for a, b in (turned, (better, left)))
        np.testing.assert_allclose(after, before, atol=2e-4 * np.abs(before).max())
        assert np.abs(better - turned[0]).max() > 0.1


def test_at_the_largest_level_without_noise_a_step_is_the_mean(resolver) -> None:
    prepared = _prepared(noise=0.1, through_plane="encoded")
    planes = three_planes.Stack.of(prepared).planes(1, np.zeros_like(prepared.volume.z))
    sampler = _sampler(resolver)
    better, _ = sampler.denoise(planes, planes.z, np.zeros_like(planes.z), sampler.diffusion.sigma_max)
    np.testing.assert_allclose(better, sampler.mean(planes)[0], rtol=1e-5)


def test_samples_are_reproducible_differ_and_hold_to_the_data(resolver) -> None:
    options = {"scale": (2, 2, 2), "steps": 4, "acquisition": {"through_plane": "encoded"}}
    two = resolver(make_maps(), samples=2, **options, **FREE)
    again = resolver(make_maps(), samples=1, **options, **FREE)
    np.testing.assert_array_equal(two.samples[0], again.samples[0])
    np.testing.assert_array_equal(two.mean, again.mean)  # the mean is the one-step estimate whatever is drawn
    apart = two.samples[0] - two.samples[1]
    assert np.abs(apart).max() > 0.01
    dense = volume_matrix([encoded_axis(6, 2), encoded_axis(8, 2), encoded_axis(7, 2)])
    for one in apart:  # two samples of the same data differ by what was not measured
        seen = dense @ np.moveaxis(one, -1, 0).astype(np.float64).ravel()
        assert np.linalg.norm(seen) < 1e-4 * np.linalg.norm(one)
    other = resolver(make_maps(), samples=1, seed=1, **options, **FREE)
    assert np.abs(other.samples[0] - two.samples[0]).max() > 0.01


def test_the_first_noise_is_white_in_all_directions_and_that_of_its_map() -> None:
    volume = _prepared(through_plane="encoded").volume
    noise = three_planes_samples.white_noise(volume, 0, 0)
    four_errors = 4 / np.sqrt(noise.size)
    assert abs(noise.mean()) < four_errors and abs(noise.std() - 1) < four_errors / np.sqrt(2)
    for axis in (1, 2, 3):
        first, second = (np.take(noise, range(i, noise.shape[axis] - 1 + i), axis) for i in (0, 1))
        assert abs((first * second).mean()) < four_errors * np.sqrt(noise.size / first.size)
    swapped = replace(volume, names=volume.names[::-1], z=volume.z[::-1].copy())
    np.testing.assert_array_equal(three_planes_samples.white_noise(swapped, 0, 0), noise[::-1])


def test_neighbouring_planes_share_noise_of_unit_variance() -> None:
    noise = three_planes_samples.shared(np.random.default_rng(0).standard_normal((4, 40, 50, 6), np.float32))
    four_errors, share = 4 / np.sqrt(noise[..., 0].size), three_planes_samples.NEIGHBOURS_SHARE
    for plane in range(6):
        assert abs(noise[..., plane].std() - 1) < four_errors
    inner = 2 * share / (1 + 2 * share**2)  # both planes have two neighbours
    assert abs((noise[..., 2] * noise[..., 3]).mean() - inner) < four_errors
    assert abs((noise[..., 1:] * np.roll(noise, 1, 1)[..., 1:]).mean()) < four_errors  # nothing in the plane
    single = np.ones((1, 2, 2, 1), np.float32)
    np.testing.assert_array_equal(three_planes_samples.shared(single), single)


def test_samples_of_noisy_maps_hold_the_band_of_sampled_slices(resolver, monkeypatch) -> None:
    held: list[np.ndarray] = []
    inner = three_planes.Stack.holding

    def watched(self, slices):
        held.append(slices)
        return inner(self, slices)

    monkeypatch.setattr(three_planes.Stack, "holding", watched)
    resolver(make_maps(), scale=(2, 2, 2), samples=2, steps=3)
    stack = three_planes.Stack.of(_prepared(through_plane="encoded"))
    assert [one.shape for one in held] == [stack.measured_slices().z.shape] * 3  # the mean's, and one a sample
    assert not np.array_equal(held[1], held[2])
    held.clear()
    resolver(make_maps(), scale=(2, 2, 2), samples=1, steps=3, **FREE)
    assert len(held) == 1  # maps without noise hold what was measured


def test_steps_alternate_between_directions_and_progress_counts_them(resolver, monkeypatch) -> None:
    shapes: list[tuple[int, ...]] = []
    sampler = _sampler(resolver)
    inner = type(sampler).denoise

    def watched(self, volume, *rest):
        shapes.append(volume.z.shape[1:])
        return inner(self, volume, *rest)

    monkeypatch.setattr(type(sampler), "denoise", watched)
    seen: list[tuple[int, int]] = []
    options = {"samples": 1, "steps": 4, "progress": lambda *counts: seen.append(counts)}
    resolver(make_maps(), scale=(2, 2, 2), **options)
    assert shapes == [(16, 14, 12), (16, 12, 14), (14, 12, 16), (16, 14, 12)]
    assert seen[-1][0] == seen[-1][1] == (1 + 1 + 2 + 2) + 4 + (2 + 2 + 2 + 2)  # outliers, mean, slices, volume
