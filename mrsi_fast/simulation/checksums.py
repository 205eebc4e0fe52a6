"""Published SHA-256 of the fixed evaluation sets: whoever simulates them gets the same arrays or learns otherwise.

``checksums.toml`` lists, per preset and part, the checksums of the first subjects at one seed and set of factors, as
``mrsi-fast simulate`` prints them. They change whenever the simulation changes its numbers, which is then a new
version of every table made with it.
"""

from __future__ import annotations

import tomllib
from functools import lru_cache
from importlib import resources
from typing import Any

from mrsi_fast.simulation.volume import SimulatedSubject


@lru_cache(maxsize=1)
def published() -> dict[str, dict[str, Any]]:
    """The table: ``"<preset>/<part>"`` to ``seed``, ``scales`` and ``sha256`` by subject number."""
    text = (resources.files("mrsi_fast.simulation") / "checksums.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def agrees(subject: SimulatedSubject) -> bool | None:
    """Whether a subject is the published one.

    Args:
        subject: Any simulated subject.

    Returns:
        True or False where its preset, part, seed, number and factors are in the table; None where they are not.
    """
    about = subject.provenance
    entry = published().get(f"{about['preset']}/{about['split']}")
    if entry is None or about["seed"] != entry["seed"] or about["subject"] >= len(entry["sha256"]):
        return None
    if set(subject.measured) != {(scale, scale) for scale in entry["scales"]}:
        return None
    return bool(subject.checksum() == entry["sha256"][about["subject"]])
