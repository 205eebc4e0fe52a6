"""The comparison rule must fail where a kernel is wrong."""

from __future__ import annotations

import pytest
import torch

from support.compare import assert_as_accurate, cosine, max_error, relative_l2


def test_accepts_rounding_and_refuses_more():
    truth = torch.randn(1000, dtype=torch.float64)
    single = truth.float()
    assert_as_accurate(single, single, truth)
    wrong = single.clone()
    wrong[17] += 1e-5
    with pytest.raises(AssertionError, match="largest error"):
        assert_as_accurate(wrong, single, truth)
    # Off by 1e-6 everywhere: below one rounding of the largest value, far above the roundings of all of them.
    truth = torch.ones(100_000, dtype=torch.float64)
    truth[0] = 100.0
    with pytest.raises(AssertionError, match="2-norm"):
        assert_as_accurate((truth + 1e-6).float(), truth.float(), truth)


def test_nan_shape_and_dtype_fail():
    truth = torch.randn(5, dtype=torch.float64)
    with pytest.raises(AssertionError, match="largest error nan"):
        assert_as_accurate(truth.float() * float("nan"), truth.float(), truth)
    with pytest.raises(AssertionError, match="shapes differ"):
        assert_as_accurate(truth.float()[:4], truth.float(), truth)
    with pytest.raises(AssertionError, match="must be float64"):
        assert_as_accurate(truth.float(), truth.float(), truth.float())


def test_terms_allow_for_cancellation():
    truth = torch.tensor([1e-6], dtype=torch.float64)  # a small sum of terms of size 10
    ours = truth.float() + 1e-6
    with pytest.raises(AssertionError):
        assert_as_accurate(ours, truth.float(), truth)
    assert_as_accurate(ours, truth.float(), truth, terms=torch.tensor([10.0]))


def test_measures():
    a, b = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5])
    assert max_error(b, a) == 0.5
    assert relative_l2(b, a) == pytest.approx(0.1)
    assert cosine(a, 2 * a) == pytest.approx(1.0)
    assert cosine(a, -a) == pytest.approx(-1.0)
    assert relative_l2(torch.zeros(2), torch.zeros(2)) == 0.0
