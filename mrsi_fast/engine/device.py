"""The requested device, or the best available one, with the reason."""

from __future__ import annotations

import os

import torch

from mrsi_fast.engine.job import EngineError


def choose_device(name: str) -> tuple[torch.device, str]:
    """The device and why it is this one.

    Args:
        name: "auto", "cpu", "cuda" or "cuda:N"; "gpu" is an alias of "cuda".

    Raises:
        EngineError: It does not exist or is not available here.
    """
    wanted = name.replace("gpu", "cuda") if name.startswith("gpu") else name
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), f"auto: {torch.cuda.get_device_name()}"
        return torch.device("cpu"), "auto: CUDA is not available"
    if wanted == "cpu":
        return torch.device("cpu"), "asked for"
    if not wanted.startswith("cuda"):
        raise EngineError(f"There is no device '{name}'; choose auto, cpu, cuda or cuda:N.")
    if not torch.cuda.is_available():
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        reason = "CUDA_VISIBLE_DEVICES hides every GPU" if hidden == "" else "PyTorch finds no CUDA device"
        raise EngineError(f"Device '{name}' is not available: {reason}. Use device='cpu'.")
    return torch.device(wanted), "asked for"
