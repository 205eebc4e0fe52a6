"""`report` and `ratio` hold one sample at a time; the others lie in a nameless file in the folder they write to."""

from __future__ import annotations

import json
import re
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mrsi_fast.mrsi import ratios
from mrsi_fast.report.view import read_view
from support.faults import AFFINE, command, head, save
from support.tiny import tiny_model

SHAPE, FEW, MANY = (12, 12, 4), 8, 32
BYTES = 4 * 24 * 24 * 4
"""Of one sample of one map."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders by their number of samples."""
    folder = tmp_path_factory.mktemp("results")
    for name, level in (("tNAA", 10.0), ("tCho", 2.0)):
        save(folder / "in" / f"conc_{name}.nii.gz", head(SHAPE, level))
    model = ("--model", tiny_model(folder / "model"), "--engine", "eager")
    drawn = ("--samples", MANY, "--save-samples", "--steps", "1", "--evidence", "off")
    done = command("sr", "-i", folder / "in", "-o", folder / "many", *model, *drawn)
    assert done.exit_code == 0, done.output
    shutil.copytree(folder / "many", folder / "few")
    record = next((folder / "few").glob("*_desc-sr_mrsi.json"))
    facts = json.loads(record.read_text())
    for name in [one for one in facts["files"] if (drawn := re.search(r"sample(\d+)", one)) and int(drawn[1]) >= FEW]:
        del facts["files"][name]
    record.write_text(json.dumps(facts))
    return {FEW: folder / "few", MANY: folder / "many"}


def test_samples_are_mapped_and_equal_those_in_memory(results, tmp_path):
    record = next(results[FEW].glob("*_desc-sr_mrsi.json"))
    held, mapped = (read_view(record, "a", scratch) for scratch in (None, tmp_path))
    for one, other in zip(held.maps, mapped.maps, strict=True):
        assert isinstance(other.samples, np.memmap) and not isinstance(one.samples, np.memmap)
        np.testing.assert_array_equal(one.samples, other.samples)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["ratio", "report"])
def test_more_samples_take_no_more_memory(results, tmp_path, monkeypatch, what):
    """Arrays of Python (tracemalloc). Ratios are divided in parts; here these are small against the samples."""
    monkeypatch.setattr(ratios, "VALUES_AT_ONCE", 2**11)
    labels = tmp_path / "labels.nii.gz"
    fine = AFFINE @ np.diag([0.5, 0.5, 1, 1])
    fine[:3, 3] = (AFFINE @ [-0.25, -0.25, 0, 1])[:3]
    save(labels, np.ones((24, 24, 4), np.int16), fine)
    peaks = {}
    for count in (FEW, FEW, MANY):  # the first one pays for imports
        options = ("tCho/tNAA", "--times", "2", "-o", tmp_path / f"ratios{count}{len(peaks)}")
        options = options if what == "ratio" else ("--regions", labels, "-o", tmp_path / "page.html")
        tracemalloc.start()
        done = command(what, *options, "-i", results[count])
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert done.exit_code == 0, done.output
    assert peaks[MANY] - peaks[FEW] < 0.2 * 2 * (MANY - FEW) * BYTES, peaks
