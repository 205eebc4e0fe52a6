"""The concentration table: complete, sourced, consistent with itself."""

from __future__ import annotations

import numpy as np
import pytest

from mrsi_fast.config import ConfigError
from mrsi_fast.mrsi.names import NAMED_CHANNELS, canonical_name
from mrsi_fast.simulation.acquisition import SHIFT_PPM
from mrsi_fast.simulation.batch import OTHERS
from mrsi_fast.simulation.concentrations import LESIONS, TISSUES, metabolite, table


def test_every_cell_has_a_source_and_its_mean_in_its_range() -> None:
    assert set(table()) >= {*NAMED_CHANNELS, *OTHERS}
    for name, entries in table().items():
        assert canonical_name(name) == name and name in SHIFT_PPM
        assert set(entries.cells) >= {*TISSUES, *LESIONS}
        assert len(entries.noise_source) > 10 and (entries.noise_cv is None) != (entries.noise_sd is None)
        for cell in entries.cells.values():
            assert len(cell.source) > 10
            assert 0 <= cell.low <= cell.mean <= cell.high


def test_glx_is_glutamate_plus_glutamine() -> None:
    for tissue in ("GM", "WM", *LESIONS):
        glx, glu, gln = (metabolite(name).cells[tissue].mean for name in ("Glx", "Glu", "Gln"))
        assert glx == pytest.approx(glu + gln, rel=0.02)


def test_core_and_tissue_ratios_agree_with_the_7t_medians_used_as_a_check() -> None:
    """Cancers 2024;16:943: tumour tCho/tNAA 0.48, Ins/tNAA 1.15; NAWM tCho/tNAA 0.20 (within 20 %)."""
    core = {name: metabolite(name).cells["IDHmut"].mean for name in ("tNAA", "tCho", "Ins")}
    white = {name: metabolite(name).cells["WM"].mean for name in ("tNAA", "tCho")}
    assert core["tCho"] / core["tNAA"] == pytest.approx(0.48, rel=0.2)
    assert core["Ins"] / core["tNAA"] == pytest.approx(1.15, rel=0.2)
    assert white["tCho"] / white["tNAA"] == pytest.approx(0.20, rel=0.2)


def test_draws_stay_in_the_range_and_average_near_the_mean() -> None:
    rng = np.random.default_rng(0)
    cell = metabolite("2HG").cells["IDHmut"]
    draws = [cell.draw(rng) for _ in range(4000)]
    assert cell.low <= min(draws) and max(draws) <= cell.high
    assert np.mean(draws) == pytest.approx((cell.low + cell.mean + cell.high) / 3, rel=0.03)
    assert metabolite("2HG").cells["GM"].draw(rng) == 0.0


def test_unknown_metabolites_are_named() -> None:
    with pytest.raises(ConfigError, match="no 'Taurine'.*tNAA"):
        metabolite("Taurine")
