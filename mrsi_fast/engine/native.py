"""The native CPU engine: the sampling loop as one call into C++, convolutions by Winograd with fused GroupNorm-SiLU."""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mrsi_fast.diffusion.denoiser import Denoiser
from mrsi_fast.diffusion.solvers import Step
from mrsi_fast.engine.job import EngineError, Estimate, PlannedEngine, SamplingJob
from mrsi_fast.engine.plan import AttentionOp, FilmTable, Operation, Source, Value, plan_network
from mrsi_fast.models.unet import SelfAttentionUNet
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.ops import _native
from mrsi_fast.ops.conv3x3_gn_silu import cheapest_method, method_costs

FILM_STEPS = 64
"""Steps whose FiLM rows are computed at once: a chain of 1000 runs in pieces of this many."""

PLANS = 6
"""Batch shapes whose plans are kept: equal batches and a smaller last one, of planes of three directions. Weights are
shared."""

METHODS = {
    "direct": "direct",
    "pairs": "pairs of bfloat16",
    "winograd2": "Winograd F(2x2,3x3)",
    "winograd4": "Winograd F(4x4,3x3)",
}
"""Names of the extension's ``ConvMethod`` in words."""


def convolution_method(conv: torch.nn.Conv2d, height: int, width: int) -> str:
    """The method, in float32, of a convolution of an image."""
    if conv.kernel_size != (3, 3) or conv.stride != (1, 1):
        return "direct"
    return cheapest_method(height, width, conv.in_channels, conv.out_channels)


def describe_operation(operation: Any) -> str:
    """One line on an ``OperationInfo`` of the extension: what is called, and what other methods would have cost."""
    kernels = f"{operation.kernels} kernels"
    if operation.kind != "convolution":
        return f"{operation.kind}: {kernels}"
    inputs, outputs, method = operation.in_channels, operation.out_channels, operation.method.name
    kind = f"convolution {operation.kernel}x{operation.kernel}" + (", stride 2" if operation.stride == 2 else "")
    line = f"{kind} {inputs} -> {outputs} on {operation.height}x{operation.width}, {kernels}: "
    choice = (operation.kernel, operation.stride) == (3, 1)
    if method == "pairs":
        how = "Winograd F(4,3) along the rows" if choice else "direct"
        return line + f"{how}, on sums of two bfloat16 (16 significant bits)"
    if not choice:
        return line + METHODS[method]
    costs = method_costs(operation.height, operation.width, inputs, outputs)
    others = sorted((cost, METHODS[one]) for one, cost in costs.items() if one != method)
    against = ", ".join(f"{words} {cost / 1e6:.1f}" for cost, words in others)
    return line + (
        f"{METHODS[method]}, {costs[method] / 1e6:.1f} million multiply-adds and their like per slice (not {against})"
    )


class NativePlan:
    """A ``Plan`` filled into C++: packed weights, arena, and PyTorch views of the values that Python reads or writes.

    Args:
        network: In evaluation mode, float32, on the CPU. Its weights are copied.
        batch: Slices in a batch.
        grid: High-resolution grid (X, Y).
        threads: OpenMP threads.
        weights: ``PackedWeights`` that other plans of this network share; by default the plan has its own.
        pairs: Convolutions on sums of two bfloat16 in AMX tiles instead of in float32.
        film: ``FilmTable`` of another plan of this network; by default the plan makes its own.
    """

    def __init__(
        self,
        network: SelfAttentionUNet,
        batch: int,
        grid: tuple[int, int],
        threads: int,
        weights: Any = None,
        pairs: bool = False,
        film: FilmTable | None = None,
    ) -> None:
        self.plan, self.film = plan_network(network, batch, grid, film)
        self.batch, self.grid, self.threads, self.pairs = batch, grid, threads, pairs
        self._projection: Acquisition | None = None
        self.native = _native.module().Plan(self.plan.arena_floats, self.film.width, threads, weights)
        for index, operation in enumerate(self.plan.operations):
            self._add(operation, index)
        if self.plan.both_heads is not None:
            self._add(self.plan.both_heads, len(self.plan.operations))
        weight, bias = self.film.single
        self.native.set_film(len(weight), weight.data_ptr(), bias.data_ptr())
        self.native.set_solver(self._solver(network.config.stem_factor))

    def _solver(self, factor: int) -> Any:
        """Where the solver step finds and leaves what it works on."""
        plan, offsets = self.plan, self.plan.offsets
        places = {name: offsets[value.name] for name, value in plan.state.items()}
        if plan.both_heads is not None:
            places["both_heads"] = offsets[plan.both_heads.out.name]
        maps = plan.state["eval"]
        return _native.struct(
            "SolverSpec",
            batch=maps.batch,
            maps=maps.height,
            x=maps.width,
            y=maps.channels,
            factor=factor,
            grid_x=plan.stem.height,
            grid_y=plan.stem.width,
            stem_channels=plan.stem.channels,
            head=offsets[plan.head.name],
            stem=offsets[plan.stem.name],
            **places,
        )

    def _add(self, operation: Operation, index: int) -> None:
        offsets, out = self.plan.offsets, operation.out
        if isinstance(operation, AttentionOp):
            spec = _native.struct(
                "AttentionSpec",
                name=operation.name,
                qkv=offsets[operation.qkv.name],
                out=offsets[out.name],
                batch=out.batch,
                tokens=out.height * out.width,
                heads=operation.heads,
                head_channels=out.channels // operation.heads,
            )
            self.native.add_attention(spec)
            return
        conv, (height, width) = operation.conv, operation.grid
        weight, bias = conv.weight.detach().contiguous(), conv.bias
        method = "pairs" if self.pairs else convolution_method(conv, height, width)
        spec = _native.struct(
            "ConvSpec",
            name=operation.name,
            sources=[self._source(source) for source in operation.sources],
            batch=out.batch,
            height=height,
            width=width,
            method=_native.conv_method(method),
            kernel=conv.kernel_size[0],
            stride=conv.stride[0],
            out_channels=conv.out_channels,
            weight=weight.data_ptr(),
            bias=_native.address(bias),
            out=offsets[out.name],
            out_stats=offsets.get(out.name + ".stats", -1),
            key=index,  # the same convolution in every plan of the network
        )
        if (norm := operation.norm) is not None:
            spec.groups, spec.eps = norm.num_groups, 1e-5
            spec.gamma, spec.beta = norm.weight.data_ptr(), norm.bias.data_ptr()
        if operation.film is not None:
            spec.film_scale, spec.film_shift = operation.film, operation.film + conv.in_channels
        if operation.residual is not None:
            spec.residual = offsets[operation.residual.name]
        self.native.add_conv(spec)

    def _source(self, source: Source) -> Any:
        value, offsets = source.value, self.plan.offsets
        place = {"data": offsets[value.name], "stats": offsets.get(value.name + ".stats", -1)}
        return _native.struct("SourceSpec", channels=value.channels, upsample=source.upsample, **place)

    def project(self, projection: Acquisition | None) -> None:
        """Hands the matrices of hard data consistency over, or none, unless the plan has them already."""
        if projection is self._projection:
            return
        if projection is None:
            self.native.set_projection(0, 0, 0, 0, 0)
        else:
            modes = projection.modes(torch.float32, "cpu")
            rows, columns = modes.hr_x.contiguous(), modes.hr_y.contiguous()
            kept = None if modes.kept is None else modes.kept.contiguous()
            sizes = len(rows), len(columns)
            self.native.set_projection(*sizes, rows.data_ptr(), columns.data_ptr(), _native.address(kept))
        self._projection = projection  # held, so that another one cannot have its identity

    def film_rows(self, noise_labels: Sequence[float], vector: Tensor) -> Tensor:
        """``FilmTable.rows``, flattened over steps, with the large product in C++ on weights half the size."""
        embedding = self.film.embed(noise_labels, vector).contiguous()
        rows = torch.empty(len(embedding), self.film.width)
        self.native.film_rows(embedding.data_ptr(), len(embedding), rows.data_ptr())
        return rows

    def view(self, value: Value) -> Tensor:
        """A value of the arena as [batch, height, width, channels]; writing to it writes to the arena."""
        address = self.native.arena + 4 * self.plan.offsets[value.name]
        array = np.ctypeslib.as_array((ctypes.c_float * value.floats).from_address(address))
        return torch.from_numpy(array).view(value.batch, value.height, value.width, value.channels)


def amx_obstacle() -> str | None:
    """Why convolutions on pairs of bfloat16 cannot run here, as a clause, or None."""
    extension = _native.module()
    if extension is None or not hasattr(extension, "has_pairs"):
        return _native.lacks("has_pairs") or _native.reason()
    if extension.has_pairs():
        return None
    built = _native.build_info().get("amx", "unknown")
    return f"it needs AMX in the processor (Intel, from 2023 on), in Linux (5.16) and in the extension (here: {built})"


def obstacle(denoiser: Denoiser, device: torch.device, pairs: bool = False) -> str | None:
    """Why the native engine cannot run a denoiser on a device, as a clause, or None; ``pairs``: "native-amx"."""
    if device.type != "cpu":
        return f"it runs on the CPU, not on {device.type}"
    if (missing := _native.lacks("Plan")) is not None:
        return missing
    if pairs and (lacking := amx_obstacle()) is not None:
        return lacking
    if not isinstance(denoiser.network, SelfAttentionUNet):
        return f"it supports the SelfAttentionUNet, not a {type(denoiser.network).__name__}"
    if (dtype := next(denoiser.parameters()).dtype) != torch.float32:
        return f"it computes in float32, not {dtype}"
    return None


class NativeEngine(PlannedEngine):
    """Runs sampling jobs in C++ on the CPU.

    One engine serves one caller at a time. Ctrl-C and an exception from ``on_step`` end a run within one step.

    Args:
        denoiser: Around a ``SelfAttentionUNet`` in float32; its weights are copied when a batch shape is first seen.
        reason: Why this engine was chosen.
        threads: OpenMP threads; by default as many as PyTorch uses.
        pairs: The engine "native-amx": convolutions multiply sums of two bfloat16 (16 significant bits) in AMX tiles
            and add in float32; docs/numerics.md gives the difference to float32.

    Raises:
        EngineError: The extension is missing or the denoiser is not one that ``obstacle`` lets pass.
    """

    ERROR_BOUND, AMX_ERROR_BOUND = 2e-5, 2e-4

    def __init__(self, denoiser: Denoiser, reason: str, threads: int | None = None, pairs: bool = False) -> None:
        self.name, self.pairs = "native-amx" if pairs else "native", pairs
        self.error_bound = self.AMX_ERROR_BOUND if pairs else self.ERROR_BOUND
        problem = obstacle(denoiser, next(denoiser.parameters()).device, pairs)
        if problem is not None or not isinstance(denoiser.network, SelfAttentionUNet):
            raise EngineError(f"The {self.name} engine cannot run here: {problem}; use engine 'auto'.")
        self.denoiser, self.network, self.reason = denoiser, denoiser.network, reason
        self.threads = threads or torch.get_num_threads()
        self.weights = _native.module().PackedWeights()
        self._steps: tuple[Step, ...] | None = None
        self._scales: list[dict[str, float]] = []
        self.plans: OrderedDict[tuple[int, tuple[int, int]], NativePlan] = OrderedDict()

    @property
    def plan(self) -> NativePlan | None:
        """The plan that ran last."""
        return next(reversed(self.plans.values()), None)

    def details(self) -> list[str]:
        """One line for each kind of operation of the plan that ran last, as the extension holds it."""
        if self.plan is None:
            return ["convolutions: the method of each is chosen when a grid is first seen"]
        return list(dict.fromkeys(map(describe_operation, self.plan.native.operations())))

    @torch.inference_mode()
    def _run(self, job: SamplingJob, spread: bool) -> Estimate:
        """The final residual and, if requested, the posterior standard deviation of the last step."""
        cond = job.cond
        batch, _, *grid = job.initial.shape
        plan = self._plan_for(batch, (grid[0], grid[1]))
        scales = self._coefficients(job.steps)
        start(plan, job, scales[0]["c_in"])
        plan.project(job.projection)

        def before_noise(index: int) -> None:
            if job.step_noise is None:
                raise ValueError("This solver adds noise between steps (ddpm), so the job needs `step_noise`.")
            plan.view(plan.plan.state["noise"]).copy_(job.step_noise(first + index))

        def after_step(index: int) -> None:
            if job.on_step is not None:
                job.on_step(first + index + 1, len(job.steps))

        for first in range(0, len(job.steps), FILM_STEPS):
            part = scales[first : first + FILM_STEPS]
            film = plan.film_rows([row["c_noise"] for row in part], cond.vector)
            plan.native.run([step_coefficients(row) for row in part], film.data_ptr(), before_noise, after_step, spread)
        state = plan.plan.state
        sd = plan.view(state["spread"]).clone() if spread else None
        return Estimate(plan.view(state["base"]).clone(), sd)

    def _coefficients(self, steps: tuple[Step, ...]) -> list[dict[str, float]]:
        """``coefficients``, computed again only where the steps are not those of the run before."""
        if steps is not self._steps:
            self._steps, self._scales = steps, coefficients(self.denoiser, steps)
        return self._scales

    def _plan_for(self, batch: int, grid: tuple[int, int]) -> NativePlan:
        key = (batch, grid)
        if key not in self.plans:
            while len(self.plans) >= PLANS:
                self.plans.popitem(last=False)  # frees the oldest arena first
            film = None if self.plan is None else self.plan.film
            self.plans[key] = NativePlan(self.network, batch, grid, self.threads, self.weights, self.pairs, film)
        self.plans.move_to_end(key)
        return self.plans[key]


def coefficients(denoiser: Denoiser, steps: Sequence[Step]) -> list[dict[str, float]]:
    """Preconditioning and solver coefficients of each step, in float64."""
    sigmas = torch.tensor([step.sigma for step in steps], dtype=torch.float64)
    scales = denoiser.preconditioning(sigmas)
    rows = [
        {name: float(getattr(scales, name)[i]) for name in ("c_in", "c_skip", "c_out", "c_noise")}
        | {"base": step.base, "now": step.now, "prev": step.prev if i else 0.0, "noise": step.noise}
        | {"commit": float(step.commit)}
        for i, step in enumerate(steps)
    ]
    for row, after in zip(rows, [*rows[1:], rows[-1]], strict=True):
        row["next_c_in"] = after["c_in"]  # the last step's input is never evaluated
    return rows


STEP_FIELDS = ("c_skip", "c_out", "base", "now", "prev", "noise", "next_c_in", "commit")


def step_coefficients(row: dict[str, float]) -> Any:
    """A row of ``coefficients`` as the extension takes it."""
    return _native.struct(
        "StepCoefficients", **{name: row[name] for name in STEP_FIELDS} | {"commit": row["commit"] != 0}
    )


def start(plan: NativePlan, job: SamplingJob, c_in: float) -> None:
    """Hands what a run begins with to the plan, which writes the first input of the network (``stem_input``)."""
    cond, state = job.cond, plan.plan.state["eval"]
    maps = (state.batch, state.height, state.width, state.channels)
    one = (maps[0], 1, *maps[2:])
    shapes = {"initial": maps, "z": maps, "mask": maps, "anatomy": one, "presence": maps[:2]}
    given = {"initial": job.initial, "z": cond.z, "mask": cond.mask, "anatomy": cond.anatomy, "presence": cond.presence}
    inputs = {name: one.expand(shapes[name]).to(torch.float32).contiguous() for name, one in given.items()}
    addresses = {name: one.data_ptr() for name, one in inputs.items()}
    presence = addresses.pop("presence")
    plan.native.start(_native.struct("SolverStart", **addresses, c_in=c_in), presence)
