"""The CUDA group_norm_silu kernels, run on the CPU, against the float64 reference."""

from __future__ import annotations

import pytest
import torch

from mrsi_fast.ops.reference.group_norm_silu import group_norm_silu as reference

# Unit roundoff of each dtype; kernels compute in float32 and round once.
ROUNDOFF = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
# About ten float32 operations stand between an input and its result; PyTorch's own float32 kernel errs by 2 to 10
# times 2^-24 on these inputs, and by 1000 to 2500 times where the mean is 1000 standard deviations.
FLOAT32_NOISE = 2.0**-20
DTYPES = [torch.float16, torch.bfloat16, torch.float32]

MODEL_SHAPES = [(96, 6, 32 * 32), (160, 10, 16 * 16), (256, 16, 8 * 8), (256, 16, 32 * 32), (416, 26, 16 * 16)]
ODD_SHAPES = [(48, 3, 35), (16, 1, 1), (6, 3, 33), (20, 5, 7), (9, 9, 64), (320, 4, 23), (24, 3, 1001)]
SCHEDULES = range(8)


def inputs(samples: int, channels: int, pixels: int, dtype: torch.dtype, mean: float = 0.3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(channels * 1000 + pixels)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    x = normal(samples, pixels, channels) + mean
    vectors = {
        "weight": 1 + 0.2 * normal(channels),
        "bias": 0.2 * normal(channels),
        "scale": 0.3 * normal(samples, channels),
        "shift": 0.3 * normal(samples, channels),
        "conv_bias": 0.5 * normal(channels),
        "embedding": 0.5 * normal(samples, channels),
    }
    return {"x": x.to(dtype), **{name: v.to(dtype) for name, v in vectors.items()}}


def exact(tensors: dict[str, torch.Tensor], groups: int) -> torch.Tensor:
    wide = {name: t.double() for name, t in tensors.items()}
    x = wide.pop("x").transpose(1, 2)
    for name in ("conv_bias", "embedding"):
        if name in wide:
            x = x + wide.pop(name).reshape(-1, x.shape[1], 1)
    return reference(x, wide["weight"], wide["bias"], groups, wide.get("scale"), wide.get("shift")).transpose(1, 2)


def assert_one_rounding(y: torch.Tensor, wanted: torch.Tensor) -> None:
    bar = ROUNDOFF[y.dtype] * wanted.abs() + FLOAT32_NOISE * wanted.abs().clamp(min=1)
    if y.dtype is torch.float16:
        bar = bar + 2.0**-25  # half of the smallest subnormal
    error = (y.double() - wanted).abs()
    assert (error <= bar).all(), f"error {error.max():.2e}, {(error / bar).max():.2f} of the bar"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels, groups, pixels", MODEL_SHAPES + ODD_SHAPES)
def test_within_one_rounding_of_float64(simulator, channels, groups, pixels, dtype):
    tensors = inputs(2, channels, pixels, dtype)
    simulator.seed(0)
    assert_one_rounding(simulator.group_norm_silu(groups=groups, **tensors), exact(tensors, groups))


@pytest.mark.parametrize(
    "channels, groups, pixels, dtype",
    [(32, 2, 64 * 64, torch.float16), (96, 6, 50 * 41, torch.float32), (48, 3, 3300, torch.bfloat16)],
    ids=str,
)
def test_maps_that_do_not_fit_shared_memory_take_two_kernels(simulator, channels, groups, pixels, dtype):
    tensors = inputs(1, channels, pixels, dtype)
    before = simulator.launches()
    y = simulator.group_norm_silu(groups=groups, **tensors)
    assert simulator.launches() - before == 2
    assert_one_rounding(y, exact(tensors, groups))


@pytest.mark.parametrize("given", [(), ("scale",), ("shift",), ("conv_bias",), ("embedding",)], ids=str)
@pytest.mark.parametrize("pixels", [60, 4000])
def test_every_optional_vector_alone(simulator, given, pixels):
    tensors = inputs(2, 32, pixels, torch.float32)
    tensors = {name: t for name, t in tensors.items() if name in ("x", "weight", "bias", *given)}
    assert_one_rounding(simulator.group_norm_silu(groups=2, **tensors), exact(tensors, 2))


@pytest.mark.parametrize("pixels", [256, 4000])
def test_a_mean_of_1000_standard_deviations_costs_no_digits(simulator, pixels):
    tensors = inputs(1, 32, pixels, torch.float32, mean=1000.0)
    for names in (("x", "weight", "bias"), ("x", "weight", "bias", "conv_bias", "embedding")):
        given = {name: tensors[name] for name in names}
        assert_one_rounding(simulator.group_norm_silu(groups=2, **given), exact(given, 2))


@pytest.mark.parametrize("channels, groups, pixels", [(48, 3, 200), (6, 3, 33), (32, 2, 4000)])
def test_bit_equal_over_thread_schedules(simulator, channels, groups, pixels):
    tensors = inputs(1, channels, pixels, torch.float16)
    results = []
    for seed in SCHEDULES:
        simulator.seed(seed)
        results.append(simulator.group_norm_silu(groups=groups, **tensors))
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("pixels", [256, 4000])
def test_a_nan_stays_in_its_sample_and_group(simulator, pixels):
    tensors = inputs(2, 32, pixels, torch.float32)
    tensors["x"][1, 7, 20] = float("nan")
    y = simulator.group_norm_silu(groups=2, **tensors)
    assert y[1, :, 16:].isnan().all()
    assert not y[0].isnan().any() and not y[1, :, :16].isnan().any()


@pytest.mark.parametrize("pixels", [256, 4000])
def test_constant_maps_give_the_bias(simulator, pixels):
    x = torch.full((1, pixels, 32), 3.25)
    y = simulator.group_norm_silu(x, torch.ones(32), torch.full((32,), 0.5), 2)
    torch.testing.assert_close(y, torch.nn.functional.silu(torch.full_like(y, 0.5)), rtol=1e-6, atol=0)


def test_empty_batches_and_refusals(simulator):
    vector = torch.ones(32)
    before = simulator.launches()
    assert simulator.group_norm_silu(torch.empty(0, 64, 32), vector, vector, 2).shape == (0, 64, 32)
    for shape, groups in [((1, 64, 32), 5), ((1, 64, 32), 0), ((1, 9000, 3000), 1)]:
        wide = torch.ones(shape[2])
        with pytest.raises(RuntimeError, match="invalid argument"):
            simulator.group_norm_silu(torch.ones(shape), wide, wide, groups)
    assert simulator.launches() == before
