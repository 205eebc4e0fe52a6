"""Which of the maps that were found are read: those asked for, else those that the network has channels for."""

from __future__ import annotations

from collections.abc import Sequence

from mrsi_fast.mrsi.mapset import MapInputError, checked_name
from mrsi_fast.mrsi.names import NAMED_CHANNELS, STAND_INS, is_lipid_or_macromolecule


def wanted_names(metabolites: str | Sequence[str], found: Sequence[str]) -> list[str]:
    """Names of the maps asked for ("all" or a list of names), each once.

    Raises:
        MapInputError: There is no name, or no map of a name.
    """
    parts = metabolites.split(",") if isinstance(metabolites, str) else list(metabolites)
    if [part.strip().lower() for part in parts] == ["all"]:
        return list(found)
    wanted = list(dict.fromkeys(checked_name(part) for part in parts if part.strip()))
    if not wanted:
        raise MapInputError("metabolites: the list is empty. Name at least one, or leave it out.")
    if missing := [name for name in wanted if name not in found]:
        raise MapInputError(f"{', '.join(missing)}: there is no map of that name; found were {', '.join(found)}.")
    return wanted


def chosen_names(metabolites: str | Sequence[str] | None, found: Sequence[str]) -> list[str]:
    """Names of the maps asked for; by default those with a channel, or with a component's map in its place.

    Raises:
        MapInputError: As for :func:`wanted_names`.
    """
    if metabolites:
        return wanted_names(metabolites, found)
    chosen = []
    for channel in NAMED_CHANNELS:
        chosen += [name for name in (channel, *STAND_INS.get(channel, ())) if name in found][:1]
    return chosen or [name for name in found if not is_lipid_or_macromolecule(name)] or list(found)
