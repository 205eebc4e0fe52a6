"""Zero-fill plus random texture of the right spectrum: shows what a perceptual score rewards by itself.

The texture has the power spectrum of what zero-filling lacks (measured on the train heads) and random phases, and it is
present where the map holds signal. It uses no anatomy; a method has to beat it in LPIPS to claim detail.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.diffusion.noise import philox_normal

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_STREAM = 2**40
"""First slice key of the texture's noise, apart from those of the sampler."""


@dataclass(frozen=True, eq=False)
class Texture:
    """Power of the lost detail.

    Attributes:
        amplitude: [M, X, Y] amplitude of each Fourier coefficient of unit-power texture.
        rms: [M] RMS of the lost detail relative to the signal's, over the maps' scale.
    """

    amplitude: Float64
    rms: Float64

    def draw(self, zero_fill: NDArray, seed: int) -> Float32:
        """Adds texture to zero-filled maps [M, X, Y, Z] over their scale; the same for the same seed."""
        result = np.array(zero_fill, np.float64)
        for z in range(zero_fill.shape[3]):
            for index, amplitude in enumerate(self.amplitude):
                white = philox_normal(seed, _STREAM + z, index, 0, amplitude.shape).double().numpy()
                field = np.fft.ifft2(np.fft.fft2(white) * amplitude).real
                result[index, ..., z] += self.rms[index] * field * _envelope(result[index, ..., z])
        return result.astype(np.float32)


def _envelope(image: NDArray) -> NDArray:
    """How much signal there is, 0 to 1: zero-filled maps ring outside the head."""
    return np.clip(image, 0, 1)


def fit_texture(pairs: Iterable[tuple[NDArray, NDArray]]) -> Texture:
    """Measures what zero-filling lacks.

    Args:
        pairs: ``(zero_fill, truth)``, both [M, X, Y, Z] over the maps' scale.

    Raises:
        ValueError: There is no pair.
    """
    power: Float64 | None = None
    signal: Float64 | None = None
    for zero_fill, truth in pairs:
        lost = np.asarray(truth, np.float64) - zero_fill
        own = (np.abs(np.fft.fft2(lost, axes=(1, 2))) ** 2).mean(axis=3)
        envelope = (_envelope(zero_fill) ** 2).mean(axis=(1, 2, 3))
        power, signal = (own, envelope) if power is None or signal is None else (power + own, signal + envelope)
    if power is None or signal is None:
        raise ValueError("The texture's spectrum is measured on the train heads; there was none.")
    voxels = power[0].size
    total = power.sum(axis=(1, 2), keepdims=True)
    amplitude = np.sqrt(np.divide(power * voxels, total, out=np.zeros_like(power), where=total > 0))
    mean_square = total[:, 0, 0] / voxels**2
    return Texture(amplitude, np.sqrt(np.divide(mean_square, signal, out=np.zeros_like(signal), where=signal > 0)))
