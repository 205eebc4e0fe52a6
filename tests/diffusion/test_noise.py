"""Keyed noise: against an independent Philox, as a normal distribution, and independent of everything but its key."""

import itertools

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from mrsi_fast.diffusion.noise import KEY_LIMIT, batch_normal, philox_normal, slice_key

MASK = 2**64 - 1


def philox4x64(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x64-10 in plain integers, Salmon et al. 2011, section 3.3."""
    c, k = list(counter), list(key)
    for _ in range(10):
        left, right = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(right >> 64) ^ c[1] ^ k[0], right & MASK, (left >> 64) ^ c[3] ^ k[1], left & MASK]
        k = [(k[0] + 0x9E3779B97F4A7C15) & MASK, (k[1] + 0xBB67AE8584CAA73B) & MASK]
    return c


def test_the_oracle_gives_the_published_vectors() -> None:
    zeros = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    ones = [0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0]
    assert philox4x64([0] * 4, [0] * 2) == zeros  # Random123 known-answer tests
    assert philox4x64([MASK] * 4, [MASK] * 2) == ones


@pytest.mark.parametrize("key", [(0, 0, 0, 0), (1, 2, 3, 4), (2**63 - 1, 2**62 + 5, 2**63 - 1, 2**63 - 1)])
def test_matches_independent_philox(key: tuple[int, int, int, int]) -> None:
    seed, slice_key, sample, step = key
    words = [philox4x64([block + 1, 0, step, sample], [seed, slice_key]) for block in range(4)]
    uniform = (np.array([w >> 12 for w in itertools.chain(*words)], dtype=np.float64) + 0.5) / 2**52
    expected = scipy.special.ndtri(uniform[:15]).reshape(3, 5)
    np.testing.assert_allclose(philox_normal(*key, (3, 5)).numpy(), expected, rtol=2e-7)


def test_the_rarest_words_give_finite_and_symmetric_values(monkeypatch: pytest.MonkeyPatch) -> None:
    class Extreme:
        def __init__(self, **_: object) -> None:
            pass

        def random_raw(self, count: int) -> np.ndarray:
            return np.array([0, MASK, 1 << 63, (1 << 63) - 1], dtype=np.uint64)

    monkeypatch.setattr(np.random, "Philox", Extreme)
    lowest, highest, above, below = philox_normal(0, 0, 0, 0, (4,)).tolist()
    assert lowest == pytest.approx(scipy.special.ndtri(2.0**-53), rel=1e-6) and -8.3 < lowest
    assert highest == -lowest and above == -below != 0.0


def test_rows_do_not_depend_on_batch_order_or_threads() -> None:
    rows = [(7, 0), (7, 1), (3, 0), (2**40, 12)]
    shape = (8, 33, 47)
    batch = batch_normal(5, rows, 2, shape)
    assert batch.shape == (4, *shape) and batch.dtype == torch.float32 and batch.device.type == "cpu"
    assert torch.equal(batch_normal(5, rows[::-1], 2, shape), batch.flip(0))
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        for row, expected in zip(rows, batch, strict=True):
            assert torch.equal(batch_normal(5, [row], 2, shape)[0], expected)
    finally:
        torch.set_num_threads(threads)


def test_global_generators_play_no_part() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    before_torch, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = philox_normal(1, 2, 3, 4, (5,))
    assert torch.equal(torch.get_rng_state(), before_torch)
    assert np.array_equal(np.random.get_state()[1], before_numpy)
    torch.manual_seed(99)
    np.random.seed(99)
    assert torch.equal(philox_normal(1, 2, 3, 4, (5,)), first)


@pytest.mark.parametrize("key", [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)])
def test_is_standard_normal(key: tuple[int, int, int, int]) -> None:
    values = philox_normal(*key, (8, 64, 64)).double().numpy().ravel()
    assert scipy.stats.kstest(values, "norm").pvalue > 1e-3
    n = len(values)
    assert abs(values.mean()) < 4 / np.sqrt(n)
    assert abs(values.var() - 1) < 4 * np.sqrt(2 / n)
    for lag in (1, 4, 64, 64 * 64):  # neighbours, Philox blocks, rows, channels
        assert abs(np.mean(values[:-lag] * values[lag:])) < 4 / np.sqrt(n - lag)


def test_neighbouring_and_swapped_keys_are_uncorrelated() -> None:
    keys = list(itertools.product((0, 1), (0, 1), (0, 1, 2), (0, 1, 2)))
    fields = torch.stack([philox_normal(*key, (4, 64, 64)) for key in keys]).flatten(1).double()
    correlation = torch.corrcoef(fields) - torch.eye(len(keys), dtype=torch.float64)
    pairs = len(keys) * (len(keys) - 1) / 2
    bound = scipy.stats.norm.isf(1e-3 / (2 * pairs)) / np.sqrt(fields.shape[1])  # one false alarm in 1000 for all pairs
    assert correlation.abs().max() < bound


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (3, 0), (2, 3, 5)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    assert philox_normal(0, 0, 0, 0, shape).shape == shape


def test_shapes_share_their_leading_numbers() -> None:
    long = philox_normal(1, 2, 3, 4, (1000,))
    assert torch.equal(philox_normal(1, 2, 3, 4, (7, 11)).flatten(), long[:77])


def test_numpy_integers_count_as_integers() -> None:
    assert torch.equal(philox_normal(np.int64(3), np.uint8(1), 0, 0, (4,)), philox_normal(3, 1, 0, 0, (4,)))


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("value", [-1, 2**63, 1.0, True, "0", None])
def test_keys_out_of_range_are_refused_in_a_sentence(place: int, value: object) -> None:
    key: list = [0, 0, 0, 0]
    key[place] = value
    name = ("seed", "slice key", "sample", "step")[place]
    with pytest.raises(ValueError, match=rf"The {name} of the noise must be an integer from 0 to 2\^63 - 1"):
        philox_normal(*key, (2,))


def test_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        batch_normal(0, [], 0, (2,))


def test_slice_keys_differ_and_fit() -> None:
    keys = {slice_key(content, index) for content in (b"", b"one", b"two") for index in range(1000)}
    assert len(keys) == 3000 and 0 <= min(keys) and max(keys) < KEY_LIMIT
    assert slice_key(b"one", 7) == slice_key(b"one", 7)
    assert np.mean([key > KEY_LIMIT // 2 for key in keys]) == pytest.approx(0.5, abs=0.03)
