"""The engines that a network evaluation is timed with, each on the same weights, inputs and number of threads.

A peer is a function that builds what is timed: ``peer(case, threads)`` returns a callable without arguments whose
result is the denoiser's estimate. One that cannot run here raises ``Missing`` and says what was missing.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from mrsi_fast.config import DiffusionConfig, ModelConfig
from mrsi_fast.diffusion.denoiser import Denoiser
from mrsi_fast.diffusion.solvers import make_steps
from mrsi_fast.engine import native
from mrsi_fast.engine.job import SamplingJob
from mrsi_fast.models import blocks
from mrsi_fast.models.condition import Condition, condition_vector
from mrsi_fast.models.pretrained import load_pretrained
from mrsi_fast.models.unet import SelfAttentionUNet, flop_split
from mrsi_fast.ops.reference.conv3x3_gn_silu import conv3x3_gn_silu
from mrsi_fast.ops.reference.group_norm_silu import group_norm_silu
from mrsi_fast.ops.reference.self_attention import self_attention

INPUTS = ("x", "sigma", "z", "mask", "anatomy", "vector")


class Missing(Exception):
    """A peer that cannot run here; the message is a clause that says what was missing."""


@dataclass(frozen=True)
class UNetCase:
    """One evaluation: a network and what it is given.

    Attributes:
        network: In evaluation mode, float32, on the CPU.
        diffusion: Its noise levels.
        x: [B, K, X, Y] noisy residual.
        sigma: [B] its noise level.
        cond: What the network is told.
    """

    network: SelfAttentionUNet
    diffusion: DiffusionConfig
    x: Tensor
    sigma: Tensor
    cond: Condition

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """As tensors alone, in the order of ``INPUTS``."""
        cond = self.cond
        return self.x, self.sigma, cond.z, cond.mask, cond.anatomy, cond.vector

    @property
    def flops(self) -> float:
        """Of the direct method, 2 per multiply-add."""
        return sum(self._flops.values())

    @property
    def winograd_flops(self) -> float:
        """Those of them that Winograd can undercut: stride-1 3x3 convolutions."""
        return self._flops["conv3x3"]

    @functools.cached_property
    def _flops(self) -> dict[str, float]:
        batch, _, *grid = self.x.shape
        split = flop_split(self.network, (grid[0], grid[1]))
        return {kind: 1e9 * batch * value for kind, value in split.items()}

    def denoiser(self, network: nn.Module | None = None) -> Denoiser:
        """Around the network, or another one in its place."""
        return Denoiser(network or self.network, self.diffusion.sigma_max).eval()


def shipped_case(batch: int = 8, grid: tuple[int, int] = (64, 64), seed: int = 0) -> UNetCase:
    """The shipped weights on a random batch in which all maps are present."""
    pretrained = load_pretrained()
    return random_case(pretrained.network, pretrained.config.diffusion, batch, grid, seed)


def random_case(
    network: SelfAttentionUNet, diffusion: DiffusionConfig, batch: int, grid: tuple[int, int], seed: int = 0
) -> UNetCase:
    """A random batch for a network, all maps present, factor 4, noise level 1."""
    draw = torch.Generator().manual_seed(seed)
    config: ModelConfig = network.config
    maps = len(config.channels)
    full = (batch, maps, *grid)
    ones = torch.ones(batch, maps)
    vector = condition_vector(ones, ones, 0.03 * ones, 4 * ones[:, :2], 3.4 * ones[:, :2], ones[:, 0])
    cond = Condition(
        z=torch.rand(full, generator=draw),
        mask=torch.ones(full),
        anatomy=torch.randn(batch, 1, *grid, generator=draw),
        vector=vector,
    )
    sigma = torch.ones(batch)
    return UNetCase(network, diffusion, torch.randn(full, generator=draw) * 2**0.5, sigma, cond)


@contextmanager
def plain_operations() -> Iterator[None]:
    """Lets the network call plain PyTorch where it calls ``mrsi_fast.ops``, so that a compiler or exporter sees it.

    (``ops.override("reference")`` computes the same, but behind a custom operation that no exporter knows.)
    """
    names = vars(blocks)
    before = names["ops"]
    references = {"conv3x3_gn_silu": conv3x3_gn_silu, "group_norm_silu": group_norm_silu}
    names["ops"] = SimpleNamespace(**references, self_attention=_plain_attention)
    try:
        yield
    finally:
        names["ops"] = before


def _plain_attention(qkv: Tensor, scale: float | None = None) -> Tensor:
    return self_attention(qkv, qkv.shape[-1] ** -0.5 if scale is None else scale)


class PlainUNet(SelfAttentionUNet):
    """The same network and weights in one memory format throughout; runs under ``plain_operations``."""

    def __init__(self, network: SelfAttentionUNet, layout: torch.memory_format) -> None:
        super().__init__(network.config)
        self.load_state_dict(network.state_dict())
        self.layout = layout
        self.to(memory_format=layout).eval()

    def stem_input(self, x: Tensor, cond: Condition) -> Tensor:
        """As in the network, in this one's memory format."""
        return super().stem_input(x, cond).contiguous(memory_format=self.layout)


class PlainEvaluation(nn.Module):
    """The denoiser as a function of tensors alone, as compilers and exporters want it."""

    def __init__(self, case: UNetCase, layout: torch.memory_format) -> None:
        super().__init__()
        self.denoiser = case.denoiser(PlainUNet(case.network, layout))

    def forward(self, x: Tensor, sigma: Tensor, z: Tensor, mask: Tensor, anatomy: Tensor, vector: Tensor) -> Tensor:
        """[B, K, X, Y]; see ``UNetCase``."""
        return self.denoiser(x, sigma, Condition(z, mask, anatomy, vector))


Runner = Callable[[], Any]


def installed(name: str) -> Any:
    """A module of the extra ``peers``.

    Raises:
        Missing: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Missing(f"{name} is not installed (pip install '.[peers]'): {error}") from error


def _inference(function: Callable[..., Tensor], case: UNetCase) -> Runner:
    inputs = case.inputs

    def run() -> Tensor:
        with torch.inference_mode(), plain_operations():
            return function(*inputs)

    return run


def eager(case: UNetCase, threads: int) -> Runner:
    """Plain PyTorch, contiguous tensors."""
    return _inference(PlainEvaluation(case, torch.contiguous_format).eval(), case)


def eager_channels(case: UNetCase, threads: int) -> Runner:
    """Plain PyTorch, channels-last tensors: the faster layout of most convolutions on a CPU."""
    return _inference(PlainEvaluation(case, torch.channels_last).eval(), case)


def fused_eager(case: UNetCase, threads: int) -> Runner:
    """Our operations called one by one from PyTorch: the engine ``eager`` of the package."""
    denoiser = case.denoiser().to(memory_format=torch.channels_last)

    def run() -> Tensor:
        with torch.inference_mode():
            return denoiser(case.x, case.sigma, case.cond)

    return run


def compiled_network(module: nn.Module, mode: str | None = None) -> Callable[..., Tensor]:
    """``torch.compile`` with frozen weights, which are then packed for oneDNN; call it under ``no_grad``."""
    import torch._dynamo
    import torch._inductor.config as inductor

    torch._dynamo.reset()  # the number of threads is compiled in
    with inductor.patch(freezing=True):
        function = torch.compile(module, dynamic=False, mode=mode)

    def call(*inputs: Any) -> Tensor:
        with inductor.patch(freezing=True), torch.no_grad(), plain_operations():
            return function(*inputs)

    return call


@contextmanager
def compiling() -> Iterator[None]:
    """For the first call of what ``torch.compile`` made, which is when the compiler runs.

    Raises:
        Missing: It failed.
    """
    try:
        yield
    except Exception as error:  # whatever a compiler of another project may raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Missing(f"torch.compile failed here ({type(error).__name__}: {first[:120]})") from error


def compiled(case: UNetCase, threads: int, mode: str | None = None) -> Runner:
    """``torch.compile`` with frozen weights; the compiler takes a minute or two."""
    function = compiled_network(PlainEvaluation(case, torch.channels_last).eval(), mode)
    with compiling():
        function(*case.inputs)
    return lambda: function(*case.inputs)


def native_or_missing(denoiser: Denoiser, threads: int, pairs: bool = False) -> native.NativeEngine:
    """The engine "native", or "native-amx" with ``pairs``.

    Raises:
        Missing: It cannot run here.
    """
    obstacle = native.obstacle(denoiser, torch.device("cpu"), pairs)
    if obstacle is not None:
        raise Missing(obstacle)
    return native.NativeEngine(denoiser, "benchmark", threads, pairs)


def native_engine(case: UNetCase, threads: int, pairs: bool = False) -> Runner:
    """Our C++ plan, one step from this noise level to 0, whose result is the denoiser's estimate; ``pairs``: on AMX.

    Copying the inputs into the arena and computing the embedding are timed as well, as they are for all others.
    """
    engine = native_or_missing(case.denoiser(), threads, pairs)
    job = SamplingJob(case.cond, case.x, make_steps("ddim", [float(case.sigma[0]), 0.0]))
    return lambda: engine.run(job)
