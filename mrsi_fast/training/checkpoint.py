"""Training state on disk: a safetensors file with a checksum, and the one before it. No pickle.

Everything random in training is a function of (seed, step), so network, average, optimiser moments and the step number
are the whole state, and a resumed run equals an uninterrupted one bit for bit. A damaged file is put aside and named,
and the one before is resumed: safetensors checks its structure alone, not a flipped bit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from mrsi_fast.files import atomic_path, open_regular
from mrsi_fast.training.optimiser import Optimiser

CHECKPOINT = "checkpoint.safetensors"
PREVIOUS = "checkpoint.previous.safetensors"
DAMAGED = "checkpoint.damaged.safetensors"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be resumed; the message gives the reason."""


def has_checkpoint(folder: Path) -> bool:
    """Whether a run can be resumed from this folder."""
    return (folder / CHECKPOINT).exists() or (folder / PREVIOUS).exists()


def _parameters(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def save_checkpoint(
    folder: Path, modules: dict[str, torch.nn.Module], optimiser: Optimiser, meta: dict[str, Any]
) -> None:
    """Writes the state atomically; the previous checkpoint survives any failure, and stays as :data:`PREVIOUS`.

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
    text = json.dumps(meta)
    with atomic_path(folder / CHECKPOINT) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata={"meta": text, "sha256": _checksum(text, tensors)})
        with contextlib.suppress(FileNotFoundError):  # the first one
            (folder / CHECKPOINT).replace(folder / PREVIOUS)


def load_checkpoint(
    folder: Path, modules: dict[str, torch.nn.Module], optimiser: Optimiser
) -> tuple[dict[str, Any], str]:
    """Restores what ``save_checkpoint`` wrote: the last state, or the one before where the last is damaged.

    Returns:
        Its ``meta``, and a sentence if it is not the last one that was written.

    Raises:
        CheckpointError: Both are damaged, or the state belongs to another network.
    """
    meta, tensors, remark = _last_whole(folder)
    _restore(folder, modules, tensors)
    for name, part in optimiser.parts():
        parameters, state = _parameters(part), defaultdict[int, dict[str, Tensor]](dict)
        for key, value in tensors.items():
            if key.startswith(f"{name}/"):
                _, index, field = key.split("/")
                like = parameters[int(index)]
                # Laid out in memory as its parameter is: fused optimisers go through both side by side.
                state[int(index)][field] = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
        part.load_state_dict({"state": dict(state), "param_groups": part.state_dict()["param_groups"]})
    return meta, remark


def _last_whole(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """The last state that is whole, and a sentence if one after it is not.

    Raises:
        CheckpointError: There is none.
    """
    problems = []
    for name in (CHECKPOINT, PREVIOUS):
        try:
            meta, tensors = _read(folder / name)
        except FileNotFoundError:
            problems.append(f"{folder.name}/{name} is missing")
            continue
        except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            problems.append(f"{folder.name}/{name} is damaged ({error})")
            continue
        if not problems:
            return meta, tensors, ""
        with contextlib.suppress(FileNotFoundError):  # the next checkpoint must not push the good one out
            (folder / CHECKPOINT).replace(folder / DAMAGED)
        return meta, tensors, f"{problems[0]}; resumed from the checkpoint before, at step {meta['step']}."
    raise CheckpointError(f"{', and '.join(problems)}. Remove both files to start this run again.")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with open_regular(path):  # no pipe, no device
        pass
    with safetensors.safe_open(path, framework="pt") as stream:
        facts = stream.metadata()
        tensors = {key: stream.get_tensor(key) for key in stream.keys()}
    if facts.get("sha256") not in (None, _checksum(facts["meta"], tensors)):  # none: of an earlier version
        raise ValueError("its content does not have the checksum that was written with it")
    return json.loads(facts["meta"]), tensors


def _checksum(meta: str, tensors: Mapping[str, Tensor]) -> str:
    """Sha256 over everything: facts, names, types, shapes and values."""
    digest = hashlib.sha256(meta.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _restore(folder: Path, modules: dict[str, torch.nn.Module], tensors: Mapping[str, Tensor]) -> None:
    try:
        for name, module in modules.items():
            prefix = f"{name}/"
            module.load_state_dict(
                {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            )
    except RuntimeError as error:
        raise CheckpointError(f"{folder.name}/{CHECKPOINT} belongs to another network: {error}") from error
