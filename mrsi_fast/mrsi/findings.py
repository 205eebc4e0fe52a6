"""The content of a file as its name tells it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Role = Literal["map", "crlb", "snr", "fwhm", "mask", "lipid", "failed", "anatomy", "ratio", "other"]

ALL_MAPS = "*"
"""Name of a quality file that holds for every map, and of a stack that holds every map."""


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
