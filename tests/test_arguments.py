"""What Python users hand over: arrays of all kinds, numbers of all kinds, threads, pickles."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mrsi_fast import SuperResolver
from mrsi_fast.arguments import acquisition_settings, callable_or_none, trust_rules, whole_number
from mrsi_fast.models.pretrained import ModelFolderError
from mrsi_fast.mrsi.arrays import plain_array
from mrsi_fast.mrsi.mapset import MapInputError

AFFINE = np.diag([10.0, 10.0, 10.0, 1.0])
VALUES = (5 + np.random.default_rng(0).random((9, 8, 2))).astype(np.float32)


@pytest.fixture(scope="module")
def resolver() -> SuperResolver:
    return SuperResolver.from_pretrained(device="cpu", threads=1)


@pytest.fixture(scope="module")
def expected(resolver: SuperResolver) -> np.ndarray:
    return resolver((VALUES, AFFINE)).mean


@pytest.mark.parametrize(
    "values",
    [
        torch.tensor(VALUES, requires_grad=True),
        torch.tensor(VALUES).to_sparse(),
        np.ma.masked_array(VALUES, mask=False),
        VALUES.astype(">f4"),
        np.asfortranarray(VALUES),
        VALUES.astype(np.float64),
        VALUES.tolist(),
    ],
    ids=["gradient", "sparse", "masked", "big endian", "fortran", "double", "list"],
)
def test_an_array_of_any_kind_is_the_same_array(resolver: SuperResolver, expected: np.ndarray, values: Any) -> None:
    np.testing.assert_array_equal(resolver((values, AFFINE)).mean, expected)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_is_read(kind: torch.dtype) -> None:
    half = torch.tensor(VALUES).to(kind)
    np.testing.assert_array_equal(plain_array(half, "x"), half.float().numpy())


def test_masked_voxels_are_no_data(resolver: SuperResolver) -> None:
    hidden = np.zeros(VALUES.shape, dtype=bool)
    hidden[4, 4, 0] = True
    result = resolver((np.ma.masked_array(VALUES, hidden), AFFINE))
    assert np.isnan(result.mean[0, 8:10, 8:10, 0]).all() and np.isnan(result.mean).sum() == 4
    whole = np.ma.masked_array(VALUES.astype(np.int16), hidden)
    assert np.isnan(plain_array(whole, "x")).sum() == 1


@pytest.mark.parametrize("values", [torch.empty(9, 8, 2, device="meta"), [[1.0, 2.0], [3.0]]])
def test_what_holds_no_values_is_named(values: Any) -> None:
    with pytest.raises(MapInputError, match="tNAA"):
        plain_array(values, "tNAA")


def test_numbers_of_any_kind(resolver: SuperResolver, expected: np.ndarray) -> None:
    numbers = {"scale": np.array([2, 2, 1]), "samples": np.int64(0), "steps": torch.tensor(2), "seed": np.uint8(3)}
    np.testing.assert_array_equal(resolver((VALUES, AFFINE), **numbers).mean, expected)
    resolver((VALUES, AFFINE), noise=np.float32(0.1), rules={"min_snr": 3.0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 2.5}, "samples is 2.5"),
        ({"samples": "2"}, "samples is '2'"),
        ({"samples": None}, "samples is None"),
        ({"samples": True}, "samples is True"),
        ({"samples": np.True_}, "samples is"),
        ({"samples": 5000}, "samples is 5000"),
        ({"steps": 0}, "steps is 0"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"seed": float("nan")}, "seed is nan"),
        ({"noise": "high"}, "noise level is 'high'"),
        ({"noise": [0.1]}, "noise level is"),
        ({"noise": {"map": "x"}}, "noise level is"),
        ({"noise": {3: 0.1}}, "noise level is"),
        ({"noise": True}, "noise level is True"),
        ({"acquisition": "hamming"}, "acquisition is 'hamming'"),
        ({"rules": {"snr": 3}}, "rules is"),
        ({"progress": 5}, "progress is 5"),
        ({"anatomy": "nowhere.nii"}, "nowhere.nii: there is no such file"),
        ({"anatomy": 5}, "a int alone"),
        ({"anatomy": VALUES}, "a ndarray alone"),
        ({"anatomy": (VALUES.astype(complex), AFFINE)}, "complex"),
        ({"scale": None}, "Scale None"),
        ({"scale": True}, "Scale True"),
    ],
)
def test_refusals_are_sentences(resolver: SuperResolver, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolver((VALUES, AFFINE), **options)


def test_helpers_pass_on_what_is_right() -> None:
    assert whole_number("n", np.int32(4), 0, 4, "") == 4 and type(whole_number("n", np.int32(4), 0, 4, "")) is int
    assert acquisition_settings(None).window is None and acquisition_settings({"window": "hann"}).window == "hann"
    assert trust_rules(None) is None and trust_rules({"min_snr": None}).min_snr is None
    assert callable_or_none("progress", print) is print


def test_threads_wait_for_each_other(resolver: SuperResolver, expected: np.ndarray) -> None:
    with ThreadPoolExecutor(3) as pool:
        for result in pool.map(lambda factor: resolver((VALUES * factor, AFFINE)).mean / factor, [1, 2, 4, 1]):
            np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_a_resolver_pickles_by_its_folder(resolver: SuperResolver, expected: np.ndarray, tmp_path: Path) -> None:
    stored = pickle.dumps(resolver)
    assert len(stored) < 2000
    for again in (pickle.loads(stored), copy.deepcopy(resolver)):
        np.testing.assert_array_equal(again((VALUES, AFFINE)).mean, expected)
    state = resolver.__getstate__()
    with pytest.raises(ModelFolderError, match="other weights"):
        SuperResolver.__new__(SuperResolver).__setstate__({**state, "sha256": "0" * 64})
