"""Keyed randomness: every random quantity of the simulation is a pure function of a key and a name.

A subject, a batch item or a slice owns a 128-bit Philox key; each quantity reads its own counter range, chosen by the
quantity's name and an index. Nothing depends on the order in which quantities, slices or batches are drawn.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UNIFORM_TO_UNIT_VARIANCE = float(np.sqrt(12.0))


@dataclass(frozen=True)
class Key:
    """A 128-bit Philox key (Salmon et al. 2011)."""

    low: int
    high: int

    def child(self, name: str, index: int = 0) -> Key:
        """Key of a part, such as one slice of a subject."""
        return Key.of(name, index, self.low, self.high)

    @classmethod
    def of(cls, *parts: int | str) -> Key:
        """Hashes integers and strings to a key by numpy's ``SeedSequence``."""
        entropy = [
            zlib.crc32(part.encode()) if isinstance(part, str) else int(part) & 0xFFFFFFFFFFFFFFFF for part in parts
        ]
        low, high = np.random.SeedSequence(entropy).generate_state(2, np.uint64)
        return cls(int(low), int(high))

    def stream(self, name: str, index: int = 0) -> np.random.Generator:
        """Generator of one named quantity; ``index`` (any integer) tells apart its parts, e.g. lattice planes."""
        key = np.array([self.low, self.high], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=_counter(name, index)))

    def white_noise(
        self, name: str, indices: Iterable[int], shape: tuple[int, ...], dtype: str
    ) -> Iterator[NDArray[np.floating]]:
        """Uniform arrays of mean 0 and variance 1, the first draws of ``stream(name, index)`` for each index.

        One generator is set to each counter in turn, a tenth of the cost of making one each.
        """
        rng = self.stream(name)
        state = rng.bit_generator.state
        for index in indices:
            state["state"]["counter"] = _counter(name, index)
            rng.bit_generator.state = state
            plane = rng.random(shape, dtype=np.dtype(dtype))
            plane -= 0.5
            plane *= UNIFORM_TO_UNIT_VARIANCE
            yield plane


def _counter(name: str, index: int) -> NDArray[np.uint64]:
    return np.array([0, 0, index & 0xFFFFFFFFFFFFFFFF, zlib.crc32(name.encode())], dtype=np.uint64)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """One draw, uniform in the logarithm; ``low`` itself where the range is a point."""
    return float(low) if high <= low else float(np.exp(rng.uniform(np.log(low), np.log(high))))
