"""Training state on disk: one safetensors file that is either whole or absent. No pickle.

Everything random in training is a function of (seed, step), so network, average, optimiser moments and the step number
are the whole state, and a resumed run equals an uninterrupted one bit for bit.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from mrsi_fast.files import atomic_path
from mrsi_fast.training.optimiser import Optimiser

CHECKPOINT = "checkpoint.safetensors"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be resumed; the message gives the reason."""


def _parameters(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def save_checkpoint(
    folder: Path, modules: dict[str, torch.nn.Module], optimiser: Optimiser, meta: dict[str, Any]
) -> None:
    """Writes the state atomically; the previous checkpoint survives any failure.

    Args:
        folder: Run folder.
        modules: Modules to save under their names.
        optimiser: Of the first module's parameters, in their order.
        meta: JSON-serialisable facts (step, seconds, configuration).
    """
    tensors = {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    for name, part in optimiser.parts():
        for index, parameter in enumerate(_parameters(part)):
            for key, value in part.state.get(parameter, {}).items():
                tensors[f"{name}/{index}/{key}"] = torch.as_tensor(value)
    # One clone each: safetensors refuses tensors that share memory or are not contiguous.
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    with atomic_path(folder / CHECKPOINT) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata={"meta": json.dumps(meta)})


def load_checkpoint(folder: Path, modules: dict[str, torch.nn.Module], optimiser: Optimiser) -> dict[str, Any]:
    """Restores what ``save_checkpoint`` wrote and returns its ``meta``.

    Raises:
        CheckpointError: The file is damaged or belongs to another network.
    """
    try:
        with safetensors.safe_open(folder / CHECKPOINT, framework="pt") as stream:
            meta = json.loads(stream.metadata()["meta"])
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder.name}/{CHECKPOINT} is damaged ({error}). Remove it to start this run again."
        ) from error
    try:
        for name, module in modules.items():
            prefix = f"{name}/"
            module.load_state_dict(
                {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            )
    except RuntimeError as error:
        raise CheckpointError(f"{folder.name}/{CHECKPOINT} belongs to another network: {error}") from error
    for name, part in optimiser.parts():
        parameters, state = _parameters(part), defaultdict[int, dict[str, Tensor]](dict)
        for key, value in tensors.items():
            if key.startswith(f"{name}/"):
                _, index, field = key.split("/")
                like = parameters[int(index)]
                # Laid out in memory as its parameter is: fused optimisers go through both side by side.
                state[int(index)][field] = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
        part.load_state_dict({"state": dict(state), "param_groups": part.state_dict()["param_groups"]})
    return meta
