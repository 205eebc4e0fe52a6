"""Samples in memory and in a file."""

from __future__ import annotations

import numpy as np
import pytest

from mrsi_fast.sample_store import SampleStore, forget_pages


@pytest.mark.parametrize("on_disk", [False, True])
def test_samples_come_back_as_they_were_given(tmp_path, on_disk):
    samples = np.random.default_rng(0).normal(size=(3, 2, 5, 4, 6)).astype(np.float32)
    with SampleStore(3, tmp_path if on_disk else None) as store:
        for one in samples:
            store.add(np.moveaxis(one, -1, 1))  # as a result with its slices on another axis
        array = store.array()
    assert store.on_disk == on_disk and not list(tmp_path.iterdir()), "the file has no name"
    np.testing.assert_array_equal(array, np.moveaxis(samples, -1, 2))
    forget_pages(array[:, 1])
    np.testing.assert_array_equal(array, np.moveaxis(samples, -1, 2))


@pytest.mark.parametrize("on_disk", [False, True])
def test_no_samples_are_none(tmp_path, on_disk):
    with SampleStore(0, tmp_path if on_disk else None) as store:
        assert store.array() is None


def test_changes_of_other_maps_are_not_forgotten(tmp_path):
    np.arange(4096, dtype=np.float32).tofile(tmp_path / "numbers")
    own = np.memmap(tmp_path / "numbers", dtype=np.float32, mode="c")
    own[:] = 1
    forget_pages(own)
    assert (own == 1).all()
