"""The MRSI acquisition of one slice as a linear operator ``A``: HR map in, measured LR map out.

``y = A x`` keeps the k-space lines that were sampled (square or elliptic support), weights them (window, box response)
and evaluates them at the centres of the LR voxels, half-voxel phase included. The formula and its decomposition into
orthonormal modes are in ``mrsi_fast.mrsi.kspace``; here it is applied to the last two axes of tensors and arrays:

    A = (Ux (x) Uy) diag(g) (Qx (x) Qy),

``Q`` orthonormal on the HR grid, ``U`` on the LR grid, ``g`` the gain of each pair of modes. An elliptic support only
sets gains to zero, so both supports are the same few dense products, which a captured loop can hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from mrsi_fast.mrsi.kspace import RCOND, Support, Window, axis_modes, plane_gains

Array = TypeVar("Array", torch.Tensor, NDArray)

_cast_modes: dict[tuple[Any, ...], Modes[torch.Tensor]] = {}


@dataclass(frozen=True, eq=False)
class Modes(Generic[Array]):
    """The matrices of one acquisition in one dtype on one device (see ``Acquisition.modes``).

    Attributes:
        hr_x: ``[rx, X]`` orthonormal HR rows of the first axis; ``hr_y``: ``[ry, Y]`` of the second.
        lr_x: ``[rx, nx]`` orthonormal LR rows of the first axis; ``lr_y``: ``[ry, ny]`` of the second.
        gains: ``[rx, ry]`` singular values of ``A``, 0 where nothing was measured.
        inverse: ``[rx, ry]`` their reciprocals, 0 where nothing was measured.
        kept: ``[rx, ry]`` 1 where measured and 0 elsewhere, or None if all are.
    """

    hr_x: Array
    hr_y: Array
    lr_x: Array
    lr_y: Array
    gains: Array
    inverse: Array
    kept: Array | None

    def forward(self, x: Array) -> Array:
        """Return ``A x`` as ``[..., nx, ny]``."""
        return _synthesise(self.lr_x, self.gains * _analyse(self.hr_x, x, self.hr_y), self.lr_y)

    def adjoint(self, y: Array) -> Array:
        """Return ``A' y`` as ``[..., X, Y]``."""
        return _synthesise(self.hr_x, self.gains * _analyse(self.lr_x, y, self.lr_y), self.hr_y)

    def pinv(self, y: Array) -> Array:
        """Return ``A+ y`` as ``[..., X, Y]``."""
        return _synthesise(self.hr_x, self.inverse * _analyse(self.lr_x, y, self.lr_y), self.hr_y)

    def gram_pinv(self, y: Array) -> Array:
        """Apply the pseudo-inverse of ``A A'`` to ``[..., nx, ny]``; the inner product with ``y`` is ``|A+ y|^2``."""
        return _synthesise(self.lr_x, self.inverse**2 * _analyse(self.lr_x, y, self.lr_y), self.lr_y)

    def measured(self, x: Array) -> Array:
        """Return ``Q' Q x``, the part of ``x`` that the acquisition sees, as ``[..., X, Y]``."""
        coefficients = _analyse(self.hr_x, x, self.hr_y)
        return _synthesise(self.hr_x, coefficients if self.kept is None else self.kept * coefficients, self.hr_y)


@dataclass(frozen=True)
class Acquisition:
    """The linear operator ``A`` of one slice; acts on the last two axes of any float tensor or NumPy array.

    Tensors are computed in their own dtype (float32 or float64), arrays in float64 and returned in their own dtype.
    Maps keep their units: ``A`` of a constant is the constant, and ``A`` commutes with circular shifts by a factor.

    Attributes:
        lr_shape: ``(nx, ny)`` LR voxels, any sizes.
        factors: ``(fx, fy)`` HR voxels in one LR voxel, per axis; ``(fx, fy, 1)`` is taken too.
        support: ``"square"`` (all lines) or ``"ellipse"`` (lines inside the inscribed ellipse).
        window: ``"none"``, ``"hamming"`` or ``"hann"``; separable on square support, of the elliptic radius otherwise.
        box: HR values are box means of the object whose k-space was sampled, so the band is weighted by 1/sinc(k/N).
        acquired: ``(ax, ay)`` voxels that were measured, where the maps were zero-filled to ``lr_shape``; None if as
            many as there are.
        assumed: True if nobody declared window and support, so that reports can say so; see ``assume``.

    Raises:
        ValueError: for sizes or factors below 1, a through-plane factor other than 1, and unknown support or window.
    """

    lr_shape: tuple[int, int]
    factors: tuple[int, int]
    support: Support = "square"
    window: Window = "none"
    box: bool = False
    acquired: tuple[int, int] | None = None
    assumed: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        """Check the description, and turn lists and NumPy integers into plain tuples."""
        factors = tuple(int(f) for f in self.factors)
        if len(factors) == 3 and factors[2] != 1:
            raise ValueError(
                f"Acquisition.factors is {factors}: the third one refines through the plane, but the network works"
                " slice by slice; it has to be 1."
            )
        for name, value in (("lr_shape", tuple(int(n) for n in self.lr_shape)), ("factors", factors[:2])):
            if len(value) != 2 or min(value) < 1:
                raise ValueError(f"Acquisition.{name} is {value}: give two whole numbers of at least 1.")
            object.__setattr__(self, name, value)
        if self.acquired is not None:
            acquired = tuple(int(n) for n in self.acquired)
            if (
                len(acquired) != 2
                or min(acquired) < 1
                or any(a > n for a, n in zip(acquired, self.lr_shape, strict=True))
            ):
                raise ValueError(
                    f"Acquisition.acquired is {acquired}: give two whole numbers from 1 to the maps' {self.lr_shape}."
                )
            object.__setattr__(self, "acquired", None if acquired == self.lr_shape else acquired)
        if self.support not in ("square", "ellipse"):
            raise ValueError(f"k-space support {self.support!r} is not known: use 'square' or 'ellipse'.")
        if self.window not in ("none", "hamming", "hann"):
            raise ValueError(f"k-space window {self.window!r} is not known: use 'none', 'hamming' or 'hann'.")

    @classmethod
    def assume(
        cls,
        lr_shape: Sequence[int],
        factors: Sequence[int],
        support: Support | None = None,
        window: Window | None = None,
        box: bool = False,
        acquired: Sequence[int] | None = None,
    ) -> Acquisition:
        """Build the operator from what is known; what is None is assumed (square, no window) and marked so."""
        assumed = support is None or window is None
        shape, scale = (lr_shape[0], lr_shape[1]), tuple(factors)  # checked by the constructor
        return cls(shape, scale, support or "square", window or "none", box, acquired, assumed)  # type: ignore[arg-type]

    @property
    def hr_shape(self) -> tuple[int, int]:
        """``(X, Y)`` HR voxels: factor times LR size."""
        return self.lr_shape[0] * self.factors[0], self.lr_shape[1] * self.factors[1]

    @property
    def separable(self) -> bool:
        """Whether ``A`` is one matrix per axis (square support)."""
        return self.support == "square"

    def describe(self) -> str:
        """Return one sentence that names the operator, for logs and reports."""
        (nx, ny), (hx, hy) = self.lr_shape, self.hr_shape
        samples = f"{nx}x{ny}" if self.acquired is None else f"{self.acquired[0]}x{self.acquired[1]}"
        given = "" if self.acquired is None else f" (zero-filled to {nx}x{ny})"
        window = "no window" if self.window == "none" else f"{self.window.capitalize()} window"
        lines = "all lines" if self.separable else "lines inside the ellipse"
        text = f"{samples} k-space samples{given} of a {hx}x{hy} map, {lines}, {window}{', box response' * self.box}"
        return f"{text} (assumed: declare window and support if they are known)." if self.assumed else f"{text}."

    def forward(self, x: Array) -> Array:
        """Return ``A x``.

        Args:
            x: ``[..., X, Y]`` HR maps, any unit.

        Returns:
            ``[..., nx, ny]`` LR maps in the same unit.

        Raises:
            ValueError: if the last two axes are not ``hr_shape``.
        """
        return self._apply(Modes.forward, x, self.hr_shape)

    def adjoint(self, y: Array) -> Array:
        """Return ``A' y`` (the transpose) of LR maps ``[..., nx, ny]`` as ``[..., X, Y]``."""
        return self._apply(Modes.adjoint, y, self.lr_shape)

    def pinv(self, y: Array, rcond: float = RCOND, damping: float = 0.0) -> Array:
        """Return ``z = A_lambda+ y``, the smallest HR map that explains ``y``, computed in float64.

        Args:
            y: ``[..., nx, ny]`` LR maps.
            rcond: modes with a gain under ``rcond`` times the largest count as not measured (per axis on square
                support, in the plane on elliptic support).
            damping: Tikhonov lambda relative to the largest gain: ``g / (g^2 + lambda^2)`` in place of ``1/g``. Above
                0 it keeps noise that did not pass the window (fit errors, filled voxels) from growing at its edge.

        Returns:
            ``[..., X, Y]`` in the dtype of ``y``.
        """
        _check(y, self.lr_shape)
        if isinstance(y, np.ndarray):
            return _pinv64(self.modes_float64(rcond), y, damping).astype(y.dtype, copy=False)
        wide = y.cpu().double() if y.device.type == "mps" else y.double()  # MPS has no float64
        return _pinv64(self.modes(torch.float64, wide.device, rcond), wide, damping).to(y)

    def zero_fill(self, y: Array) -> Array:
        """Return the plain zero-filled interpolation of ``y``: its spectrum as it is, padded with zeros.

        A window is not undone. Amplitudes are kept (a constant stays), and so is the place: LR voxel centres are put
        where the affine says, half-voxel phase included.

        Args:
            y: ``[..., nx, ny]`` LR maps.

        Returns:
            ``[..., X, Y]`` in the dtype of ``y``.
        """
        fx, fy = self.factors
        return Acquisition(self.lr_shape, self.factors).adjoint(y) * (fx * fy)

    def measured(self, x: Array) -> Array:
        """Return ``Q' Q x``: the part of HR maps ``[..., X, Y]`` that lies in the measured band."""
        return self._apply(Modes.measured, x, self.hr_shape)

    def null(self, x: Array) -> Array:
        """Return ``x - Q' Q x``: the part of HR maps ``[..., X, Y]`` that the acquisition does not see."""
        return x - self.measured(x)

    def modes(self, dtype: torch.dtype, device: torch.device | str, rcond: float = RCOND) -> Modes[torch.Tensor]:
        """Return the matrices of this operator; hold on to them while a captured graph uses them.

        Args:
            dtype: dtype of the maps they will meet.
            device: torch device.
            rcond: see ``pinv``.
        """
        return _torch_modes(self, dtype, torch.device(device), rcond)

    def modes_float64(self, rcond: float = RCOND) -> Modes[NDArray]:
        """Return the same matrices as read-only float64 NumPy arrays."""
        return _numpy_modes(self, rcond)

    def _apply(self, method: Callable[[Modes[Array], Array], Array], x: Array, shape: tuple[int, int]) -> Array:
        _check(x, shape)
        if isinstance(x, np.ndarray):
            return method(self.modes_float64(), x).astype(x.dtype, copy=False)
        return method(self.modes(x.dtype, x.device), x)


def _analyse(rows_x: Array, image: Array, rows_y: Array) -> Array:
    """Coefficients ``[..., rx, ry]`` of an image ``[..., p, q]`` on orthonormal rows ``[rx, p]`` and ``[ry, q]``."""
    return _product(_product(rows_x, image), rows_y.T)


def _synthesise(rows_x: Array, coefficients: Array, rows_y: Array) -> Array:
    """Image ``[..., p, q]`` of coefficients ``[..., rx, ry]`` on orthonormal rows ``[rx, p]`` and ``[ry, q]``."""
    return _product(_product(rows_x.T, coefficients), rows_y)


def _product(a: Array, b: Array) -> Array:
    if isinstance(a, torch.Tensor) and a.device.type != "meta" and torch.is_autocast_enabled(a.device.type):
        with torch.autocast(a.device.type, enabled=False):  # the physics stays in the dtype it was given
            return a @ b
    return a @ b


def _pinv64(modes: Modes[Array], y: Array, damping: float) -> Array:
    if damping:
        level = (damping * modes.gains.max()) ** 2
        damped = modes.gains / (modes.gains**2 + level)
        modes = replace(modes, inverse=damped if modes.kept is None else damped * modes.kept)
    return modes.pinv(y)


def _check(image: torch.Tensor | NDArray, shape: tuple[int, int]) -> None:
    if tuple(image.shape[-2:]) != shape:
        raise ValueError(
            f"The acquisition operator expects maps of {shape[0]}x{shape[1]} voxels in the last two axes, got an array"
            f" of shape {tuple(image.shape)}."
        )
    if isinstance(image, torch.Tensor) and image.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"The acquisition operator works in float32 or float64, got {image.dtype}: convert the maps.")


@lru_cache(maxsize=256)
def _numpy_modes(acquisition: Acquisition, rcond: float) -> Modes[NDArray]:
    """The matrices as float64 arrays, lines that nothing was measured on left out."""
    (nx, ny), (fx, fy) = acquisition.lr_shape, acquisition.factors
    x, y = axis_modes(nx, fx), axis_modes(ny, fy)
    gains = plane_gains(
        acquisition.lr_shape,
        acquisition.factors,
        acquisition.support,
        acquisition.window,
        acquisition.box,
        acquisition.acquired,
    )
    if acquisition.separable:  # per axis: a weak line on both axes is still two good lines
        along_x, along_y = gains[:, :1], gains[:1, :]  # line 0 of the other axis is the constant, always seen whole
        kept = (along_x > rcond * along_x.max()) & (along_y > rcond * along_y.max())
    else:
        kept = gains > rcond * gains.max()
    used = np.ix_((gains > 0).any(axis=1), (gains > 0).any(axis=0))  # the edge lines of a Hann window are zero
    kept, gains = kept[used], gains[used]
    inverse = np.divide(1.0, gains, out=np.zeros_like(gains), where=kept)
    lines_x, lines_y = used[0][:, 0], used[1][0]
    arrays = (x.rows[lines_x], y.rows[lines_y], x.samples[lines_x], y.samples[lines_y], gains, inverse)
    return Modes(*arrays, kept=None if kept.all() else kept.astype(np.float64))


def _torch_modes(
    acquisition: Acquisition, dtype: torch.dtype, device: torch.device, rcond: float
) -> Modes[torch.Tensor]:
    key = (acquisition, dtype, device, rcond)
    modes = _cast_modes.get(key)
    if modes is None:
        exact = _numpy_modes(acquisition, rcond)
        with torch.inference_mode(False):  # cached constants must also serve a later autograd graph
            cast: Callable[[NDArray], torch.Tensor] = partial(torch.tensor, dtype=dtype, device=device)
            modes = Modes(
                cast(exact.hr_x),
                cast(exact.hr_y),
                cast(exact.lr_x),
                cast(exact.lr_y),
                cast(exact.gains),
                cast(exact.inverse),
                None if exact.kept is None else cast(exact.kept),
            )
        if type(modes.gains) is torch.Tensor:  # a tensor of a tracing mode must not outlive its trace
            _cast_modes[key] = modes
    return modes
