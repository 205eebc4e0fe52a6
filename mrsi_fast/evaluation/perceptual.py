"""LPIPS (Zhang et al. 2018, 10.1109/CVPR.2018.00068) by the official ``lpips`` package, without a download.

The package builds its AlexNet through torchvision, which fetches ImageNet weights. Here the network is built empty
and filled from a local file with the trunk and the linear heads of version 0.1 (``lpips_alex/lpips_alex_v0.1.npz`` of
the data folder, or ``$MRSI_FAST_LPIPS``). Both maps are brought to [-1, 1] by ONE scale, the range of the truth: a
scale per image would hide every intensity error.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

WEIGHTS = Path("lpips_alex") / "lpips_alex_v0.1.npz"
SMALLEST_SIDE = 32
"""AlexNet's strides leave nothing to compare below this many voxels."""

_SLICES = ("slice1.0", "slice2.3", "slice3.6", "slice4.8", "slice5.10")


class LpipsUnavailable(RuntimeError):
    """LPIPS cannot be computed here; the message is the reason."""


def weights_path() -> Path:
    """Expected place of the weights: ``$MRSI_FAST_LPIPS``, else in the data folder."""
    named = os.environ.get("MRSI_FAST_LPIPS")
    return Path(named) if named else Path(os.environ.get("MRSI_FAST_DATA", "../shared/data")) / WEIGHTS


@lru_cache(maxsize=1)
def load_lpips(path: str | None = None) -> Any:
    """Builds the official LPIPS network with AlexNet trunk from local weights.

    Args:
        path: The ``.npz`` file; None means :func:`weights_path`.

    Returns:
        The ``lpips.LPIPS`` module in evaluation mode.

    Raises:
        LpipsUnavailable: The package or the weights are missing, or the weights do not fit.
    """
    file = weights_path() if path is None else Path(path)
    try:
        import lpips
    except ImportError as error:
        reason = f"the package lpips is not installed ({error}); pip install 'mrsi_fast[eval]'"
        raise LpipsUnavailable(reason) from error
    if not file.is_file():
        raise LpipsUnavailable(
            "its weights lpips_alex_v0.1.npz are not in the data folder; set MRSI_FAST_DATA or MRSI_FAST_LPIPS"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # lpips calls torchvision by an older spelling
        generator = torch.random.get_rng_state()
        module = lpips.LPIPS(net="alex", pretrained=False, pnet_rand=True, verbose=False)
        torch.random.set_rng_state(generator)  # building it drew initial weights that are replaced below
    with np.load(file) as stored:
        state = {
            f"net.{name}.{kind}": torch.from_numpy(stored[f"conv{number}_{kind[0]}"])
            for number, name in enumerate(_SLICES)
            for kind in ("weight", "bias")
        }
        for number in range(len(_SLICES)):
            head = torch.from_numpy(stored[f"lin{number}"]).reshape(1, -1, 1, 1)
            state[f"lin{number}.model.1.weight"] = state[f"lins.{number}.model.1.weight"] = head
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise LpipsUnavailable(f"the weights in {file.name} do not fit the network ({error})") from error
    if unexpected or any(not name.startswith("scaling_layer") for name in missing):
        raise LpipsUnavailable(f"the weights in {file.name} do not fit the network")
    return module.eval().requires_grad_(False)


def lpips_reason() -> str | None:
    """None if LPIPS can be computed here, else the reason why not."""
    try:
        load_lpips()
    except LpipsUnavailable as error:
        return str(error)
    return None


@contextmanager
def _one_thread() -> Iterator[None]:
    """The convolutions' summation order depends on the number of threads; scores must not (it moves them by 1e-9)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def lpips_pairs(truth: NDArray, estimate: NDArray, low: NDArray, high: NDArray) -> NDArray[np.float64]:
    """LPIPS between true and estimated slices.

    Args:
        truth: [B, X, Y], each side at least 32 voxels.
        estimate: [B, X, Y], masked by the convention.
        low: [B] value that becomes -1 in both images of a pair.
        high: [B] value that becomes +1; values beyond are not clipped.

    Returns:
        [B] distances, 0 for equal images.

    Raises:
        LpipsUnavailable: See :func:`load_lpips`.
        ValueError: The slices are too small for AlexNet.
    """
    if min(truth.shape[-2:]) < SMALLEST_SIDE:
        raise ValueError(f"LPIPS needs slices of at least {SMALLEST_SIDE} voxels a side, got {truth.shape[-2:]}.")
    module = load_lpips()

    def picture(images: NDArray) -> torch.Tensor:
        span = (np.asarray(high, np.float64) - low)[:, None, None]
        scaled = 2 * (np.asarray(images, np.float64) - np.asarray(low)[:, None, None]) / span - 1
        return torch.from_numpy(scaled.astype(np.float32))[:, None].expand(-1, 3, -1, -1)

    values = []
    with torch.inference_mode(), _one_thread():
        for start in range(0, len(truth), 32):
            part = slice(start, start + 32)
            values.append(module(picture(truth)[part], picture(estimate)[part]).reshape(-1).double().numpy())
    return np.concatenate(values) if values else np.zeros(0)
