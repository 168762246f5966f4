"""Scans along an axis."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effcc.errors import TypeRuleError
from effcc.ir import Tensor, bool_, f32
from effcc.ops.scan import Cummax, Cummin, Cumprod, Cumsum


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    dtype=st.sampled_from(["f4", "i8", "u1", "i4"]),
    data=st.data(),
    exclusive=st.booleans(),
    reverse=st.booleans(),
    op=st.sampled_from([Cumsum, Cumprod]),
)
def test_prefix_folds(agree, shape, dtype, data, exclusive, reverse, op):
    x = np.random.default_rng(0).integers(-3, 4, shape).astype(dtype)
    axis = data.draw(st.integers(0, len(shape) - 1))
    agree(op(axis, exclusive, reverse), x)


def test_cumsum_is_numpys(agree):
    x = np.arange(6, dtype="f4").reshape(2, 3)
    np.testing.assert_array_equal(agree(Cumsum(1), x).numpy(), np.cumsum(x, 1))
    np.testing.assert_array_equal(agree(Cumsum(1, exclusive=True), x).numpy(), [[0, 0, 1], [0, 3, 7]])
    np.testing.assert_array_equal(agree(Cumsum(1, exclusive=True, reverse=True), x).numpy(), [[3, 2, 0], [9, 5, 0]])


def test_exclusive_is_not_a_difference(agree):
    out = agree(Cumsum(0, exclusive=True), np.array([1, np.inf, 2], "f4"))
    np.testing.assert_array_equal(out.numpy(), [0, 1, np.inf])


def test_short_floats_sum_in_f32(agree):
    x = torch.full((400,), 1.01, dtype=torch.bfloat16)
    assert abs(agree(Cumsum(0), x)[-1].item() - 400 * x[0].item()) < 2


@pytest.mark.parametrize("op", [Cummax, Cummin])
def test_running_extrema(agree, op):
    agree(op(1), np.array([[3, 1, 4, 1, 5, 5], [2, 2, 0, 7, 7, 1]], "f4"))
    agree(op(0), np.array([1, np.nan, 5, np.nan, -np.inf], "f4"))
    agree(op(0), np.array([1, 3, 2, -5], "i8"))
    agree(op(0), np.array([False, True, False, True]))
    agree(op(1), np.zeros((2, 0), "f4"))
    agree(op(0), np.full((2,), np.inf, "f4"))


def test_refusals():
    with pytest.raises(TypeRuleError, match="axis 1 is not an axis"):
        Cumsum(1).result_types((Tensor(f32, (2,)),))
    with pytest.raises(TypeRuleError, match="cumsum does not take bool"):
        Cumsum(0).result_types((Tensor(bool_, (2,)),))
