"""The content of a file by its name: the table of naming schemes, and the reading of one name by it.

Nothing is opened here. The table has two parts, both searched from the top, the first row that fits decides:

- :data:`ENTITY_SCHEMES`, for names made of ``key-value`` pairs (BIDS and what resembles it), in any order;
- :data:`PATH_SCHEMES`, regular expressions for every other name, with the folders that it lies in.

A new lab's names are a new row. Users override it through ``--pattern`` or by hand (``--map``, ``--crlb``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal

from mrsi_fast.mrsi.names import canonical_name, is_known

Role = Literal["map", "crlb", "snr", "fwhm", "mask", "lipid", "failed", "anatomy", "ratio", "other"]

ALL_MAPS = "*"
"""Name of a quality file that holds for every map, and of a stack that holds every map."""

FSL_SCALINGS: dict[str, str] = {"molarity": "mM", "molality": "mmol/kg", "raw": "i.u.", "internal": "ratio to tCr"}
"""fsl_mrsi scalings in order of preference, with their units.

``internal`` comes last: it divides by the reference metabolite of the same voxel, and a ratio is not what the scanner
averages over a voxel, so the acquisition model does not hold for it.
"""

VARIANTS: tuple[str, ...] = ("", *FSL_SCALINGS, "filtered")
"""Versions of the same maps in one tree, in order of preference; a set is made of one of them."""


@dataclass(frozen=True)
class Scheme:
    """One row of the table for names that are not ``key-value`` pairs.

    Attributes:
        layout: Which program or habit writes such names.
        role: What the file holds.
        pattern: Regular expression for the end of the path without its suffix, case apart. ``{id}`` stands for an
            optional identifier with its separator, ``{name}`` for a metabolite that may have an identifier beside it.
        known: The name must be a known metabolite (else any text will do).
        rank: Where several files claim one place of a set, the lowest rank is taken.
        unit: Unit of the values, where the scheme fixes it.
        reason: Why such a file is never used; for the roles ``ratio`` and ``other``.
    """

    layout: str
    role: Role
    pattern: str
    known: bool = False
    rank: int = 0
    unit: str = ""
    reason: str = ""


_RATIO = "a ratio of metabolites, which is no concentration: super-resolve its parts, then use mrsi-fast ratio"
_CONTRAST = "another contrast than T1"
_TISSUE = "a tissue share or segmentation"
_S, _O = r"[_.\s-]", r"[_.\s-]?"
_ANY, _BEFORE, _AFTER = r"[^/]+", rf"(?:[^/]*{_S})?", rf"(?:{_S}[^/]*)?"
_MET = rf"(?P<met>{_ANY})"
_CRLB = r"(?:crlbs?|crb|(?:pct|percent|rel|%)_?sd|crlb_?percent)"
_SD = r"(?:sd|std|stdev|stddev|uncertainty|unc|err|error)"
_SNR = r"(?:snr|s2n|sn|s-n)"
_FWHM = r"(?:fwhm|lw|linewidths?|line_?width)"
_PPM = rf"(?:{_S}(?P<unit>ppm|hz))?"
_CONC = r"(?:concs?|concentrations?|amps?|amplitudes?|areas?|signal|met|metab|metabolites?)"
_MAP = rf"(?:{_O}(?:maps?|images?|img|vol))?"
_UNIT = rf"(?:{_S}(?:mM|mmol(?:_?(?:kg|l))?|iu|au|corr|corrected))?"
_OF = rf"(?:{_S}{_CONC})?"
_FOLDER = rf"(?:{_O}maps?)?/{{name}}{_MAP}"
_T1 = r"(?:T1w?|T1_?(?:MPRAGE|MP2RAGE|3D|anat)|MPRAGE|MP2RAGE)"
_HEAD = r"(?:brain|mrsi|head|csi|valid)"
_SHARES = r"(?:pve|pveseg|probseg|dseg|seg|aseg|aparc|c[1-6]|p[1-3]|gm|wm|csf)"
_CONTRASTS = r"(?-i:T2w?|T2star|FLAIR|PD|SWI|DWI|ADC|BOLD|EPI|magnitude)"
_FIELDS = r"(?:b0|b1|shim|fieldmap|phase|freq|shift)"
_PER = r"(?:to|over|2|div|vs|per|by)"

PATH_SCHEMES: tuple[Scheme, ...] = (
    Scheme("folder", "other", rf"(?:[^/]+_)?truth/{_ANY}", reason="the truth of a simulation, not a measurement"),
    Scheme("fsl_mrsi", "map", rf"concs/(?P<variant>raw|internal|molarity|molality)/{_MET}"),
    Scheme("fsl_mrsi", "crlb", rf"uncertainties/{_MET}_sd"),
    Scheme("fsl_mrsi", "snr", rf"qc/{_MET}_snr"),
    Scheme("fsl_mrsi", "fwhm", rf"qc/{_MET}_fwhm", unit="Hz"),
    Scheme("fsl_mrsi", "failed", r"qc/fit_failed"),
    Scheme("fsl_mrsi", "other", rf"nuisance/{_ANY}", reason="a nuisance parameter of the fit"),
    # Ratios before everything that could take one of their halves for a map.
    Scheme("Vienna", "ratio", rf"{_ANY}_rat_?to_?{_ANY}", reason=_RATIO),
    Scheme("folder", "ratio", rf"{_BEFORE}ratios?{_AFTER}", reason=_RATIO),
    Scheme("folder", "ratio", rf"(?:ratios?|ratio_maps|conc_ratios?)/{_ANY}", reason=_RATIO),
    Scheme(
        "folder", "ratio", rf"{_BEFORE}(?P<met>[^/]+?){_O}{_PER}{_O}(?P<ref>[^/]+?){_MAP}", known=True, reason=_RATIO
    ),
    Scheme("folder", "ratio", rf"{_BEFORE}CNI{_AFTER}", reason="an index of two metabolites"),
    Scheme(
        "folder", "other", rf"[rsw]{{1,3}}{_CONC}{_S}{_ANY}", reason="resliced, warped or smoothed (a prefix of SPM)"
    ),
    # A folder for each metabolite.
    Scheme("folder", "map", rf"{{name}}/{_CONC}{_MAP}", known=True),
    Scheme("folder", "crlb", rf"{{name}}/(?:{_CRLB}|{_SD}){_MAP}", known=True),
    Scheme("folder", "snr", rf"{{name}}/{_SNR}{_MAP}", known=True),
    Scheme("folder", "fwhm", rf"{{name}}/{_FWHM}{_MAP}{_PPM}", known=True),
    # What the whole scan has once.
    Scheme("folder", "lipid", rf"{{id}}lipids?{_S}(?:mask|flag)"),
    Scheme("folder", "failed", rf"{{id}}fit{_S}failed"),
    Scheme(
        "folder", "other", rf"{{id}}(?:{_T1}|{_CONTRASTS}|water){_AFTER}{_O}mask", reason="the mask of another image"
    ),
    Scheme("folder", "other", rf"{_BEFORE}{_SHARES}{_AFTER}", reason=_TISSUE),
    Scheme("folder", "mask", rf"{{id}}(?:{_HEAD}{_O})?mask(?:{_S}{_HEAD})?"),
    Scheme("folder", "mask", rf"{{id}}(?:voi|fov|press_?box|qc|quality){_O}mask", rank=1),
    Scheme("folder", "anatomy", rf"{{id}}{_T1}(?:{_S}(?:bet|brain|ss|stripped|masked))+"),
    Scheme("folder", "anatomy", rf"{{id}}{_T1}(?:{_S}(?:head|coreg|reg|n4|biascorr))*", rank=1),
    Scheme("folder", "other", rf"{_BEFORE}{_CONTRASTS}{_AFTER}", reason=_CONTRAST),
    Scheme("folder", "other", rf"{_BEFORE}water(?:{_O}(?:ref|reference|signal|amp))?{_MAP}", reason="the water signal"),
    Scheme("folder", "other", rf"{_BEFORE}{_FIELDS}(?:{_O}(?:map|hz|ppm))*", reason="a field or phase map"),
    Scheme("folder", "snr", rf"{{id}}{_SNR}{_MAP}"),
    Scheme("folder", "fwhm", rf"{{id}}{_FWHM}{_MAP}{_PPM}"),
    # Quality of one metabolite.
    Scheme("Vienna", "crlb", r"{name}_(?:crlbs?|sd)_map"),
    Scheme("folder", "crlb", rf"{{name}}{_OF}{_S}{_CRLB}{_MAP}"),
    Scheme("folder", "crlb", rf"{{id}}{_CRLB}{_S}{_MET}"),
    Scheme("folder", "crlb", rf"{{name}}{_OF}{_S}{_SD}{_MAP}", rank=1),
    Scheme("folder", "crlb", rf"{{id}}{_SD}{_S}{_MET}", rank=1),
    Scheme("folder", "snr", rf"{{name}}{_S}{_SNR}{_MAP}"),
    Scheme("folder", "snr", rf"{{id}}{_SNR}{_S}{_MET}"),
    Scheme("folder", "fwhm", rf"{{name}}{_S}{_FWHM}{_MAP}{_PPM}"),
    Scheme("folder", "fwhm", rf"{{id}}{_FWHM}{_S}{_MET}"),
    Scheme("folder", "crlb", rf"(?:{_CRLB}|{_SD}|uncertainties){_FOLDER}", known=True, rank=2),
    Scheme("folder", "snr", rf"{_SNR}{_FOLDER}", known=True, rank=2),
    Scheme("folder", "fwhm", rf"{_FWHM}{_FOLDER}", known=True, rank=2),
    Scheme("folder", "crlb", rf"{{name}}{_CRLB}{_MAP}", known=True),
    Scheme("folder", "crlb", rf"{{name}}{_SD}{_MAP}", known=True, rank=1),
    Scheme("folder", "snr", rf"{{name}}{_SNR}{_MAP}", known=True),
    Scheme("folder", "fwhm", rf"{{name}}{_FWHM}{_MAP}", known=True),
    # Stacks of all maps.
    Scheme("folder", "crlb", rf"{{id}}(?:{_CRLB}|{_SD}){_MAP}", rank=3),
    Scheme("folder", "map", rf"{{id}}{_CONC}{_MAP}", rank=9),
    Scheme("folder", "map", rf"{{id}}(?:(?:all|mrsi){_O})?maps", rank=9),
    # Maps.
    Scheme("Vienna", "map", r"{name}_amp_map"),
    Scheme("folder", "map", rf"{{name}}{_S}{_CONC}{_MAP}{_UNIT}"),
    Scheme("folder", "map", rf"maps{_S}{{name}}", known=True),
    Scheme("folder", "map", rf"{{id}}(?:{_CONC}|map){_S}{_MET}"),
    Scheme("folder", "map", rf"{{name}}{_MAP}{_UNIT}", known=True),
)
"""Names that are not ``key-value`` pairs, in order of precedence."""


@dataclass(frozen=True)
class EntityScheme:
    """One row of the table for names made of ``key-value`` pairs, whatever their order.

    Attributes:
        role: What the file holds.
        where: Entity (or ``suffix``) -> regular expression that its whole value must match.
        met: Entity that holds the metabolite; empty where the file serves every map.
        rank, reason: As in :class:`Scheme`.
    """

    role: Role
    where: dict[str, str]
    met: str = ""
    rank: int = 0
    reason: str = ""


_MRSI = r"mrsi|spectroscopy|csi|mrs"
_T1W = r"T1w|MPRAGE|MP2RAGE|UNIT1"

ENTITY_SCHEMES: tuple[EntityScheme, ...] = (
    EntityScheme("other", {"suffix": _MRSI, "desc": r"sr|srstd|zerofill|sample\d+|ratio\w*|evidence\w*"},
                 reason="a result of mrsi-fast, not a measurement: give the maps it was made from"),
    EntityScheme("other", {"suffix": r"probseg|dseg|label"}, reason=_TISSUE),
    EntityScheme("other", {"suffix": r"T2w|FLAIR|PDw|bold|dwi|T2star|inplane\w*|sbref"}, reason=_CONTRAST),
    EntityScheme("other", {"suffix": r"svs|unloc|mrsref"}, reason="a spectrum, not a map"),
    EntityScheme("mask", {"suffix": r"mask", "desc": r"brain|head|mrsi"}),
    EntityScheme("mask", {"suffix": rf"{_MRSI}|mask", "desc": r"brain_?mask|mask"}),
    EntityScheme("other", {"suffix": r"mask"}, reason="another mask than that of the brain"),
    EntityScheme("anatomy", {"suffix": _T1W, "desc": r"brain\w*|skullstripped"}),
    EntityScheme("other", {"suffix": _T1W, "desc": r"p\d.*|.*mask|.*seg.*"}, reason=_TISSUE),
    EntityScheme("anatomy", {"suffix": _T1W}, rank=1),
    # MRSIPrep: met-<name>_desc-<role>.
    EntityScheme("map", {"suffix": _MRSI, "met": r".+", "desc": r"signal|conc|amp"}, "met"),
    EntityScheme("crlb", {"suffix": _MRSI, "met": r".+", "desc": r"crlb|sd|uncertainty"}, "met"),
    EntityScheme("snr", {"suffix": _MRSI, "met": r".+", "desc": r"snr"}, "met"),
    EntityScheme("fwhm", {"suffix": _MRSI, "met": r".+", "desc": r"fwhm|linewidth"}, "met"),
    EntityScheme("crlb", {"suffix": _MRSI, "desc": r"crlb"}),
    EntityScheme("snr", {"suffix": _MRSI, "desc": r"snr"}),
    EntityScheme("fwhm", {"suffix": _MRSI, "desc": r"fwhm|linewidth"}),
    EntityScheme("other", {"suffix": _MRSI, "desc": r"water\w*"}, reason="the water signal"),
    # Before it: acq-<role>_desc-<name>.
    EntityScheme("snr", {"suffix": _MRSI, "acq": r"snr"}),
    EntityScheme("fwhm", {"suffix": _MRSI, "acq": r"fwhm|linewidth"}),
    EntityScheme("crlb", {"suffix": _MRSI, "acq": r"crlb", "desc": r".+"}, "desc"),
    EntityScheme("map", {"suffix": _MRSI, "acq": r"conc", "desc": r".+"}, "desc"),
    EntityScheme("other", {"suffix": _MRSI, "met": r".+", "desc": r".+"}, reason="a corrected or derived version"),
    EntityScheme("map", {"suffix": _MRSI, "met": r".+"}, "met", rank=1),
    EntityScheme("map", {"suffix": _MRSI, "desc": r".+"}, "desc", rank=2),
)  # fmt: skip
"""Names of ``key-value`` pairs, in order of precedence. A role in ``acq`` or ``desc`` separates no sets."""

_SUFFIXES = rf"{_MRSI}|{_T1W}|mask|probseg|dseg|label|T2w|FLAIR|PDw|bold|dwi|T2star|inplane\w*|sbref|svs|unloc|mrsref"
_ACQUIRED_SPACES = ("", "orig", "mrsi", "origfilt")
_ROLE_ENTITIES = ("met", "desc", "space", "suffix", "label", "option")
_ROLE_IN_ACQ = re.compile(r"conc|crlb|snr|fwhm|linewidth", re.IGNORECASE)
_FILTERED_FOLDER = re.compile(r"(?:^|/)[^/]*(?:clip|filt|smooth|interp)[^/]*(?=/)", re.IGNORECASE)


@dataclass(frozen=True)
class Finding:
    """Content of a file by its name.

    Attributes:
        role: What the file holds.
        name: Canonical metabolite, or :data:`ALL_MAPS`.
        layout: ``fsl_mrsi``, ``bids``, ``Vienna`` or ``folder``.
        rank: Precedence among files for the same place.
        tags: Identifiers of its set: ``{"id": ...}`` or the BIDS entities.
        variant: One of :data:`VARIANTS`.
        unit: Unit of the values, where the scheme fixes it.
        reason: Why it is not used, for the roles ``ratio`` and ``other``.
        lost: It would be a map if its name could be used: worth a warning.
    """

    role: Role
    name: str = ALL_MAPS
    layout: str = "folder"
    rank: int = 0
    tags: dict[str, str] = field(default_factory=dict)
    variant: str = ""
    unit: str = ""
    reason: str = ""
    lost: bool = False


def classify(path: str) -> Finding:
    """Tell from its name what a file holds.

    Args:
        path: Path relative to the searched folder, with ``/``, without the suffix of its format.

    Returns:
        The finding; role ``other`` with a reason where no scheme fits.
    """
    parent, _, stem = path.rpartition("/")
    entities = entities_of(stem)
    if set(entities) - {"suffix", "option"} and re.fullmatch(_SUFFIXES, entities.get("suffix", ""), re.IGNORECASE):
        return _by_entities(path, entities)
    if "sub" in entities:  # an ordinary name behind entities: sub-01_ses-02_tCho_map
        pairs, rest = [[part for part in stem.split("_") if ("-" in part) == paired] for paired in (True, False)]
        if rest:
            finding = classify(f"{parent}/{'_'.join(rest)}")
            own = {key: value for key, value in entities_of("_".join(pairs)).items() if key not in _ROLE_ENTITIES}
            return replace(finding, tags=own | finding.tags)
    for scheme, pattern in _COMPILED:
        match = pattern.search(path)
        if match is not None and (taken := _taken(scheme, match)) is not None:
            filtered = "filtered" if _FILTERED_FOLDER.search(path) else ""
            variant = (match.groupdict().get("variant") or filtered).lower()
            unit = FSL_SCALINGS.get(variant, "") if taken.role == "map" else taken.unit
            return replace(taken, layout=scheme.layout, rank=scheme.rank, variant=variant, unit=unit)
    return Finding("other", reason="no metabolite or role is known by that name")


def entities_of(stem: str) -> dict[str, str]:
    """``key-value`` pairs of a name, its last part without one as ``suffix``, further such parts as ``option``."""
    parts = stem.split("_")
    entities: dict[str, str] = {}
    for index, part in enumerate(parts):
        if match := re.fullmatch(r"([A-Za-z][0-9A-Za-z]*)-(.*)", part):
            entities[match[1].lower()] = match[2]
        elif index == len(parts) - 1:
            entities["suffix"] = part
        else:
            entities["option"] = f"{entities.get('option', '')}{part}"
    return entities


def split_name(text: str) -> tuple[str, str] | None:
    """Part a text into an identifier (may be empty) and a known metabolite: ``P07_tNAA`` -> ``("P07", "tNAA")``.

    The metabolite comes last, or first where what follows it has a digit (``tNAA_P07``).

    Returns:
        Identifier and canonical name; None where no part is known, or two metabolites are adjacent.
    """
    if is_known(text):
        return "", canonical_name(text)
    cuts = [match.span() for match in re.finditer(r"[_.\s-]+", text)]
    for start, end in cuts:
        if start and is_known(text[end:]):
            return None if _names_a_metabolite(text[:start]) else (text[:start], canonical_name(text[end:]))
    for start, end in reversed(cuts):
        after = text[end:]
        numbered = re.search(r"\d", after) and not re.fullmatch(r"\d+(?:[.p]\d+)?mm|[xv]?\d", after, re.IGNORECASE)
        if start and is_known(text[:start]) and numbered:
            return text[end:], canonical_name(text[:start])
    return None


def _names_a_metabolite(text: str) -> bool:
    return any(is_known(part) for part in re.split(r"[_.\s-]+", text) if part)


def _by_entities(path: str, entities: dict[str, str]) -> Finding:
    tags = {key: value for key, value in entities.items() if key not in _ROLE_ENTITIES}
    if _ROLE_IN_ACQ.fullmatch(tags.get("acq", "")):
        del tags["acq"]
    if entities.get("met") == "":
        return Finding("other", layout="bids", tags=tags, reason="its met- names no metabolite", lost=True)
    for scheme in ENTITY_SCHEMES:
        if all(re.fullmatch(p, entities.get(key, ""), re.IGNORECASE) for key, p in scheme.where.items()):
            break
    else:
        return Finding("other", layout="bids", tags=tags, reason="no role is known by these entities")
    name, space = ALL_MAPS, entities.get("space", "")
    if scheme.met:
        try:
            name = canonical_name(entities[scheme.met])
        except ValueError:
            reason = f"its {scheme.met}- names no metabolite"
            return Finding("other", layout="bids", tags=tags, reason=reason, lost=True)
        if scheme.rank == 2 and not is_known(entities[scheme.met]):
            return Finding("other", layout="bids", tags=tags, reason="no metabolite or role is known by that name")
    if scheme.role not in ("anatomy", "other") and space not in _ACQUIRED_SPACES:
        reason = f"resampled to space-{space}; super-resolution starts from the acquired grid"
        return Finding("other", name, "bids", tags=tags, reason=reason)
    if scheme.role == "anatomy":
        tags = {key: value for key, value in tags.items() if key in ("sub", "ses")}
    filtered = space == "origfilt" or "filt" in entities.get("option", "") or bool(_FILTERED_FOLDER.search(path))
    variant = "filtered" if filtered and scheme.role == "map" else ""
    rank = scheme.rank + 10 * ("mrsi-orig" not in path.split("/"))  # MRSIPrep's input tree before its output tree
    return Finding(scheme.role, name, "bids", rank, tags, variant, reason=scheme.reason)


def _taken(scheme: Scheme, match: re.Match[str]) -> Finding | None:
    """The finding of a row whose pattern matched, or None if the names in it are none."""
    groups = match.groupdict()
    if groups.get("id") and _names_a_metabolite(groups["id"]):
        return None
    tags = {"id": groups["id"]} if groups.get("id") else {}
    text, met = groups.get("text"), groups.get("met")
    unit = (groups.get("unit") or scheme.unit).replace("hz", "Hz")
    if "ref" in groups and not (is_known(str(met)) and is_known(str(groups["ref"]))):
        return None
    if scheme.role in ("ratio", "other") or (text is None and met is None):
        return Finding(scheme.role, tags=tags, unit=unit, reason=scheme.reason)
    if text is not None and (parted := split_name(text)):
        return Finding(scheme.role, parted[1], tags={"id": parted[0]} if parted[0] else {}, unit=unit)
    if scheme.known:
        return None
    if met and (parted := split_name(met)) and parted[0] and not tags:  # conc_tNAA_P07
        return Finding(scheme.role, parted[1], tags={"id": parted[0]}, unit=unit)
    named = str(text or met)
    try:
        return Finding(scheme.role, canonical_name(named), tags=tags, unit=unit)
    except ValueError:
        reason = "its name has no letter or digit of the Latin alphabet: give it by hand (--map NAME=FILE)"
        return Finding("other", tags=tags, reason=reason, lost=scheme.role == "map")


def _compile(pattern: str) -> re.Pattern[str]:
    """Fill in ``{id}`` and ``{name}``, and tie the pattern to whole components of the path."""
    pattern = pattern.replace("{name}", r"(?P<text>[^/]+?)").replace("{id}", r"(?:(?P<id>[^/]+?)[_.\s-])??")
    return re.compile(rf"(?:^|/)(?:{pattern})$", re.IGNORECASE)


_COMPILED: tuple[tuple[Scheme, re.Pattern[str]], ...] = tuple((one, _compile(one.pattern)) for one in PATH_SCHEMES)
