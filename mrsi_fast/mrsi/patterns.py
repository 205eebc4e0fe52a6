"""A user's own naming scheme, as ``--pattern`` takes it: a path with wildcards, ``{met}`` and ``{id}``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import get_args

from mrsi_fast.mrsi.entities import UNKNOWN
from mrsi_fast.mrsi.findings import Finding, Role
from mrsi_fast.mrsi.images import image_stem
from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.mrsi.names import canonical_name, is_known
from mrsi_fast.mrsi.schemes import classify

_ROLES = tuple(role for role in get_args(Role) if role not in ("ratio", "other"))


@dataclass(frozen=True)
class Pattern:
    """One pattern of names.

    Attributes:
        role: What files of that name hold.
        regex: What their path below the searched folder must match, from any of its components to its end.
    """

    role: Role
    regex: re.Pattern[str]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read ``[ROLE=]PATTERN``, e.g. ``{id}_{met}.nii.gz`` or ``crlb=quality/{met}_sd.nii``.

        ``{met}`` is the metabolite, ``{id}`` identifies a set, ``*`` any text, ``?`` any character in a name.
        Without a role the files are maps.

        Raises:
            MapInputError: The role is unknown, or a placeholder is.
        """
        head, equals, tail = text.partition("=")
        role, shape = (head, tail) if equals and "{" not in head and "/" not in head else ("map", text)
        if role not in _ROLES:
            raise MapInputError(f"--pattern {text}: there is no role {role}; choose {', '.join(_ROLES)}.")
        parts = re.split(r"(\{[^}]*\}|\*|\?)", shape)
        if unknown := [part for part in parts if part.startswith("{") and part not in ("{met}", "{id}")]:
            raise MapInputError(f"--pattern {text}: {unknown[0]} is not known; use {{met}}, {{id}}, * and ?.")
        if role == "map" and "{met}" not in parts:
            raise MapInputError(
                f"--pattern {text}: has no {{met}}, so the metabolite of a map is unknown. Add {{met}}."
            )
        seen: set[str] = set()
        regex = "".join(_piece(part, seen) for part in parts)
        return cls(role, re.compile(rf"(?:^|.*/){regex}$", re.IGNORECASE))  # type: ignore[arg-type]

    def read(self, relative: str) -> Finding | None:
        """What a file of this path (with ``/``, with its suffix) holds, or None if it is not of this pattern.

        A pattern without a suffix is one of the name alone. One of maps leaves files whose own name says otherwise
        (``crlb_tNAA`` for ``{met}``) to the table of schemes.
        """
        parent, slash, name = relative.rpartition("/")
        match = self.regex.fullmatch(f"{parent}{slash}{image_stem(name)}") or self.regex.fullmatch(relative)
        if match is None:
            return None
        groups = match.groupdict()
        if self.role == "map" and not is_known(groups["met"]):
            told = classify(groups["met"])
            if told.role != "map" and told.reason != UNKNOWN:
                return None
        tags = {"id": groups["id"]} if groups.get("id") else {}
        if not groups.get("met"):
            return Finding(self.role, tags=tags)
        try:
            return Finding(self.role, canonical_name(groups["met"]), tags=tags)
        except ValueError:
            return Finding("other", tags=tags, reason="the pattern's {met} is no name of a metabolite there")


def _piece(part: str, seen: set[str]) -> str:
    if part in ("{met}", "{id}"):
        name = part[1:-1]
        again = name in seen
        seen.add(name)
        return rf"(?P={name})" if again else rf"(?P<{name}>[^/]+?)"
    return {"*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part))
