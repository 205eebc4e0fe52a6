"""The content of a file by its name: the table of naming schemes, and the reading of one name by it.

Nothing is opened here. The table has two parts, both searched from the top, the first row that fits decides:

- ``ENTITY_SCHEMES`` in :mod:`~mrsi_fast.mrsi.entities`, for names made of ``key-value`` pairs, in any order;
- :data:`PATH_SCHEMES`, regular expressions for every other name, with the folders that it lies in.

A new lab's names are a new row. Users override it through ``--pattern`` or by hand (``--map``, ``--crlb``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from mrsi_fast.mrsi.entities import (
    CONTRAST,
    FILTERED_FOLDER,
    RATIO,
    ROLE_ENTITIES,
    TISSUE,
    UNKNOWN,
    entities_of,
    read_entities,
    resampled,
)
from mrsi_fast.mrsi.findings import Finding, Role
from mrsi_fast.mrsi.names import canonical_name, is_known

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


_PREFIX = "resliced, warped, segmented or otherwise derived (a prefix of SPM or CAT12)"
_PREFIXED = re.compile(r"(?:[a-z]{1,5}\d?|(?:i?y|u)_)sub-")
_OTHER = "a mask, a statistic or another version by its name, not a map as acquired"
_S, _O = r"[_.\s-]", r"[_.\s-]?"
_ANY, _BEFORE, _AFTER = r"[^/]+", rf"(?:[^/]*{_S})?", rf"(?:{_S}[^/]*)?"
_MET = rf"(?P<met>{_ANY})"
_PCT = r"(?:pct|percent|perc|%)"
_CRLB = rf"(?:crlbs?(?:_?(?:{_PCT}|rel|abs))?|crb|(?:{_PCT}|rel|p)_?sds?|sd_?{_PCT})"
_SD = r"(?:sds?|abs_?sd|stds?|stdev|stddev|std_?err|uncertainty|unc|errs?|errors?|sigma)"
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
_SHARES = r"(?:pve|pveseg|probseg|dseg|seg|aseg|aparc|gm|wm|csf)"
_NUMBERED_SHARES = r"(?:c[1-6]|p[1-3])"  # of SPM and CAT12; also what labs call patients and controls
_CONTRASTS = r"(?-i:T2w?|T2star|FLAIR|PD|SWI|DWI|ADC|BOLD|EPI|magnitude)"
_OTHERS = (
    r"(?:(?:q|qc|brain|quality)?_?masks?|[ztpf][_-]?(?:scores?|stats?|values?|vals?|maps?)|var|variance|cov|cv|icc|residuals?"
    r"|resid|baselines?|noise|weights?|quality|confidence|template|atlas|mni(?:152\w*|305|_?space)?|smooth(?:ed)?"
    r"|blurred|interp(?:olated)?"
    r"|upsampled|bicubic|filt(?:ered)?|zero_?fill(?:ed)?|ground_?truth|ci|lower|upper)"
)
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
    Scheme("Vienna", "ratio", rf"{_ANY}_rat_?to_?{_ANY}", reason=RATIO),
    Scheme("folder", "ratio", rf"{_BEFORE}ratios?{_AFTER}", reason=RATIO),
    Scheme("folder", "ratio", rf"(?:ratios?|ratio_maps|conc_ratios?)/{_ANY}", reason=RATIO),
    Scheme(
        "folder", "ratio", rf"{_BEFORE}(?P<met>[^/]+?){_O}{_PER}{_O}(?P<ref>[^/]+?){_MAP}", known=True, reason=RATIO
    ),
    Scheme("folder", "ratio", rf"{_BEFORE}CNI{_AFTER}", reason="an index of two metabolites"),
    Scheme("folder", "other", rf"{_OTHERS}{_S}{{name}}{_MAP}", known=True, reason=_OTHER),
    Scheme("folder", "other", rf"{_ANY}{_S}{_OTHERS}{_S}{{name}}{_MAP}", known=True, reason=_OTHER),
    Scheme("folder", "other", rf"{{name}}{_S}{_OTHERS}{_AFTER}", known=True, reason=_OTHER),
    Scheme("folder", "other", rf"(?:{_OTHERS}|qc){_FOLDER}", known=True, reason=_OTHER),
    Scheme("folder", "other", rf"[rsw]{{1,3}}{_CONC}{_S}{_ANY}", reason=_PREFIX),
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
    Scheme("folder", "other", rf"{_BEFORE}{_SHARES}{_AFTER}", reason=TISSUE),
    Scheme("folder", "mask", rf"{{id}}(?:{_HEAD}{_O})?mask(?:{_S}{_HEAD})?"),
    Scheme("folder", "mask", rf"{{id}}(?:voi|fov|press_?box|qc|quality){_O}mask", rank=1),
    Scheme("folder", "anatomy", rf"{{id}}{_T1}(?:{_S}(?:bet|brain|ss|stripped|masked))+"),
    Scheme("folder", "anatomy", rf"{{id}}{_T1}(?:{_S}(?:head|coreg|reg|n4|biascorr))*", rank=1),
    Scheme("folder", "other", rf"{_BEFORE}{_CONTRASTS}(?P<rest>{_AFTER})", reason=CONTRAST),
    Scheme("folder", "other", rf"{_BEFORE}water(?:{_O}(?:ref|reference|signal|amp))?{_MAP}", reason="the water signal"),
    Scheme("folder", "other", rf"{_BEFORE}{_FIELDS}(?:{_O}(?:map|hz|ppm))*", reason="a field or phase map"),
    Scheme("folder", "snr", rf"{{id}}{_SNR}{_MAP}"),
    Scheme("folder", "fwhm", rf"{{id}}{_FWHM}{_MAP}{_PPM}"),
    # Quality of one metabolite.
    Scheme("Vienna", "crlb", r"{name}_(?:crlbs?|sd)_map"),
    Scheme("folder", "crlb", rf"{{name}}{_OF}{_S}{_CRLB}{_MAP}"),
    Scheme("folder", "crlb", rf"{{id}}{_CRLB}{_MAP}{_S}{_MET}"),
    Scheme("folder", "crlb", rf"{{name}}{_OF}{_S}{_SD}{_MAP}", rank=1),
    Scheme("folder", "crlb", rf"{{id}}{_SD}{_MAP}{_S}{_MET}", rank=1),
    Scheme("folder", "snr", rf"{{name}}{_S}{_SNR}{_MAP}"),
    Scheme("folder", "snr", rf"{{id}}{_SNR}{_MAP}{_S}{_MET}"),
    Scheme("folder", "fwhm", rf"{{name}}{_S}{_FWHM}{_MAP}{_PPM}"),
    Scheme("folder", "fwhm", rf"{{id}}{_FWHM}{_MAP}{_S}{_MET}"),
    Scheme("folder", "crlb", rf"(?:{_CRLB}|{_SD}|uncertainties){_FOLDER}", known=True, rank=2),
    Scheme("folder", "crlb", rf"crlbs?(?:{_O}maps)?/(?:{_ANY}/)+{{name}}{_MAP}", known=True, rank=2),
    Scheme("folder", "snr", rf"snr(?:{_O}maps)?/(?:{_ANY}/)+{{name}}{_MAP}", known=True, rank=2),
    Scheme("folder", "fwhm", rf"fwhm(?:{_O}maps)?/(?:{_ANY}/)+{{name}}{_MAP}", known=True, rank=2),
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
    Scheme("folder", "other", rf"{_BEFORE}{_NUMBERED_SHARES}{_AFTER}", reason=TISSUE),
)
"""Names that are not ``key-value`` pairs, in order of precedence."""


def classify(path: str) -> Finding:
    """Tell from its name what a file holds.

    Args:
        path: Path relative to the searched folder, with ``/``, without the suffix of its format.

    Returns:
        The finding; role ``other`` with a reason where no scheme fits.
    """
    parent, _, stem = path.rpartition("/")
    if _PREFIXED.match(stem):
        return Finding("other", reason=_PREFIX)
    entities = entities_of(stem)
    if (finding := read_entities(path, entities)) is not None:
        return finding
    if "sub" in entities and (finding := _behind_entities(parent, stem, entities)) is not None:
        return finding
    for scheme, pattern in _COMPILED:
        match = pattern.search(path)
        if match is not None and (taken := _taken(scheme, match)) is not None:
            filtered = "filtered" if FILTERED_FOLDER.search(path) else ""
            variant = (match.groupdict().get("variant") or filtered).lower()
            unit = FSL_SCALINGS.get(variant, "") if taken.role == "map" else taken.unit
            return replace(taken, layout=scheme.layout, rank=scheme.rank, variant=variant, unit=unit)
    return Finding("other", reason=UNKNOWN)


def _behind_entities(parent: str, stem: str, entities: dict[str, str]) -> Finding | None:
    """An ordinary name behind entities: ``sub-01_tCho_map``, ``sub-01_met-tCho_map``, ``sub-01_tCho_desc-sd``."""
    rest = [part for part in stem.split("_") if "-" not in part]
    if not rest:
        return None
    own = {key: value for key, value in entities.items() if key not in ROLE_ENTITIES}
    if reason := resampled(entities.get("space", "")):
        return Finding("other", tags=own, reason=reason)
    name = "_".join([*([entities["met"]] if "met" in entities else []), *rest])
    finding = classify(f"{parent}/{name}")
    if "desc" in entities:  # a word for a role or for a version makes it another file
        told = classify(f"{parent}/{name}_{entities['desc']}")
        finding = told if told.role != "map" and told.reason != UNKNOWN else finding
    return replace(finding, tags=own | finding.tags)


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


def _taken(scheme: Scheme, match: re.Match[str]) -> Finding | None:
    """The finding of a row whose pattern matched, or None if the names in it are none."""
    groups = match.groupdict()
    if groups.get("id") and _names_a_metabolite(groups["id"]):
        return None
    if _names_a_metabolite(groups.get("rest") or ""):  # PD_01_tNAA: the word is an identifier
        return None
    tags = {"id": groups["id"]} if groups.get("id") else {}
    text, met = groups.get("text"), groups.get("met")
    unit = (groups.get("unit") or scheme.unit).replace("hz", "Hz")
    if "ref" in groups and not (is_known(str(met)) and is_known(str(groups["ref"]))):
        return None
    if scheme.known and text is not None and split_name(text) is None:
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
