"""Property-based fuzzing of what reads bytes and numbers; a few examples here, ten minutes in ``make fuzz``.

Hypothesis keeps examples that failed in ``.hypothesis``; those found and fixed are listed as ``@example``.
"""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from mrsi_fast.config import ConfigError, ModelConfig, Settings
from mrsi_fast.evaluation.plan import EvaluationConfig
from mrsi_fast.models.pretrained import FolderConfig, shipped_folder
from mrsi_fast.mrsi.discovery import discover
from mrsi_fast.mrsi.io import read_maps
from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.mrsi.nifti import read_nifti
from mrsi_fast.simulation.config import SimulationConfig
from mrsi_fast.training.config import TrainConfig
from support.faults import head, save
from support.fuzzing import examples

FEW = examples(40)
CHANGES = st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
PARTS = st.sampled_from(
    ["conc_", "crlb_", "tNAA", "sub-01", "_", "ses-1", "met-", "_mrsi", "qc", " ", "é", "T1", "concs"]
)
PATHS = st.lists(st.lists(PARTS, min_size=1, max_size=4).map("".join), min_size=1, max_size=3).map("/".join)


@given(CHANGES, st.integers(0, 400), st.booleans())
@FEW
@example([(40, 9)], 0, False)
@example([(70, 77)], 0, True)
@example([(112, 127), (113, 127), (114, 127), (115, 127)], 0, False)
def test_any_image_is_a_volume_or_a_sentence(tmp_path, changes, cut, zipped):
    raw = bytearray(save(tmp_path / "whole.nii", head((4, 3, 2))).read_bytes())
    for place, value in changes:
        raw[place] = value
    raw = bytes(raw[: len(raw) - cut])
    path = tmp_path / ("NAA.nii.gz" if zipped else "NAA.nii")
    path.write_bytes(gzip.compress(raw) if zipped else raw)
    try:
        volume = read_nifti(path)
    except MapInputError as error:
        assert str(error).startswith(path.name) and "\n" not in str(error)
        return
    assert volume.data.dtype == np.float32 and np.isfinite(volume.affine).all()


@given(st.binary(max_size=600))
@FEW
@example(struct.pack("<i", 348) + b"\0" * 344)
def test_any_bytes_are_a_volume_or_a_sentence(tmp_path, raw):
    for name in ("NAA.nii", "NAA.nii.gz"):
        (tmp_path / name).write_bytes(raw)
        try:
            read_nifti(tmp_path / name)
        except MapInputError as error:
            assert str(error).startswith(name)


@given(st.sampled_from(["conc_NAA", "crlb_NAA", "conc_Cr", "mask", "snr", "fwhm"]), CHANGES, st.integers(0, 99))
@FEW
def test_any_image_among_others_is_read_or_named(tmp_path, which, changes, fill):
    """A folder of maps and quality maps, one of which holds other bytes."""
    for number, name in enumerate(("conc_NAA", "crlb_NAA", "conc_Cr", "crlb_Cr", "mask", "snr", "fwhm")):
        save(tmp_path / f"{name}.nii", head((4, 3, 2), 5 + number))
    path = tmp_path / f"{which}.nii"
    raw = bytearray(path.read_bytes())
    for place, value in changes:
        raw[place] = value
    raw[352 : 352 + fill % 96] = bytes([fill * 2]) * (fill % 96)
    path.write_bytes(raw)
    try:
        maps = read_maps(tmp_path)
    except MapInputError as error:
        assert str(error) and "\n" not in str(error)
        return
    assert maps.maps.dtype == np.float32 and not np.isinf(maps.maps).any() and np.isfinite(maps.affine).all()


@given(JSON)
@FEW
@example({"widths": [10**400], "encoder_blocks": None})
@example({"channels": "tNAA"})
def test_any_configuration_is_read_or_refused(tmp_path, values):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    for kind in (ModelConfig, FolderConfig):
        try:
            kind.load(path)
        except ConfigError as error:
            assert str(error)


TRAINING = TrainConfig(name="a", output=Path("b"), steps=3)
KINDS: list[type[Settings]] = [ModelConfig, FolderConfig, TrainConfig, SimulationConfig, EvaluationConfig]
FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=5) | st.lists(FINITE, max_size=3)


def leaves(values: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Where the values of a configuration stand."""
    found = []
    for key, value in values.items():
        found += leaves(value, (*above, key)) if isinstance(value, dict) and value else [(*above, key)]
    return found


@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
@FEW
def test_any_value_in_a_whole_configuration_is_taken_or_refused(tmp_path, kind, data):
    whole = {FolderConfig: FolderConfig.load(shipped_folder() / "config.json"), TrainConfig: TRAINING}.get(
        kind
    ) or kind()
    values = json.loads(json.dumps(whole.model_dump(mode="json", exclude_none=True)))
    for keys in data.draw(st.lists(st.sampled_from(leaves(values)), min_size=1, max_size=3)):
        place = values
        for key in keys[:-1]:
            place = place[key] if isinstance(place.get(key), dict) else {}
        place[keys[-1]] = data.draw(VALUES)
    path = tmp_path / "settings.toml"
    path.write_text(tomli_w.dumps(values), encoding="utf-8")
    try:
        read = kind.load(path)
    except ConfigError as error:
        assert str(error)
        return
    path.write_text(read.to_toml(), encoding="utf-8")
    assert kind.load(path) == read


@given(st.binary(max_size=200) | st.text(max_size=99).map(str.encode))
@FEW
def test_any_bytes_are_no_configuration(tmp_path, raw):
    for name in ("settings.toml", "settings.json"):
        (tmp_path / name).write_bytes(raw)
        for kind in KINDS:
            try:
                kind.load(tmp_path / name)
            except ConfigError as error:
                assert str(error)


@given(st.lists(PATHS, min_size=1, max_size=6, unique=True))
@FEW
def test_any_tree_gives_sets_or_a_sentence(tmp_path, paths):
    root = tmp_path / f"tree{abs(hash(tuple(paths)))}"
    for name in paths:
        path = root / f"{name}.nii.gz"
        if not any(parent.is_file() for parent in path.parents) and not path.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    try:
        found = discover(root)
    except MapInputError as error:
        assert str(error)
        return
    given_paths = [path for one in found for path in one.paths()]
    assert len(given_paths) == len(set(given_paths)) and all(Path(path).is_file() for path in given_paths)


SIZES = st.integers(0, 9)
SHAPES = st.lists(SIZES, max_size=5)


@given(SHAPES, SHAPES, SHAPES, st.integers(-3, 9), st.booleans())
@FEW
@example([2, 8, 5, 6], [0], [0], 4, False)
@example([2, 8, 5, 6], [1], [1], 4, False)
@example([2, 8, 5, 6], [8], [8], 0, True)
def test_any_tensors_are_normalised_or_refused(x, weight, bias, groups, last):
    """The compiled entry points see sizes that fit each other, or none at all."""
    tensor = torch.randn(x)
    if last and tensor.dim() == 4:
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    arguments = (torch.ones(weight), torch.ones(bias), groups)
    for call in (
        lambda: torch.ops.mrsi_fast.group_norm_silu(tensor, *arguments, None, None, 1e-5),
        lambda: torch.ops.mrsi_fast.conv3x3_gn_silu(
            tensor, *arguments, torch.ones(3, 8, 3, 3), None, None, None, None, 1e-5
        ),
        lambda: torch.ops.mrsi_fast.self_attention(tensor, 1.0),
    ):
        try:
            call()
        except ValueError as error:
            assert str(error)
