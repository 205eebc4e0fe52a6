"""Splits, published checksums and training batches on the real heads; skipped where the data are absent."""

from __future__ import annotations

from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pytest

from mrsi_fast.config import ConfigError
from mrsi_fast.simulation import SimulationConfig, Simulator, simulate
from mrsi_fast.simulation.anatomy import CLASSES, SPLITS, TUMOUR_SPLITS, head_paths, load_head, resolve_folder
from mrsi_fast.simulation.checksums import agrees, published
from mrsi_fast.simulation.fields import Axis
from mrsi_fast.simulation.keys import Key
from mrsi_fast.simulation.subject import draw_subject
from mrsi_fast.simulation.tumour import MaskShape, mask_distance, mask_paths
from support.data import data_dir

PRESETS = ("paper-like", "yale", "realistic-3T", "realistic-7T", "stress")


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = data_dir()
    if folder is None:
        pytest.skip("real heads are not here: set MRSI_FAST_DATA to the folder of test data")
    monkeypatch.setenv("MRSI_FAST_DATA", str(folder))
    for cache in (head_paths, mask_paths):
        cache.cache_clear()
    return folder


def number(path: str) -> str:
    return Path(path).name.split("_")[0].removeprefix("sub-")


def test_parts_do_not_overlap_and_every_patient_is_on_one_side() -> None:
    for table in (SPLITS, TUMOUR_SPLITS):
        assert all(not set(table[a]) & set(table[b]) for a, b in combinations(table, 2))
    assert sorted(chain(*SPLITS.values())) == [f"{k:02d}" for k in range(1, 21)]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_only_the_part_s_files_are_ever_named(data: Path, split: str) -> None:
    assert {number(p) for p in head_paths("anat_synthseg20", split)} == set(SPLITS[split])
    assert {number(p) for p in mask_paths("tumour_btp11_ccby3", split)} == set(TUMOUR_SPLITS[split])


def test_training_opens_train_heads_and_tumours_only(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: set[str] = set()

    def remember(path: str) -> object:
        opened.add(path)
        return load_head(path)

    def remember_mask(path: str) -> object:
        opened.add(path)
        return mask_distance(path)

    monkeypatch.setattr("mrsi_fast.simulation.warp.load_head", remember)
    monkeypatch.setattr("mrsi_fast.simulation.tumour.mask_distance", remember_mask)
    config = SimulationConfig.preset("training")
    for seed in range(60):
        draw_subject(config, Key.of("item", seed), ("tNAA",))
    heads = {number(path) for path in opened if "dseg" in path}
    tumours = {number(path) for path in opened if "mask" in path}
    assert heads <= set(SPLITS["train"]) and len(heads) > 8
    assert tumours <= set(TUMOUR_SPLITS["train"]) and len(tumours) > 2


def test_real_tumours_have_plausible_sizes(data: Path) -> None:
    for path in mask_paths("tumour_btp11_ccby3", "train"):
        field, radius, reach = mask_distance(path)
        assert 4 < radius < 45 and radius <= reach < 80
        border = [field[[0, -1]], field[:, [0, -1]], field[:, :, [0, -1]]]
        assert min(float(side.min()) for side in border) > 10
        assert MaskShape(field, (0.0, 0.0, 0.0), ((1.0, 0.0), (0.0, 1.0)), 0.5, reach).reach == pytest.approx(reach / 2)


def test_lesions_of_real_shape_end_where_they_should(data: Path) -> None:
    """No step at the border of the region in which the lesion is computed, whatever its size."""
    config = SimulationConfig.preset("training")
    tumour = config.tumour.model_copy(update={"probability": 1.0, "real_shape": 1.0, "infiltration_mm": (8.0, 8.0)})
    config = config.model_copy(update={"tumour": tumour})
    x = y = Axis.centred(0.0, 240.0, 120)
    whole = np.zeros((len(CLASSES), 120, 120), np.float32)
    whole[CLASSES.index("WM")] = 1.0
    for seed in range(12):
        lesion = draw_subject(config, Key.of("real", seed), ("tNAA", "2HG")).lesion
        membership = np.zeros((120, 120), np.float32)
        planes = np.array([lesion.centre[2]])
        lesion.membership_into(membership, whole, x, y, planes)
        window = lesion.window(x, y, planes)
        part = membership[window]
        edges = [part[0], part[-1], part[:, 0], part[:, -1]]
        open_edges = [edge for edge, at_end in zip(edges, _touches(window, 120), strict=True) if not at_end]
        assert membership.max() > 0.4 and max(float(edge.max()) for edge in open_edges) < 0.01


def _touches(window: tuple[slice, slice], count: int) -> list[bool]:
    return [window[0].start == 0, window[0].stop == count, window[1].start == 0, window[1].stop == count]


def test_a_training_batch_on_real_heads_is_whole(data: Path) -> None:
    batch = Simulator(SimulationConfig.preset("training")).batch(0, 0, 6)
    assert all(np.isfinite(value).all() and value.dtype == np.float32 for value in batch.values())
    size = batch["hr"].shape[2:]
    assert batch["mask"].shape == (6, 8, *size) and set(np.unique(batch["mask"])) <= {0.0, 1.0}


@pytest.mark.parametrize("preset", PRESETS)
def test_the_first_published_subject_has_its_checksum(data: Path, preset: str) -> None:
    subject = next(simulate(preset, 1, seed=0, scales=(2, 4, 8)))
    assert agrees(subject) is True


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_all_published_subjects_have_their_checksums(data: Path, preset: str) -> None:
    count = len(published()[f"{preset}/val"]["sha256"])
    assert all(agrees(subject) is True for subject in simulate(preset, count, seed=0, scales=(2, 4, 8)))


def test_agreement_is_only_claimed_for_what_is_published(data: Path) -> None:
    assert agrees(next(simulate("yale", 1, seed=1))) is None
    assert agrees(next(simulate("yale", 1, seed=0, scales=(2,)))) is None
    assert set(published()) == {f"{preset}/val" for preset in PRESETS}
    assert all(len(entry["sha256"]) == len(set(entry["sha256"])) for entry in published().values())


def test_a_missing_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere.*phantom"):
        resolve_folder("nowhere")
    with pytest.raises(ConfigError, match='split = "all"'):
        head_paths(str(tmp_path), "val")
