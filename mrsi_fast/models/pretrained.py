"""Model folders: config.json, model.safetensors, model_card.md and a manifest of sha256 sums. No pickle anywhere."""

from __future__ import annotations

import hashlib
import json
import stat
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Self

import pydantic
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from mrsi_fast.config import ConfigError, DiffusionConfig, ModelConfig, Settings
from mrsi_fast.files import atomic_path, read_json, write_text
from mrsi_fast.models.unet import SelfAttentionUNet

_CHANNELS = "channels"
CONFIG, WEIGHTS, CARD, MANIFEST = "config.json", "model.safetensors", "model_card.md", "manifest.json"


class ModelFolderError(RuntimeError):
    """A model folder that cannot be used; the message names the file and what to do."""


_Side = Annotated[int, pydantic.Field(ge=1, le=100_000)]


class FolderConfig(Settings):
    """Content of ``config.json``.

    Attributes:
        name: Short name of the model, recorded in every result.
        model: Shape of the network.
        diffusion: Noise levels and residual scales.
        trained_voxel_mm: Smallest and largest low-resolution voxel (mm) seen in training.
        trained_grid: Smallest and largest high-resolution matrix size seen in training.
    """

    name: str
    model: ModelConfig
    diffusion: DiffusionConfig
    trained_voxel_mm: tuple[float, float]
    trained_grid: tuple[_Side, _Side]

    @pydantic.model_validator(mode="after")
    def _scales_for_every_channel(self) -> Self:
        rms, channels = self.diffusion.residual_rms, len(self.model.channels)
        if not rms or not all(key.isdecimal() and int(key) > 0 for key in rms):
            raise ValueError("residual_rms needs factors such as 2, 4, 8 as keys")
        if any(len(row) != channels for row in rms.values()):
            raise ValueError(f"residual_rms needs one value for each of the {channels} channels under every factor")
        return self


@dataclass(frozen=True)
class Pretrained:
    """A network in evaluation mode with its settings and the sha256 of its weights."""

    network: SelfAttentionUNet
    config: FolderConfig
    sha256: str
    folder: Path

    @property
    def digest(self) -> str:
        """Hexadecimal sha256 of weights and settings: two models of the same digest give the same results."""
        return hashlib.sha256(f"{self.sha256} {self.config.model_dump_json()}".encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def shipped_folder(name: str = "base") -> Path:
    """Folder of the weights that come with the package.

    Raises:
        ModelFolderError: The package was installed without them.
    """
    folder = Path(str(resources.files("mrsi_fast"))) / "weights" / name
    if not (folder / CONFIG).is_file():
        raise ModelFolderError(
            f"The weights '{name}' did not come with this installation (looked in mrsi_fast/weights/{name}). "
            "Reinstall mrsi_fast, or give the folder of a model that `mrsi-fast train` wrote."
        )
    return folder


def save_pretrained(
    folder: Path, config: FolderConfig, weights: dict[str, Tensor], card: str, half: bool = False
) -> None:
    """Writes a model folder; the manifest comes last, so an interrupted write is recognised as incomplete.

    Args:
        folder: Created if needed.
        config: Settings that ``load_pretrained`` rebuilds the network from.
        weights: State of ``SelfAttentionUNet``.
        card: Markdown text of the model card.
        half: Store 16-bit floats (half the size, relative rounding 5e-4); they are widened to float32 on loading.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    if half:
        stored = {name: tensor.half() for name, tensor in stored.items()}
    write_text(folder / CARD, card)
    with atomic_path(folder / WEIGHTS) as temporary:
        safetensors.torch.save_file(stored, temporary, {_CHANNELS: ",".join(config.model.channels)})
    save_config(folder, config)


def save_config(folder: Path, config: FolderConfig) -> None:
    """Writes the settings of a model folder whose weights and card are there, and the manifest."""
    write_text(folder / CONFIG, config.model_dump_json(indent=2) + "\n")
    sums = {name: sha256_of(folder / name) for name in (CONFIG, WEIGHTS, CARD)}
    write_text(folder / MANIFEST, json.dumps({"sha256": sums}, indent=2) + "\n")


def _verify(folder: Path) -> str:
    try:
        sums = read_json(folder / MANIFEST)["sha256"]
        expected = {name: str(sums[name]) for name in (CONFIG, WEIGHTS, CARD)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFolderError(
            f"{folder.name}/{MANIFEST} is missing or damaged, so the weights cannot be trusted. Copy the folder again."
        ) from error
    for name, wanted in expected.items():
        if not (folder / name).is_file():
            raise ModelFolderError(f"{folder.name}/{name} is missing. Copy the model folder again.")
        try:
            got = sha256_of(folder / name)
        except OSError as error:
            raise ModelFolderError(f"{folder.name}/{name} cannot be read ({_why(folder / name, error)}).") from error
        if got != wanted:
            raise ModelFolderError(
                f"{folder.name}/{name} is damaged: expected sha256 {wanted[:12]}..., got {got[:12]}.... "
                "Copy the model folder again."
            )
    return expected[WEIGHTS]


def _why(path: Path, error: OSError) -> str:
    """The reason why a file cannot be read, with its owner and mode where the permission is missing."""
    if not isinstance(error, PermissionError):
        return str(error.strerror)
    facts = path.stat()
    return f"{error.strerror}; it belongs to user {facts.st_uid} and has mode {stat.S_IMODE(facts.st_mode):04o}"


def _finite(tensor: Tensor) -> bool:
    """Whether all values are finite; the extremes tell, NaN among them, in a tenth of the time of ``isfinite``."""
    return tensor.numel() == 0 or all(bool(torch.isfinite(extreme)) for extreme in tensor.aminmax())


def load_pretrained(path: str | Path | None = None) -> Pretrained:
    """Loads and verifies a model folder.

    Args:
        path: The folder; None means the weights shipped with the package.

    Returns:
        The network in evaluation mode, float32, on the CPU.

    Raises:
        ModelFolderError: The folder is missing, incomplete or damaged, or its files do not fit each other.
    """
    folder = shipped_folder() if path is None else Path(path)
    if not folder.is_dir():
        raise ModelFolderError(
            f"{folder}: there is no such model folder. Give a folder with {CONFIG}, {WEIGHTS} and {MANIFEST}, "
            "or leave the model out to use the weights shipped with mrsi_fast."
        )
    digest = _verify(folder)
    try:
        config = FolderConfig.load(folder / CONFIG)
        weights = safetensors.torch.load_file(folder / WEIGHTS)
        with safetensors.safe_open(folder / WEIGHTS, "pt") as stored:
            channels = (stored.metadata() or {}).get(_CHANNELS, ",".join(config.model.channels))
    except (ConfigError, safetensors.SafetensorError) as error:
        raise ModelFolderError(f"{folder.name}: the model folder cannot be read: {error}") from error
    if channels != ",".join(config.model.channels):
        raise ModelFolderError(
            f"{folder.name}: {WEIGHTS} holds the channels {channels}, {CONFIG} names "
            f"{','.join(config.model.channels)}. Copy the model folder again."
        )
    with torch.device("meta"):  # no memory and no random numbers: every parameter is replaced below
        network = SelfAttentionUNet(config.model)
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items()}
    if wanted != {name: tensor.shape for name, tensor in weights.items()}:
        raise ModelFolderError(
            f"{folder.name}: {WEIGHTS} does not hold the network that {CONFIG} describes. Copy the model folder again."
        )
    weights = {name: tensor.to(torch.float32) for name, tensor in weights.items()}
    if bad := [name for name, tensor in weights.items() if not _finite(tensor)]:
        raise ModelFolderError(
            f"{folder.name}: {WEIGHTS} holds weights that are NaN or infinite ({bad[0]}"
            f"{f' and {len(bad) - 1} more' if len(bad) > 1 else ''}). The training diverged: use another model."
        )
    network.load_state_dict(weights, assign=True)
    return Pretrained(network.eval().requires_grad_(False), config, digest, folder)
