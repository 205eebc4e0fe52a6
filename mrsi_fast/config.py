"""Typed settings of the model and of the diffusion: TOML or JSON in, TOML or JSON out, unknown keys refused."""

from __future__ import annotations

import json
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Self

import pydantic
import tomli_w

from mrsi_fast.files import each_key_once, read_regular

Finite = Annotated[float, pydantic.Field(allow_inf_nan=False)]


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key, the reason and the allowed values."""


class Settings(pydantic.BaseModel):
    """Base of every configuration: immutable, reads TOML and JSON, writes TOML.

    Unknown keys and numbers that are not finite are refused.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, values: dict[str, Any], source: str = "configuration") -> Self:
        """Checks ``values`` and turns pydantic's report into one sentence per problem.

        Raises:
            ConfigError: An unknown key, a missing key or a value out of range.
        """
        try:
            return cls.model_validate(values)
        except pydantic.ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(str(part) for part in item['loc']) or 'value'}: {item['msg']}" for item in error.errors()
            )
            raise ConfigError(f"{source}: {problems}.") from error

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a ``.toml`` or ``.json`` file.

        Raises:
            ConfigError: The file is missing, is not valid TOML or JSON, or holds values that do not fit.
        """
        path = Path(path)
        try:
            raw = read_regular(path, LARGEST_CONFIG_BYTES)
            if len(raw) > LARGEST_CONFIG_BYTES:
                raise ConfigError(
                    f"{path.name}: is larger than {LARGEST_CONFIG_BYTES} bytes, so it is no configuration."
                )
            text = raw.decode("utf-8")
            values = (
                json.loads(text, object_pairs_hook=each_key_once) if path.suffix == ".json" else tomllib.loads(text)
            )
        except OSError as error:
            raise ConfigError(f"{path}: the configuration cannot be read ({error.strerror}).") from error
        except ConfigError:
            raise
        except (ValueError, RecursionError) as error:  # not UTF-8, not JSON or TOML, a key that stands twice
            raise ConfigError(f"{path}: not a valid configuration file ({error}).") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path.name}: holds no table of settings.")
        return cls.parse(values, source=path.name)

    def to_toml(self) -> str:
        """The full resolved configuration as TOML text (keys whose value is None are left out)."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


LARGEST_CONFIG_BYTES = 2**20
"""A configuration file has a few kB."""

MOST_CHANNELS, MOST_LEVELS, MOST_BLOCKS, WIDEST = 64, 6, 16, 2048
"""Bounds of a network's shape, far above any that was trained: a damaged or hostile file asks for no more than this."""

_Blocks = Annotated[int, pydantic.Field(ge=1, le=MOST_BLOCKS)]
_Width = Annotated[int, pydantic.Field(ge=1, le=WIDEST)]
_Name = Annotated[str, pydantic.Field(min_length=1, max_length=64)]


class ModelConfig(Settings):
    """Shape of the Self-Attention UNet. Levels run from the finest (pixel-unshuffled) grid to the coarsest.

    Attributes:
        channels: Names of the map channels the network carries, in order.
        widths: Feature channels per level; multiples of ``group_channels``.
        encoder_blocks: Residual blocks per level on the way down.
        decoder_blocks: Residual blocks per level on the way up; at least one.
        encoder_attention: Whether self-attention follows the last encoder block of a level.
        decoder_attention: Whether self-attention follows the last decoder block of a level.
        head_channels: Channels of one attention head.
        group_channels: Channels of one GroupNorm group.
        embedding_width: Width of the embedding of noise level and acquisition.
        stem_factor: Pixel-unshuffle factor in front of the first convolution.
        spread: Whether a second head gives the posterior standard deviation at the one-step point.
    """

    channels: tuple[_Name, ...] = ("tNAA", "tCr", "tCho", "Ins", "Glx", "2HG", "other1", "other2")
    widths: tuple[_Width, ...] = (96, 160, 256)
    encoder_blocks: tuple[_Blocks, ...] = (1, 2, 2)
    decoder_blocks: tuple[_Blocks, ...] = (2, 2, 1)
    encoder_attention: tuple[bool, ...] = (False, False, True)
    decoder_attention: tuple[bool, ...] = (False, True, False)
    head_channels: int = pydantic.Field(32, gt=0, le=WIDEST)
    group_channels: int = pydantic.Field(16, gt=0, le=WIDEST)
    embedding_width: int = pydantic.Field(256, gt=0, le=WIDEST)
    stem_factor: int = pydantic.Field(2, ge=1, le=8)
    spread: bool = False

    @pydantic.model_validator(mode="after")
    def _levels_agree(self) -> Self:
        if not 1 <= len(self.channels) <= MOST_CHANNELS or len(set(self.channels)) < len(self.channels):
            raise ValueError(f"give 1 to {MOST_CHANNELS} channels, each with a name of its own")
        if len(self.widths) > MOST_LEVELS:
            raise ValueError(f"at most {MOST_LEVELS} levels are offered, got {len(self.widths)}")
        per_level = (self.encoder_blocks, self.decoder_blocks, self.encoder_attention, self.decoder_attention)
        if not self.widths or any(len(values) != len(self.widths) for values in per_level):
            raise ValueError(f"give one value per level ({len(self.widths)} widths) for blocks and attention")
        if any(width % self.group_channels or width % self.head_channels for width in self.widths):
            raise ValueError("every width must be a multiple of group_channels and of head_channels")
        return self

    @property
    def grid_multiple(self) -> int:
        """The network pads maps to a multiple of this many voxels per axis."""
        return self.stem_factor * 2 ** (len(self.widths) - 1)


class DiffusionConfig(Settings):
    """Noise levels of the diffusion, in units of the residual's fixed RMS, and that RMS itself.

    Attributes:
        sigma_min: Smallest trained noise level, where the ancestral chain ends.
        sigma_max: Largest trained noise level; one evaluation there is the posterior mean.
        sigma_second: Second level of the few-step solvers: above it almost nothing is decided.
        sigma_last: Last level above 0 of the few-step solvers.
        rho: Exponent of their levels in between (Karras et al. 2022, Eq. 5).
        fitted_steps: Coefficients (sigma, base, now, prev) of ``solvers.Step``, fitted to this model so that these few
            steps sample as many do (training/fit_steps.py); ``dpmpp_2m`` takes them where it is asked for as many.
        residual_rms: RMS of (truth - z) / scale inside the brain, per in-plane factor ("2", "4", "8") and channel.
    """

    sigma_min: float = pydantic.Field(0.02, gt=0)
    sigma_max: float = pydantic.Field(30.0, gt=0)
    sigma_second: float = pydantic.Field(8.0, gt=0)
    sigma_last: float = pydantic.Field(0.06, gt=0)
    rho: float = pydantic.Field(6.0, gt=0)
    fitted_steps: tuple[tuple[Finite, Finite, Finite, Finite], ...] = pydantic.Field((), max_length=32)
    residual_rms: dict[str, tuple[Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)], ...]] = {}

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.sigma_min <= self.sigma_last < self.sigma_second < self.sigma_max:
            raise ValueError("sigma_min, sigma_last, sigma_second and sigma_max must come in rising order")
        levels = [step[0] for step in self.fitted_steps]
        if levels and (levels[0] != self.sigma_max or any(a <= b for a, b in pairwise((*levels, 0.0)))):
            raise ValueError("the levels of fitted_steps must fall from sigma_max and stay above 0")
        return self
