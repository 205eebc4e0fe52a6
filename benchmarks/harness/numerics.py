"""Measures the tables of docs/numerics.md: ``python -m harness numerics`` prints, ``--write`` writes them.

Errors against float64 of the operation ``conv3x3_gn_silu`` and of whole sampling runs of the shipped model on the
bundled example maps, in mM, with eager float32 PyTorch beside them. Takes minutes, nearly all of them float64.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mrsi_fast import ops
from mrsi_fast.diffusion.denoiser import Denoiser
from mrsi_fast.diffusion.solvers import Solver
from mrsi_fast.engine.eager import EagerEngine
from mrsi_fast.engine.job import Engine
from mrsi_fast.engine.native import NativeEngine, obstacle
from mrsi_fast.models.pretrained import load_pretrained
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.io import read_maps
from mrsi_fast.preparation import AcquisitionSettings, Prepared, prepare
from mrsi_fast.sampling import Sampler, solver_steps
from support.compare import relative_l2
from support.data import checkout

SHAPES = ((96, 96, 32), (256, 96, 32), (160, 160, 16), (416, 160, 16), (256, 256, 8), (512, 256, 8))
"""Input channels, output channels and grid of the network's convolutions."""

RUNS: tuple[tuple[Solver, int, int, bool], ...] = (
    ("dpmpp_2m", 8, 4, False),
    ("dpmpp_2m", 8, 4, True),
    ("heun", 4, 2, True),
    ("ddpm", 8, 8, False),
)
"""Solver, steps, factor, hard data consistency."""

BEGIN, END = "<!-- tables: begin -->\n", "<!-- tables: end -->\n"


def largest(value: Tensor, truth: Tensor) -> float:
    """Largest error over the largest value."""
    return ((value.double() - truth).abs().max() / truth.abs().max()).item()


def _eager(x: Tensor, gain: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.conv2d(F.silu(torch.group_norm(x, x.shape[1] // 16, gain, offset)), weight, bias, padding=1)


def _ours(x: Tensor, gain: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return ops.conv3x3_gn_silu(x, gain, offset, x.shape[1] // 16, weight, bias)


def gradients(function: Callable[..., Tensor], tensors: list[Tensor], grad: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Result, gradient of the input and gradient of the filters, computed in ``dtype``."""
    leaves = [one.to(dtype).detach().requires_grad_() for one in tensors]
    y = function(*leaves)
    return [y.detach(), *torch.autograd.grad(y, [leaves[0], leaves[3]], grad.to(dtype))]


def operation_rows() -> Iterator[str]:
    """Forward, input gradient and filter gradient of ``conv3x3_gn_silu``: relative 2-norm errors, ours and eager's."""
    yield (
        "| channels, grid | forward | eager | input gradient | eager | filter gradient | eager "
        "| largest error / largest value, forward | eager |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    torch.manual_seed(0)
    for inputs, outputs, grid in SHAPES:
        x = (torch.randn(4, inputs, grid, grid) + 0.3).contiguous(memory_format=torch.channels_last)
        weight, grad = torch.randn(outputs, inputs, 3, 3) / (3 * inputs**0.5), torch.randn(4, outputs, grid, grid)
        gain, offset, bias = 1 + 0.3 * torch.randn(inputs), 0.3 * torch.randn(inputs), torch.randn(outputs)
        tensors = [x, gain, offset, weight, bias]
        truth = gradients(_eager, tensors, grad, torch.float64)
        found, plain = (gradients(one, tensors, grad, torch.float32) for one in (_ours, _eager))
        pairs = [f"{relative_l2(a[i], truth[i]):.1e}" for i in range(3) for a in (found, plain)]
        ends = [f"{largest(a[0], truth[0]):.1e}" for a in (found, plain)]
        yield f"| {inputs} -> {outputs}, {grid}x{grid} | {' | '.join(pairs + ends)} |"


def large_mean() -> str:
    """The same operation on values whose mean is 1000 standard deviations, as a sentence."""
    torch.manual_seed(0)
    x = (torch.randn(2, 96, 32, 32) + 1000).contiguous(memory_format=torch.channels_last)
    gain, offset, weight = torch.ones(96), torch.zeros(96), torch.randn(96, 96, 3, 3) / (3 * 96**0.5)

    tensors = [x, gain, offset, weight]
    truth = _eager(*(one.double() for one in tensors))
    ours, theirs = (relative_l2(function(*tensors), truth) for function in (_ours, _eager))
    return (
        f"With a mean of 1000 standard deviations (96 -> 96, 32x32) the relative L2 error is {ours:.1e}; with\n"
        f"`torch.group_norm` in float32 (PyTorch {torch.__version__.split('+')[0]}, channels-last) it is {theirs:.1e}."
    )


def engines() -> dict[str, Engine]:
    """Engines around the shipped model; "native-amx" only where it can run."""
    pretrained, cpu = load_pretrained(), torch.device("cpu")
    denoiser = Denoiser(pretrained.network, pretrained.config.diffusion.sigma_max).eval()
    found: dict[str, Engine] = {
        "native": NativeEngine(denoiser, "numerics"),
        "eager float32": EagerEngine(denoiser, cpu, ""),
        "eager float64": EagerEngine(copy.deepcopy(denoiser).double(), cpu, ""),
    }
    if obstacle(denoiser, cpu, pairs=True) is None:
        found["native-amx"] = NativeEngine(denoiser, "numerics", pairs=True)
    return found


def run_rows() -> Iterator[str]:
    """Per map of the bundled example: largest value, and largest error of any voxel of one sample, in mM."""
    diffusion = load_pretrained().config.diffusion
    samplers = {name: Sampler(one, diffusion) for name, one in engines().items()}
    maps = read_maps(checkout() / "examples" / "simulated_glioma")
    settings = AcquisitionSettings(window="hamming", support="ellipse")
    yield "| run | map | largest value (mM) | native (mM) | of the largest | eager float32 | `native-amx` |"
    yield "|---|---|---|---|---|---|---|"
    for solver, steps, factor, hard in RUNS:
        prepared: Prepared = prepare(maps, factor, acquisition=settings)
        plan = solver_steps(solver, steps, diffusion)
        assert isinstance(prepared.acquisition, Acquisition)  # factors in plane
        projection = prepared.acquisition if hard else None
        drawn = {
            name: next(one.draws(prepared.volume, [0], plan, 0, projection)).astype(np.float64)
            for name, one in samplers.items()
        }
        truth = drawn.pop("eager float64")
        x, y = truth.shape[1:3]
        name = f"x{factor} to {x}x{y}, `{solver}`, {len(plan)} evaluations{', hard' if hard else ''}"
        for index, label in enumerate(maps.names):
            size = np.abs(truth[index]).max()
            errors = {engine: np.abs(one[index] - truth[index]).max() for engine, one in drawn.items()}
            shares = [
                f"{errors[one] / size:.1e}" if one in errors else ""
                for one in ("native", "eager float32", "native-amx")
            ]
            yield f"| {name} | {label} | {size:.3g} | {errors['native']:.1e} | {' | '.join(shares)} |"
            name = ""


def tables() -> str:
    """Both tables as Markdown."""
    card = load_pretrained()
    return (
        f"### One operation: `conv3x3_gn_silu`\n\nBatch 4, random inputs, kernels for {native_isa()}.\n\n"
        + "\n".join(operation_rows())
        + f"\n\n{large_mean()}"
        + "\n\n### A whole run, per map\n\n"
        + f"Model `{card.config.name}` (sha256 {card.sha256[:12]}), one sample of the bundled example maps.\n\n"
        + "\n".join(run_rows())
        + "\n"
    )


def native_isa() -> str:
    """The instruction set in use."""
    from mrsi_fast.ops import _native

    return str(_native.module().isa())


def write() -> None:
    """Measures the tables and writes them into docs/numerics.md."""
    page = checkout() / "docs" / "numerics.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(f"{before}{BEGIN}{tables()}{END}{rest.split(END)[1]}", encoding="utf-8")
