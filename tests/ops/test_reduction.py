"""Reductions and positions of extremes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effcc.errors import TypeRuleError
from effcc.ir import Tensor, bool_, f32, i64, load_ops
from effcc.ops.reduction import (
    All,
    Amax,
    Amin,
    Any_,
    Argmax,
    Argmin,
    Logsumexp,
    Mean,
    Position,
    Prod,
    Reduction,
    Sum,
    Var,
)

FOLDS = [Sum, Prod, Mean, Amax, Amin]


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(0, 4), max_size=4), data=st.data(), cls=st.sampled_from(FOLDS), keepdims=st.booleans()
)
def test_folds(agree, shape, data, cls, keepdims):
    axes = tuple(k for k in range(len(shape)) if data.draw(st.booleans()))
    dtype = data.draw(st.sampled_from(["f4", "f8", "f2"] + (["i8", "i4", "u1", "i1"] if cls is not Mean else [])))
    x = np.random.default_rng(0).integers(0 if dtype == "u1" else -3, 4, shape).astype(dtype)
    agree(cls(axes, keepdims), x)


def test_folds_are_numpys(agree):
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("f4")
    for cls, name in [(Sum, "sum"), (Prod, "prod"), (Mean, "mean"), (Amax, "max"), (Amin, "min")]:
        for axes in ((0,), (1, 2), (0, 1, 2), ()):
            np.testing.assert_allclose(agree(cls(axes), x).numpy(), getattr(np, name)(x, axes), rtol=1e-5)
    agree(Sum((0, 1)), torch.from_numpy(x).bfloat16())
    agree(Prod((0, 2)), torch.from_numpy(x).bfloat16())


def test_nan_wins(agree):
    x = np.array([[1, np.nan, 3], [np.inf, -np.inf, 0]], "f4")
    for cls in FOLDS:
        agree(cls((1,)), x)


def test_empty_ranges_give_the_identity(agree):
    x = np.zeros((2, 0), "f4")
    assert agree(Sum((1,)), x).tolist() == [0, 0] and agree(Prod((1,)), x).tolist() == [1, 1]
    assert agree(Amax((1,)), x).tolist() == [-np.inf] * 2 and agree(Mean((1,)), x).isnan().all()
    assert agree(Amin((1,)), x.astype("i8")).tolist() == [2**63 - 1] * 2
    agree(Amax((1,)), x.astype(bool))


@pytest.mark.parametrize("cls", [Any_, All, Amax, Amin])
def test_bool(agree, cls):
    x = np.array(list(itertools.product([False, True], repeat=3))).reshape(4, 2, 3)
    for axes in ((), (0,), (2,), (1, 2), (0, 1, 2)):
        agree(cls(axes), x)
    agree(cls((0,)), np.zeros((0, 2), bool))


@pytest.mark.parametrize("cls", [Argmax, Argmin])
@pytest.mark.parametrize("last", [False, True])
def test_positions(agree, cls, last):
    x = np.random.default_rng(0).integers(0, 3, (3, 5, 2))
    for dtype, axis, keepdims in itertools.product(["f4", "f2", "i8", "u1"], range(3), (False, True)):
        out = agree(cls(axis, keepdims, last), x.astype(dtype))
        if not last:
            name = "argmax" if cls is Argmax else "argmin"
            np.testing.assert_array_equal(out.numpy(), getattr(np, name)(x, axis, keepdims=keepdims))
    agree(cls(0, select_last=last), np.array([True, False, True, False]))
    agree(cls(1, select_last=last), np.zeros((0, 2), "f4"))


@pytest.mark.parametrize("cls", [Argmax, Argmin])
def test_positions_of_nan(agree, cls):
    x = np.array([[1, np.nan, 3, np.nan], [np.inf, -np.inf, 0, 1], [np.nan, 9, -9, 0]], "f4")
    np.testing.assert_array_equal(agree(cls(1), x).numpy(), (np.argmax if cls is Argmax else np.argmin)(x, 1))
    agree(cls(1, select_last=True), x)
    agree(cls(1), torch.from_numpy(x).bfloat16())


@settings(max_examples=30, deadline=None)
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=3), data=st.data(), keepdims=st.booleans())
def test_logsumexp_and_variance(decomposes, shape, data, keepdims):
    axes = tuple(k for k in range(len(shape)) if data.draw(st.booleans()))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 5
    decomposes(Logsumexp(axes, keepdims), x)
    if axes and np.prod([shape[a] for a in axes]) > 1:
        decomposes(Var(axes, data.draw(st.integers(0, 1)), keepdims), x)


def test_logsumexp_of_extremes(decomposes):
    inf = float("inf")
    decomposes(Logsumexp((1,)), torch.tensor([[-inf, -inf], [inf, 1], [1000, 1000], [float("nan"), 0]]))
    decomposes(Logsumexp((0, 1), True), torch.randn(2, 3).half())


@pytest.mark.parametrize("name", sorted(n for n, c in load_ops().items() if issubclass(c, (Reduction, Position))))
def test_refusals(name):
    cls, x = load_ops()[name], Tensor(bool_ if name in ("any", "all") else f32, (2, 3))
    op = cls(axis=2) if issubclass(cls, Position) else cls(axes=(2,))
    with pytest.raises(TypeRuleError, match="ax[ie]s? .*rank-2"):
        op.result_types((x,))


def test_more_refusals():
    with pytest.raises(TypeRuleError, match="argmax of an empty axis"):
        Argmax(1).result_types((Tensor(f32, (2, 0)),))
    with pytest.raises(TypeRuleError, match="mean does not take i64"):
        Mean((0,)).result_types((Tensor(i64, (2,)),))
    with pytest.raises(TypeRuleError, match="distinct, sorted"):
        Sum((1, 0)).result_types((Tensor(f32, (2, 3)),))


def test_short_floats_are_summed_in_f32(decomposes):
    """700 squares of sixties are beyond f16; their mean is not."""
    x = (60 * torch.randn(3, 700, generator=torch.Generator().manual_seed(0))).half()
    assert bool(decomposes(Var((1,)), x, with_symbols=False).isfinite().all())
    assert bool(decomposes(Logsumexp((1,)), 9 * x[:, :80]).isfinite().all())
