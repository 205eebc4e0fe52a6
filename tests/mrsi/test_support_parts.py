"""Connected parts and holes, as ``scipy.ndimage`` finds them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from mrsi_fast.mrsi.connected import connected_parts, largest_part, with_neighbours
from mrsi_fast.mrsi.support import _large_parts, _without_holes


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 6, 1), (13, 12, 5), (20, 31, 4)])
def test_parts_are_scipys(shape: tuple[int, int, int], share: float) -> None:
    region = np.random.default_rng(7).random(shape) < share
    parts, count = ndimage.label(region)
    ours = connected_parts(region)
    assert ours.max() == count and np.array_equal(ours > 0, region)
    assert len({(int(a), int(b)) for a, b in zip(ours.ravel(), parts.ravel(), strict=True)}) == count + (
        not region.all()
    )
    if count:
        sizes = np.bincount(parts.ravel())[1:]
        large = np.isin(parts, 1 + np.flatnonzero(sizes >= 0.1 * sizes.max()))
        np.testing.assert_array_equal(_large_parts(region), large)
        np.testing.assert_array_equal(largest_part(region), parts == 1 + np.argmax(sizes))
    np.testing.assert_array_equal(with_neighbours(region), ndimage.binary_dilation(region))
    filled = np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(region, -1, 0)], axis=-1)
    np.testing.assert_array_equal(_without_holes(region), filled)


def test_a_long_winding_part() -> None:
    maze = np.zeros((41, 41, 1), dtype=bool)
    maze[::2] = True
    maze[1::4, -1] = maze[3::4, 0] = True
    assert connected_parts(maze).max() == 1


def test_an_empty_region_has_no_largest_part() -> None:
    assert not largest_part(np.zeros((3, 4, 5), dtype=bool)).any()
