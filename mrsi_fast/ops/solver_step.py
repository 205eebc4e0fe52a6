"""``solver_step``: one linear solver step with hard data consistency as one operation; it has no gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from mrsi_fast.ops import _cuda, _native
from mrsi_fast.ops._dispatch import Implementation
from mrsi_fast.ops._register import Operation, register, same_device
from mrsi_fast.ops.reference import solver_step as reference


def solver_step(
    base: Tensor,  # [..., X, Y]
    now: Tensor,  # [..., X, Y]
    prev: Tensor | None,  # [..., X, Y]
    noise: Tensor | None,  # [..., X, Y]
    coefficients: Tensor,  # [steps, 4]
    step: Tensor,  # [1]
    basis_x: Tensor | None = None,  # [rx, X]
    basis_y: Tensor | None = None,  # [ry, Y]
    kept: Tensor | None = None,  # [rx, ry]
) -> Tensor:
    """``c0 base + P(c1 now + c2 prev) + c3 noise``, ``P(v) = v - Qx'(K . (Qx v Qy'))Qy`` over the last two axes.

    The update of ``mrsi_fast.diffusion.solvers.Step`` with estimates of the residual that hard data consistency
    projects off the measured band (Qx, Qy, K of ``Acquisition.modes``: ``hr_x``, ``hr_y``, ``kept``). P is linear,
    so that one projection of the combination serves both estimates. Coefficients and index are tensors: a captured
    graph replays this for every step. A term with coefficient 0 is left out, whatever its tensor holds.

    Args:
        base: [..., X, Y] committed state. Kernels take float32, contiguous (CUDA).
        now: [..., X, Y] denoiser output of this step.
        prev: [..., X, Y] denoiser output of the step before, or None.
        noise: [..., X, Y] standard normal, or None.
        coefficients: [steps, 4] of base, now, prev and noise.
        step: [1] int64, row of ``coefficients``.
        basis_x: [rx, X] orthonormal rows that the acquisition measures along X, or None for no projection.
        basis_y: [ry, Y] the same along Y.
        kept: [rx, ry] 1 for measured modes and 0 for others, or None if all are measured.

    Returns:
        A contiguous tensor of the shape of base.

    Raises:
        ValueError: Shapes do not fit, or only one basis is given.
    """
    return torch.ops.mrsi_fast.solver_step.default(base, now, prev, noise, coefficients, step, basis_x, basis_y, kept)


def _check(
    base: Tensor,
    now: Tensor,
    prev: Tensor | None,
    noise: Tensor | None,
    coefficients: Tensor,
    step: Tensor,
    basis_x: Tensor | None,
    basis_y: Tensor | None,
    kept: Tensor | None,
) -> None:
    tensors = {"now": now, "prev": prev, "noise": noise, "coefficients": coefficients, "step": step}
    same_device(base=base, **tensors, basis_x=basis_x, basis_y=basis_y, kept=kept)
    if base.dim() < 2:
        raise ValueError(f"base must have shape [..., X, Y], got {list(base.shape)}.")
    for name, one in (("now", now), ("prev", prev), ("noise", noise)):
        if one is not None and one.shape != base.shape:
            raise ValueError(f"{name} must have the shape {list(base.shape)} of base, got {list(one.shape)}.")
    if coefficients.dim() != 2 or coefficients.shape[1] != 4 or step.shape != (1,) or step.dtype != torch.int64:
        raise ValueError(
            f"coefficients must have shape [steps, 4] and step shape [1] and dtype int64, "
            f"got {list(coefficients.shape)} and {list(step.shape)} {step.dtype}."
        )
    if (basis_x is None) != (basis_y is None):
        raise ValueError("basis_x and basis_y must be given together, or neither for no projection.")
    for name, basis, size in (("basis_x", basis_x, base.shape[-2]), ("basis_y", basis_y, base.shape[-1])):
        if basis is not None and (basis.dim() != 2 or basis.shape[1] != size):
            raise ValueError(f"{name} must have shape [rank, {size}], got {list(basis.shape)}.")
    if kept is not None and (basis_x is None or basis_y is None or kept.shape != (len(basis_x), len(basis_y))):
        raise ValueError(f"kept must have shape [rx, ry] of the two bases, got {list(kept.shape)}.")


def _allocate(base: Tensor, *others: object, device: str | None = None) -> Tensor:
    return torch.empty_like(base, memory_format=torch.contiguous_format, device=device)


# ---- CUDA C++ --------------------------------------------------------------------------------------------------------


def _refuse(
    base: Tensor,
    now: Tensor,
    prev: Tensor | None,
    noise: Tensor | None,
    coefficients: Tensor,
    step: Tensor,
    basis_x: Tensor | None,
    basis_y: Tensor | None,
    kept: Tensor | None,
) -> str | None:
    tensors = {"base": base, "now": now, "prev": prev, "noise": noise, "coefficients": coefficients}
    tensors |= {"basis_x": basis_x, "basis_y": basis_y, "kept": kept}
    for name, one in tensors.items():
        if one is not None and (one.dtype != torch.float32 or not one.is_contiguous()):
            return f"{name} is not contiguous float32 ({one.dtype}, strides {one.stride()})"
    if basis_x is not None and basis_y is not None:
        shared = 4 * len(basis_x) * (base.shape[-1] + len(basis_y))
        if shared > 99 << 10:
            return f"the projection needs {shared} bytes of shared memory, more than the 99 KiB of a block"
    return _cuda.misaligned(**tensors)


def _cuda_out(
    base: Tensor,
    now: Tensor,
    prev: Tensor | None,
    noise: Tensor | None,
    coefficients: Tensor,
    step: Tensor,
    basis_x: Tensor | None,
    basis_y: Tensor | None,
    kept: Tensor | None,
    out: Tensor,
) -> None:
    if base.numel() == 0:
        return
    width, height = base.shape[-2:]
    rank_x, rank_y = (0, 0) if basis_x is None or basis_y is None else (len(basis_x), len(basis_y))
    tensors = {"base": base, "now": now, "prev": prev, "noise": noise, "coefficients": coefficients, "step": step}
    tensors |= {"basis_x": basis_x, "basis_y": basis_y, "kept": kept, "out": out}
    request = _native.struct(
        "CudaSolverStep",
        slices=base.numel() // (width * height),
        width=width,
        height=height,
        rank_x=rank_x,
        rank_y=rank_y,
        **{name: _native.address(one) for name, one in tensors.items()},
    )
    with _cuda.launching(base.device) as stream:
        _native.module().cuda_solver_step(request, stream)


register(
    Operation(
        name="solver_step",
        reference=reference.solver_step,
        reference_backward=None,
        allocate=_allocate,
        check=_check,
        differentiable=(),
        preference=_cuda.preference("solver_step"),
        implementations=(
            Implementation(
                backend="cuda",
                lacks=lambda: _native.lacks("cuda_solver_step"),
                refuse=_refuse,
                out=_cuda_out,
            ),
        ),
    )
)
