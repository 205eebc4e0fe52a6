"""Names made of ``key-value`` pairs (BIDS and what resembles it): the table of their schemes, and reading by it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mrsi_fast.mrsi.findings import ALL_MAPS, Finding, Role
from mrsi_fast.mrsi.names import canonical_name, is_known

CONTRAST = "another contrast than T1"
TISSUE = "a tissue share or segmentation"
RATIO = "a ratio of metabolites, which is no concentration: super-resolve its parts, then use mrsi-fast ratio"
OF_ONE = "a mask of one metabolite; a mask holds for all maps (--mask)"
UNKNOWN = "no metabolite or role is known by that name"


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
_CONC = r"signal|concs?|concentrations?|amps?|amplitudes?|map"
QUALITY: dict[Role, str] = {
    "crlb": r"crlbs?|crlb(?:pct|percent|map)|(?:p|pct|percent|rel)?sd|std|err|error|uncertainty|unc",
    "snr": r"snr(?:map)?|s2n",
    "fwhm": r"fwhm(?:map)?|linewidths?|lw",
}
"""Role of a quality file -> words for it."""

ENTITY_SCHEMES: tuple[EntityScheme, ...] = (
    EntityScheme("other", {"suffix": _MRSI, "desc": r"sr|srstd|zerofill|sample\d+|ratio\w*|evidence\w*"},
                 reason="a result of mrsi-fast, not a measurement: give the maps it was made from"),
    EntityScheme("other", {"suffix": r"probseg|dseg|label"}, reason=TISSUE),
    EntityScheme("other", {"suffix": r"T2w|FLAIR|PDw|bold|dwi|T2star|inplane\w*|sbref"}, reason=CONTRAST),
    EntityScheme("other", {"suffix": r"svs|unloc|mrsref"}, reason="a spectrum, not a map"),
    EntityScheme("other", {"suffix": rf"{_MRSI}|mask", "met": r".+", "desc": r".*mask"}, reason=OF_ONE),
    EntityScheme("other", {"suffix": r"mask", "met": r".+"}, reason=OF_ONE),
    EntityScheme("other", {"suffix": _MRSI, "met": r"w|water\w*|h2o\w*"}, reason="the water signal"),
    EntityScheme("mask", {"suffix": r"mask", "desc": r"brain|head|mrsi"}),
    EntityScheme("mask", {"suffix": rf"{_MRSI}|mask", "desc": r"brain_?mask|mask"}),
    EntityScheme("other", {"suffix": r"mask"}, reason="another mask than that of the brain"),
    EntityScheme("anatomy", {"suffix": _T1W, "desc": r"brain\w*|skullstripped"}),
    EntityScheme("other", {"suffix": _T1W, "desc": r"p\d.*|.*mask|.*seg.*"}, reason=TISSUE),
    EntityScheme("anatomy", {"suffix": _T1W}, rank=1),
    # MRSIPrep: met-<name>_desc-<role>; other places of the role are brought to desc first.
    EntityScheme("map", {"suffix": _MRSI, "met": r".+", "desc": _CONC}, "met"),
    *(EntityScheme(role, {"suffix": _MRSI, "met": r".+", "desc": words}, "met") for role, words in QUALITY.items()),
    *(EntityScheme(role, {"suffix": _MRSI, "desc": words}) for role, words in QUALITY.items()),
    EntityScheme("other", {"suffix": _MRSI, "desc": r"water\w*"}, reason="the water signal"),
    # Before it: acq-conc_desc-<name>.
    EntityScheme("map", {"suffix": _MRSI, "acq": r"conc", "desc": r".+"}, "desc"),
    EntityScheme("other", {"suffix": _MRSI, "met": r".+", "desc": r".+"}, reason="a corrected or derived version"),
    EntityScheme("map", {"suffix": _MRSI, "met": r".+"}, "met", rank=1),
    EntityScheme("map", {"suffix": _MRSI, "desc": r".+"}, "desc", rank=2),
    EntityScheme("other", {"suffix": _MRSI, "met": r"", "desc": r""},
                 reason="no metabolite in its name; spectra have to be fitted first (fsl_mrsi, LCModel, Osprey)"),
)  # fmt: skip
"""Names of ``key-value`` pairs, in order of precedence. A role in ``acq``, ``stat`` or ``desc`` parts no sets."""

_SUFFIXES = rf"{_MRSI}|{_T1W}|mask|probseg|dseg|label|T2w|FLAIR|PDw|bold|dwi|T2star|inplane\w*|sbref|svs|unloc|mrsref"
_ACQUIRED_SPACES = ("", "orig", "mrsi", "origfilt")
ROLE_ENTITIES = ("met", "desc", "space", "suffix", "label", "option")
_ROLE_IN_ACQ = r"conc|crlbs?|snr|fwhm|linewidth"  # not std: a standard acquisition
_OWN_ENTITIES = ("sub", "ses", "run", "met", "desc", "space", "res", "suffix", "option")
FILTERED_FOLDER = re.compile(r"(?:^|/)[^/]*(?:clip|filt|smooth|interp)[^/]*(?=/)", re.IGNORECASE)


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


def quality_word(text: str) -> Role | None:
    """The role of a quality file that a word stands for; None for any other word."""
    return next((role for role, words in QUALITY.items() if re.fullmatch(words, text, re.IGNORECASE)), None)


def is_ratio(text: str) -> bool:
    """Tell whether a text names a ratio of two known metabolites: ``tChoOverNAA``, ``NAA2Cr``, ``tCho/tNAA``."""
    match = re.fullmatch(r"(.+?)[_.\s-]?(?:to|over|2|div|vs|per|by|/)[_.\s-]?(.+)", text, re.IGNORECASE)
    return match is not None and not is_known(text) and is_known(match[1]) and is_known(match[2])


def resampled(space: str) -> str:
    """Why maps in a space are not used; empty for the acquired one."""
    if space.lower() in _ACQUIRED_SPACES:
        return ""
    return f"resampled to space-{space}; super-resolution starts from the acquired grid"


def read_entities(path: str, entities: dict[str, str]) -> Finding | None:
    """Tell what a file holds by the entities of its name; None where it is no such name."""
    entities = _role_in_desc(entities)
    suffix = entities.get("suffix", "")
    if not set(entities) - {"suffix", "option"} or not re.fullmatch(_SUFFIXES, suffix, re.IGNORECASE):
        return None
    return _by_entities(path, entities)


def _role_in_desc(entities: dict[str, str]) -> dict[str, str]:
    """Entities whose role stands elsewhere than in ``desc``, with the role moved there.

    E.g. ``acq-crlb_desc-CrPCr``, ``met-NAA_stat-crlb``, ``met-NAA_crlb``.
    """
    moved = dict(entities)
    suffix = entities.get("suffix", "")
    if "met" in entities and (len(entities) > 2 or suffix) and (not suffix or _is_role(suffix)):
        moved["suffix"] = "mrsi"
        if suffix:
            moved["desc"] = suffix
    for key, value in entities.items():
        known = re.fullmatch(_ROLE_IN_ACQ, value, re.IGNORECASE) if key == "acq" else quality_word(value)
        if key in _OWN_ENTITIES or not known or value.lower() == "conc":
            continue
        del moved[key]
        desc = entities.get("desc", "")
        if "met" not in moved and desc and (is_known(desc) or quality_word(value) == "crlb"):
            moved["met"] = desc
        moved["desc"] = value
    return moved


def _is_role(word: str) -> bool:
    return quality_word(word) is not None or re.fullmatch(_CONC, word, re.IGNORECASE) is not None


def _by_entities(path: str, entities: dict[str, str]) -> Finding:
    tags = {key: value for key, value in entities.items() if key not in ROLE_ENTITIES}
    if re.fullmatch(_ROLE_IN_ACQ, tags.get("acq", ""), re.IGNORECASE):
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
            return Finding("other", layout="bids", tags=tags, reason=UNKNOWN)
        if is_ratio(entities[scheme.met]):
            return Finding("ratio", layout="bids", tags=tags, reason=RATIO)
    if scheme.role not in ("anatomy", "other") and (reason := resampled(space)):
        return Finding("other", name, "bids", tags=tags, reason=reason)
    if scheme.role == "anatomy":
        tags = {key: value for key, value in tags.items() if key in ("sub", "ses")}
    filtered = space.lower() == "origfilt" or "filt" in entities.get("option", "") or bool(FILTERED_FOLDER.search(path))
    variant = "filtered" if filtered and scheme.role == "map" else ""
    rank = scheme.rank + 10 * ("mrsi-orig" not in path.split("/"))  # MRSIPrep's input tree before its output tree
    return Finding(scheme.role, name, "bids", rank, tags, variant, reason=scheme.reason)
