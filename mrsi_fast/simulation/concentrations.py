"""The concentration table: millimolar values per metabolite and tissue, each cell with its source.

The numbers are data (``concentrations.toml``), so that another nucleus or another literature is another file.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np

from mrsi_fast.config import ConfigError

TISSUES: tuple[str, ...] = ("GM", "WM", "CSF")
LESIONS: tuple[str, ...] = ("IDHmut", "IDHwt")


@dataclass(frozen=True)
class Cell:
    """One entry: mean and literature range in mM, and where they come from."""

    mean: float
    low: float
    high: float
    source: str

    def draw(self, rng: np.random.Generator) -> float:
        """One value of the range, triangular about the mean."""
        return float(rng.triangular(self.low, self.mean, self.high)) if self.high > self.low else self.mean


@dataclass(frozen=True)
class Metabolite:
    """All entries of one metabolite.

    Attributes:
        cells: Tissue or lesion (``WM-7T`` for the 7T variant) to its entry.
        noise_cv: Noise SD of one LR voxel relative to the brain's median concentration, or None.
        noise_sd: The same in mM where the median says nothing (2HG, Lac), or None.
        noise_source: Where the noise level comes from.
    """

    cells: dict[str, Cell]
    noise_cv: float | None
    noise_sd: float | None
    noise_source: str

    def noise(self, median: float) -> float:
        """Noise SD of one LR voxel, mM, for a map of that median inside the brain."""
        return self.noise_sd if self.noise_sd is not None else float(self.noise_cv or 0.0) * median


@lru_cache(maxsize=1)
def table() -> dict[str, Metabolite]:
    """Reads the table that comes with the package: canonical metabolite name to its entries."""
    text = (resources.files("mrsi_fast.simulation") / "concentrations.toml").read_text(encoding="utf-8")
    metabolites = {}
    for name, entries in tomllib.loads(text).items():
        noise = entries.pop("noise")
        cells = {tissue: Cell(**values) for tissue, values in entries.items()}
        metabolites[name] = Metabolite(cells, noise.get("cv"), noise.get("sd"), noise["source"])
    return metabolites


def metabolite(name: str) -> Metabolite:
    """Entries of one metabolite.

    Raises:
        ConfigError: The table has no such metabolite.
    """
    if name not in table():
        raise ConfigError(f"The concentration table has no {name!r}; it has {', '.join(table())}.")
    return table()[name]
