"""Still pictures for a page: a slice of a map as an indexed PNG, one pixel a voxel, written without a drawing library.

They are what a page shows where WebGL2 is missing, and on paper. The page scales them, so each has a few kB.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from mrsi_fast.mrsi.geometry import voxel_sizes_mm
from mrsi_fast.report.orientation import slice_view

SEQUENTIAL = ("viridis", "magma", "cividis")
"""Colour maps for values from 0 upwards; ``difference`` (matplotlib's RdBu_r) is for values of both signs."""

MISSING_RGB = (158, 158, 158)
"""Colour of voxels without a value: a grey that none of the colour maps holds."""


@dataclass(frozen=True)
class Still:
    """A picture of one slice.

    Attributes:
        data: Base64 text of a PNG.
        width_mm: Width of what it shows.
        height_mm: Height of what it shows.
        edges: Letters at the left, right, bottom and top edge (radiological view).
    """

    data: str
    width_mm: float
    height_mm: float
    edges: tuple[str, str, str, str]


@cache
def colour_codes() -> dict[str, str]:
    """Colour maps that survive printing and colour blindness: name, and 256 colours of six hexadecimal digits."""
    return json.loads(resources.files("mrsi_fast.report").joinpath("colour_maps.json").read_text(encoding="utf-8"))


def still(volume: NDArray, z: int, affine: NDArray[np.float64], window: tuple[float, float], colours: str) -> Still:
    """Draw slice ``z`` of a volume in radiological view.

    Args:
        volume: [X, Y, Z], NaN where there is no value.
        z: Slice.
        affine: [4, 4], RAS+ mm.
        window: Values at the ends of the colour map.
        colours: Name of the colour map.
    """
    view, (dx, dy, _) = slice_view(affine), voxel_sizes_mm(affine)
    picture = view.turn(volume[:, :, z])[::-1]  # PNG rows run from the top
    low, high = window
    index = np.clip((np.nan_to_num(picture) - low) / max(high - low, 1e-30), 0, 1) * 254
    pixels = np.where(np.isfinite(picture), np.round(index), 255).astype(np.uint8)
    palette = bytes.fromhex(colour_codes()[colours])[: 3 * 255] + bytes(MISSING_RGB)
    width, height = view.size_mm((volume.shape[0], volume.shape[1]), (dx, dy))
    return Still(base64.b64encode(indexed_png(pixels, palette)).decode("ascii"), width, height, view.edges)


def indexed_png(pixels: NDArray[np.uint8], palette: bytes) -> bytes:
    """A PNG file of 8-bit indices into a palette of RGB bytes (PNG specification, colour type 3)."""
    height, width = pixels.shape
    rows = np.zeros((height, width + 1), dtype=np.uint8)  # each row starts with its filter: none
    rows[:, 1:] = pixels
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", palette),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    ]
    chunks = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
