"""LPIPS with local weights: the published distances, one shared scale, and honest absence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mrsi_fast.evaluation import perceptual
from support.data import data_dir


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("lpips")
    folder = data_dir()
    if folder is None or not (folder / perceptual.WEIGHTS).is_file():
        pytest.skip("no LPIPS weights: set MRSI_FAST_DATA to the folder of test data")
    monkeypatch.setenv("MRSI_FAST_LPIPS", str(folder / perceptual.WEIGHTS))
    perceptual.load_lpips.cache_clear()
    return folder / perceptual.WEIGHTS


def test_published_distances_of_the_three_pictures(weights: Path) -> None:
    from PIL import Image

    def picture(name: str) -> torch.Tensor:
        pixels = np.asarray(Image.open(weights.parent / f"{name}.png").convert("RGB"), np.float32)
        return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)[None]

    module, reference = perceptual.load_lpips(), picture("ex_ref")
    with torch.inference_mode():
        assert module(reference, picture("ex_p0")).item() == pytest.approx(0.722, abs=5e-4)
        assert module(reference, picture("ex_p1")).item() == pytest.approx(0.138, abs=5e-4)


def test_one_scale_for_both_images(weights: Path) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((2, 40, 36))
    low, high = np.zeros(2), truth.max(axis=(1, 2))
    same = perceptual.lpips_pairs(truth, truth, low, high)
    darker = perceptual.lpips_pairs(truth, 0.5 * truth, low, high)
    assert np.abs(same).max() < 1e-6
    assert darker.min() > 0.01  # a scale per image would give 0
    np.testing.assert_allclose(perceptual.lpips_pairs(7 * truth, 3.5 * truth, low, 7 * high), darker, rtol=1e-4)


def test_loading_leaves_the_random_state_alone(weights: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    perceptual.load_lpips()
    assert torch.equal(torch.rand(3), expected)


def test_small_slices_are_refused() -> None:
    with pytest.raises(ValueError, match="32"):
        perceptual.lpips_pairs(np.zeros((1, 16, 64)), np.zeros((1, 16, 64)), np.zeros(1), np.ones(1))


def test_absent_weights_give_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("lpips")
    monkeypatch.setenv("MRSI_FAST_LPIPS", str(tmp_path / "none.npz"))
    perceptual.load_lpips.cache_clear()
    assert "MRSI_FAST_DATA" in (perceptual.lpips_reason() or "")
    perceptual.load_lpips.cache_clear()
