"""Metabolite names: one spelling inside, every usual spelling outside.

Fitting programs, pipelines and papers spell the same quantity differently (LCModel ``NAA+NAAG``, Oryx-MRSI
``conc_NAA-NAAG``, MRSIPrep ``met-NAANAAG``, papers ``tNAA``). This module holds the table that maps them to one
canonical name, the order of the network's channels, and the way a set of maps is laid out on those channels.

Canonical names follow the terminology consensus (Kreis et al. 2020, 10.1002/nbm.4347): a leading ``t`` for totals,
``Ins`` for myo-inositol, ``Glx`` for Glu+Gln.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

CHANNELS: tuple[str, ...] = ("tNAA", "tCr", "tCho", "Ins", "Glx", "2HG", "other1", "other2")
"""The network's map channels, in order; the last two take any map that has no channel of its own."""

NAMED_CHANNELS: tuple[str, ...] = CHANNELS[:6]
OTHER_CHANNELS: tuple[int, ...] = (6, 7)

ALIASES: dict[str, tuple[str, ...]] = {
    "tNAA": ("tNAA", "NAA+NAAG", "NAAG+NAA", "NAAx", "TotalNAA", "NAAtot"),
    "tCr": ("tCr", "Cr+PCr", "PCr+Cr", "TotalCr", "TotalCreatine", "tCre", "Cre+PCre", "Crtot"),
    "tCho": (
        "tCho",
        "Cho",
        "Choline",
        "GPC+PCh",
        "PCh+GPC",
        "GPC+PCho",
        "PCho+GPC",
        "TotalCho",
        "TotalCholine",
        "Chotot",
        "GPC+PCh+Cho",
        "GPC+Cho+PCh",
    ),
    "Ins": ("Ins", "mI", "mIns", "myo-Ins", "myo-Inositol", "myoI", "Inositol", "MyoIno"),
    "Glx": ("Glx", "Glu+Gln", "Gln+Glu"),
    "2HG": ("2HG", "D2HG", "D-2-HG", "2-hydroxyglutarate", "D-2-hydroxyglutarate"),
    "NAA": ("NAA", "N-acetylaspartate"),
    "NAAG": ("NAAG",),
    "Cr": ("Cr", "Cre", "Creatine"),
    "PCr": ("PCr", "PCre", "Phosphocreatine"),
    "GPC": ("GPC", "Glycerophosphocholine"),
    "PCh": ("PCh", "PCho", "Phosphocholine"),
    "Glu": ("Glu", "Glutamate"),
    "Gln": ("Gln", "Glutamine"),
    "Gly": ("Gly", "Glycine"),
    "Lac": ("Lac", "Lactate"),
    "Ala": ("Ala", "Alanine"),
    "Asp": ("Asp", "Aspartate"),
    "GABA": ("GABA",),
    "GSH": ("GSH", "Glutathione"),
    "Tau": ("Tau", "Taurine"),
    "Scyllo": ("Scyllo", "sI", "sIns", "Scyllo-Ins", "Scyllo-Inositol", "Scy"),
    "Glc": ("Glc", "Glucose"),
}
"""Canonical name -> accepted spellings. Case, ``+ - _ .`` and blanks do not matter when a name is looked up."""

BIDS_LABELS: dict[str, str] = {"tNAA": "NAANAAG", "tCr": "CrPCr", "tCho": "GPCPCh", "Glx": "GluGln"}
"""Canonical name -> value of the ``met-`` entity (letters and digits only) where it is not the name itself."""

ABSENT_IN_HEALTHY_BRAIN: frozenset[str] = frozenset({"2HG", "Lac", "Ala", "Gly"})
"""Metabolites that healthy tissue hardly holds: their maps may rightly be empty outside a lesion."""

STAND_INS: dict[str, tuple[str, ...]] = {
    "tNAA": ("NAA",),
    "tCr": ("Cr", "PCr"),
    "tCho": ("GPC", "PCh"),
    "Glx": ("Glu", "Gln"),
}
"""Channel -> components that use it, in this order, where the total itself is not among the maps.

A component has the total's spatial pattern to a good approximation (NAA is 80-90 % of tNAA), and the network is told
each map's own scale, so this is a better home for it than ``other``.
"""

_PREFIX = re.compile(r"^(?:conc|met|map|signal)[_-]", re.IGNORECASE)
_LIPID_OR_MACROMOLECULE = re.compile(r"^(?:Lip|MM)(?![a-z])", re.IGNORECASE)


def _key(name: str) -> str:
    return re.sub(r"[^0-9a-z]", "", name.casefold())


_BY_KEY: dict[str, str] = {_key(spelling): name for name, spellings in ALIASES.items() for spelling in spellings}


def canonical_name(name: str) -> str:
    """Return the one spelling used inside for a metabolite name as found in a file name, a table or a request.

    Args:
        name: Any spelling, e.g. ``NAA+NAAG``, ``conc_NAA-NAAG``, ``met-NAANAAG``, ``mI``.

    Returns:
        The canonical name; an unknown name comes back as it was, without surrounding blanks and known prefixes.

    Raises:
        ValueError: The name holds no letter or digit.
    """
    stripped = _PREFIX.sub("", name.strip())
    if not _key(stripped):
        raise ValueError(f"{name!r} is not a metabolite name: it holds no letter or digit. Use a name such as tNAA.")
    return _BY_KEY.get(_key(stripped), stripped)


def bids_label(name: str) -> str:
    """Return the ``met-`` label (letters and digits only) of a metabolite, safe in any file name.

    Args:
        name: Any spelling that :func:`canonical_name` takes.

    Returns:
        E.g. ``NAANAAG`` for tNAA, ``Ins`` for mI; ``canonical_name(bids_label(n)) == canonical_name(n)`` for every
        name of the table.
    """
    canonical = canonical_name(name)
    return BIDS_LABELS.get(canonical, re.sub(r"[^0-9A-Za-z]", "", canonical))


def is_lipid_or_macromolecule(name: str) -> bool:
    """Tell whether a name is a lipid or macromolecule component of the fit (``Lip13a``, ``MM20``), not a metabolite."""
    return bool(_LIPID_OR_MACROMOLECULE.match(canonical_name(name)))


def assign_channels(names: Sequence[str]) -> list[tuple[int | None, ...]]:
    """Lay a set of maps out on the network's channels, in as many passes as it takes.

    A map goes to the channel of its canonical name; a component to its total's channel where the total is absent
    (:data:`STAND_INS`); every other map to one of the two ``other`` channels, two a pass. Each pass repeats the maps
    that have a channel of their own, so all maps see the same context; the caller keeps a repeated map's first result.

    Args:
        names: One name per map, in the order of the arrays; no two may have the same canonical name.

    Returns:
        One tuple per pass, of ``len(CHANNELS)`` entries: the index of the map on that channel, or None.

    Raises:
        ValueError: Two maps have the same canonical name, or there is no map.
    """
    canonical = [canonical_name(name) for name in names]
    if not canonical:
        raise ValueError("There is no map to lay out: give at least one metabolite name.")
    twice = sorted({name for name in canonical if canonical.count(name) > 1})
    if twice:
        raise ValueError(f"More than one map is called {', '.join(twice)} in some spelling. Give each its own name.")
    row: list[int | None] = [canonical.index(name) if name in canonical else None for name in NAMED_CHANNELS]
    for channel, name in enumerate(NAMED_CHANNELS):
        if row[channel] is None:
            row[channel] = next((canonical.index(part) for part in STAND_INS.get(name, ()) if part in canonical), None)
    rest: list[int | None] = [index for index in range(len(canonical)) if index not in row]
    width = len(OTHER_CHANNELS)
    pairs = [rest[start : start + width] for start in range(0, max(len(rest), 1), width)]
    return [tuple(row + pair + [None] * (width - len(pair))) for pair in pairs]
