"""What the network is told about the measured data, computed in one place for training and for use.

Training slices and a user's maps must reach the network in the same form: the estimate ``z`` that the data alone give,
and the anatomical image in standard units.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.forward import Array
from mrsi_fast.mrsi.volume_operator import Operator

WINDOW_DAMPING = 0.2
"""Tikhonov weight of the estimate of noisy windowed data: a filled or failed voxel did not pass the window, and undoing
the window would amplify it twelvefold at the edge of a Hamming window and without bound at that of a Hann window. With
this weight no line is amplified more than 2.6 times."""


def estimate(acquisition: Operator, filled: Array, noisy: bool) -> Array:
    """The HR maps that the measured data alone give: ``A_lambda+ y``.

    Args:
        acquisition: The operator that is assumed for the maps.
        filled: LR maps [..., nx, ny] (of a volume [n, ..., nx, ny]), tensor or array, untrusted voxels filled, any
            unit.
        noisy: False for data declared noise-free and linear, which are inverted exactly.

    Returns:
        [..., X, Y] in the dtype and unit of the maps.
    """
    if not noisy or acquisition.window == "none":
        return acquisition.pinv(filled)
    return acquisition.pinv(filled, damping=WINDOW_DAMPING) * (1 + WINDOW_DAMPING**2)  # a constant stays the constant


_LEVELS = (1e-3, 1e15)
"""Levels of an image at which its deviation is far above 1e-6, and its squares far below the largest float32."""


def standardise_anatomy(image: NDArray[np.floating]) -> NDArray[np.float32]:
    """Zero mean and unit SD over the voxels that hold signal (above a tenth of the 99th percentile); 0 elsewhere.

    Args:
        image: One slice [X, Y] of an anatomical image on the HR grid, any scale, not negative; NaN counts as 0.

    Returns:
        float32 of the same shape; all zeros where there is no signal.
    """
    image = np.nan_to_num(np.asarray(image, np.float32))
    high = float(np.percentile(image, 99))
    if high > 0 and not _LEVELS[0] <= high <= _LEVELS[1]:  # else floor or overflow take the contrast away
        image, high = image / np.float32(high), 1.0
    signal = image > 0.1 * high
    if not signal.any():
        return np.zeros_like(image)
    values = image[signal]
    return np.where(signal, (image - values.mean()) / max(float(values.std()), 1e-6), 0).astype(np.float32)
