"""Names: every spelling of the table finds its metabolite, labels survive file names, channels are laid out once."""

from __future__ import annotations

import re

import pytest

from mrsi_fast.mrsi.names import (
    ALIASES,
    CHANNELS,
    NAMED_CHANNELS,
    assign_channels,
    bids_label,
    canonical_name,
    is_known,
    is_lipid_or_macromolecule,
    refuse_equal_labels,
)


def test_channels_are_the_agreed_ones():
    assert CHANNELS == ("tNAA", "tCr", "tCho", "Ins", "Glx", "2HG", "other1", "other2")
    assert NAMED_CHANNELS == CHANNELS[:6]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("NAA+NAAG", "tNAA"), ("NAANAAG", "tNAA"), ("NAA-NAAG", "tNAA"), ("conc_NAA-NAAG", "tNAA"),
        ("met-NAANAAG", "tNAA"), (" tnaa ", "tNAA"), ("Cr-PCr", "tCr"), ("CrPCr", "tCr"), ("PCr+Cr", "tCr"),
        ("GPC-PCh", "tCho"), ("GPCPCh", "tCho"), ("PCh+GPC", "tCho"), ("Cho", "tCho"), ("mI", "Ins"), ("Ins", "Ins"),
        ("myo-Ins", "Ins"), ("Glu-Gln", "Glx"), ("GluGln", "Glx"), ("Glu+Gln", "Glx"), ("2HG", "2HG"), ("D2HG", "2HG"),
        ("d-2-hg", "2HG"), ("NAA", "NAA"), ("Cr", "Cr"), ("-CrCH2", "-CrCH2"), ("Xyz", "Xyz"), ("tot_NAA", "tNAA"),
        ("total-NAA", "tNAA"), ("NAAtotal", "tNAA"), ("NAA_tot", "tNAA"), ("NAA+", "tNAA"), ("NAA&NAAG", "tNAA"),
        ("total_creatine", "tCr"), ("creatine_total", "tCr"), ("tCreatine", "tCr"), ("Cr+", "tCr"),
        ("tCholine", "tCho"),
        ("PC+GPC", "tCho"), ("Cho+", "tCho"), ("GPC+Cho+PCh", "tCho"), ("glutamine+glutamate", "Glx"),
        ("Glx_total", "Glx"), ("mIno", "Ins"), ("m-Ins", "Ins"), ("Lac+", "Lac"), ("bHG", "2HG"), ("HG2", "2HG"),
        ("Ins+Gly", "Gly+Ins"), ("Gly+Ins", "Gly+Ins"), ("β-ATP", "beta-ATP"), ("NAD+", "NAD+"), ("GABA+", "GABA+"),
        ("tTau", "tTau"), ("tot_PCr", "tot_PCr"), ("Glu+", "Glu+"), ("NAA乳酸", "NAA乳酸"),
    ],
)  # fmt: skip
def test_usual_spellings(written, meant):
    assert canonical_name(written) == meant


def test_components_are_not_taken_for_totals():
    parts = ["NAA", "NAAG", "Cr", "PCr", "GPC", "PCh", "Glu", "Gln"]
    assert [canonical_name(part) for part in parts] == parts


def test_no_spelling_means_two_metabolites():
    owners: dict[str, set[str]] = {}
    for name, spellings in ALIASES.items():
        for spelling in spellings:
            bare = re.sub(r"[-&+](?!$)", "", spelling.casefold())  # a trailing + tells NAD+ from NAD
            owners.setdefault(bare, set()).add(name)
    assert [names for names in owners.values() if len(names) > 1] == []
    assert all(canonical_name(spelling) == name for name, spellings in ALIASES.items() for spelling in spellings)


@pytest.mark.parametrize("name", ALIASES)
def test_bids_label_is_safe_in_a_file_name_and_comes_back(name):
    assert bids_label(name).isalnum() and bids_label(name).isascii()
    assert canonical_name(bids_label(name)) == name


def test_bids_labels_are_those_of_mrsiprep():
    assert [bids_label(name) for name in ("tNAA", "tCr", "tCho", "Ins", "Glx")] == [
        "NAANAAG", "CrPCr", "GPCPCh", "Ins", "GluGln"]  # fmt: skip


@pytest.mark.parametrize(
    "names",
    [("α-ATP", "β-ATP", "γ-ATP"), ("NAD+", "NAD", "NADH"), ("Lip1.3", "Lip13", "Lip13a"), ("GABA", "GABA+"),
     ("NAA", "NAA乳酸", "NAA乳糖"), ("Gly+Ins", "Gly", "Ins"), ("Glu", "Glu+", "Glx")],
)  # fmt: skip
def test_names_map_one_to_one_to_file_labels(names):
    labels = [bids_label(name) for name in names]
    assert len({label.casefold() for label in labels}) == len(names), labels
    assert all(label.isalnum() and label.isascii() for label in labels)
    refuse_equal_labels(names)


def test_what_a_label_cannot_tell_apart_is_refused():
    with pytest.raises(ValueError, match="Foo-Bar and FooBar would both be written as met-FooBar"):
        refuse_equal_labels(["tNAA", "Foo-Bar", "FooBar"])


@pytest.mark.parametrize("name", ["NAA", "tot_Cr", "Lip13a", "MM09", "Gly+Ins", "GABA+", "PE", "HDO", "GLX"])
def test_known_names(name):
    assert is_known(name)


@pytest.mark.parametrize("name", ["act", "val", "pe", "mask", "T1", "b0", "NAA-Cr", "", "乳酸", "map"])
def test_words_that_are_no_metabolite(name):
    assert not is_known(name)


@pytest.mark.parametrize("name", ["", "  ", "+-", "met-", "乳酸", 7, None])
def test_a_name_without_letters_is_refused(name):
    with pytest.raises(ValueError, match="not a metabolite name"):
        canonical_name(name)


def test_lipids_and_macromolecules():
    assert all(is_lipid_or_macromolecule(name) for name in ("Lip13a", "Lip13a-Lip13b", "MM20", "MM09-Lip09"))
    assert not any(is_lipid_or_macromolecule(name) for name in ("tNAA", "Ins", "Lac", "Lipoic"))


def test_layout_of_the_named_maps():
    assert assign_channels(["Glx", "NAA+NAAG", "2HG"]) == [(1, None, None, None, 0, 2, None, None)]


def test_a_component_uses_its_totals_channel_only_where_the_total_is_missing():
    assert assign_channels(["NAA", "PCr", "Cr"]) == [(0, 2, None, None, None, None, 1, None)]
    assert assign_channels(["NAA", "tNAA"]) == [(1, None, None, None, None, None, 0, None)]


def test_more_other_maps_than_channels_take_more_passes_with_the_same_context():
    names = ["Lac", "tNAA", "GABA", "GSH", "Tau", "Gly"]
    passes = assign_channels(names)
    assert [row[:6] for row in passes] == [(1, None, None, None, None, None)] * 3
    assert [index for row in passes for index in row[6:] if index is not None] == [0, 2, 3, 4, 5]


def test_two_maps_of_one_metabolite_are_refused():
    with pytest.raises(ValueError, match="More than one map is called tNAA"):
        assign_channels(["NAANAAG", "tNAA"])
    with pytest.raises(ValueError, match="no map"):
        assign_channels([])
