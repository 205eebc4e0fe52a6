"""The arguments of a call in plain Python, or a sentence that names the unusable one and the allowed values."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any

from mrsi_fast.diffusion.noise import KEY_LIMIT
from mrsi_fast.evidence.checks import Checks
from mrsi_fast.mrsi.consistency import Mode
from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.mrsi.noise import NoiseLevel
from mrsi_fast.mrsi.quality import TrustRules
from mrsi_fast.preparation import AcquisitionSettings


@dataclass(frozen=True)
class Asked:
    """Everything but the maps that decides what a call of :class:`~mrsi_fast.resolver.SuperResolver` computes.

    Attributes are the arguments of that call, checked and in plain Python; ``checks`` are what a scan is asked about
    itself.
    """

    scale: Any
    samples: int
    steps: int
    seed: int
    data_consistency: Mode
    anatomy: Any
    acquisition: AcquisitionSettings
    noise: NoiseLevel
    rules: TrustRules | None
    keep_filled: bool
    checks: Checks

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Asked:
        """Checks the arguments of a call, by name; those that are no field, such as the maps, are left alone.

        Raises:
            MapInputError: There is no such anatomical image.
            ValueError: An argument is out of range; the message names it and the allowed values.
        """
        count = "give a whole number, 0 (mean and deviation alone) to 1024"
        given = {one.name: arguments[one.name] for one in fields(cls)}
        given["samples"] = whole_number("samples", given["samples"], 0, 1024, count)
        given["steps"] = whole_number("steps", given["steps"], 1, 1000, "give a whole number, 1 to 1000")
        given["seed"] = whole_number("seed", given["seed"], 0, KEY_LIMIT - 1, "give a whole number from 0 to 2^63 - 1")
        given["acquisition"], given["rules"] = acquisition_settings(given["acquisition"]), trust_rules(given["rules"])
        given["scale"], given["anatomy"] = plain_scale(given["scale"]), existing_anatomy(given["anatomy"])
        return cls(**given | {"checks": Checks(**given["checks"])})

    def settings(self) -> dict[str, Any]:
        """What preparing the maps goes by."""
        return {key: getattr(self, key) for key in ("data_consistency", "acquisition", "noise", "rules")}


def whole_number(name: str, value: Any, low: int, high: int, hint: str) -> int:
    """A whole number of any kind (Python, NumPy, a tensor of one) as an ``int``.

    Raises:
        ValueError: It is none (True is none, nor is 2.5), or lies outside ``low`` to ``high``.
    """
    try:
        if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} is {value!r}; {hint}.") from None
    if not low <= number <= high:
        raise ValueError(f"{name} is {number}; {hint}.")
    return number


def plain_scale(value: Any) -> Any:
    """A scale as numbers, texts and lists of Python; ``geometry.parse_factors`` judges it."""
    return value.tolist() if hasattr(value, "tolist") else value


def existing_anatomy(value: Any) -> Any:
    """An anatomical image, of which a path must lead to a file.

    Raises:
        MapInputError: There is no such file.
    """
    if isinstance(value, str | PathLike) and not Path(value).is_file():
        raise MapInputError(f"anatomy: {value}: there is no such file.")
    return value


def acquisition_settings(value: Any) -> AcquisitionSettings:
    """What is declared of the acquisition.

    Raises:
        ValueError: Neither settings nor a mapping of them; an unknown key or value (``ConfigError``).
    """
    if value is None:
        return AcquisitionSettings()
    if isinstance(value, AcquisitionSettings):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f'acquisition is {value!r}; give a mapping such as {{"window": "hamming"}}.')
    return AcquisitionSettings.parse({str(key): entry for key, entry in value.items()}, "acquisition")


def trust_rules(value: Any) -> TrustRules | None:
    """Limits of trust.

    Raises:
        ValueError: Neither ``TrustRules`` nor a mapping of its fields.
    """
    if value is None or isinstance(value, TrustRules):
        return value
    known = [one.name for one in fields(TrustRules)]
    if not isinstance(value, Mapping) or not set(value) <= set(known):
        raise ValueError(f"rules is {value!r}; give TrustRules, or a mapping of {', '.join(known)}.")
    return TrustRules(**value)


def callable_or_none(name: str, value: Any) -> Any:
    """A function, or None.

    Raises:
        ValueError: It cannot be called.
    """
    if value is not None and not callable(value):
        raise ValueError(f"{name} is {value!r}; give a function of (done, all), or leave it out.")
    return value
