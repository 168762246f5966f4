"""Gathers, scatters and coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effcc.errors import TypeRuleError
from effcc.interp import run
from effcc.ir import Builder, Symbol, Tensor, bool_, f32, i32, i64
from effcc.ir.evaluator import evaluate_nest
from effcc.ops.index import (
    DimValue,
    DynamicSlice,
    Gather,
    GatherElements,
    GatherNd,
    Iota,
    Roll,
    ScatterElements,
    ScatterNd,
    SearchSorted,
    Trilu,
    UpdateSlice,
)

X = np.arange(24, dtype="f4").reshape(2, 3, 4)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("idx", [1, [0, -1, 1], [[1, 0], [-2, -1]], np.zeros((0, 2), int)])
def test_gather_is_numpy_take(agree, axis, idx):
    idx = np.asarray(idx, "i8")
    out = agree(Gather(axis), X, idx)
    np.testing.assert_array_equal(out.numpy(), np.take(X, idx, axis))


@pytest.mark.parametrize("dtype", ["f2", "u1", "i8", "?"])
def test_gather_moves_any_dtype(agree, dtype):
    agree(Gather(1), X.astype(dtype), np.array([2, 0], "i4"))
    agree(Gather(0), torch.arange(5).bfloat16(), np.array(-1))


def test_gather_refuses():
    with pytest.raises(TypeRuleError, match="axis 3 is not an axis"):
        Gather(3).result_types((Tensor(f32, (2, 3)), Tensor(i64, ())))
    with pytest.raises(TypeRuleError, match="the index is f32"):
        Gather(0).result_types((Tensor(f32, (2, 3)), Tensor(f32, ())))
    with pytest.raises(TypeRuleError, match="the axis is empty"):
        Gather(0).result_types((Tensor(f32, (0, 3)), Tensor(i64, (2,))))


def test_gather_never_reads_outside():
    nest = Gather(0).compute(Tensor(f32, (3,)), Tensor(i64, (2,)))
    evaluate_nest(nest, (np.ones(3, "f4"), np.array([-100, 100])), (Tensor(f32, (2,)),))


@pytest.mark.parametrize("axis", [0, 1])
def test_gather_elements(agree, axis):
    x, idx = np.arange(12, dtype="i4").reshape(3, 4), np.array([[0, 1, -1], [2, -2, 0]], "i8")
    out = agree(GatherElements(axis), x, idx)
    for i, j in np.ndindex(2, 3):
        assert out[i, j] == (x[idx[i, j], j] if axis == 0 else x[i, idx[i, j]])
    agree(GatherElements(0), np.zeros((3, 0), "f4"), np.zeros((2, 0), "i8"))


def test_gather_nd(agree):
    out = agree(GatherNd(0), X, np.array([[0, 1], [-1, -3]]), known=(2,))
    np.testing.assert_array_equal(out.numpy(), [X[0, 1], X[1, 0]])
    out = agree(GatherNd(1), X, np.array([[[1, 2]], [[-1, 0]]]), known=(2,))
    np.testing.assert_array_equal(out.numpy(), [[X[0, 1, 2]], [X[1, -1, 0]]])
    agree(GatherNd(0), X, np.array([1, 2, 3], "i4"), known=(3,))
    agree(GatherNd(0), X, np.zeros((0, 2), "i8"), known=(2,))
    agree(GatherNd(0), X, np.zeros((2, 0), "i8"), known=(0,))
    agree(GatherNd(1), X, np.zeros((2, 3, 0), "i8"), known=(0,))
    with pytest.raises(TypeRuleError, match="last axis of known size"):
        GatherNd().result_types((Tensor(f32, (2, 3)), Tensor(i64, (4, Symbol("k")))))
    with pytest.raises(TypeRuleError, match="do not fit"):
        GatherNd().result_types((Tensor(f32, (2, 3)), Tensor(i64, (4, 3))))


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "min", "max"])
def test_scatter_elements(agree, reduction):
    x, idx = np.arange(12, dtype="f4").reshape(3, 4), np.array([[0, 1, -1], [0, -2, 0]], "i8")
    updates = np.array([[5, -6, 7], [8, 9, -2]], "f4")
    for axis in (0, 1):
        out = agree(ScatterElements(axis, reduction), x, idx, updates)
        want = x.copy()
        combine = {"none": lambda a, b: b, "add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}[
            reduction
        ]
        for i, j in np.ndindex(2, 3):
            at = (idx[i, j], j) if axis == 0 else (i, idx[i, j])
            want[at] = combine(want[at], updates[i, j])
        np.testing.assert_array_equal(out.numpy(), want)
    agree(ScatterElements(0, reduction), x.astype("i8"), idx, updates.astype("i8"))
    agree(ScatterElements(1, reduction), torch.from_numpy(x).half(), idx, torch.from_numpy(updates).half())
    agree(ScatterElements(0, reduction), x, idx[:0], updates[:0])


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "min", "max"])
def test_scatter_nd(agree, reduction):
    combine = {"none": lambda a, b: b, "add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}[
        reduction
    ]
    idx = np.array([[[0, 1], [1, -1]], [[0, 1], [1, 0]]])
    updates = np.arange(16, dtype="f4").reshape(2, 2, 4) - 7
    out, want = agree(ScatterNd(reduction), X, idx, updates, known=(2,)), X.copy()
    for i, j in np.ndindex(2, 2):
        want[tuple(idx[i, j])] = combine(want[tuple(idx[i, j])], updates[i, j])
    np.testing.assert_array_equal(out.numpy(), want)
    agree(ScatterNd(reduction), X, np.array([[1, 2, 3], [1, -1, -1]]), np.array([5, 6], "f4"), known=(3,))
    agree(ScatterNd(reduction), X, np.zeros((0, 2), "i8"), np.zeros((0, 4), "f4"), known=(2,))
    agree(ScatterNd(reduction), X, np.zeros((2, 0), "i8"), np.stack([X, X + 1]), known=(0,))


def test_scatters_refuse():
    x, idx = Tensor(f32, (3, 4)), Tensor(i64, (2, 4))
    with pytest.raises(TypeRuleError, match="another shape"):
        ScatterElements(0).result_types((x, idx, Tensor(f32, (2, 3))))
    with pytest.raises(TypeRuleError, match="unknown reduction 'mean'; one of"):
        ScatterElements(0, "mean").result_types((x, idx, Tensor(f32, (2, 4))))
    with pytest.raises(TypeRuleError, match="does not take bool"):
        ScatterElements(0, "add").result_types((Tensor(bool_, (3, 4)), idx, Tensor(bool_, (2, 4))))
    with pytest.raises(TypeRuleError, match=r"should have shape \[5, 4\]"):
        ScatterNd().result_types((x, Tensor(i64, (5, 1)), Tensor(f32, (5,))))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_blocks(agree, data):
    shape = data.draw(st.lists(st.integers(0, 4), max_size=3))
    sizes = [data.draw(st.integers(0, d)) for d in shape]
    starts = [np.asarray(data.draw(st.integers(-2, 5)), data.draw(st.sampled_from(["i8", "i4"]))) for _ in shape]
    x = np.arange(int(np.prod(shape)), dtype="f4").reshape(shape)
    updates = -np.ones(sizes, "f4")
    first = [min(max(int(a), 0), d - n) for a, d, n in zip(starts, shape, sizes)]
    region = tuple(slice(a, a + n) for a, n in zip(first, sizes))
    want = x.copy()
    want[region] = updates
    np.testing.assert_array_equal(agree(UpdateSlice(), x, updates, *starts).numpy(), want)
    out = agree(DynamicSlice(tuple(sizes)), x, *starts, with_symbols=False)
    np.testing.assert_array_equal(out.numpy(), x[region])


def test_blocks_refuse():
    scalar = Tensor(i64, ())
    with pytest.raises(TypeRuleError, match="a block of 5 is larger than axis 1 of size 4"):
        UpdateSlice().result_types((Tensor(f32, (3, 4)), Tensor(f32, (1, 5)), scalar, scalar))
    with pytest.raises(TypeRuleError, match="needs 2 starts, got 1"):
        DynamicSlice((1, 1)).result_types((Tensor(f32, (3, 4)), scalar))


def test_coordinates(agree):
    for dtype in (i64, i32, f32):
        np.testing.assert_array_equal(agree(Iota((2, 3), 1, dtype)).numpy(), [[0, 1, 2]] * 2)
    agree(Iota((0, 3), 0))
    with pytest.raises(TypeRuleError, match="bool"):
        Iota((2,), 0, bool_).result_types(())
    n = Symbol("n")
    b = Builder()
    b.input("x", Tensor(f32, (n,)))
    assert run(b.graph(b.add(DimValue(n * 2 + 1))), torch.zeros(3))[0].item() == 7
    assert evaluate_nest(DimValue(n + 1).compute(), (), (Tensor(i64, ()),), {n: 4})[0] == 5


@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("k", [None, 0, 1, -2, 100, -(2**62)])
def test_trilu(agree, upper, k):
    operands = () if k is None else (np.array(k),)
    for x in (X, X > 3, np.zeros((0, 3), "f4"), np.full((2, 2), np.inf, "f4")):
        out = agree(Trilu(upper), x, *operands)
        if k is None or abs(k) < 2**40:
            np.testing.assert_array_equal(out.numpy(), (np.triu if upper else np.tril)(x, k or 0))


def test_roll(agree):
    np.testing.assert_array_equal(agree(Roll((1, -2, 7)), X).numpy(), np.roll(X, (1, -2, 7), (0, 1, 2)))
    agree(Roll(()), np.float32(3))
    agree(Roll((1, 1)), np.zeros((0, 2), "f4"))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=9), st.lists(st.integers(-1, 7), max_size=5), st.booleans())
def test_searchsorted_is_numpys(agree, boundaries, values, right):
    boundaries, values = np.sort(np.array(boundaries, "i8")), np.array(values, "i8")
    out = agree(SearchSorted(right), boundaries, values, with_symbols=False)
    np.testing.assert_array_equal(out.numpy(), np.searchsorted(boundaries, values, "right" if right else "left"))


def test_searchsorted_rows_and_nan(agree):
    rows = np.sort(np.random.default_rng(0).integers(0, 5, (2, 7)).astype("f4"), -1)
    agree(SearchSorted(True), rows, np.array([[1, 2.5, np.nan], [9, -1, 3]], "f4"))
    agree(SearchSorted(), torch.arange(4).bfloat16(), torch.tensor(2.5, dtype=torch.bfloat16))
    assert agree(SearchSorted(), np.zeros(0, "f4"), np.float32(1), with_symbols=False) == 0


def test_data_dependent_sizes():
    n = Symbol("n", 0, 12)
    b = Builder()
    x = b.input("x", Tensor(f32, (3, 4)))
    keep = b.input("keep", Tensor(bool_, (3,)))
    graph = b.graph(b.nonzero(x, size=n), b.compress(x, keep, axis=0, size=Symbol("m", 0, 3)))
    data = np.array([[0, 1, 0, 2], [0, 0, 0, 0], [np.nan, 0, 0, -1]], "f4")
    where, rows = run(graph, torch.from_numpy(data), torch.tensor([True, False, True]))
    np.testing.assert_array_equal(where.numpy(), np.stack(np.nonzero(data)))
    np.testing.assert_array_equal(rows.numpy(), data[[0, 2]])
    assert graph.nodes[0].op.defines(x.type) == {n: 12}
    scalar = Builder()
    v = scalar.input("x", Tensor(f32, ()))
    assert run(scalar.graph(scalar.nonzero(v, size=n)), torch.tensor(1.0))[0].shape == (0, 1)
