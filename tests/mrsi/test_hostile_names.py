"""No name and no text that stands in a table, a JSON file or an option ends in anything but a sentence."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mrsi_fast.mrsi.foreign import kind_of
from mrsi_fast.mrsi.images import names_beside
from mrsi_fast.mrsi.lcmodel import Place, parse_csv, parse_table, place_of
from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.mrsi.names import bids_label, canonical_name, is_known
from mrsi_fast.mrsi.patterns import Pattern
from mrsi_fast.mrsi.schemes import classify, split_name
from support.fuzzing import examples

PARTS = st.sampled_from(
    ["tNAA", "NAA", "+", "_", "-", "/", ".", " ", "crlb", "sub-01", "met-", "desc-signal", "mrsi", "conc", "map", "2",
    "to",
     "sd", "snr", "T1", "mask", "µ", "乳酸", "β", "=", "{met}", "{id}", "*", "[", "(", "\\", "%", "\n", "\0", "Ⅷ", "²"]
)  # fmt: skip
NAMES = st.one_of(st.lists(PARTS, max_size=9).map("".join), st.text(max_size=30))


@given(NAMES)
@examples(200)
def test_any_name_is_classified(name):
    what = classify(name)
    assert what.reason if what.role in ("ratio", "other") else what.name
    split_name(name)
    is_known(name)
    place_of(name)


@given(NAMES)
@examples(150)
def test_any_name_has_a_label_or_is_refused(name):
    try:
        label = bids_label(name)
    except ValueError:
        return
    assert label.isascii() and label.isalnum() and canonical_name(canonical_name(name))


@given(NAMES, NAMES)
@examples(150)
def test_any_pattern_is_read_or_refused(text, name):
    try:
        Pattern.parse(text).read(name)
    except MapInputError:
        return


TABLE = st.lists(
    st.sampled_from(["$$CONC 3 lines in following concentration table", " 1.0E+00  5%  0.1 Cr", " 1e999 9% 1 X",
    " -.e 5% 1 Y",
                     " NaN 999% *** Z", "FWHM = -.e ppm S/N = +", "FWHM = 0.05 ppm S/N = 1e999", "$$MISC", "", "\0",
                     "%"]),
    max_size=8,
).map("\n".join)  # fmt: skip


@given(st.one_of(TABLE, st.text(max_size=200)))
@examples(150)
def test_any_table_gives_numbers(text):
    voxel = parse_table(text, Place())
    assert all(isinstance(number, float) for pair in voxel.values.values() for number in pair)
    assert isinstance(voxel.snr, float) and isinstance(voxel.fwhm, float)


CELLS = st.lists(
    st.sampled_from(["Row", "Col", "Cr", "Cr %SD", "1", "2.5", "-1", "nan", "inf", "1e999", "", '"', "x"]), max_size=5
)


@given(st.lists(CELLS.map(", ".join), max_size=5).map("\n".join))
@examples(150)
def test_any_spreadsheet_is_read_or_refused(text):
    try:
        voxels = parse_csv("Row, Col, Cr, Cr %SD\n" + text, "a.csv", Place())
    except MapInputError:
        return
    assert all(np.isfinite([voxel.place.row, voxel.place.col]).all() for voxel in voxels)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["names", "maps", "0", "1", "name", "²"]), inner)
    ),
    max_leaves=8,
)


@given(JSON)
@examples(100)
def test_any_json_file_has_names_or_none(tmp_path, record):
    (tmp_path / "a.json").write_text(json.dumps(record))
    found = names_beside(tmp_path / "a.nii.gz")
    assert found is None or all(isinstance(name, str) and name for name in found.names)


@given(st.binary(max_size=300))
@examples(100)
def test_any_bytes_have_a_kind_or_none(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    kind_of(tmp_path / "x")
