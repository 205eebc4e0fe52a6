"""The acquisition operator against its definition (explicit Fourier sums, float64) and the contracts of the design."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.geometry import hr_affine

SUPPORTS = ("square", "ellipse")
WINDOWS = ("none", "hamming", "hann")
SHAPES = ((8, 8), (7, 9), (14, 11), (1, 6), (2, 3), (16, 5))
OPERATORS = [
    Acquisition(shape, factors, support, window, box)
    for (shape, factors), support, window, box in itertools.product(
        zip(SHAPES, ((2, 2), (4, 2), (2, 2), (8, 4), (1, 8), (1, 3)), strict=True), SUPPORTS, WINDOWS, (False, True)
    )
]
AXES = st.integers(1, 9)
ACQUISITIONS = st.builds(
    Acquisition,
    st.tuples(AXES, AXES),
    st.tuples(st.sampled_from((1, 2, 4, 8)), st.sampled_from((1, 2, 4))),
    st.sampled_from(SUPPORTS),
    st.sampled_from(WINDOWS),
    st.booleans(),
)


def dense_operator(acq: Acquisition) -> np.ndarray:
    """``A`` as an ``[nx*ny, X*Y]`` matrix, summed line by line in complex numbers as the definition writes it."""
    (nx, ny), (fx, fy), (sx, sy) = acq.lr_shape, acq.factors, acq.hr_shape
    a, b = {"none": (1, 0), "hamming": (0.54, 0.46), "hann": (0.5, 0.5)}[acq.window]
    px, py = ((np.arange(n) + 0.5) * f - 0.5 for n, f in ((nx, fx), (ny, fy)))
    shift_x = px[:, None] - np.arange(sx)
    shift_y = py[:, None] - np.arange(sy)
    total = np.zeros((nx, ny, sx, sy), dtype=complex)
    for kx in range(-(nx // 2), nx // 2 + 1):
        for ky in range(-(ny // 2), ny // 2 + 1):
            weight = (0.5 if 2 * abs(kx) == nx else 1.0) * (0.5 if 2 * abs(ky) == ny else 1.0)
            rx, ry = abs(kx) / (nx / 2), abs(ky) / (ny / 2)
            if acq.support == "ellipse":
                if rx**2 + ry**2 > 1 + 1e-12:
                    continue
                weight *= a + b * np.cos(np.pi * np.sqrt(rx**2 + ry**2))
            else:
                weight *= (a + b * np.cos(np.pi * rx)) * (a + b * np.cos(np.pi * ry))
            if acq.box:
                weight /= np.sinc(kx / sx) * np.sinc(ky / sy)
            wave_x, wave_y = np.exp(2j * np.pi * kx * shift_x / sx), np.exp(2j * np.pi * ky * shift_y / sy)
            total += weight * wave_x[:, None, :, None] * wave_y[None, :, None, :]
    assert np.abs(total.imag).max() < 1e-9 * sx * sy
    return total.real.reshape(nx * ny, sx * sy) / (sx * sy)


def fft_operator(acq: Acquisition, x: np.ndarray) -> np.ndarray:
    """``A x`` by FFT: crop the spectrum, weigh it, shift it by half a voxel, fold the lines +-n/2, transform back."""
    (nx, ny), (fx, fy), (sx, sy) = acq.lr_shape, acq.factors, acq.hr_shape
    kx, ky = (np.arange(-(n // 2), n // 2 + 1) for n in acq.lr_shape)
    a, b = {"none": (1, 0), "hamming": (0.54, 0.46), "hann": (0.5, 0.5)}[acq.window]
    rho = np.hypot(2 * kx[:, None] / nx, 2 * ky[None] / ny)
    weight = (a + b * np.cos(np.pi * rho)) * (rho <= 1 + 1e-12)
    weight = weight * np.where(2 * abs(kx) == nx, 0.5, 1)[:, None] * np.where(2 * abs(ky) == ny, 0.5, 1)
    phase = kx[:, None] * (fx - 1) / 2 / sx + ky[None] * (fy - 1) / 2 / sy
    cropped = np.fft.fft2(x)[np.ix_(kx % sx, ky % sy)] * weight * np.exp(2j * np.pi * phase)
    folded = np.zeros((nx, ny), dtype=complex)
    np.add.at(folded, np.ix_(kx % nx, ky % ny), cropped)
    result = np.fft.ifft2(folded) * nx * ny / (sx * sy)
    assert np.abs(result.imag).max() < 1e-12
    return result.real


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative L2 difference over all elements, against ``b``."""
    return float((a.double() - b.double()).norm() / b.double().norm())


@pytest.mark.parametrize("acq", OPERATORS, ids=str)
def test_equals_the_definition(acq: Acquisition) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, *acq.hr_shape)), rng.standard_normal((2, *acq.lr_shape))
    dense = dense_operator(acq)
    np.testing.assert_allclose(acq.forward(x).reshape(2, -1), x.reshape(2, -1) @ dense.T, atol=1e-12)
    np.testing.assert_allclose(acq.adjoint(y).reshape(2, -1), y.reshape(2, -1) @ dense, atol=1e-12)
    rows = np.linalg.pinv(dense, rcond=1e-9) @ dense
    np.testing.assert_allclose(acq.measured(x).reshape(2, -1), x.reshape(2, -1) @ rows.T, atol=1e-8)
    plain = dense_operator(Acquisition(acq.lr_shape, acq.factors))
    zero_filled = np.prod(acq.factors) * y.reshape(2, -1) @ plain
    np.testing.assert_allclose(acq.zero_fill(y).reshape(2, -1), zero_filled, atol=1e-12)
    tensor = torch.from_numpy(x).float()
    np.testing.assert_allclose(acq.forward(tensor).numpy(), acq.forward(x), atol=2e-6)


@pytest.mark.parametrize("acq", OPERATORS, ids=str)
def test_pinv_is_the_least_squares_solution_of_least_norm(acq: Acquisition) -> None:
    y = np.random.default_rng(1).standard_normal(acq.lr_shape)
    expected = np.linalg.lstsq(dense_operator(acq), y.ravel(), rcond=1e-9)[0]
    np.testing.assert_allclose(acq.pinv(y).ravel(), expected, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("shape", [(8, 8), (7, 9), (14, 11)])
def test_elliptic_support_equals_an_fft(shape: tuple[int, int], window: str) -> None:
    acq = Acquisition(shape, (4, 2), "ellipse", window)
    x = np.random.default_rng(2).standard_normal(acq.hr_shape)
    np.testing.assert_allclose(acq.forward(x), fft_operator(acq, x), atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(ACQUISITIONS, st.integers(0, 2**31))
def test_adjoint(acq: Acquisition, seed: int) -> None:
    """<A x, y> = <x, A' y> in float64, relative to |A x| |y|."""
    rng = np.random.default_rng(seed)
    x, y = torch.from_numpy(rng.standard_normal(acq.hr_shape)), torch.from_numpy(rng.standard_normal(acq.lr_shape))
    left, right = (acq.forward(x) * y).sum(), (x * acq.adjoint(y)).sum()
    assert abs(left - right) <= 1e-13 * (x.norm() * y.norm())


@settings(max_examples=60, deadline=None)
@given(ACQUISITIONS, st.integers(0, 2**31))
def test_projection_in_float32(acq: Acquisition, seed: int) -> None:
    """Idempotent and on the data: both as relative L2 norms, |P P x - P x|/|P x| and |A P x - y|/|y|."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, *acq.hr_shape, generator=generator)
    y = acq.forward(torch.randn(2, *acq.hr_shape, generator=generator))
    z = acq.pinv(y)
    assert z.dtype == torch.float32
    once = acq.null(x) + z
    assert relative(acq.null(once) + z, once) <= 1e-6
    assert relative(acq.forward(once), y) <= 1e-6


@settings(max_examples=40, deadline=None)
@given(ACQUISITIONS)
def test_constant_stays_constant(acq: Acquisition) -> None:
    np.testing.assert_allclose(acq.forward(np.full(acq.hr_shape, 3.0)), 3.0, rtol=1e-13)
    np.testing.assert_allclose(acq.pinv(np.full(acq.lr_shape, 3.0)), 3.0, rtol=1e-12)
    np.testing.assert_allclose(acq.zero_fill(np.full(acq.lr_shape, 3.0)), 3.0, rtol=1e-13)


@settings(max_examples=40, deadline=None)
@given(ACQUISITIONS, st.integers(-9, 9), st.integers(-9, 9), st.integers(0, 2**31))
def test_commutes_with_shifts_of_one_lr_voxel(acq: Acquisition, sx: int, sy: int, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal(acq.hr_shape)
    shifted = np.roll(x, (sx * acq.factors[0], sy * acq.factors[1]), (0, 1))
    np.testing.assert_allclose(acq.forward(shifted), np.roll(acq.forward(x), (sx, sy), (0, 1)), atol=1e-12)


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("n", [13, 16])
@pytest.mark.parametrize("support", SUPPORTS)
def test_grids_sit_where_their_affines_say(n: int, factor: int, support: str) -> None:
    """The phase of a point's first harmonic on the LR grid gives its place in world mm, to 1e-6 LR voxel."""
    acq = Acquisition((n, n + 3), (factor, factor), support, "hamming")
    lr_affine = np.array([[7.5, 0.4, 0, -61], [-0.4, 7.5, 0, 33], [0, 0, 12, 5], [0, 0, 0, 1.0]])
    for point in ((3, 5), (factor * n - 2, factor)):
        x = np.zeros(acq.hr_shape)
        x[point] = 1.0
        spectrum = np.fft.fft2(acq.forward(x))
        place = [-np.angle(spectrum[1, 0]) / (2 * np.pi) * n % n, -np.angle(spectrum[0, 1]) / (2 * np.pi) * (n + 3)]
        place[1] %= n + 3
        world = hr_affine(lr_affine, (factor, factor, 1)) @ (*point, 0, 1)
        error_voxels = np.linalg.solve(lr_affine[:3, :3], world[:3] - lr_affine[:3, 3])[:2] - place
        period = np.array(acq.lr_shape)
        assert np.abs(error_voxels - period * np.round(error_voxels / period)).max() < 1e-6
        z = acq.zero_fill(acq.forward(x))  # and back: the interpolated point is where it was
        assert np.unravel_index(np.argmax(z), z.shape) == point or np.isclose(z[point], z.max())


@pytest.mark.parametrize(("n", "factor"), [(16, 4), (15, 2), (9, 8)])
def test_band_limited_map_is_sampled(n: int, factor: int) -> None:
    """For a map without content above the band, ``A x`` is the wave itself at the LR voxel centres (line n/2: half)."""
    acq = Acquisition((n, 4), (factor, 1))
    centres, fine = (np.arange(n) + 0.5) * factor - 0.5, np.arange(n * factor)
    for k in range(n // 2 + 1):
        wave = lambda p, k=k: np.cos(2 * np.pi * k * p / (n * factor) - 0.7)  # noqa: E731
        x = np.repeat(wave(fine)[:, None], 4, axis=1)
        share = 0.5 if 2 * k == n else 1.0
        np.testing.assert_allclose(acq.forward(x)[:, 0], share * wave(centres), atol=1e-12)
        if 2 * k < n:
            np.testing.assert_allclose(acq.zero_fill(acq.forward(x)), x, atol=1e-12)
            np.testing.assert_allclose(acq.pinv(acq.forward(x)), x, atol=1e-12)


def test_box_response_samples_the_object_behind_box_means() -> None:
    """HR values that are box means of a wave give that wave's own values at the LR voxel centres."""
    acq = Acquisition((11, 1), (4, 1), box=True)
    k, size = 4, 44
    edges = np.arange(size + 1) - 0.5
    integral = np.sin(2 * np.pi * k * edges / size) * size / (2 * np.pi * k)
    x = np.diff(integral)[:, None]  # the exact mean of cos(2 pi k t / size) over each HR voxel
    expected = np.cos(2 * np.pi * k * ((np.arange(11) + 0.5) * 4 - 0.5) / size)
    np.testing.assert_allclose(acq.forward(x)[:, 0], expected, atol=1e-12)


def test_damping_bounds_what_noise_becomes() -> None:
    acq = Acquisition((16, 16), (2, 2), "square", "hamming")
    y = np.random.default_rng(4).standard_normal(acq.lr_shape)
    dense = dense_operator(acq)
    level = 0.1 * np.linalg.norm(dense, 2)
    ridge = dense.T @ np.linalg.solve(dense @ dense.T + level**2 * np.eye(256), y.ravel())
    np.testing.assert_allclose(acq.pinv(y, damping=0.1).ravel(), ridge, atol=1e-10)
    assert np.linalg.norm(acq.pinv(y, rcond=0.5)) < np.linalg.norm(acq.pinv(y))


@pytest.mark.parametrize("acq", [Acquisition((8, 7), (2, 4)), Acquisition((8, 7), (2, 4), "ellipse", "hann")], ids=str)
def test_layouts_dtypes_and_gradients(acq: Acquisition) -> None:
    x = torch.randn(2, 3, *acq.hr_shape[::-1], generator=torch.Generator().manual_seed(5)).mT
    assert not x.is_contiguous()
    torch.testing.assert_close(acq.forward(x), acq.forward(x.contiguous()), rtol=1e-6, atol=1e-6)
    assert acq.forward(x[:0]).shape == (0, 3, *acq.lr_shape)
    assert acq.forward(x.numpy()).dtype == np.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert relative(acq.forward(x), acq.forward(x.double())) < 1e-6
    with torch.inference_mode():
        acq.null(x)
    wanted = x.double().requires_grad_()
    probe = torch.ones(2, 3, *acq.lr_shape, dtype=torch.float64)
    (acq.forward(wanted) * probe).sum().backward()
    torch.testing.assert_close(wanted.grad, acq.adjoint(probe))


def test_nan_stays_in_its_own_map() -> None:
    acq = Acquisition((5, 6), (2, 2))
    x = np.ones((2, *acq.hr_shape))
    x[0, 3, 3] = np.nan
    y = acq.forward(x)
    assert np.isnan(y[0]).any()
    np.testing.assert_allclose(y[1], 1.0)


def test_refusals_are_sentences() -> None:
    acq = Acquisition((5, 6), (2, 2))
    with pytest.raises(ValueError, match="10x12 voxels in the last two axes"):
        acq.forward(np.zeros((10, 11)))
    with pytest.raises(TypeError, match="float32 or float64"):
        acq.forward(torch.zeros(10, 12, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="at least 1"):
        Acquisition((0, 6), (2, 2))
    assert Acquisition((5, 6), (2, 4, 1)).factors == (2, 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="through the plane"):
        Acquisition((5, 6), (2, 2, 2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="support 'circle'"):
        Acquisition((5, 6), (2, 2), "circle")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="window 'tukey'"):
        Acquisition((5, 6), (2, 2), window="tukey")  # type: ignore[arg-type]


def test_description_says_what_is_assumed() -> None:
    assert "assumed" in Acquisition.assume((28, 28), (2, 2)).describe()
    assert "assumed" in Acquisition.assume((28, 28), (2, 2), window="hamming").describe()
    declared = Acquisition.assume((28, 28), (2, 2), "ellipse", "hamming", box=True)
    assert declared.describe() == (
        "28x28 k-space samples of a 56x56 map, lines inside the ellipse, Hamming window, box response."
    )
    assert declared == Acquisition((28, 28), (2, 2), "ellipse", "hamming", box=True)


def test_tracing_leaves_no_trace_in_the_cache() -> None:
    """Constants made under a tracing mode must not be handed to real tensors afterwards, nor inference tensors."""
    acq = Acquisition((4, 5), (2, 2), "ellipse", "hann")  # met by no other test
    with FakeTensorMode():
        assert acq.null(torch.empty(3, *acq.hr_shape)).shape == (3, *acq.hr_shape)
    assert acq.null(torch.empty(3, *acq.hr_shape, device="meta")).shape == (3, *acq.hr_shape)
    with torch.inference_mode():
        acq.null(torch.ones(acq.hr_shape))
    x = torch.ones(acq.hr_shape, requires_grad=True)
    acq.null(x).sum().backward()
    assert float(x.grad.abs().max()) < 1e-6  # the sum is a constant's inner product: all of it is in the band
