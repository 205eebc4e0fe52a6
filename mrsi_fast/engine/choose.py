"""The one place where an engine is chosen: every engine states whether it can run here, and the answers are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from mrsi_fast.diffusion.denoiser import Denoiser
from mrsi_fast.engine.cuda_graph import CudaGraphEngine
from mrsi_fast.engine.cuda_graph import obstacle as cuda_graph_obstacle
from mrsi_fast.engine.eager import CompileEngine, EagerEngine
from mrsi_fast.engine.job import Engine, EngineError
from mrsi_fast.engine.native import NativeEngine
from mrsi_fast.engine.native import obstacle as native_obstacle

ACCURACY = 2e-4
"""The contract: largest error of a whole run over the largest value of a map, against float64."""


@dataclass(frozen=True)
class Offer:
    """An engine as it is offered.

    Attributes:
        error_bound: As ``Engine.error_bound``.
        obstacle: Why it cannot run a denoiser on a device, as a clause, or None.
        make: Builds it from denoiser, device and the reason for its choice.
        by_name_only: Why "auto" never takes it, as a clause; empty where it may.
    """

    error_bound: float
    obstacle: Callable[[Denoiser, torch.device], str | None]
    make: Callable[[Denoiser, torch.device, str], Engine]
    by_name_only: str = ""


def _nothing(denoiser: Denoiser, device: torch.device) -> None:
    return None


OFFERS: dict[str, Offer] = {
    "cuda-graph": Offer(
        CudaGraphEngine.error_bound, lambda denoiser, device: cuda_graph_obstacle(device), CudaGraphEngine
    ),
    "native-amx": Offer(
        NativeEngine.AMX_ERROR_BOUND,
        lambda denoiser, device: native_obstacle(denoiser, device, pairs=True),
        lambda denoiser, device, reason: NativeEngine(denoiser, reason, pairs=True),
    ),
    "native": Offer(
        NativeEngine.ERROR_BOUND, native_obstacle, lambda denoiser, device, reason: NativeEngine(denoiser, reason)
    ),
    "compile": Offer(
        CompileEngine.error_bound, _nothing, CompileEngine, "it compiles for seconds at each new batch shape"
    ),
    "eager": Offer(EagerEngine.error_bound, _nothing, EagerEngine),
}
"""All engines, the fastest first."""

ENGINES = tuple(OFFERS)


@dataclass(frozen=True)
class EngineChoice:
    """The engine that runs, and for every other one the reason against it."""

    engine: Engine
    refused: dict[str, str]


def choose_engine(name: str, denoiser: Denoiser, device: torch.device) -> EngineChoice:
    """Builds the engine of that name; "auto" takes the fastest one that can run and holds the accuracy contract.

    Args:
        name: "auto" or one of ``ENGINES``.
        denoiser: In evaluation mode, on ``device``.
        device: Where to run.

    Raises:
        EngineError: The engine was requested by name and cannot run here, or there is no engine of that name.
    """
    if name != "auto" and name not in OFFERS:
        raise EngineError(f"There is no engine '{name}'; choose one of auto, {', '.join(ENGINES)}.")
    obstacles = {one: offer.obstacle(denoiser, device) for one, offer in OFFERS.items()}
    if name != "auto":
        if obstacles[name] is not None:
            raise EngineError(f"The {name} engine cannot run here: {obstacles[name]}; use engine 'auto'.")
        others = {one: reason or f"{name} was asked for" for one, reason in obstacles.items() if one != name}
        return EngineChoice(OFFERS[name].make(denoiser, device, "asked for by name"), others)
    refused: dict[str, str] = {}
    for one, offer in OFFERS.items():
        reason = obstacles[one] or _declined(offer)
        if reason is None:
            why = f"the fastest here that stays within {ACCURACY:g} of a map's largest value"
            slower = {late: obstacles[late] or f"{one} is faster" for late in ENGINES if late not in (one, *refused)}
            return EngineChoice(offer.make(denoiser, device, why), refused | slower)
        refused[one] = reason
    raise AssertionError("the eager engine runs everywhere")


def _declined(offer: Offer) -> str | None:
    """Why "auto" leaves an engine out that could run."""
    if offer.by_name_only:
        return f"it runs by name only: {offer.by_name_only}"
    if offer.error_bound > ACCURACY:
        return f"its error bound, {offer.error_bound:g}, is above {ACCURACY:g}"
    return None
