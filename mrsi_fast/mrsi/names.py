"""Metabolite names: one spelling inside, every usual spelling outside.

Fitting programs, pipelines and papers spell the same quantity differently (LCModel ``NAA+NAAG``, Oryx-MRSI
``conc_NAA-NAAG``, MRSIPrep ``met-NAANAAG``, papers ``tNAA``). This module holds the table that maps them to one
canonical name, the order of the network's channels, and the way a set of maps is laid out on those channels.

Canonical names follow the terminology consensus (Kreis et al. 2020, 10.1002/nbm.4347): a leading ``t`` for totals,
``Ins`` for myo-inositol, ``Glx`` for Glu+Gln.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import permutations

CHANNELS: tuple[str, ...] = ("tNAA", "tCr", "tCho", "Ins", "Glx", "2HG", "other1", "other2")
"""The network's map channels, in order; the last two take any map that has no channel of its own."""

NAMED_CHANNELS: tuple[str, ...] = CHANNELS[:6]
OTHER_CHANNELS: tuple[int, ...] = (6, 7)

ALIASES: dict[str, tuple[str, ...]] = {
    "tNAA": ("tNAA", "NAAx", "NAAc", "totalNAcetylaspartate"),
    "tCr": ("tCr", "tCre"),
    "tCho": ("tCho", "Cho", "Chol", "Choline", "CCC", "GPCPChCho"),
    "Ins": ("Ins", "mI", "mIn", "mIns", "mIno", "myo-Ins", "myo-Inositol", "myoI", "Inositol", "MyoIno"),
    "Glx": ("Glx", "GluX"),
    "2HG": ("2HG", "HG2", "D2HG", "D-2-HG", "bHG", "2-hydroxyglutarate", "D-2-hydroxyglutarate"),
    "NAA": ("NAA", "N-acetylaspartate"),
    "NAAG": ("NAAG", "N-acetylaspartylglutamate"),
    "Cr": ("Cr", "Cre", "Creatine"),
    "PCr": ("PCr", "PCre", "Phosphocreatine"),
    "GPC": ("GPC", "Glycerophosphocholine"),
    "PCh": ("PCh", "PCho", "PC", "Phosphocholine"),
    "Glu": ("Glu", "Glutamate"),
    "Gln": ("Gln", "Glutamine"),
    "Gly": ("Gly", "Glycine"),
    "Lac": ("Lac", "Lactate"),
    "Ala": ("Ala", "Alanine"),
    "Asp": ("Asp", "Aspartate"),
    "GABA": ("GABA",),
    "GABA+": ("GABA+", "GABA+MM", "GABA/MM"),
    "GSH": ("GSH", "Glutathione"),
    "Tau": ("Tau", "Taurine"),
    "Scyllo": ("Scyllo", "sI", "sIns", "Scyllo-Ins", "Scyllo-Inositol", "Scy"),
    "Glc": ("Glc", "Glucose"),
    "Asc": ("Asc", "Ascorbate"),
    "Ser": ("Ser", "Serine"),
    "Thr": ("Thr", "Threonine"),
    "Val": ("Val", "Valine"),
    "Act": ("Act", "Acetate"),
    "Acn": ("Acn", "Acetone"),
    "Cit": ("Cit", "Citrate"),
    "Suc": ("Suc", "Succinate"),
    "Pyr": ("Pyr", "Pyruvate"),
    "Eth": ("Eth", "Ethanol"),
    "BHB": ("BHB", "beta-hydroxybutyrate"),
    "Cystat": ("Cystat", "Cystathionine"),
    "PE": ("PE", "PEth", "Phosphoethanolamine"),
    "GPE": ("GPE", "Glycerophosphoethanolamine"),
    "PME": ("PME", "Phosphomonoesters"),
    "PDE": ("PDE", "Phosphodiesters"),
    "Pi": ("Pi", "Inorganic phosphate"),
    "ATP": ("ATP",),
    "alpha-ATP": ("alpha-ATP", "a-ATP", "ATP-alpha", "ATPa"),
    "beta-ATP": ("beta-ATP", "b-ATP", "ATP-beta", "ATPb"),
    "gamma-ATP": ("gamma-ATP", "g-ATP", "ATP-gamma", "ATPg"),
    "NAD": ("NAD",),
    "NAD+": ("NAD+", "NADplus"),
    "NADH": ("NADH",),
    "UDPG": ("UDPG",),
    "HDO": ("HDO", "DHO"),
}
"""Canonical name -> accepted spellings. Case, ``+ - _ . &`` and blanks do not matter when a name is looked up; what is
composed of them (sums in any order, ``tot``, a trailing ``+``) follows from rules: see :func:`canonical_name`."""

SUMS: dict[frozenset[str], str] = {
    frozenset({"NAA", "NAAG"}): "tNAA",
    frozenset({"Cr", "PCr"}): "tCr",
    frozenset({"GPC", "PCh"}): "tCho",
    frozenset({"GPC", "PCh", "tCho"}): "tCho",  # three components, the third being free choline
    frozenset({"Glu", "Gln"}): "Glx",
}
"""Components -> the total that they make, in any order."""

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

A component has the total's spatial pattern to a good approximation (NAA is 80-90 % of tNAA), and the network receives
each map's own scale, so this is a better home for it than ``other``.
"""

_TOTAL_OF: dict[str, str] = {"NAA": "tNAA", "Cr": "tCr"}
_COMPONENTS = frozenset({"NAAG", "PCr", "GPC", "PCh", "Glu", "Gln", "NAD", "ATP"})
"""Names whose total (``tot_PCr``, ``Glu+``) would be another quantity that has no agreed name."""

_CASE_TELLS = frozenset({"pe", "pc", "pi", "si", "val", "act", "ser", "thr", "cit", "eth", "suc", "asc", "ccc", "mm"})
"""Short spellings that are words or abbreviations of other things in lower case (``act.nii``, ``val.nii``)."""

_GREEK = str.maketrans({"α": "alpha", "β": "beta", "γ": "gamma", "Α": "alpha", "Β": "beta", "Γ": "gamma", "δ": "delta"})
_PREFIX = re.compile(r"^(?:conc|met|map|signal)[_-]", re.IGNORECASE)
_TOTAL = re.compile(r"^tot(?:al)?[\s_.-]*(?P<a>.+)$|^(?P<b>.+?)[\s_.-]*tot(?:al)?$|^t(?P<c>[A-Z].*)$", re.IGNORECASE)
_LIPID_OR_MACROMOLECULE = re.compile(r"^(?:Lip|MM|MMB|MMBL)(?![a-z])", re.IGNORECASE)


def _key(name: str) -> str:
    """Letters and digits in one case; a trailing ``+`` is kept (NAD+ is not NAD)."""
    folded = name.casefold().rstrip()
    return re.sub(r"[\W_]", "", folded) + ("plus" if re.search(r"\w\s*\+$", folded) else "")


_BY_KEY: dict[str, str] = {_key(spelling): name for name, spellings in ALIASES.items() for spelling in spellings}
_BY_KEY |= {_key("".join(order)): total for parts, total in SUMS.items() for order in permutations(sorted(parts))}


def canonical_name(name: str) -> str:
    """Return the one spelling used inside for a metabolite name as found in a file name, a table or a request.

    Beyond the spellings of :data:`ALIASES`: sums of known names in any order (``PCr+Cr``, ``Gln&Glu``), ``tot``,
    ``total`` or ``t`` before or after a name, a ``+`` after it (the total), Greek letters (``β-ATP``).

    Args:
        name: Any spelling, e.g. ``NAA+NAAG``, ``conc_NAA-NAAG``, ``met-NAANAAG``, ``mI``.

    Returns:
        The canonical name; an unknown name comes back as it was, without surrounding blanks and known prefixes.

    Raises:
        ValueError: The name is no text, or holds no letter or digit of the Latin alphabet.
    """
    if not isinstance(name, str):
        raise ValueError(f"{name!r} is not a metabolite name but a {type(name).__name__}. Use a name such as 'tNAA'.")
    stripped = _PREFIX.sub("", unicodedata.normalize("NFKC", name).translate(_GREEK).strip())
    if not re.search(r"[0-9A-Za-z]", stripped):
        raise ValueError(
            f"{name!r} is not a metabolite name: it holds no letter or digit of the Latin alphabet. "
            "Use a name such as tNAA."
        )
    return _resolved(stripped)


@lru_cache(maxsize=8192)
def _resolved(name: str) -> str:
    return _BY_KEY.get(_key(name)) or _sum(name) or _total(name) or name


@lru_cache(maxsize=8192)
def is_known(name: str) -> bool:
    """Tell whether a text is a spelling of a metabolite, lipid or macromolecule (not merely a word)."""
    try:
        canonical = canonical_name(name)
    except ValueError:
        return False
    if name == "SI" or (name.casefold() in _CASE_TELLS and name.islower()):  # SI: spectroscopic imaging
        return False
    parts = canonical.split("+") if canonical not in ALIASES else [canonical]
    return all(part in ALIASES or _LIPID_OR_MACROMOLECULE.match(part) for part in parts if part)


def bids_label(name: str) -> str:
    """Return the ``met-`` label (letters and digits only) of a metabolite, safe in any file name.

    Two names get two labels: what a label cannot hold is spelled (``NAD+`` -> ``NADplus``, ``Lip1.3`` -> ``Lip1p3``,
    letters of other alphabets by their code points). What is left over is refused by :func:`refuse_equal_labels`.

    Args:
        name: Any spelling that :func:`canonical_name` takes.

    Returns:
        E.g. ``NAANAAG`` for tNAA, ``Ins`` for mI; ``canonical_name(bids_label(n)) == canonical_name(n)`` for every
        name of the table.
    """
    canonical = canonical_name(name)
    if canonical in BIDS_LABELS:
        return BIDS_LABELS[canonical]
    spelled = re.sub(r"(?<=\d)\.(?=\d)", "p", re.sub(r"\+$", "plus", canonical))
    coded = "".join(c if c.isascii() or not c.isalnum() else f"u{ord(c):04X}" for c in spelled)
    return re.sub(r"[^0-9A-Za-z]", "", coded)


def refuse_equal_labels(names: Iterable[str]) -> None:
    """Refuse names whose result files would overwrite each other, also where case does not count in file names.

    Raises:
        ValueError: Two names have the same label.
    """
    taken: dict[str, str] = {}
    for name in names:
        other = taken.setdefault(bids_label(name).casefold(), name)
        if other != name:
            raise ValueError(
                f"{other} and {name} would both be written as met-{bids_label(name)}, one over the other. "
                "Give one of them another name."
            )


def is_lipid_or_macromolecule(name: str) -> bool:
    """Tell whether a name is a lipid or macromolecule component of the fit (``Lip13a``, ``MM20``), not a metabolite."""
    return bool(_LIPID_OR_MACROMOLECULE.match(canonical_name(name)))


def _sum(name: str) -> str | None:
    """The total that a sum of known names makes, in any order; another sum of them in one order; None if it is none."""
    for separator, closed in ((r"\s*[+&]\s*", False), (r"[\s_-]+", True)):
        parts = re.split(separator, name)
        known = [_BY_KEY.get(_key(part)) for part in parts]
        if len(parts) > 1 and all(known):
            names = [part for part in known if part]
            if (total := SUMS.get(frozenset(names))) or closed:
                return total
            return "+".join(sorted(names, key=str.casefold))
    return None


def _total(name: str) -> str | None:
    """What ``tot_X``, ``X_total``, ``tX`` and ``X+`` mean, for a known X; None if it is none of these."""
    match = _TOTAL.match(name)
    base = name[:-1] if name.endswith("+") else next((group for group in match.groups() if group), "") if match else ""
    known = _BY_KEY.get(_key(base)) if base else None
    if known is None or known in _COMPONENTS:
        return None
    bare_t = match is not None and match["c"] is not None and not name.endswith("+")
    return _TOTAL_OF.get(known, None if bare_t and known != "tCho" else known)


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
