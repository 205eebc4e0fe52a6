"""Connected parts and holes, as ``scipy.ndimage`` finds them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from mrsi_fast.mrsi.support import _connected, _large_parts, _without_holes


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 6, 1), (13, 12, 5), (20, 31, 4)])
def test_parts_are_scipys(shape: tuple[int, int, int], share: float) -> None:
    region = np.random.default_rng(7).random(shape) < share
    parts, count = ndimage.label(region)
    ours = _connected(region)
    assert ours.max() == count and np.array_equal(ours > 0, region)
    assert len({(int(a), int(b)) for a, b in zip(ours.ravel(), parts.ravel(), strict=True)}) == count + (
        not region.all()
    )
    if count:
        sizes = np.bincount(parts.ravel())[1:]
        large = np.isin(parts, 1 + np.flatnonzero(sizes >= 0.1 * sizes.max()))
        np.testing.assert_array_equal(_large_parts(region), large)
    np.testing.assert_array_equal(_without_holes(region[..., 0]), ndimage.binary_fill_holes(region[..., 0]))


def test_a_long_winding_part() -> None:
    maze = np.zeros((41, 41, 1), dtype=bool)
    maze[::2] = True
    maze[1::4, -1] = maze[3::4, 0] = True
    assert _connected(maze).max() == 1
