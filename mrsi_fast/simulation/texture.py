"""Fine variation of concentrations inside a tissue: smooth random fields, partly shared between metabolites."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mrsi_fast.simulation.config import VariationConfig
from mrsi_fast.simulation.fields import Array, SmoothField
from mrsi_fast.simulation.keys import Key, log_uniform

OWN_LEVEL_SD = 0.25  # SD of the logarithm of each map's own level around the common one, where levels vary


@dataclass(frozen=True)
class Texture:
    """One scale of texture of all maps, in the logarithm of the concentration.

    Attributes:
        field: One channel a map, one that all maps share, and with heavy tails one for the local amplitude.
        sd: [M] standard deviation of each map's texture.
        shared: Share of the variance that all maps have in common.
        tail: Spread of the local amplitude (SD of its logarithm).
    """

    field: SmoothField
    sd: Array
    shared: float
    tail: float

    def lattice(self, planes_mm: Array) -> Array:
        """Lattice values [M, knots, knots] of the mean over planes."""
        lattice = self.field.lattice(planes_mm)
        if self.tail > 0:  # the mean square of the amplitude is 1
            lattice = lattice[:-1] * np.exp(self.tail * lattice[-1] - self.tail**2)
        own = (self.sd * np.sqrt(1 - self.shared)).astype(lattice.dtype)[:, None, None]
        common = (self.sd * np.sqrt(self.shared)).astype(lattice.dtype)[:, None, None]
        return own * lattice[:-1] + common * lattice[-1:]


def draw_textures(config: VariationConfig, key: Key, maps: int, precision: str) -> tuple[Texture, ...]:
    """Draws the textures of one subject, the finest first; those without any strength are left out.

    Args:
        config: Strengths and widths.
        key: The subject's key.
        maps: Number of maps M.
        precision: Of the fields.
    """
    rng = key.stream("texture settings")
    if config.texture_log:
        sd = log_uniform(rng, *config.texture_sd)
    else:
        sd = float(rng.uniform(*config.texture_sd))
    width = float(rng.uniform(*config.texture_scale_mm))
    shared = float(rng.uniform(0, config.texture_shared))
    tail = config.texture_tail
    levels = np.exp(OWN_LEVEL_SD * rng.standard_normal(maps)) if config.texture_log else np.ones(maps)
    field = SmoothField(key, "texture", maps + 1 + (tail > 0), width, precision)
    textures = [Texture(field, sd * levels, shared, tail)]
    if config.patch_sd[1] > 0:
        rng = key.stream("patch settings")
        sd, width = log_uniform(rng, *config.patch_sd), float(rng.uniform(*config.patch_scale_mm))
        levels = np.exp(OWN_LEVEL_SD * rng.standard_normal(maps))
        field = SmoothField(key, "patch", maps + 1 + (tail > 0), width, precision)
        textures.append(Texture(field, sd * levels, float(rng.uniform(0, config.texture_shared)), tail))
    return tuple(texture for texture in textures if texture.sd.max() > 0)


@dataclass(frozen=True)
class Rim:
    """A rise or fall of the maps towards the edge of the brain.

    Attributes:
        change: [M] relative change at the edge.
        width_mm: Decay length inwards.
    """

    change: Array
    width_mm: float

    def apply(self, maps: Array, depth_mm: Array) -> None:
        """Scales ``maps`` [M, X, Y] in place; ``depth_mm`` [X, Y] is the distance from the edge, 0 outside."""
        decay = np.where(depth_mm > 0, np.exp(-depth_mm / self.width_mm), 0).astype(maps.dtype)
        for image, change in zip(maps, self.change.tolist(), strict=True):
            image *= 1 + change * decay


def draw_rim(config: VariationConfig, key: Key, maps: int) -> Rim | None:
    """Draws a rim: half of the change is common to all maps."""
    rng = key.stream("rim")
    if rng.random() >= config.rim:
        return None
    common, own = rng.uniform(*config.rim_change), rng.uniform(*config.rim_change, maps)
    return Rim(0.5 * (common + own), float(rng.uniform(*config.rim_mm)))
