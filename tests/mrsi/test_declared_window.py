"""A declared window that the maps cannot have passed is a warning; one that they passed is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from mrsi_fast.mrsi.declared_window import LARGEST_EXCESS, excess_over_window, remarks_on_window
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.io import read_maps
from mrsi_fast.preparation import AcquisitionSettings, prepare
from mrsi_fast.simulation.config import SimulationConfig
from mrsi_fast.simulation.volume import simulate
from support.data import data_dir

ALL = np.ones((3, 20, 18, 3), bool)


def made(window: str, support: str = "square", smooth: float = 0.0) -> NDArray[np.float32]:
    """Noise, with an object below it, as an acquisition leaves it: [M, X, Y, Z]."""
    rng = np.random.default_rng(1)
    x, y = np.meshgrid(np.linspace(-1, 1, 20), np.linspace(-1, 1, 18), indexing="ij")
    head = smooth * np.exp(-(x**2 + y**2) * 3)
    seen = Acquisition((20, 18), (1, 1), support=support, window=window).forward(
        rng.standard_normal((3, 3, 20, 18)) + head
    )
    return np.moveaxis(seen, 1, -1).astype(np.float32)


@pytest.mark.parametrize("support", ["square", "ellipse"])
@pytest.mark.parametrize("window", ["hamming", "hann"])
def test_noise_has_the_ratio_of_its_window(window: str, support: str) -> None:
    declared = Acquisition((20, 18), (2, 2), support=support, window=window)
    for smooth in (0.0, 20.0):
        found = excess_over_window(made(window, support, smooth), ALL, declared)
        assert found is not None and (0.8 < found < 1.25 if smooth == 0 else found < 1.25)
        assert not remarks_on_window(made(window, support, smooth), ALL, declared)
        assert len(remarks_on_window(made("none", support, smooth), ALL, declared)) == 1


def test_outliers_do_not_count() -> None:
    values = made("hamming")
    values.reshape(3, -1)[:, ::97] *= 50
    assert not remarks_on_window(values, ALL, Acquisition((20, 18), (2, 2), window="hamming"))


def test_nothing_is_said_without_a_window_or_without_enough_voxels() -> None:
    few = ALL.copy()
    few[:, ::2] = False
    assert excess_over_window(made("none"), ALL, Acquisition((20, 18), (2, 2))) is None
    assert excess_over_window(made("none"), few, Acquisition((20, 18), (2, 2), window="hamming")) is None
    tiny = np.ones((1, 5, 5, 30), np.float32)
    assert excess_over_window(tiny, tiny > 0, Acquisition((5, 5), (2, 2), window="hamming")) is None


@pytest.mark.parametrize(("applied", "told"), [("hamming", 0), ("none", 1)])
def test_simulated_heads(applied: str, told: int) -> None:
    config = SimulationConfig.preset("realistic-3T")
    anatomy = config.anatomy.model_copy(update={"heads": "phantom", "tumour_masks": None})
    volume = config.volume.model_copy(update={"slices": 2, "window": applied})
    (subject,) = simulate(config.model_copy(update={"anatomy": anatomy, "volume": volume}), 1, scales=(2,))
    prepared = prepare(subject.mapset(2), 2, acquisition=AcquisitionSettings(window="hamming"))
    assert sum("cannot have passed" in text for text in prepared.warnings) == told


@pytest.mark.skipif(data_dir() is None, reason="needs the measured scans of ../shared/data")
def test_a_measured_scan_without_a_window() -> None:
    scan = read_maps(data_dir() / "mrsi_oryx2_mit" / "K_01")
    prepared = prepare(scan, 2, acquisition=AcquisitionSettings(window="hamming"))
    assert any("cannot have passed the declared hamming window" in text for text in prepared.warnings)
    assert not any("cannot have passed" in text for text in prepare(replace(scan), 2).warnings)
    assert (excess_over_window(scan.maps, np.isfinite(scan.maps), prepared.plane) or 0) > LARGEST_EXCESS
